"""What a search works with: how subnets are evaluated, what they cost, and what is known of them already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nni.nas.evaluator.pytorch import Lightning
from nni.nas.execution import TrainingServiceExecutionEngine

from nni_supernet_ext._compat.nni_experiment import running_experiment
from nni_supernet_ext.core.batches import example_inputs
from nni_supernet_ext.core.evaluation import SubnetEvaluator, attached
from nni_supernet_ext.core.loaders import detached_batches
from nni_supernet_ext.core.supernet import Supernet
from nni_supernet_ext.strategies.budget import Budget
from nni_supernet_ext.strategies.distributed import DistributedEvaluation
from nni_supernet_ext.strategies.evaluation_data import SearchData, calibration_of, refuse_hooks_of_data
from nni_supernet_ext.strategies.journal import Journal
from nni_supernet_ext.strategies.subnet_batch import share_supernet


@dataclass
class SearchSetup:
    """Hold what a search works with.

    Attributes:
        evaluator: Evaluates subnets in this process.
        budget: Which subnets are allowed, and their costs.
        journal: Evaluations so far.
        distributed: Evaluates subnets in trials of NNI's training service; None where this process does.
    """

    evaluator: SubnetEvaluator
    budget: Budget
    journal: Journal
    distributed: DistributedEvaluation | None


def set_up_search(search: Any, evaluator: Lightning, engine: Any) -> SearchSetup:
    """Prepare a search.

    Args:
        search: A `SupernetEvolution` with its arguments as attributes, and its supernet.
        evaluator: The checked evaluator.
        engine: NNI's engine.

    Returns:
        What the search works with.

    Raises:
        CheckpointError: The journal belongs to another search.
        ConfigurationError: The data cannot be taken to NNI's trials.
        DataError: There are no validation data.
    """
    supernet: Supernet = search.supernet
    data = SearchData(evaluator)
    validation = data.loader("val")
    settings = {
        "calibration": calibration_of(data, supernet, search.recalibrate_batches),
        "recalibrate_batches": search.recalibrate_batches,
        "limit_batches": data.limit("val", validation) if search.limit_batches is None else search.limit_batches,
        "seed": search.seed,
        "activate": search.weights.activate,
        "precision": evaluator.trainer.precision_plugin,
    }
    subnets = SubnetEvaluator(
        supernet,
        evaluator.module,
        validation,
        **settings,
        # Lightning brings a trained model back to the CPU; the search runs where the trainer would.
        device=evaluator.trainer.strategy.root_device,
        trainer=evaluator.trainer,
    )
    counts = search.count_flops or search.max_flops
    budget = Budget(
        supernet,
        max_parameters=search.max_parameters,
        max_flops=search.max_flops,
        constraint=search.constraint,
        inputs=_example(search, evaluator, validation) if counts else None,
    )
    journal = Journal(search.journal, _identity(search, evaluator, settings["limit_batches"]))
    distributed = None
    if isinstance(engine, TrainingServiceExecutionEngine):
        refuse_hooks_of_data(evaluator)
        distributed = _shared(search, engine, evaluator, validation, settings)
    return SearchSetup(subnets, budget, journal, distributed)


def _identity(search: Any, evaluator: Lightning, limit: int | None) -> dict[str, Any]:
    """Return what the search's evaluations depend on."""
    precision = str(evaluator.trainer.precision)
    return {
        "choices": [repr(mutable) for mutable in search.supernet.domain.mutables.values()],
        "seed": search.seed,
        "recalibrate_batches": search.recalibrate_batches,
        "limit_batches": limit,
        "weights": search.weights.digest(search.supernet),
        **({} if precision == "32-true" else {"precision": precision}),
    }


def _example(search: Any, evaluator: Lightning, validation: Any) -> Any:
    batch = next(detached_batches(validation, 1, search.seed))
    with attached(evaluator.module, evaluator.trainer):
        return example_inputs(evaluator.module, batch, search.supernet.model)


def _shared(
    search: Any, engine: Any, evaluator: Lightning, validation: Any, settings: dict[str, Any]
) -> DistributedEvaluation:
    """Write the supernet where the trials of NNI's training service find it."""
    folder = search.shared_folder
    if folder is None:
        running = running_experiment()
        assert running is not None  # Only an experiment makes such an engine.
        folder = running.working_directory.expanduser().absolute() / running.id
    path = folder / "shared_supernet.pkl"
    share_supernet(path, search.supernet, evaluator, validation, settings)
    sign = 1 if search.mode == "max" else -1
    return DistributedEvaluation(engine, path, search.subnets_per_trial, search.metric, sign)
