"""Regularise the largest subnet only."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from nni_supernet_ext.core.callback import SupernetCallback
from nni_supernet_ext.core.draw import Draw
from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.core.state import StepState

_BY_NAME = {"StochasticDepth": "p", "DropPath": "drop_prob", "DropPath_": "p"}
"""Class name -> attribute with the rate, of the stochastic depth layers of torchvision, timm and NNI."""


class LargestSubnetRegularization(SupernetCallback):
    """Switch dropout and stochastic depth off for every draw but the largest.

    Small subnets underfit; what keeps the largest from overfitting only harms them. The rates are those the
    space's modules have when a batch begins, so a schedule of yours may change them; they are set to zero for the
    other draws and put back after the last. The modules are found once, before training.

    Args:
        roles: Roles of the draws that keep their rates. Default the largest subnet.
        modules: Further module types -> name of the attribute with their rate. Known without it: torch's
            dropout layers, the dropout inside its attention and recurrent layers, torchvision's
            ``StochasticDepth``, timm's ``DropPath``, NNI's ``DropPath_``.

    Raises:
        ConfigurationError: The space has no such module.

    Example:
        >>> from nni_supernet_ext.paths import SandwichSampler
        >>> from nni_supernet_ext.strategies import SupernetStrategy
        >>> strategy = SupernetStrategy(
        ...     paths=SandwichSampler(), callbacks=[LargestSubnetRegularization()])

    Reference:
        Yu et al., "BigNAS: Scaling Up Neural Architecture Search with Big Single-Stage Models", ECCV 2020,
        section 3.1 (regularise only the biggest child model).

    Deviations:
        Weight decay stays on for all: an optimizer step over several draws has only one.
    """

    claims = frozenset({"regularization"})

    def __init__(
        self,
        roles: Collection[str] = ("largest",),
        modules: Mapping[type[nn.Module], str] | None = None,
    ) -> None:
        self.roles = frozenset({roles} if isinstance(roles, str) else roles)
        self.modules = dict(modules or {})
        self._modules: list[tuple[nn.Module, str]] = []
        self._rates: list[Any] | None = None

    def problems(self, plan: Plan) -> Iterable[str]:
        """Refuse spaces without anything to switch, and samplers that never draw a regularised role."""
        if not any(self._attribute(module) for module in plan.supernet.model.modules()):
            yield (
                "The space is expected to contain dropout or stochastic depth for "
                "LargestSubnetRegularization, but got none. Add one, name its type in `modules`, or leave "
                "the callback out."
            )
        roles = plan.paths.roles
        if roles is not None and not self.roles & set(roles):
            yield (
                f"Argument `roles` is expected to name a role that {type(plan.paths).__name__} draws, but "
                f"got {sorted(self.roles)} with draws of {list(roles)}. Use one of them."
            )

    def prepare(self, plan: Plan) -> None:
        """Find the modules."""
        self._restore()
        found = [(module, self._attribute(module)) for module in plan.supernet.model.modules()]
        self._modules = [(module, name) for module, name in found if name is not None]

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Read the rates and switch them off, also for what a path sampler tries before it draws."""
        self._restore()
        self._set([0.0] * len(self._read()))

    def on_draws(self, state: StepState) -> None:
        """Set the rates of the first draw."""
        if self._rates is None:  # a step outside a training
            self._read()
        self._switch(state.draws[0])

    def on_after_draw(self, state: StepState) -> None:
        """Set the rates of the next draw; after the last put them back."""
        following = state.index + 1
        if following < len(state.draws):
            self._switch(state.draws[following])
        else:
            self._restore()

    def finish(self) -> None:
        """Put the rates back where a step was not finished."""
        self._restore()
        self._modules = []

    def _read(self) -> list[Any]:
        self._rates = [getattr(module, name) for module, name in self._modules]
        return self._rates

    def _switch(self, draw: Draw) -> None:
        assert self._rates is not None
        self._set(self._rates if draw.role in self.roles else [0.0] * len(self._rates))

    def _restore(self) -> None:
        if self._rates is not None:
            self._set(self._rates)
        self._rates = None

    def _set(self, rates: Sequence[Any]) -> None:
        for (module, name), rate in zip(self._modules, rates, strict=True):
            setattr(module, name, rate)

    def _attribute(self, module: nn.Module) -> str | None:
        """Return the name of a module's rate, or None where it has none."""
        for kind, name in self.modules.items():
            if isinstance(module, kind):
                return name
        if isinstance(module, _DropoutNd):
            return "p"
        if isinstance(module, (nn.MultiheadAttention, nn.RNNBase)) and module.dropout > 0:
            return "dropout"
        return _BY_NAME.get(type(module).__name__)
