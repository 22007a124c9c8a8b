"""The protocol of few-shot NAS: retrain each sub-supernet's best subnet and keep the best of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from nni.nas.evaluator.pytorch import Lightning
from torch import nn

from nni_supernet_ext.core.metric_direction import warn_of_unusual_mode
from nni_supernet_ext.core.supernet import Supernet
from nni_supernet_ext.errors import ConfigurationError, DataError
from nni_supernet_ext.strategies.evaluated import EvaluatedSubnet
from nni_supernet_ext.strategies.quality import quality
from nni_supernet_ext.strategies.retrain import retrain
from nni_supernet_ext.strategies.sub_supernets import SubSupernetWeights


@dataclass(frozen=True)
class RetrainedSubnet:
    """A sub-supernet's best subnet after training on its own.

    Attributes:
        part: Number of the sub-supernet.
        subnet: The subnet as the search evaluated it.
        metrics: The trainer's last metrics after retraining.
        network: The retrained network.

    Example:
        >>> sample = {'op': 'conv', 'width': 8}
        >>> searched = EvaluatedSubnet(sample, {'val_acc': 0.4}, parameters=530, flops=None)
        >>> best = RetrainedSubnet(0, searched, {'val_acc': 0.6}, nn.Identity())
        >>> best.subnet.sample['op'], best.metrics['val_acc']
        ('conv', 0.6)
    """

    part: int
    subnet: EvaluatedSubnet
    metrics: dict[str, float]
    network: nn.Module


def retrain_best_of_parts(
    history: Iterable[EvaluatedSubnet],
    weights: SubSupernetWeights,
    supernet: Supernet,
    make_evaluator: Callable[[], Lightning],
    *,
    metric: str = "val_acc",
    mode: str = "max",
    **arguments: Any,
) -> list[RetrainedSubnet]:
    """Retrain the best subnet of each sub-supernet; the first of the result is the one to keep.

    Args:
        history: Evaluated subnets, for example ``SupernetEvolution.history``.
        weights: The sub-supernets that were searched.
        supernet: The supernet they belong to, ``FewShotStrategy.trained``.
        make_evaluator: Makes a fresh evaluator for each retraining.
        metric: Metric by which the search's and the retrained subnets are compared. Default ``'val_acc'``.
        mode: ``'max'`` or ``'min'``.
        **arguments: Further arguments of :func:`~nni_supernet_ext.strategies.retrain.retrain`.

    Returns:
        One entry per sub-supernet that has an evaluated subnet, best after retraining first.

    Raises:
        DataError: ``history`` is empty.
        ConfigurationError: Unknown ``mode``, or a metric that was not logged.

    Example:
        >>> from nni_supernet_ext.strategies import SubSupernet
        >>> from nni_supernet_ext.testing import toy_evaluator, toy_supernet
        >>> supernet = toy_supernet()
        >>> state = {name: tensor.clone() for name, tensor in supernet.model.state_dict().items()}
        >>> parts = [SubSupernet(0, {'op': ['conv']}, state), SubSupernet(1, {'op': ['linear', 'skip']}, state)]
        >>> samples = [{'op': 'conv', 'width': 8}, {'op': 'skip', 'width': 8}, {'op': 'skip', 'width': 4}]
        >>> accuracies = [0.3, 0.2, 0.1]
        >>> history = [EvaluatedSubnet(s, {'val_acc': a}, 0, None) for s, a in zip(samples, accuracies)]
        >>> def make_evaluator():
        ...     return toy_evaluator(max_epochs=1, enable_checkpointing=False)
        >>> best, other = retrain_best_of_parts(history, SubSupernetWeights(parts), supernet, make_evaluator)
        >>> sorted([best.part, other.part]), best.metrics['val_acc'] >= other.metrics['val_acc']
        ([0, 1], True)

    Reference:
        Zhao et al., "Few-shot Neural Architecture Search", ICML 2021: search each sub-supernet, train the top
        architectures, report the best.
    """
    if mode not in ("max", "min"):
        raise ConfigurationError(
            f"Argument `mode` is expected to be 'max' or 'min', but got {mode!r}. Use 'max' for an accuracy."
        )
    warn_of_unusual_mode(metric, mode, "retrain_best_of_parts")

    def value_of(metrics: dict[str, float]) -> float:
        return quality(_value(metrics, metric), mode)

    best: dict[int, EvaluatedSubnet] = {}
    for subnet in history:
        part = weights.owner(subnet.sample).index
        if part not in best or value_of(subnet.metrics) > value_of(best[part].metrics):
            best[part] = subnet
    if not best:
        raise DataError(
            "Argument `history` is expected to hold at least one evaluated subnet, but got none. Run the search "
            "first."
        )
    retrained = []
    for part, subnet in sorted(best.items()):
        weights.activate(supernet, subnet.sample)
        evaluator = make_evaluator()
        metrics = retrain(supernet.extract(subnet.sample), evaluator, **arguments)
        retrained.append(RetrainedSubnet(part, subnet, metrics, evaluator.module.model))
    return sorted(retrained, key=lambda entry: value_of(entry.metrics), reverse=True)


def _value(metrics: dict[str, float], metric: str) -> float:
    if metric not in metrics:
        raise ConfigurationError(
            f"Argument `metric` is expected to be a metric that was logged, but got {metric!r}. Use one of "
            f"{sorted(metrics)}."
        )
    return metrics[metric]
