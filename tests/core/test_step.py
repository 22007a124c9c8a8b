"""The training step in the host: order of events, clipping, scaling, schedules, precision, logging."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger

from nni_supernet_ext.core import Draw, Objective, PathSampler, SupernetCallback
from nni_supernet_ext.errors import ConfigurationError, TrainingDivergedError
from nni_supernet_ext.strategies import SupernetStrategy
from nni_supernet_ext.testing import MethodCase, ToySpace, toy_evaluator
from nni_supernet_ext.testing.toys import ToyModule
from nni_supernet_ext.testing.training import train

CONV = {"op": "conv", "width": 8}
SKIP = {"op": "skip", "width": 4}


def _case(**arguments):
    return MethodCase("case", dict, **arguments)


class Fixed(PathSampler):
    """The given draws in every step."""

    def __init__(self, *draws):
        self._draws = draws
        self.draws_per_step = len(draws)

    def draws(self, rng, state):
        return self._draws


class Gradients(SupernetCallback):
    """Keep the norm of the gradient and its largest element at every update, before and after clipping."""

    def __init__(self):
        self.before, self.after = [], []

    def on_before_update(self, state, optimizer):
        self.before.append(self._measure(optimizer))

    def on_after_update(self, state, optimizer):
        self.after.append(self._measure(optimizer))

    @staticmethod
    def _measure(optimizer):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        flat = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        return flat.norm().item(), flat.abs().max().item()


@pytest.mark.parametrize(("promised", "given"), [(1, 0), (None, 0), (1, 2), (2, 1)])
def test_a_sampler_that_returns_other_draws_than_it_says_is_refused(tmp_path, promised, given):
    sampler = Fixed(*[Draw(CONV)] * given)
    sampler.draws_per_step = promised
    with pytest.raises(ConfigurationError, match=rf"`draws` of Fixed is expected to return .*, but got {given}"):
        train(_case(), {"paths": sampler}, tmp_path)


def test_roles_and_agreement_that_a_sampler_promises_are_held_to(tmp_path):
    sampler = Fixed(Draw(CONV, role="largest"), Draw(SKIP, role="small"))
    sampler.roles = ("largest", "smallest")
    with pytest.raises(ConfigurationError, match=r"roles \['largest', 'smallest'\].* got \['largest', 'small'\]"):
        train(_case(), {"paths": sampler}, tmp_path)
    sampler.roles, sampler.shared_choices = None, ("op",)
    with pytest.raises(ConfigurationError, match=r"agree on 'op'.* got \['conv', 'skip'\]"):
        train(_case(), {"paths": sampler}, tmp_path)


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_clipping_limits_what_the_optimizer_sees(tmp_path, algorithm):
    gradients = Gradients()
    settings = {"gradient_clip_val": 0.05, "gradient_clip_algorithm": algorithm, "callbacks": [gradients]}
    train(_case(), settings, tmp_path)
    measure = 0 if algorithm == "norm" else 1
    assert all(before[measure] > 0.05 for before in gradients.before)
    assert all(after[measure] == pytest.approx(0.05, rel=1e-3) for after in gradients.after)


def test_gradients_of_several_draws_sum_to_that_of_the_summed_loss(tmp_path):
    kept = []

    class Keep(SupernetCallback):
        def on_before_update(self, state, optimizer):
            if not kept:
                parameters = optimizer.param_groups[0]["params"]
                kept.append([None if p.grad is None else p.grad.clone() for p in parameters])
                kept.append((state.batch[0].clone(), state.batch[1].clone()))

    paths = Fixed(Draw(CONV), Draw(SKIP, weight=0.25))
    run = train(_case(), {"paths": paths, "callbacks": [Keep()]}, tmp_path, epochs=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        space = ToySpace()
        SupernetStrategy().mutate_model(space)
    x, y = kept[1]
    total = torch.zeros(())
    for sample, weight in ((CONV, 1.0), (SKIP, 0.25)):
        for module in space.modules():
            if hasattr(module, "resample"):
                module.resample(memo=dict(sample))
        total = total + weight * torch.nn.functional.cross_entropy(space(x), y)
    total.backward()
    for p, gradient in zip(space.parameters(), kept[0], strict=True):
        if p.grad is None:
            assert gradient is None
        else:
            torch.testing.assert_close(gradient, p.grad, rtol=1e-4, atol=1e-6)
    assert run.strategy.module.state.iteration == 4


def test_one_backward_graph_at_a_time(tmp_path):
    """Memory of one: a draw's graph has been used up before the next draw's forward pass."""
    kept = []

    class Watch(Objective):
        def loss(self, draw, state):
            if state.index == 1:
                with pytest.raises(RuntimeError, match="second time"):
                    kept[-1].backward()
            kept.append(state.task_loss())
            return kept[-1]

    train(_case(), {"paths": Fixed(Draw(CONV), Draw(SKIP)), "objective": Watch()}, tmp_path, epochs=1)
    assert len(kept) == 8


@pytest.mark.parametrize("set_to_none", [True, False])
def test_unsampled_weights_stay_or_decay(tmp_path, set_to_none):
    class Alternate(PathSampler):
        def draws(self, rng, state):
            return [Draw(CONV if state.iteration == 0 else SKIP)]

    snapshots = []

    class Watch(SupernetCallback):
        def on_after_update(self, state, optimizer):
            snapshots.append(run_space[0].op["conv"].weight.detach().clone())

    run_space = []

    class Space(ToySpace):
        def __init__(self):
            super().__init__()
            run_space.append(self)

    settings = {"paths": Alternate(), "callbacks": [Watch()], "set_to_none": set_to_none}
    train(_case(space=Space), settings, tmp_path, epochs=1)
    moved = [not torch.equal(a, b) for a, b in pairwise(snapshots)]
    assert moved == [not set_to_none] * 3


def test_unsampled_weights_go_on_moving_after_a_validation(tmp_path):
    class Once(PathSampler):
        def draws(self, rng, state):
            return [Draw(CONV if state.iteration == 0 else SKIP)]

    snapshots = []

    class Watch(SupernetCallback):
        def prepare(self, plan):
            self.weight = plan.supernet.model.op["conv"].weight

        def on_after_update(self, state, optimizer):
            snapshots.append(self.weight.detach().clone())

    train(_case(), {"paths": Once(), "callbacks": [Watch()], "set_to_none": False}, tmp_path, epochs=3)
    assert len(snapshots) == 12 and all(not torch.equal(a, b) for a, b in pairwise(snapshots))


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_schedulers_of_the_evaluator_are_stepped(tmp_path, interval):
    class Module(ToyModule):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
            scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": interval}}

    def evaluator(**arguments):
        made = toy_evaluator(**arguments)
        made.module.__class__ = Module
        return made

    run = train(_case(evaluator=evaluator), {"gradient_clip_val": 0.01}, tmp_path)
    expected = [0.5**t for t in range(8)] if interval == "step" else [1.0] * 4 + [0.5] * 4
    assert run.rates == pytest.approx(expected)


def test_plateau_scheduler_is_refused(tmp_path):
    class Module(ToyModule):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "val_loss"}}

    def evaluator(**arguments):
        made = toy_evaluator(**arguments)
        made.module.__class__ = Module
        return made

    with pytest.raises(ConfigurationError, match=r"but got ReduceLROnPlateau\. Use for example"):
        train(_case(evaluator=evaluator), {}, tmp_path)


def test_two_optimizers_are_refused(tmp_path):
    class Module(ToyModule):
        def configure_optimizers(self):
            return [torch.optim.SGD(self.parameters(), lr=0.1), torch.optim.SGD(self.parameters(), lr=0.1)]

    def evaluator(**arguments):
        made = toy_evaluator(**arguments)
        made.module.__class__ = Module
        return made

    with pytest.raises(ConfigurationError, match="expected to return one optimizer, but got 2"):
        train(_case(evaluator=evaluator), {}, tmp_path)


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_precisions_train(tmp_path, precision):
    gradients = Gradients()
    settings = {"gradient_clip_val": 0.05, "callbacks": [gradients]}
    run = train(_case(), settings, tmp_path, evaluator_arguments={"precision": precision})
    assert all(math.isfinite(norm) for norm, _ in gradients.before)
    assert all(after[0] <= 0.0501 for after in gradients.after)
    assert run.weights["head.weight"].dtype == (torch.float64 if precision == "64-true" else torch.float32)


def test_gradients_are_unscaled_before_hooks_and_clipping(tmp_path, monkeypatch):
    """With a gradient scaler (as under fp16) the hooks see gradients in their real size."""
    from pytorch_lightning.plugins.precision import MixedPrecision

    def evaluator(**arguments):
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        return toy_evaluator(**arguments, plugins=[MixedPrecision("16-mixed", "cpu", scaler=scaler)])

    # The toy loss is far from overflow: compute in bf16 instead of fp16, which the CPU kernels support best.
    scaled, plain = Gradients(), Gradients()
    train(_case(evaluator=evaluator), {"gradient_clip_val": 0.05, "callbacks": [scaled]}, tmp_path, epochs=1)
    train(_case(), {"gradient_clip_val": 0.05, "callbacks": [plain]}, tmp_path, epochs=1)
    assert scaled.before[0][0] == pytest.approx(plain.before[0][0], rel=0.05)
    assert all(after[0] <= 0.0501 for after in scaled.after)


def test_hooks_of_the_users_module_run(tmp_path):
    called = []

    class Module(ToyModule):
        def on_before_optimizer_step(self, optimizer):
            called.append("on_before_optimizer_step")

        def on_after_batch_transfer(self, batch, dataloader_idx):
            called.append("on_after_batch_transfer")
            return batch

        def on_validation_epoch_end(self):
            called.append("on_validation_epoch_end")

        def on_validation_batch_start(self, batch, batch_idx, dataloader_idx=0):
            called.append("on_validation_batch_start")

        def on_save_checkpoint(self, checkpoint):
            called.append("on_save_checkpoint")

        def configure_callbacks(self):
            called.append("configure_callbacks")
            return []

    def evaluator(**arguments):
        made = toy_evaluator(**arguments)
        made.module.__class__ = Module
        return made

    train(_case(evaluator=evaluator), {}, tmp_path, epochs=1)
    assert set(called) == {
        "on_before_optimizer_step",
        "on_after_batch_transfer",
        "on_validation_epoch_end",
        "on_validation_batch_start",
        "on_save_checkpoint",
        "configure_callbacks",
    }
    assert called.count("on_before_optimizer_step") == 4


def test_short_log_equals_lightnings(tmp_path, monkeypatch):
    """The shortened way of logging leaves the same values everywhere a user looks."""
    from nni_supernet_ext._compat.lightning_log import StepLog

    def run(name, shortened):
        seen, taken = [], []
        original = StepLog.update

        def update(self, *arguments):
            stored = shortened and original(self, *arguments)
            taken.append(stored)
            return stored

        monkeypatch.setattr(StepLog, "update", update)

        class Watch(pl.Callback):
            def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
                seen.append({k: float(v) for k, v in trainer.callback_metrics.items()})
                seen.append(dict(trainer.progress_bar_metrics))

        logger = CSVLogger(str(tmp_path / name))
        arguments = {
            "callbacks": [Watch()],
            "logger": logger,
            "log_every_n_steps": 2,
            "enable_progress_bar": True,
        }
        train(_case(), {}, tmp_path, evaluator_arguments=arguments)
        monkeypatch.setattr(StepLog, "update", original)
        return seen, logger.experiment.metrics_file_path, taken

    short, short_file, taken = run("short", shortened=True)
    full, full_file, _ = run("full", shortened=False)
    assert sum(taken) >= 6
    assert all("train_loss" in shown for shown in short[1::2])
    assert short == full
    with open(short_file) as a, open(full_file) as b:
        assert a.read() == b.read()


def test_logging_without_a_trainer_does_what_lightning_does(tmp_path):
    kept = []

    class Keep(pl.Callback):
        def on_fit_start(self, trainer, module):
            kept.append(module)

    train(_case(), {}, tmp_path, epochs=1, evaluator_arguments={"callbacks": [Keep()]})
    kept[0].trainer = None
    with pytest.warns(UserWarning, match="reference is not registered on the model"):
        kept[0].log("outside", 1.0, True)


def test_nonfinite_loss_stops_with_the_subnet_named_and_a_checkpoint(tmp_path):
    class Explode(Objective):
        def loss(self, draw, state):
            loss = state.task_loss()
            return loss * float("nan") if state.iteration == 5 else loss

    with pytest.raises(TrainingDivergedError, match=r"got nan at iteration 5 for the subnet \[width=") as error:
        train(_case(), {"objective": Explode()}, tmp_path)
    path = tmp_path / "before_nonfinite_loss.ckpt"
    assert str(path) in str(error.value)
    saved = torch.load(path, weights_only=True)
    assert saved["nni_supernet_ext"]["iteration"] == 5
    assert all(torch.isfinite(value).all() for value in saved["state_dict"].values())


def test_progress_bar_shows_role_and_rate(tmp_path):
    from pytorch_lightning.callbacks import TQDMProgressBar

    shown = []

    class Bar(TQDMProgressBar):
        def on_train_batch_end(self, *arguments, **options):
            super().on_train_batch_end(*arguments, **options)
            shown.append(self.get_metrics(arguments[0], arguments[1]))

    bar = Bar()
    arguments = {"callbacks": [bar], "enable_progress_bar": True}
    paths = Fixed(Draw(CONV, role="largest"))
    train(_case(), {"paths": paths}, tmp_path, epochs=1, evaluator_arguments=arguments)
    assert shown[0]["role"] == "largest"
    assert shown[0]["lr"] == "5.00e-02"
    assert "train_loss" in shown[0]
    assert "get_metrics" not in vars(bar)
