"""The methods compared, and what their names mean: parts joined by ``+``, such as ``fairnas+calr+ms``.

Every combination of parts can be asked for; what does not go together is refused by the strategy. A further part
is one more entry of `PARTS`. Where no callback owns the learning rate, it falls along half a cosine. Every method
gets as many forward and backward passes as one subnet per batch would take: one that makes several passes on a
batch gets fewer batches, unless ``long`` is among its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from protocols import Protocol

from nni_supernet_ext.callbacks import ComplexityAwareLR, MomentumSeparation
from nni_supernet_ext.data import ImportanceDataSampler
from nni_supernet_ext.objectives import InplaceDistillation
from nni_supernet_ext.paths import (
    ComplexityPathSampler,
    FairPathSampler,
    ImportancePathSampler,
    SandwichSampler,
)
from nni_supernet_ext.strategies import ChoiceSplit
from nni_supernet_ext.testing.stop import StopAfter
from nni_supernet_ext.weights import WeightSplitting


@dataclass(frozen=True)
class Method:
    """One way to train a supernet.

    Attributes:
        arguments: Arguments of `SupernetStrategy`.
        passes: How many passes it takes for one of plain training: its epochs are divided by it.
        few_shot: Arguments of `FewShotStrategy`, for training in parts; None for one supernet.
        protocol: Settings of the protocol that it replaces.
    """

    arguments: Mapping[str, Any] = field(default_factory=dict)
    passes: int = 1
    few_shot: Mapping[str, Any] | None = None
    protocol: Mapping[str, Any] = field(default_factory=dict)

    @property
    def owns_learning_rate(self) -> bool:
        """Tell whether one of the callbacks owns the learning rate."""
        return any("lr" in getattr(callback, "claims", ()) for callback in self.arguments.get("callbacks", ()))

    def adapted(self, protocol: Protocol) -> Protocol:
        """Return the protocol with this method's share of epochs and its own settings."""
        return replace(protocol, epochs=max(1, round(protocol.epochs / self.passes)), **self.protocol)


@dataclass(frozen=True)
class Run:
    """What a part may depend on: the protocol, the benchmark (an entry of `GROUNDS`), the seed, the other parts."""

    protocol: Protocol
    ground: Any
    seed: int
    parts: frozenset[str]

    @property
    def choices(self) -> Mapping[str, Any]:
        """Label of each choice -> the choice."""
        return dict(self.ground.space(self.protocol).simplify())

    @property
    def candidates(self) -> int:
        """Most candidates of a choice."""
        return max(len(choice.values) for choice in self.choices.values())


Part = Callable[[Run], Method]
_GAMMA = 4.0  # the published setting for NAS-Bench-201


def make_method(name: str, protocol: Protocol, ground: Any, seed: int = 0) -> Method:
    """Put a method together from the parts in its name.

    Args:
        name: Names of `PARTS` joined by ``+``.
        protocol: What it will be trained under.
        ground: The benchmark: an entry of `GROUNDS`.
        seed: Seed of the run.

    Returns:
        The method, with components of its own.
    """
    names = name.split("+")
    run = Run(protocol, ground, seed, frozenset(names))
    parts = [PARTS[part](run) for part in names if part not in MODIFIERS]
    callbacks = [callback for part in parts for callback in part.arguments.get("callbacks", ())]
    arguments = {key: value for part in parts for key, value in part.arguments.items()}
    few_shot = next((part.few_shot for part in parts if part.few_shot is not None), None)
    passes = 1 if "long" in names else max(part.passes for part in parts)
    own = {key: value for part in parts for key, value in part.protocol.items()}
    return Method({**arguments, "callbacks": callbacks}, passes, few_shot, own)


def unknown_parts(name: str) -> set[str]:
    """Return the parts of a name that do not exist."""
    return set(name.split("+")) - set(PARTS) - set(MODIFIERS)


def _plain(**makers: Callable[[], Any]) -> Part:
    return lambda run: Method({key: make() for key, make in makers.items()})


def _calr(gamma_max: float = _GAMMA, cost: str = "weights", **settings: Any) -> Part:
    def make(run: Run) -> Method:
        complexity = run.ground.costs.get(cost, cost)
        return Method({"callbacks": [ComplexityAwareLR(complexity, gamma_max=gamma_max, **settings)]})

    return make


def _fair(run: Run) -> Method:
    # Momentum separation needs a choice that is held fixed within a step: one of them, by the seed.
    labels = sorted(run.choices)
    fixed = labels[np.random.default_rng(run.seed).integers(len(labels))] if "ms" in run.parts else None
    return Method({"paths": FairPathSampler(fixed=fixed)}, run.candidates)


def _few_shot(run: Run) -> Method:
    return Method({}, run.candidates, {"splits": [ChoiceSplit()]})


def _split(*milestones: float) -> Part:
    return lambda run: Method({"weights": WeightSplitting(run.ground.dependencies, milestones)})


def _stop(share: float) -> Part:
    return lambda run: Method({"callbacks": [StopAfter(round(share * run.protocol.epochs))]})


def _sandwich(run: Run) -> Method:
    return Method({"paths": SandwichSampler(complexity=run.ground.costs["params"], n_random=1)}, 3)


PARTS: dict[str, Part] = {
    "spos": _plain(),
    # dynamic supernet training
    "calr": _calr(),
    "ms": _plain(callbacks=lambda: [MomentumSeparation()]),
    "no_momentum": lambda run: Method(protocol={"momentum": 0.0}),
    "calr_gamma2": _calr(gamma_max=2.0),
    "calr_gamma3": _calr(gamma_max=3.0),
    "calr_linear": _calr(transform="linear"),
    "calr_exp": _calr(transform="exp"),
    "calr_flops": _calr(cost="flops"),
    "by_params": _plain(paths=ComplexityPathSampler),
    # strict fairness; one sub-supernet per candidate of a choice
    "fairnas": _fair,
    "few_shot": _few_shot,
    # importance of paths and of data
    "pa": _plain(paths=ImportancePathSampler),
    "da": _plain(data=ImportanceDataSampler),
    # conditional weights, split after this share of training
    "split30": _split(0.3),
    "split50": _split(0.5),
    "split60": _split(0.6),
    "split70": _split(0.7),
    "split_auto": lambda run: Method({"weights": WeightSplitting(run.ground.dependencies, "auto")}),
    # the same training, not gone on with after this share: what a split then is to be compared with
    "stop50": _stop(0.5),
    "stop60": _stop(0.6),
    "stop70": _stop(0.7),
    # sandwich rule, with labels for all subnets or with distillation from the largest
    "sandwich": _sandwich,
    "distil": _plain(objective=InplaceDistillation),
    "distil_alpha": _plain(objective=partial(InplaceDistillation, "adaptive_alpha")),
}
MODIFIERS = {"long": "all batches, whatever the passes on each cost"}
