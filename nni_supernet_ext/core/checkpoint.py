"""Tell whether a checkpoint belongs to the configuration that is about to resume from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nni_supernet_ext.core.component import Component
from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.core.stored import stored_shapes
from nni_supernet_ext.errors import CheckpointError


def part_names(plan: Plan) -> tuple[str, ...]:
    """Name the parts that own a decision: their classes, and what else of them a checkpoint depends on."""
    return tuple(_part_name(part) for part in plan.owners())


def _part_name(part: Any) -> str:
    identity = part.identity() if isinstance(part, Component) else ""
    return f"{type(part).__name__}({identity})" if identity else type(part).__name__


@dataclass(frozen=True)
class Fingerprint:
    """What must not change between the run that saved a checkpoint and the run that resumes it.

    Attributes:
        labels: The space's choices with their candidates, as text.
        parts: Class names of the filled slots and of the callbacks that own a decision, with their identity.
        step_every: ``'batch'`` or ``'subnet'``.
        seed: Seed of the run.
        shapes: Name of each parameter and buffer -> its shape.
    """

    labels: tuple[str, ...]
    parts: tuple[str, ...]
    step_every: str
    seed: int
    shapes: dict[str, list[int]]

    @classmethod
    def of(cls, plan: Plan) -> Fingerprint:
        """Take the fingerprint of a plan."""
        return cls(
            tuple(repr(mutable) for mutable in plan.supernet.domain.mutables.values()),
            part_names(plan),
            plan.step_every,
            plan.seed,
            _shapes(plan),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the fingerprint as plain containers, for the checkpoint."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    def checked(self, saved: dict[str, Any] | None) -> dict[str, Any]:
        """Return a checkpoint's entry if it belongs to this configuration.

        Args:
            saved: The entry this package added to the checkpoint.

        Returns:
            The same entry.

        Raises:
            CheckpointError: No entry, or one of another configuration.
        """
        if saved is None:
            raise CheckpointError(
                "The checkpoint is expected to come from SupernetStrategy, but got one without its state. Start "
                "without `ckpt_path`, or load only its weights into the space."
            )
        checked = self.as_dict()
        shapes = checked.pop("shapes")
        for key, now in checked.items():
            then = saved["fingerprint"].get(key)
            if then != now:
                raise CheckpointError(
                    f"The checkpoint is expected to be of the same configuration, but got another `{key}`: "
                    f"saved with {then}, resumed with {now}. Use the saved settings, or another "
                    "`checkpoint_dir` to start afresh."
                )
        check_shapes(saved["fingerprint"].get("shapes", shapes), shapes)
        return saved


def _shapes(plan: Plan) -> dict[str, list[int]]:
    # What the evaluator's module trains beside the model is in the checkpoint too.
    state = {**plan.training_module.state_dict(), **plan.supernet.model.state_dict()}
    return {name.removeprefix("_model."): shape for name, shape in stored_shapes(state).items()}


def check_shapes(saved: Mapping[str, list[int]], now: Mapping[str, list[int]]) -> None:
    """Refuse other weights by the first that differs; torch would list all of them.

    Args:
        saved: Name -> shape of the weights in a file.
        now: Name -> shape of the weights of the network.

    Raises:
        CheckpointError: They are not those of the same network.
    """
    for name in [*now, *saved]:
        then, here = saved.get(name), now.get(name)
        if then != here:
            what = "set of weights" if then is None or here is None else "shape of a weight"
            raise CheckpointError(
                f"The checkpoint is expected to be of the same network, but got another {what}, the first being "
                f"`{name}`: saved {_told(then)}, resumed {_told(here)}. Use the saved network, or another "
                "`checkpoint_dir` to start afresh."
            )


def _told(shape: list[int] | None) -> str:
    return "without it" if shape is None else f"with {tuple(shape)}"
