"""What every exchangeable part of a training step shares: claims, checks, set-up, state."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from nni_supernet_ext.core.plan import Plan


class Component:
    """Base of the parts that fill a slot of the training step.

    A component declares what it owns, says what it cannot work with before training starts, is set up once
    with the plan of the whole run, and keeps its state in the checkpoint. A component in a slot may also
    implement the step hooks of :class:`~nni_supernet_ext.core.SupernetCallback`; so may one that another
    component wraps as its ``base``.

    Attributes:
        claims: Decisions that only one component may own, for example ``{'lr'}``.

    Example:
        >>> Component().claims
        frozenset()
    """

    claims: frozenset[str] = frozenset()

    def problems(self, plan: Plan) -> Iterable[str]:
        """Say why this component cannot work in the plan; nothing where it can.

        Args:
            plan: The whole run: space, slots, callbacks, evaluator, and the optimizer once it exists.

        Returns:
            Messages, each with its remedy. All components' messages are raised together.
        """
        return ()

    def arrange(self, plan: Plan) -> None:
        """Change the supernet itself, before there is an optimizer. Called after the first checks have passed.

        It may be called again on the same supernet, by a later run or by one of several trainings.
        """

    def identity(self) -> str:
        """Return what a checkpoint must share with the run that resumes from it, beside the class; often empty."""
        return ""

    def optimizer_states(self) -> Iterable[MutableMapping[Tensor, dict[str, Any]]]:
        """Return what this component keeps for each parameter beside the optimizer's own ``state``, in its form.

        Whoever splits a parameter into copies copies that too.
        """
        return ()

    def prepare(self, plan: Plan) -> None:
        """Prepare for the run. Called once before training, after all checks have passed."""

    def checkpoint_state(self) -> dict[str, Any]:
        """Return the state a resumed run needs: plain containers, numbers, strings and tensors only."""
        return {}

    def restore_state(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`checkpoint_state` returned. Called after :meth:`prepare`."""

    def finish(self) -> None:
        """Remove what :meth:`prepare` or the step left on the model.

        Called at the end, whatever happened, for every part whose :meth:`prepare` was called.
        """
