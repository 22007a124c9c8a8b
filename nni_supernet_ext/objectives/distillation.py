"""In-place distillation: the largest subnet of a step teaches the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from nni_supernet_ext.core.draw import Draw
from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.core.probes import recorded_outputs
from nni_supernet_ext.core.slots import Objective
from nni_supernet_ext.core.state import StepState
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.functional.alpha_divergence import adaptive_alpha_divergence
from nni_supernet_ext.functional.divergence import (
    jensen_shannon_divergence,
    kl_divergence,
    reversed_kl_divergence,
)
from nni_supernet_ext.objectives._same_inputs import SameInputs, tensors_in

Divergence = Callable[[Tensor, Tensor], Tensor]
"""Function of the student's and the teacher's logits that returns a number or one for each sample."""

_LOW, _HIGH = 1e-2, 1e2
"""Temperatures between which float32 is precise enough."""

DIVERGENCES: dict[str, Divergence] = {
    "adaptive_alpha": adaptive_alpha_divergence,
    "jensen_shannon": jensen_shannon_divergence,
    "kl": kl_divergence,
    "reversed_kl": reversed_kl_divergence,
}


class InplaceDistillation(Objective):
    """Train the largest subnet on the labels, and the others on its outputs in the same step.

    The students' loss is ``(1 - beta) * label loss + beta * temperature^2 * divergence``, between the outputs
    divided by the temperature. The teacher's outputs are those of the very forward pass that trained it,
    without gradient. Label losses come from the evaluator, so label smoothing and auxiliary losses are its
    own.

    Args:
        divergence: ``'kl'`` (default), ``'adaptive_alpha'`` (AlphaNet), ``'reversed_kl'``,
            ``'jensen_shannon'``, or a function of the student's and the teacher's logits, for example
            ``functools.partial(alpha_divergence, alpha=-1.0)``.
        beta: Share of the distillation, in [0, 1]. Default 0.9; 1 trains students without labels, 0 without a
            teacher.
        temperature: Any positive number. Default 1.
        teacher: Role of the teacher; the first draw of the step with it. Default ``'largest'``.
        select: Function from the model's output to the tensor, or tensors, to distil. Default: every tensor
            in it (tuples, lists and dictionaries are searched); the divergences of several are averaged.

    Raises:
        ConfigurationError: Bad arguments, steps without a teacher, students before it, outputs that are no
            logits of one shape, or (looked for in the first steps) other inputs for students than for the teacher.

    Example:
        >>> from nni_supernet_ext.paths import SandwichSampler
        >>> from nni_supernet_ext.strategies import SupernetStrategy
        >>> strategy = SupernetStrategy(
        ...     paths=SandwichSampler(), objective=InplaceDistillation('adaptive_alpha', beta=1.0))

    Reference:
        Yu and Huang, "Universally Slimmable Networks and Improved Training Techniques", ICCV 2019, section
        3.3; Wang et al., "AlphaNet: Improved Training of Supernets with Alpha-Divergence", ICML 2021; the
        factor temperature^2: Hinton et al., "Distilling the Knowledge in a Neural Network", section 2.

    Deviations:
        The papers' students see no labels; that is ``beta=1``, which the recipes set.
    """

    def __init__(
        self,
        divergence: str | Divergence = "kl",
        beta: float = 0.9,
        temperature: float = 1.0,
        teacher: str = "largest",
        select: Callable[[Any], Any] | None = None,
    ) -> None:
        self.divergence = divergence
        self.beta = beta
        self.temperature = temperature
        self.teacher = teacher
        self.select = select
        self._model: nn.Module | None = None
        self._outputs: list[Tensor] = []
        self._inputs = SameInputs()

    def problems(self, plan: Plan) -> Iterable[str]:
        """Refuse bad arguments and path samplers that give no teacher, or give it too late."""
        named = isinstance(self.divergence, str) and self.divergence in DIVERGENCES
        if not named and not callable(self.divergence):
            yield (
                f"Argument `divergence` is expected to be one of {tuple(DIVERGENCES)} or a function, but got "
                f"{self.divergence!r}. Use 'kl' or 'adaptive_alpha'."
            )
        if not (isinstance(self.beta, Real) and 0 <= self.beta <= 1):
            yield (
                f"Argument `beta` is expected to be in [0, 1], but got {self.beta!r}. Use 1 for students "
                "without labels, 0 for no distillation."
            )
        if not (isinstance(self.temperature, Real) and self.temperature > 0 and math.isfinite(self.temperature)):
            yield (
                f"Argument `temperature` is expected to be a positive number, but got {self.temperature!r}. "
                "Use 1, or more for softer distributions."
            )
        if self.select is not None and not callable(self.select):
            yield (
                f"Argument `select` is expected to be a function of the model's output or None, but got "
                f"{self.select!r}. Use None to distil every output."
            )
        yield from self._path_problems(plan)

    def _path_problems(self, plan: Plan) -> Iterable[str]:
        name, roles = type(plan.paths).__name__, plan.paths.roles
        if plan.paths.draws_per_step == 1:
            yield (
                f"Argument `paths` is expected to draw a teacher and its students in a step, but {name} "
                "draws one subnet. Use SandwichSampler."
            )
        elif roles is not None and self.teacher not in roles:
            yield _no_teacher(self.teacher, roles)
        elif roles is not None and roles[0] != self.teacher:
            yield _student_before_teacher(self.teacher, roles)

    def prepare(self, plan: Plan) -> None:
        """Take the model whose outputs are distilled."""
        self._model, self._outputs = plan.supernet.model, []
        self._inputs = SameInputs(plan.step_every)

    def finish(self) -> None:
        """Let go of the model and of the last teacher's outputs."""
        self._model, self._outputs = None, []
        self._inputs = SameInputs()

    def loss(self, draw: Draw, state: StepState) -> Tensor:
        """Return the label loss of the teacher, or the mixed loss of a student."""
        roles = [one.role for one in state.draws]
        if self.teacher not in roles:
            raise ConfigurationError(_no_teacher(self.teacher, roles))
        position = roles.index(self.teacher)
        if state.index < position:
            raise ConfigurationError(_student_before_teacher(self.teacher, roles))
        if self.beta == 0:
            return state.task_loss()
        assert self._model is not None
        watched = self._inputs.watched(self._model, is_teacher=state.index == position)
        with watched, recorded_outputs(self._model) as outputs:
            task_loss = state.task_loss()
        own = self._tensors(outputs)
        if state.index == position:
            self._outputs = [output.detach() for output in own]
            return task_loss
        distilled = self._distilled(own)
        if state.index == len(roles) - 1:
            self._outputs = []
        # Without labels their loss is left out, not multiplied by zero: it may be infinite.
        return distilled if self.beta == 1 else (1 - self.beta) * task_loss + distilled

    def _distilled(self, own: list[Tensor]) -> Tensor:
        """Return beta * temperature^2 * the divergence, averaged over the outputs."""
        shapes = [[tuple(output.shape) for output in outputs] for outputs in (own, self._outputs)]
        if shapes[0] != shapes[1]:
            raise ConfigurationError(
                f"The subnets' outputs are expected to have the teacher's shapes {shapes[1]}, but got "
                f"{shapes[0]}. Name what to distil with `select`."
            )
        divergence = self.divergence if callable(self.divergence) else DIVERGENCES[self.divergence]
        values = [
            divergence(self._softened(student), self._softened(teacher)).mean()
            for student, teacher in zip(own, self._outputs, strict=True)
        ]
        mean = values[0] if len(values) == 1 else torch.stack(values).mean()
        return (self.beta * self.temperature**2 * mean).to(torch.promote_types(own[0].dtype, torch.float32))

    def _softened(self, logits: Tensor) -> Tensor:
        """Divide by the temperature, in a precision in which neither the quotient nor the square is lost."""
        least = torch.float32 if _LOW <= self.temperature <= _HIGH else torch.float64
        return logits.to(torch.promote_types(logits.dtype, least)) / self.temperature

    def _tensors(self, outputs: list[Any]) -> list[Tensor]:
        """List the tensors to distil: those of every forward pass of the training step, in order."""
        chosen = outputs if self.select is None else [self.select(output) for output in outputs]
        tensors = list(tensors_in(chosen))
        if not tensors or not all(tensor.is_floating_point() for tensor in tensors):
            raise ConfigurationError(
                "The model's output is expected to hold floating-point tensors to distil, but got "
                f"{[str(tensor.dtype) for tensor in tensors] or outputs!r}. Name what to distil with "
                "`select`."
            )
        return tensors


def _no_teacher(teacher: str, roles: Iterable[str]) -> str:
    return (
        f"A step is expected to draw a subnet with the role {teacher!r}, the teacher, but got the roles "
        f"{list(roles)}. Use SandwichSampler with 'largest' in its `order`."
    )


def _student_before_teacher(teacher: str, roles: Iterable[str]) -> str:
    return (
        f"The teacher ({teacher!r}) is expected to be drawn before its students, but got the order "
        f"{list(roles)}. Put 'largest' first in the `order` of SandwichSampler."
    )
