"""One subnet of a trained supernet as NNI's engines, exporters and strategies see a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nni
from nni.nas.execution import ExecutionEngine, SequentialExecutionEngine
from nni.nas.space import ExecutableModelSpace, ModelStatus
from torch import nn

from nni_supernet_ext._compat.samples import plain_sample
from nni_supernet_ext.core.draw import describe_sample
from nni_supernet_ext.errors import ConfigurationError

Measure = Callable[[dict[str, Any]], dict[str, float]]


class SubnetModel(ExecutableModelSpace):
    """A frozen model that is evaluated in place, inside its supernet.

    Args:
        sample: Architecture.
        measure: Function from the sample to its metrics.
        extract: Function from the sample to a network of its own.
        metric: Name of the metric that NNI compares.
        sign: 1 if larger is better, -1 if smaller is: NNI sorts descending.

    Attributes:
        sample: The architecture as a plain dict.
        results: All metrics, once evaluated.
    """

    def __init__(
        self,
        sample: dict[str, Any],
        measure: Measure,
        extract: Callable[[dict[str, Any]], nn.Module],
        metric: str,
        sign: int,
    ) -> None:
        super().__init__(ModelStatus.Frozen)
        self.evaluator = None
        self.sample = plain_sample(sample)
        self.results: dict[str, float] = {}
        self._measure = measure
        self._extract = extract
        self._metric = metric
        self._sign = sign

    def execute(self) -> dict[str, float]:
        """Evaluate the subnet and report its metric to NNI."""
        assert self.sample is not None
        self.results = self._measure(self.sample)
        self.check_metric()
        nni.report_final_result(self._sign * self.results[self._metric])
        return self.results

    def take(self, results: dict[str, float]) -> None:
        """Take over results that were found elsewhere.

        Raises:
            ConfigurationError: The metric that NNI compares is not among them.
        """
        self.results = results
        self.check_metric()
        self.metrics.final = self._sign * results[self._metric]
        self.status = ModelStatus.Trained

    def check_metric(self) -> None:
        """Refuse results without the metric that NNI compares; a subnet without any results passes.

        Raises:
            ConfigurationError: The metric is not among the results.
        """
        if self.results and self._metric not in self.results:
            raise ConfigurationError(
                f"Argument `metric` is expected to be logged by the evaluator's `validation_step`, but got "
                f"{self._metric!r}. It logs {sorted(self.results)}."
            )

    def executable_model(self) -> nn.Module:
        """Return the subnet as a network of its own."""
        assert self.sample is not None
        return self._extract(self.sample)

    def extra_repr(self) -> str:
        """Describe the architecture on one line."""
        return describe_sample(self.sample or {})


def submit_model(engine: ExecutionEngine, model: SubnetModel) -> None:
    """Have an engine evaluate a subnet; one that is interrupted does not count towards the experiment's budget.

    A resumed search evaluates it again, and NNI counts a model when it begins.

    Args:
        engine: NNI's engine.
        model: The subnet.
    """
    try:
        engine.submit_models(model)
    except BaseException as error:
        # An end by Ctrl-C or a signal is no `Exception`.
        if not isinstance(error, Exception) and isinstance(engine, SequentialExecutionEngine):
            state = engine.state_dict()
            engine.load_state_dict({**state, "model_count": state["model_count"] - 1})
        raise
