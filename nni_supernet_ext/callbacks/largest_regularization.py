"""Regularise the largest subnet only."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
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
    space's modules have; they are set to zero for the other draws and put back after the fit. The modules are
    found once, before training.

    Args:
        roles: Roles of the draws that keep their rates. Default the largest subnet.
        modules: Further module types -> name of the attribute with their rate. Known without it: torch's
            dropout layers, torchvision's ``StochasticDepth``, timm's ``DropPath``, NNI's ``DropPath_``.

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
        self._rates: list[tuple[nn.Module, str, Any]] = []

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
        """Find the modules and their rates."""
        self._restore()
        found = [(module, self._attribute(module)) for module in plan.supernet.model.modules()]
        self._rates = [(module, name, getattr(module, name)) for module, name in found if name is not None]
        self._switch(None)

    def on_draws(self, state: StepState) -> None:
        """Set the rates of the first draw."""
        self._switch(state.draws[0])

    def on_after_draw(self, state: StepState) -> None:
        """Set the rates of the next draw; between steps they are off."""
        following = state.index + 1
        self._switch(state.draws[following] if following < len(state.draws) else None)

    def finish(self) -> None:
        """Put the rates back."""
        self._restore()

    def _switch(self, draw: Draw | None) -> None:
        on = draw is not None and draw.role in self.roles
        for module, name, rate in self._rates:
            setattr(module, name, rate if on else 0.0)

    def _restore(self) -> None:
        for module, name, rate in self._rates:
            setattr(module, name, rate)
        self._rates = []

    def _attribute(self, module: nn.Module) -> str | None:
        """Return the name of a module's rate, or None where it has none."""
        for kind, name in self.modules.items():
            if isinstance(module, kind):
                return name
        if isinstance(module, _DropoutNd):
            return "p"
        return _BY_NAME.get(type(module).__name__)
