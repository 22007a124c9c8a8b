"""The Lightning module of supernet training: runs a step over its draws."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from nni.nas.oneshot.pytorch.base_lightning import BaseOneShotLightningModule
from pytorch_lightning.plugins.precision import DoublePrecision
from torch import Tensor
from torch.optim import Optimizer

from nni_supernet_ext._compat.lightning_log import StepLog
from nni_supernet_ext._compat.weight_averaging import transfer_averages
from nni_supernet_ext.core.callback import HOOKS, overrides
from nni_supernet_ext.core.component import Component
from nni_supernet_ext.core.configured import optimizer_and_schedulers
from nni_supernet_ext.core.declared import with_bases
from nni_supernet_ext.core.draw import Draw
from nni_supernet_ext.core.draw_checks import DrawChecks
from nni_supernet_ext.core.finishing import do_all
from nni_supernet_ext.core.forwarding import forward_hooks
from nni_supernet_ext.core.guard import NonFiniteGuard
from nni_supernet_ext.core.loss_checks import checked_loss
from nni_supernet_ext.core.own_hooks import own_hook
from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.core.progress import annotated_progress_bar
from nni_supernet_ext.core.run_checkpoint import RunCheckpoint, named_components
from nni_supernet_ext.core.run_length import total_iterations
from nni_supernet_ext.core.state import StepState
from nni_supernet_ext.core.validation import SubnetValidation
from nni_supernet_ext.errors import ConfigurationError


class SupernetModule(BaseOneShotLightningModule):
    """Train a supernet: each step runs over the draws of the path sampler.

    Created by ``SupernetStrategy``; users meet it as ``pl_module`` in callbacks, where ``pl_module.state``
    is the published state of the step.

    Args:
        training_module: The evaluator's Lightning module.
        plan: The checked plan of the run.
        validation: Which subnets are validated, and how.
    """

    def __init__(self, training_module: Any, plan: Plan, validation: SubnetValidation) -> None:
        super().__init__(training_module)
        before = set(vars(self))
        self.plan = plan
        self.state = StepState()
        self.validation = validation
        self._guard = NonFiniteGuard()
        self._rng = np.random.default_rng(plan.seed)
        self._hooks: dict[str, list[Callable[..., None]]] = {hook: [] for hook in HOOKS}
        self._checked = DrawChecks(plan.paths, plan.supernet.domain)
        self._prepared: list[Component] = []
        self._cleanup = ExitStack()
        self._step_log = StepLog(self)
        self._own_clipping = own_hook(training_module, "configure_gradient_clipping")
        self._checkpoint = RunCheckpoint(plan, self._rng)
        self._of_the_run = set(vars(self)) - before
        forward_hooks(self, training_module)

    def __deepcopy__(self, memo: dict[int, Any]) -> SupernetModule:
        """Copy the modules with their weights, as averaging does; the run, with its trainer and data, stays one."""
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        for name, value in self.__getstate__().items():
            twin.__dict__[name] = value if name in self._of_the_run else copy.deepcopy(value, memo)
        return twin

    # Set-up

    def configure_callbacks(self) -> Sequence[pl.Callback] | pl.Callback:
        """Attach the evaluator module's own callbacks; the strategy's are attached by the strategy."""
        return self.training_module.configure_callbacks()

    def configure_optimizers(self) -> Any:
        """Make the evaluator's optimizer and check it against the plan."""
        configured = self.training_module.configure_optimizers()
        self.plan.optimizer, self.plan.schedulers = optimizer_and_schedulers(configured)
        self.plan.check()
        return configured

    def on_train_start(self) -> None:
        """Prepare all components, in a fixed order, and take over the state of a checkpoint."""
        self.state.total_iterations = total_iterations(self.trainer, self.plan)
        self.plan.total_iterations = self.state.total_iterations
        for component in named_components(self.plan).values():
            # Before it is prepared: what it has set up when it fails is to be removed too.
            self._prepared += [p for p in with_bases(component) if not any(p is known for known in self._prepared)]
            component.prepare(self.plan)
        for hook in HOOKS:
            self._hooks[hook] = [getattr(c, hook) for c in self.plan.observers() if overrides(c, hook)]
        self._checkpoint.take_over(self)
        self._cleanup.enter_context(annotated_progress_bar(self.trainer, self.state))
        super().on_train_start()

    # The step

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Run one training step over its draws.

        Args:
            batch: A batch of the training loader.
            batch_idx: Its index in the epoch.

        Returns:
            The last draw's loss, detached.
        """
        state, plan = self.state, self.plan
        state.epoch, state.batch, state.batch_idx = self.current_epoch, batch, batch_idx
        state.task_loss = self._task_loss
        state.draws = self._checked(plan.paths.draws(self._rng, state))
        state.scales = [draw.weight for draw in state.draws]
        state.gradient_scale = 1.0
        state.index = 0
        for hook in self._hooks["on_draws"]:
            hook(state)
        optimizer = self.optimizers()
        every_subnet = plan.step_every == "subnet"
        for index, draw in enumerate(state.draws):
            state.index = index
            if index == 0 or every_subnet:
                self._zero_grad(optimizer, batch_idx)
            plan.weights.activate(plan.supernet, draw.sample)
            loss = self._loss(draw)
            state.loss = loss.detach()
            self._guard.watch(state.loss, state.iteration, draw, self.trainer)
            scale = state.scales[index]
            self.manual_backward(loss if scale == 1.0 else loss * scale)
            for hook in self._hooks["on_after_draw"]:
                hook(state)
            if every_subnet:
                self._update(optimizer, batch_idx, (draw,))
        if not every_subnet:
            self._update(optimizer, batch_idx, state.draws)
        state.iteration += 1
        state.batch = None
        if self.trainer.lr_scheduler_configs:
            self.advance_lr_schedulers(batch_idx)
        return state.loss  # type: ignore[return-value]

    def log(self, name: str, value: Any, prog_bar: bool = False, *args: Any, **kwargs: Any) -> None:
        """Log a value as Lightning does; a repeated step value takes a shorter way.

        Lightning reads what goes to a progress bar from the device at every step, even where no bar is shown.
        """
        options = {"prog_bar": prog_bar and self._step_log.progress_is_shown, **kwargs}
        if not self._step_log.update(name, value, args, options):
            super().log(name, value, options["prog_bar"], *args, **kwargs)
            self._step_log.remember(name, args, options)

    def _loss(self, draw: Draw) -> Tensor:
        objective = self.plan.objective
        loss = checked_loss(
            objective.loss(draw, self.state), f"Method `loss` of {type(objective).__name__}", "Return a scalar."
        )
        if not loss.requires_grad:
            raise ConfigurationError(
                f"The loss of {type(objective).__name__} is expected to lead to weights that are trained, but got "
                "one without a gradient. Leave out `detach` and `no_grad`, and let some weights of every subnet "
                "require gradients."
            )
        return loss

    def _task_loss(self) -> Tensor:
        output = self.training_module.training_step(self.state.batch, self.state.batch_idx)
        loss = output.get("loss") if isinstance(output, dict) else output
        return checked_loss(
            loss,
            "Method `training_step` of the evaluator",
            "Return the mean loss; leave batches out in the data set or its `collate_fn`: every batch is a step.",
        )

    def _zero_grad(self, optimizer: Any, batch_idx: int) -> None:
        if self.plan.set_to_none:
            self.training_module.optimizer_zero_grad(self.current_epoch, batch_idx, optimizer)
        else:
            optimizer.zero_grad(set_to_none=False)

    def _update(self, optimizer: Any, batch_idx: int, pending: Sequence[Any]) -> None:
        """Apply the gradients of ``pending``; hooks run inside, once gradients are unscaled."""
        self.state.pending = pending
        self.training_module.optimizer_step(self.current_epoch, batch_idx, optimizer)
        for hook in self._hooks["on_after_update"]:
            hook(self.state, optimizer.optimizer)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Run the hooks before an update and clip; Lightning has unscaled the gradients by now."""
        for hook in self._hooks["on_before_update"]:
            hook(self.state, optimizer)
        rate = optimizer.param_groups[0]["lr"]
        # A rate in a tensor is changed in place.
        self.state.learning_rate = rate.clone() if isinstance(rate, Tensor) else rate
        self.training_module.on_before_optimizer_step(optimizer)
        threshold = self.plan.gradient_clip_val
        if threshold is not None:
            self.training_module.configure_gradient_clipping(
                optimizer, threshold * self.state.gradient_scale, self.plan.gradient_clip_algorithm
            )
        elif self._own_clipping is not None:
            self._own_clipping(optimizer, None, None)

    def on_fit_end(self) -> None:
        """Report as usual; a run that was finished already reports what its checkpoint says."""
        restored = self._checkpoint.restored
        if restored is not None:
            transfer_averages(self.trainer, self)
            values = restored["metrics"]
            self.trainer.callback_metrics.update({name: torch.tensor(value) for name, value in values.items()})
        super().on_fit_end()

    def on_train_epoch_end(self) -> None:
        """Look at losses that were not looked at yet."""
        self._guard.look(self.trainer)
        super().on_train_epoch_end()

    # Validation

    def on_validation_model_zero_grad(self) -> None:
        """Do as a step would: validation must not decide which weights go on moving."""
        if self.plan.set_to_none:
            super().on_validation_model_zero_grad()
        else:
            self.zero_grad(set_to_none=False)

    def on_validation_epoch_start(self) -> None:
        """Prepare the fixed subnets: recalibrated BN statistics for each."""
        self.validation.start(self)
        self.training_module.on_validation_epoch_start()

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Validate every fixed subnet on the batch and log each under its name."""
        self.validation.step(self, batch, batch_idx, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        """Log what is known only at the end."""
        self.validation.end(self)
        self.training_module.on_validation_epoch_end()

    def on_validation_end(self) -> None:
        """Keep the fixed subnets' metrics."""
        if not self.trainer.sanity_checking:
            self.validation.collect(self.trainer.callback_metrics)
        super().on_validation_end()

    def cleanup(self) -> None:
        """Leave the trainer, the evaluator's module and the active subnet as they were, whatever happened."""
        prepared, self._prepared = self._prepared, []
        self.state.batch = None
        self.training_module.__dict__.pop("log", None)
        steps = [self._cleanup.close, *(part.finish for part in prepared), self.validation.close]
        do_all(steps, failed=self.plan.trainer.interrupted)

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the state of the step and of every component to the checkpoint."""
        self._guard.look(self.trainer)
        self.training_module.on_save_checkpoint(checkpoint)
        self._checkpoint.save(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint belongs to this configuration and remember its state."""
        self.training_module.on_load_checkpoint(checkpoint)
        self.validation.results = self._checkpoint.load(checkpoint)["validation"]
        if isinstance(self.trainer.precision_plugin, DoublePrecision):
            # Lightning does so after it has filled the weights, which then have lost half their digits.
            self.trainer.precision_plugin.convert_module(self)

    def restored_state(self, part: Component) -> dict[str, Any]:
        """Return a component's state in the checkpoint of a run that was over already and trains no further."""
        return self._checkpoint.state_of(part)
