"""The parts that methods are put together from. A further part is one more entry of `PARTS`."""

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
from nni_supernet_ext.weights import WeightSplitting


@dataclass(frozen=True)
class Method:
    """One way to train a supernet.

    Attributes:
        arguments: Arguments of `SupernetStrategy`.
        passes: How many passes it takes for one of plain training: its epochs are divided by it.
        supernets: How many supernets are trained, one after the other.
        few_shot: Arguments of `FewShotStrategy`, for training in parts; None for one supernet.
        protocol: Settings of the protocol that it replaces.
        stop: Share of its epochs after which training ends; None for all.
    """

    arguments: Mapping[str, Any] = field(default_factory=dict)
    passes: int = 1
    supernets: int = 1
    few_shot: Mapping[str, Any] | None = None
    protocol: Mapping[str, Any] = field(default_factory=dict)
    stop: float | None = None

    @property
    def owns_learning_rate(self) -> bool:
        """Tell whether one of the callbacks owns the learning rate."""
        return any("lr" in getattr(callback, "claims", ()) for callback in self.arguments.get("callbacks", ()))

    def adapted(self, protocol: Protocol) -> Protocol:
        """Return the protocol with this method's share of epochs and its own settings."""
        return replace(protocol, epochs=max(1, round(protocol.epochs / self.passes)), **self.protocol)

    def epochs(self, protocol: Protocol) -> int:
        """Return the epochs that a supernet is trained for."""
        planned = self.adapted(protocol).epochs
        return planned if self.stop is None else max(1, round(self.stop * planned))

    def steps(self, protocol: Protocol) -> int:
        """Return the training steps of all its supernets."""
        return self.supernets * replace(self.adapted(protocol), epochs=self.epochs(protocol)).steps


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
    n = run.candidates
    return Method(passes=n, supernets=n, few_shot={"splits": [ChoiceSplit()]})


def _split(*milestones: float) -> Part:
    return lambda run: Method({"weights": WeightSplitting(run.ground.dependencies, milestones)})


def _stop(share: float) -> Part:
    return lambda run: Method(stop=share)


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
