"""What a checkpoint holds of a run beside weights and optimizer, and how it comes back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from nni_supernet_ext._compat.lightning_loops import restart_train_iterator
from nni_supernet_ext.core.checkpoint import Fingerprint
from nni_supernet_ext.core.component import Component
from nni_supernet_ext.core.plain_state import plain_state
from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.core.random_state import capture_random_state, restore_random_state

_KEY = "nni_supernet_ext"


class RunCheckpoint:
    """Put the state of a run into Lightning's checkpoints, and take it over from one.

    Args:
        plan: Plan of the run.
        rng: Generator of the draws.

    Attributes:
        restored: State of the checkpoint that the run goes on from, until :meth:`take_over`; None without one.
    """

    def __init__(self, plan: Plan, rng: np.random.Generator) -> None:
        self.restored: dict[str, Any] | None = None
        self._plan = plan
        self._rng = rng
        self._fingerprint = Fingerprint.of(plan)

    def save(self, module: Any, checkpoint: dict[str, Any]) -> None:
        """Add the state of the step and of every component.

        Args:
            module: The module that trains.
            checkpoint: Lightning's checkpoint, to which the state is added.

        Raises:
            ConfigurationError: A component has a state that a resumed run could not read.
        """
        trainer, set_to_none = module.trainer, self._plan.set_to_none
        checkpoint[_KEY] = {
            "fingerprint": self._fingerprint.as_dict(),
            "iteration": module.state.iteration,
            "rng": self._rng.bit_generator.state,
            "validation": module.validation.results,
            "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
            "random": capture_random_state(trainer.train_dataloader),
            "components": {
                name: plain_state(type(part).__name__, part.checkpoint_state())
                for name, part in named_components(self._plan).items()
            },
            "with_gradient": []
            if set_to_none
            else [name for name, weight in module.named_parameters() if weight.grad is not None],
        }

    def load(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Remember a checkpoint's state.

        Args:
            checkpoint: Lightning's checkpoint.

        Returns:
            The state.

        Raises:
            CheckpointError: It belongs to another configuration.
        """
        self.restored = self._fingerprint.checked(checkpoint.get(_KEY))
        return self.restored

    def take_over(self, module: Any) -> None:
        """Go on from the state that was remembered, if there is one."""
        restored, self.restored = self.restored, None
        if restored is None:
            return
        module.state.iteration = restored["iteration"]
        self._rng.bit_generator.state = restored["rng"]
        for name, part in named_components(self._plan).items():
            if name in restored["components"]:
                part.restore_state(restored["components"][name])
        weights = dict(module.named_parameters())
        for name in restored["with_gradient"]:
            weights[name].grad = torch.zeros_like(weights[name])
        # With several ranks each has a state of its own, and the checkpoint holds only the first one's.
        if module.trainer.world_size == 1:
            restore_random_state(restored["random"], module.trainer.train_dataloader)
            restart_train_iterator(module.trainer)

    def state_of(self, part: Component) -> dict[str, Any]:
        """Return a component's state that was remembered and not taken over."""
        assert self.restored is not None
        names = {id(component): name for name, component in named_components(self._plan).items()}
        state: dict[str, Any] = self.restored["components"][names[id(part)]]
        return state


def named_components(plan: Plan) -> dict[str, Component]:
    """Name the components; equal classes are numbered, so callbacks that only watch may come and go."""
    found: dict[str, Component] = {}
    for part in plan.components():
        if isinstance(part, Component):
            name = type(part).__name__
            found[f"{name}/{sum(key.startswith(f'{name}/') for key in found)}"] = part
    return found
