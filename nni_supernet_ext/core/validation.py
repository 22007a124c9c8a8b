"""Validate fixed, named subnets during training, each with its own BN statistics."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torchmetrics import Metric

from nni_supernet_ext.core.batches import to_device
from nni_supernet_ext.core.complexity import find_extremes, resolve_complexity
from nni_supernet_ext.core.draw import Sample
from nni_supernet_ext.core.loaders import detached_batches
from nni_supernet_ext.core.model_arguments import calling, model_arguments
from nni_supernet_ext.core.own_hooks import warn_of_mixed_outputs
from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.core.redirected_log import redirected_log
from nni_supernet_ext.core.validation_loaders import loader_problems, suffix_of
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.functional.batch_norm import BatchNormRecalibrator

_SEED_OFFSET = 7919
"""Keeps the validation's random subnets apart from the training's draws of the same seed."""


def _fixed_subnets(plan: Plan, n_random: int) -> dict[str, Sample]:
    """Choose the subnets that are validated: the smallest, the largest and some random ones.

    Args:
        plan: Plan of the run; its seed chooses the random subnets.
        n_random: How many random subnets.

    Returns:
        Name -> sample: ``'smallest'``, ``'largest'`` (by number of parameters), ``'random_0'``, ...
    """
    extremes = find_extremes(resolve_complexity("parameters", plan.supernet), plan.supernet.domain)
    rng = np.random.default_rng(plan.seed + _SEED_OFFSET)
    chosen: dict[str, Sample] = {"smallest": extremes.smallest, "largest": extremes.largest}
    for index in range(n_random):
        chosen[f"random_{index}"] = plan.supernet.domain.random(rng)
    return chosen


def validated_subnets(plan: Plan, validate: int | Mapping[str, Sample]) -> dict[str, Sample]:
    """Return the subnets to validate by their names.

    Args:
        plan: Plan of the run.
        validate: Name -> sample, or how many random subnets beside the smallest and the largest.

    Returns:
        Name -> sample.

    Raises:
        SpaceError: A given sample is none of the space.
    """
    if not isinstance(validate, Mapping):
        return _fixed_subnets(plan, validate)
    for name, sample in validate.items():
        plan.supernet.domain.validate(sample, f"validate[{name!r}]")
    return dict(validate)


class SubnetValidation:
    """Run the evaluator's ``validation_step`` for several fixed subnets on every validation batch.

    Each metric the evaluator logs appears as ``<metric>/<subnet>`` and, under its own name, as the mean over
    the subnets; with several validation loaders all names end in ``/dataloader_idx_<number>``, as Lightning has it,
    also those in ``results``. Before the first batch the BN statistics of each subnet are estimated on the same
    training batches; after it and after each batch the training's are put back, bit for bit, so that callbacks
    find them in every hook, such as one that averages weights.

    Args:
        plan: Plan of the run.
        subnets: Name -> sample.
        recalibrate_batches: Training batches for the BN statistics; 0 uses the training's own statistics.

    Attributes:
        results: Subnet's name -> metric -> value of the last finished validation.
    """

    def __init__(self, plan: Plan, subnets: Mapping[str, Sample], recalibrate_batches: int) -> None:
        self.plan = plan
        self.subnets = dict(subnets)
        self.results: dict[str, dict[str, float]] = {}
        self._n_batches = recalibrate_batches
        self._recalibrator = BatchNormRecalibrator(plan.supernet.model)
        self._buffers = [
            buffer
            for name, buffer in plan.supernet.model.named_buffers()
            if name.endswith(("running_mean", "running_var"))
        ]
        self._statistics: dict[str, list[torch.Tensor]] = {}
        self._objects: dict[tuple[str, str, str], Metric] = {}
        self._open = ExitStack()
        warn_of_mixed_outputs(plan.training_module, len(self.subnets))

    def start(self, module: Any) -> None:
        """Estimate every subnet's BN statistics before the first validation batch."""
        problems = list(loader_problems(module.training_module, len(module.trainer.num_val_batches)))
        if problems:  # of a data module, whose loaders were not known before
            raise ConfigurationError(problems)
        self._objects = {}
        self._open.callback(self._reactivate, self.plan.supernet.active)
        if not (self._n_batches and self._buffers):
            return
        model = self.plan.supernet.model
        batches = [
            model_arguments(module.training_module, to_device(module.training_module, batch, module.device), model)
            for batch in detached_batches(self.plan.train_loader(), self._n_batches, self.plan.seed)
        ]
        with self._recalibrator.preserved():
            for name, sample in self.subnets.items():
                self._activate(sample)
                with module.trainer.precision_plugin.val_step_context():
                    self._recalibrator.recalibrate(batches, calling(model))
                self._statistics[name] = [buffer.clone() for buffer in self._buffers]

    def step(self, module: Any, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        """Validate every subnet on one batch."""
        suffix = suffix_of(len(module.trainer.num_val_batches), dataloader_idx)
        arguments = (batch, batch_idx, dataloader_idx) if suffix else (batch, batch_idx)
        with self._training_statistics_kept():
            for name, sample in self.subnets.items():
                self._activate(sample)
                if name in self._statistics:
                    torch._foreach_copy_(self._buffers, self._statistics[name])
                with redirected_log(module.training_module, self._logger(module, name, suffix)):
                    module.training_module.validation_step(*arguments)

    def end(self, module: Any) -> None:
        """Log the metrics that are known only at the end, and activate what was active before."""
        values: dict[str, list[Any]] = {}
        for (metric, subnet, suffix), accumulated in self._objects.items():
            value = accumulated.compute()
            # The loader's number is in the name already.
            module.log(f"{metric}/{subnet}{suffix}", value, add_dataloader_idx=False)
            values.setdefault(f"{metric}{suffix}", []).append(value)
        for metric, per_subnet in values.items():
            mean = torch.stack([torch.as_tensor(v) for v in per_subnet]).mean()
            module.log(metric, mean, prog_bar=True, add_dataloader_idx=False)
        self._statistics = {}
        self._open.close()

    def collect(self, metrics: Mapping[str, Any]) -> None:
        """Keep the values of a finished validation from the trainer's ``callback_metrics``."""
        for subnet in self.subnets:
            # What follows the subnet tells the loader, where there are several.
            name_of = re.compile(rf"(.*)/{re.escape(subnet)}(/dataloader_idx_\d+)?", re.DOTALL)
            found = ((name_of.fullmatch(name), value) for name, value in metrics.items())
            self.results[subnet] = {
                match[1] + (match[2] or ""): float(value) for match, value in found if match is not None
            }

    def close(self) -> None:
        """Activate what was active before if a validation was cut short."""
        self._open.close()

    @contextmanager
    def _training_statistics_kept(self) -> Iterator[None]:
        """Put the training's BN statistics back where subnets have their own."""
        kept = [buffer.clone() for buffer in self._buffers] if self._statistics else []
        try:
            yield
        finally:
            if kept:
                torch._foreach_copy_(self._buffers, kept)

    def _activate(self, sample: Sample) -> None:
        self.plan.weights.activate(self.plan.supernet, sample)

    def _reactivate(self, sample: Sample | None) -> None:
        if sample is not None:
            self._activate(sample)

    def _logger(self, module: Any, subnet: str, suffix: str) -> Any:
        def log(name: str, value: Any, *args: Any, **kwargs: Any) -> None:
            if isinstance(value, Metric):
                named = suffix if kwargs.get("add_dataloader_idx", True) else ""
                self._gather((name, subnet, named), value)
                return
            if module.trainer.world_size > 1:
                kwargs.setdefault("sync_dist", True)
            module.log(name, value, *args, **kwargs)
            module.log(f"{name}/{subnet}", value, *args, **{**kwargs, "prog_bar": False})

        return log

    def _gather(self, key: tuple[str, str, str], metric: Metric) -> None:
        """Keep a logged metric object apart for each subnet: the subnets take turns on every batch."""
        accumulated = self._objects.get(key)
        if accumulated is None:
            self._objects[key] = copy.deepcopy(metric)
        else:
            accumulated.merge_state(metric)
        metric.reset()
