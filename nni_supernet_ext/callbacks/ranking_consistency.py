"""How well the supernet ranks architectures whose true accuracy is known, while it trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch

from nni_supernet_ext._integers import require_integers
from nni_supernet_ext.callbacks._epoch_summary import ends_epoch
from nni_supernet_ext.callbacks._in_place_scores import evaluate_in_place, is_last_epoch
from nni_supernet_ext.callbacks._ranking_checks import ranking_problems
from nni_supernet_ext.core.callback import SupernetCallback
from nni_supernet_ext.core.draw import Sample
from nni_supernet_ext.core.metric_direction import warn_of_unusual_mode
from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.functional import kendall_tau

Metric: TypeAlias = Callable[[Any, Any], float]


class Oracle(Protocol):
    """Know the true accuracy of architectures, as the classes in ``nni_supernet_ext.benchmarks`` do."""

    def distinct(self) -> Sequence[int]:
        """Return one architecture for each group of equal networks."""

    def sample(self, architecture: Any) -> Sample:
        """Return an architecture as a sample of the search space."""

    def accuracy(self, architecture: Any, **measurement: Any) -> float:
        """Return the true accuracy."""


class RankingConsistency(SupernetCallback):
    """Measure, every few epochs and at the end, how well the supernet ranks a fixed set of architectures.

    Each architecture is evaluated in place with the shared weights and BN statistics of its own, and its metric is
    compared with the truth. Weights, BN statistics, modes and random states are left alone, so training goes on as
    if nothing had been measured. Logged as ``ranking_<name>``, from where it reaches loggers and, with the epoch's
    intermediate result, NNI; in epochs without a measurement the last value stands there. On several ranks each
    evaluates its share of the validation data, and the accuracies are averaged.

    Args:
        samples: Architectures, label -> candidate.
        truths: Their true accuracies, shape ``(n,)``, or a function from a sample to it.
        every: Epochs between two measurements. Default 1. The last epoch is always measured.
        metrics: Name -> function of predicted and true accuracies, shape ``(n,)`` each. Default: Kendall's tau-b as
            ``kendall_tau``.
        metric: What of the evaluator's ``validation_step`` predicts. Default ``'val_acc'``.
        mode: ``'max'`` (default) where a larger metric is better, or ``'min'``.
        loader: Data to predict on. Default: the evaluator's validation loader.
        recalibrate_batches: Training batches for the BN statistics of each architecture; 0 uses the training's own
            statistics. Default 20.
        limit_batches: Most batches of the loader to use; None (default) uses all.

    Attributes:
        history: For each measurement a dict: ``epoch`` (from 0) and the value of each metric; NaN where a
            prediction is NaN, or infinite and the metric refuses it.
        predicted: The last measurement's predictions, shape ``(n,)``, or None.

    Raises:
        ConfigurationError: Lengths differ or are below 2, truths are NaN, an architecture is not in the space, or
            another argument is out of range; before training, together with all other problems.
        DataError: There is nothing to predict on.

    Example:
        >>> from nni_supernet_ext.strategies import SupernetStrategy
        >>> ranking = RankingConsistency(
        ...     [{'op': 'skip', 'width': 4}, {'op': 'conv', 'width': 8}], truths=[70.0, 90.0], every=5)
        >>> strategy = SupernetStrategy(callbacks=[ranking])
        >>> ranking.history  # a dict per measurement after training
        []

    Reference:
        Kendall's tau of supernet predictions: Yu et al., "Evaluating the Search Phase of Neural Architecture
        Search", ICLR 2020. BN statistics: Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform
        Sampling", ECCV 2020, section 3.4.
    """

    def __init__(
        self,
        samples: Iterable[Sample],
        truths: Sequence[float] | Callable[[Sample], float],
        *,
        every: int = 1,
        metrics: Mapping[str, Metric] | None = None,
        metric: str = "val_acc",
        mode: str = "max",
        loader: Any = None,
        recalibrate_batches: int = 20,
        limit_batches: int | None = None,
    ) -> None:
        self.samples = [dict(sample) for sample in samples]
        found = [truths(sample) for sample in self.samples] if callable(truths) else truths
        self.truths = np.asarray(found, dtype=np.float64)
        self.every = every
        self.metrics: dict[str, Metric] = dict(metrics) if metrics is not None else {"kendall_tau": kendall_tau}
        self.metric = metric
        self.mode = mode
        self.loader = loader
        self.recalibrate_batches = recalibrate_batches
        self.limit_batches = limit_batches
        self.history: list[dict[str, Any]] = []
        self.predicted: np.ndarray | None = None

    @classmethod
    def from_oracle(
        cls,
        oracle: Oracle,
        n: int = 100,
        seed: int = 0,
        measurement: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> RankingConsistency:
        """Rank architectures that are drawn at random from a benchmark, no two of them the same network.

        Args:
            oracle: The benchmark.
            n: Number of architectures. Default 100.
            seed: Seed of the choice. Default 0.
            measurement: Further arguments of ``oracle.accuracy``, for example ``{'dataset': 'cifar100'}``.
            **settings: Further arguments of the class.

        Returns:
            The callback.

        Raises:
            ConfigurationError: The benchmark holds fewer distinct architectures, or ``n`` is no integer of at least
                2.

        Example:
            >>> from nni_supernet_ext.benchmarks import NasBench201Oracle
            >>> from nni_supernet_ext.callbacks import RankingConsistency
            >>> ranking = RankingConsistency.from_oracle(NasBench201Oracle(), n=200)  # doctest: +SKIP
        """
        known = list(oracle.distinct())
        require_integers("Use 100, the default.", least=2, n=n)
        if n > len(known):
            raise ConfigurationError(
                f"Argument `n` is expected to be at most {len(known)}, the number of distinct architectures, "
                f"but got {n}. Ask for fewer."
            )
        chosen = np.random.default_rng(seed).choice(len(known), size=n, replace=False)
        rows = [known[index] for index in sorted(chosen.tolist())]
        truths = [oracle.accuracy(row, **(measurement or {})) for row in rows]
        return cls([oracle.sample(row) for row in rows], truths, **settings)

    def problems(self, plan: Plan) -> Iterable[str]:
        """Refuse architectures, truths and numbers that cannot be ranked."""
        return ranking_problems(self, plan)

    def prepare(self, plan: Plan) -> None:
        """Start without any measurement."""
        self._plan, self.history, self.predicted = plan, [], None
        warn_of_unusual_mode(self.metric, self.mode, type(self).__name__)

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Measure at the end of an epoch that ends with validation, in time for the epoch's report."""
        if ends_epoch(trainer):
            self._measure_if_due(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure at the end of an epoch without validation."""
        self._measure_if_due(trainer, pl_module)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure after a training that a callback ended early; Lightning's own log is closed by now."""
        epoch = trainer.current_epoch - 1
        if trainer.should_stop and epoch >= 0 and not self._measured(epoch):
            values = {f"ranking_{name}": value for name, value in self._measure(trainer, pl_module, epoch).items()}
            trainer.callback_metrics.update({name: torch.tensor(value) for name, value in values.items()})
            for logger in trainer.loggers:
                logger.log_metrics(values, step=trainer.global_step)

    def checkpoint_state(self) -> dict[str, Any]:
        """Return the values so far."""
        predicted = None if self.predicted is None else self.predicted.tolist()
        return {"history": [dict(entry) for entry in self.history], "predicted": predicted}

    def restore_state(self, state: dict[str, Any]) -> None:
        """Take over the values so far."""
        self.history = [dict(entry) for entry in state["history"]]
        self.predicted = None if state["predicted"] is None else np.asarray(state["predicted"])

    # Inside

    def _measured(self, epoch: int) -> bool:
        return bool(self.history) and self.history[-1]["epoch"] == epoch

    def _measure_if_due(self, trainer: Any, pl_module: Any) -> None:
        epoch = trainer.current_epoch
        if self._measured(epoch) or ((epoch + 1) % self.every and not is_last_epoch(trainer)):
            return
        for name, value in self._measure(trainer, pl_module, epoch).items():
            pl_module.log(f"ranking_{name}", value)

    def _measure(self, trainer: Any, pl_module: Any, epoch: int) -> dict[str, float]:
        settings = {"recalibrate_batches": self.recalibrate_batches, "limit_batches": self.limit_batches}
        found = evaluate_in_place(self._plan, trainer, pl_module, self.samples, self.loader, self._read, settings)
        self.predicted = np.asarray(found)
        values = self._compare(self.predicted)
        self.history.append({"epoch": epoch, **values})
        return values

    def _read(self, metrics: Mapping[str, float]) -> float:
        if self.metric not in metrics:
            raise ConfigurationError(
                f"Argument `metric` is expected to be one of {sorted(metrics)}, which the evaluator's "
                f"`validation_step` logs, but got {self.metric!r}. Name one of them."
            )
        return metrics[self.metric] if self.mode == "max" else -metrics[self.metric]

    def _compare(self, predicted: np.ndarray) -> dict[str, float]:
        if np.isnan(predicted).any():  # A supernet that diverged ranks nothing; that is no reason to stop here.
            return dict.fromkeys(self.metrics, math.nan)
        return {name: self._value(metric, predicted) for name, metric in self.metrics.items()}

    def _value(self, metric: Metric, predicted: np.ndarray) -> float:
        try:
            return float(metric(predicted, self.truths))
        except ValueError:
            if np.isfinite(predicted).all():
                raise
            return math.nan  # a linear correlation with a loss that is infinite
