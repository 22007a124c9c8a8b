"""A batch of subnets as one trial of NNI's training service, which loads the shared supernet once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import nni
import pytorch_lightning as pl
from nni.nas.space import ExecutableModelSpace, ModelStatus

from nni_supernet_ext._compat.samples import plain_sample
from nni_supernet_ext.core.evaluation import SubnetEvaluator
from nni_supernet_ext.core.supernet import Supernet

INDEX = "subnet"
"""Name of the metric that tells which subnet of the search a result belongs to."""


_ALONE = {"devices": 1, "num_nodes": 1, "strategy": "auto", "logger": False, "enable_checkpointing": False}
"""Settings of the trainer in a trial, which only steps that ask for ``self.trainer`` see."""


def share_supernet(
    path: Path, supernet: Supernet, evaluator: Any, validation: Any, settings: Mapping[str, Any]
) -> None:
    """Write everything that evaluates subnets into one file.

    Args:
        path: The file; trials on other machines must find it under the same name.
        supernet: The trained supernet.
        evaluator: The search's evaluator: its Lightning module, and its trainer, of which every trial makes one
            with the same plain settings.
        validation: Validation loader.
        settings: Further arguments of ``SubnetEvaluator``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    given = getattr(evaluator.trainer, "trace_kwargs", {})
    trainer = {name: value for name, value in given.items() if isinstance(value, (bool, int, float, str))} | _ALONE
    content = cloudpickle.dumps((supernet.model, evaluator.module, validation, dict(settings), trainer))
    temporary = path.with_suffix(".part")
    temporary.write_bytes(content)
    temporary.replace(path)


def load_evaluator(path: Path) -> SubnetEvaluator:
    """Read the file of `share_supernet` and build the evaluator; the file must be trusted: it holds code."""
    model, training_module, validation, settings, trainer = cloudpickle.loads(path.read_bytes())
    return SubnetEvaluator(Supernet(model), training_module, validation, **settings, trainer=pl.Trainer(**trainer))


class SubnetBatch(ExecutableModelSpace):
    """Some subnets of a search that one trial evaluates, each reported as an intermediate result.

    Args:
        checkpoint: File of `share_supernet`.
        samples: Architectures.
        indices: Their numbers in the search.
        metric: Metric that becomes ``default``.
        sign: 1 if larger is better, -1 if smaller is.
    """

    def __init__(
        self,
        checkpoint: str,
        samples: Sequence[Mapping[str, Any]],
        indices: Sequence[int],
        metric: str,
        sign: int,
    ) -> None:
        super().__init__(ModelStatus.Frozen)
        self.evaluator = None
        self.checkpoint = checkpoint
        self.samples = [plain_sample(sample) for sample in samples]
        self.indices = list(indices)
        self.metric_name = metric
        self.sign = sign
        self.sample = {INDEX: f"{self.indices[0]}-{self.indices[-1]}"}

    def execute(self) -> None:
        """Evaluate every subnet; runs in the trial's process."""
        evaluator = load_evaluator(Path(self.checkpoint))
        values = []
        for index, sample in zip(self.indices, self.samples, strict=True):
            metrics = evaluator.evaluate(sample)
            values.append(self.sign * metrics[self.metric_name])
            nni.report_intermediate_result({"default": values[-1], **metrics, INDEX: index})
        nni.report_final_result({"default": max(values)})

    def extra_repr(self) -> str:
        """Describe the batch on one line."""
        return f"subnets {self.sample[INDEX] if self.sample else ''}"

    def _dump(self) -> dict[str, Any]:
        return {
            "checkpoint": self.checkpoint,
            "samples": self.samples,
            "indices": self.indices,
            "metric": self.metric_name,
            "sign": self.sign,
        }

    @classmethod
    def _load(cls, **content: Any) -> SubnetBatch:
        return cls(**content)
