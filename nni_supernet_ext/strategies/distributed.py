"""Evaluate subnets in the trials of NNI's training service, many to a trial."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nni.nas.execution import ExecutionEngine
from nni.nas.execution.event import IntermediateMetricEvent, ModelEventType

from nni_supernet_ext._compat.nni_experiment import engine_configuration
from nni_supernet_ext.core.draw import Sample
from nni_supernet_ext.errors import SupernetError
from nni_supernet_ext.strategies.subnet_batch import INDEX, SubnetBatch

_logger = logging.getLogger(__name__)
_ROUNDS = 3

Found = Callable[[Sample, dict[str, float]], None]


def distributed_config(concurrency: int = 2, **settings: Any) -> Any:
    """Configure a ``NasExperiment`` whose ``SupernetEvolution`` evaluates its subnets in NNI's trials.

    Args:
        concurrency: Trials at once. Default 2.
        **settings: Further arguments of NNI's ``NasExperimentConfig``, such as ``training_service_platform``;
            default local processes.

    Returns:
        NNI's configuration, which may still be changed.

    Example:
        >>> from nni.nas.experiment import NasExperiment
        >>> search = SupernetEvolution(subnets_per_trial=25)  # doctest: +SKIP
        >>> NasExperiment(space, evaluator, search, distributed_config()).run(port=8080)  # doctest: +SKIP
    """
    return engine_configuration(concurrency, **settings)


class TrialsFailedError(SupernetError, RuntimeError):
    """Report subnets whose trials failed again and again."""


class DistributedEvaluation:
    """Spread subnets over trials, and gather what they report.

    A result belongs to the subnet whose number it carries, never to the trial that NNI assigns it to: with
    several local trials at once NNI 3.0 mixes those up.

    Args:
        engine: NNI's training service engine.
        checkpoint: File with the shared supernet.
        per_trial: Subnets per trial.
        metric: Metric that is searched for.
        sign: 1 if larger is better, -1 if smaller is.
    """

    def __init__(self, engine: ExecutionEngine, checkpoint: Path, per_trial: int, metric: str, sign: int) -> None:
        self._engine = engine
        self._checkpoint = checkpoint
        self._per_trial = per_trial
        self._metric = metric
        self._sign = sign
        self._count = 0

    def evaluate(self, samples: Sequence[Sample], found: Found) -> None:
        """Evaluate subnets, in whatever order.

        Args:
            samples: Architectures.
            found: Called with each sample and its metrics, as they arrive.

        Raises:
            TrialsFailedError: Some were not evaluated in three rounds of trials.
        """
        missing = dict(enumerate(samples, start=self._count))
        self._count += len(samples)
        for round_number in range(_ROUNDS):
            if not missing:
                return
            if round_number:
                _logger.warning("%d subnets were not evaluated; their trials failed. Again.", len(missing))
            self._round(missing, found)
        if missing:
            raise TrialsFailedError(
                f"Every subnet is expected to be evaluated in one of {_ROUNDS} trials, but got none for "
                f"{len(missing)} of them. See `trial.stderr` of the failed trials in the experiment's folder."
            )

    def _round(self, missing: dict[int, Sample], found: Found) -> None:
        batches = [
            SubnetBatch(str(self._checkpoint), [missing[i] for i in part], part, self._metric, self._sign)
            for part in _parts(list(missing), self._per_trial)
        ]
        with self._listening(missing, found):
            self._engine.submit_models(*batches)
            self._engine.wait_models(*batches)

    @contextmanager
    def _listening(self, missing: dict[int, Sample], found: Found) -> Iterator[None]:
        def receive(event: IntermediateMetricEvent) -> None:
            metrics: Any = event.metric
            if not isinstance(metrics, Mapping) or INDEX not in metrics:
                return
            sample = missing.pop(int(metrics[INDEX]), None)
            if sample is not None:
                found(sample, {n: float(v) for n, v in metrics.items() if n not in ("default", INDEX)})

        self._engine.register_model_event_callback(ModelEventType.IntermediateMetric, receive)
        try:
            yield
        finally:
            self._engine.unregister_model_event_callback(ModelEventType.IntermediateMetric, receive)


def _parts(items: list[int], size: int) -> list[list[int]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
