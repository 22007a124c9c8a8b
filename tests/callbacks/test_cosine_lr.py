"""The cosine learning rate, in a plain trainer and in a supernet's training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from nni.nas.experiment import NasExperiment

from nni_supernet_ext.callbacks import ComplexityAwareLR
from nni_supernet_ext.callbacks.cosine_lr import CosineLR
from nni_supernet_ext.core import Draw, PathSampler
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.strategies import SupernetStrategy
from nni_supernet_ext.testing import ToySpace, toy_evaluator, toy_supernet

# 0.05 * (1 + cos(pi * t / 4)) / 2 by hand: cos 0, 45, 90 and 135 degrees
HALF_COSINE = [0.05, 0.05 * 0.8535533906, 0.025, 0.05 * 0.1464466094]


class RatesInForce(pl.Callback):
    """Look at the optimizer where the step is made: inside it."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        trainer.optimizers[0].register_step_post_hook(
            lambda optimizer, *_: self.rates.append([float(group["lr"]) for group in optimizer.param_groups])
        )

    @property
    def first_group(self) -> list[float]:
        return [rates[0] for rates in self.rates]


class SaveAfter(pl.Callback):
    """Write a checkpoint after a number of steps."""

    def __init__(self, steps: int, path: Path) -> None:
        self.steps, self.path = steps, path

    def on_train_batch_end(self, trainer: Any, *arguments: Any) -> None:
        if trainer.global_step == self.steps:
            trainer.save_checkpoint(self.path)


def train_plain(tmp_path: Path, *callbacks: pl.Callback, epochs: int = 1, **arguments: Any) -> Any:
    checkpoint = arguments.pop("ckpt_path", None)
    arguments = {"root": tmp_path, "enable_checkpointing": False, **arguments}
    evaluator = toy_evaluator(epochs, callbacks=list(callbacks), **arguments)
    if checkpoint is not None:
        # NNI's evaluator module puts classes among its hyper-parameters.
        evaluator.fit_kwargs.update(ckpt_path=checkpoint, weights_only=False)
    evaluator.evaluate(toy_supernet().extract({"op": "conv", "width": 4}))
    return evaluator


def train_supernet(tmp_path: Path, *callbacks: pl.Callback, **arguments: Any) -> None:
    epochs = arguments.pop("epochs", 1)
    strategy = SupernetStrategy(callbacks=list(callbacks), checkpoint_dir=tmp_path / "supernet", **arguments)
    experiment = NasExperiment(ToySpace(), toy_evaluator(epochs, root=tmp_path), strategy)
    experiment.config.experiment_working_directory = str(tmp_path)
    experiment.run()


CAPTURED = torch.tensor(0.05)


def captured(parameters: Any, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=CAPTURED, foreach=False)


def two_groups(parameters: Any, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    first, *rest = parameters
    return torch.optim.SGD([{"params": [first], "lr": 0.2}, {"params": rest}], lr=lr)


class TwoDraws(PathSampler):
    """Train two fixed subnets in every step."""

    draws_per_step = 2

    def draws(self, rng: Any, state: Any) -> list[Draw]:
        return [Draw({"op": op, "width": 4}) for op in ("conv", "skip")]


def test_plain_training_follows_the_hand_computed_half_cosine(tmp_path: Path) -> None:
    seen = RatesInForce()
    train_plain(tmp_path, seen, CosineLR())
    assert seen.first_group == pytest.approx(HALF_COSINE)


def test_supernet_training_follows_the_hand_computed_half_cosine(tmp_path: Path) -> None:
    seen = RatesInForce()
    train_supernet(tmp_path, seen, CosineLR())
    assert seen.first_group == pytest.approx(HALF_COSINE)


def test_long_run_equals_torch_cosine_annealing(tmp_path: Path) -> None:
    seen = RatesInForce()
    train_plain(tmp_path, CosineLR(min_lr=0.01), seen, epochs=5)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20, eta_min=0.01)
    expected = []
    for _ in range(20):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert seen.first_group == pytest.approx(expected, rel=1e-6)


def test_several_steps_per_batch_share_the_rate_of_the_batch(tmp_path: Path) -> None:
    seen = RatesInForce()
    train_supernet(tmp_path, CosineLR(), seen, paths=TwoDraws(), step_every="subnet")
    assert seen.first_group == pytest.approx([rate for rate in HALF_COSINE for _ in range(2)])


def test_warmup_rises_to_the_base_rate_and_then_falls() -> None:
    schedule = CosineLR(warmup_iterations=3)
    rates = [schedule.rate(base=0.4, iteration=t, total_iterations=7) for t in range(7)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4 * 0.8535533906, 0.2, 0.4 * 0.1464466094])


def test_every_group_follows_its_own_base_rate(tmp_path: Path) -> None:
    seen = RatesInForce()
    train_plain(tmp_path, CosineLR(), seen, optimizer=two_groups)
    assert [group for group, _ in seen.rates] == pytest.approx([4 * rate for rate in HALF_COSINE])
    assert [group for _, group in seen.rates] == pytest.approx(HALF_COSINE)


def test_a_rate_in_a_tensor_is_written_into_that_tensor(tmp_path: Path) -> None:
    CAPTURED.fill_(0.05)
    seen = RatesInForce()
    train_plain(tmp_path, CosineLR(), seen, optimizer=captured)
    assert seen.first_group == pytest.approx(HALF_COSINE)
    assert float(CAPTURED) == pytest.approx(0.05)  # the base rate again, in the very same tensor


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
@pytest.mark.parametrize("steps", [6, 8], ids=["inside an epoch", "at its end"])
def test_resumed_run_goes_on_exactly(tmp_path: Path, steps: int) -> None:
    whole = RatesInForce()
    path = tmp_path / "kept.ckpt"
    train_plain(tmp_path, CosineLR(), whole, SaveAfter(steps, path), epochs=3)
    resumed = RatesInForce()
    train_plain(tmp_path, CosineLR(), resumed, epochs=3, ckpt_path=str(path))
    assert len(whole.rates) == 12
    assert resumed.first_group == whole.first_group[steps:]


def test_max_steps_ends_the_cosine(tmp_path: Path) -> None:
    seen = RatesInForce()
    train_plain(tmp_path, CosineLR(), seen, epochs=5, max_steps=4)
    assert seen.first_group == pytest.approx(HALF_COSINE)


def test_plain_progress_bar_gets_the_rate(tmp_path: Path) -> None:
    evaluator = train_plain(tmp_path, CosineLR())
    assert float(evaluator.trainer.callback_metrics["lr"]) == pytest.approx(HALF_COSINE[-1])


def test_second_owner_of_the_rate_is_refused_in_a_supernet(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"`lr` is expected to have one owner.*CosineLR"):
        train_supernet(tmp_path, CosineLR(), ComplexityAwareLR())


def test_second_owner_of_the_rate_is_refused_in_a_plain_trainer(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"one owner, but got 2: CosineLR, ComplexityAwareLR. Keep one"):
        train_plain(tmp_path, CosineLR(), ComplexityAwareLR())


def test_scheduler_of_the_module_is_refused_in_a_plain_trainer(tmp_path: Path) -> None:
    evaluator = toy_evaluator(1, root=tmp_path, callbacks=[CosineLR()])
    module = evaluator.module
    stock = module.configure_optimizers

    def configure_optimizers() -> Any:
        optimizer = stock()
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    module.configure_optimizers = configure_optimizers
    with pytest.raises(ConfigurationError, match=r"CosineLR, StepLR. Keep one"):
        evaluator.evaluate(toy_supernet().extract({"op": "conv", "width": 4}))


def test_bad_arguments_are_refused_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"2 problems(.|\n)*`min_lr`(.|\n)*`warmup_iterations`"):
        train_plain(tmp_path, CosineLR(min_lr=-1, warmup_iterations=-2))
    with pytest.raises(ConfigurationError, match=r"`min_lr`.*at most the base learning rate, but got 0.1"):
        train_supernet(tmp_path, CosineLR(min_lr=0.1))
    with pytest.raises(ConfigurationError, match=r"`min_lr`.*at most the base learning rate, but got 0.1"):
        train_plain(tmp_path, CosineLR(min_lr=0.1))


def test_endless_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="known number of iterations for CosineLR"):
        train_plain(tmp_path, CosineLR(), epochs=-1)


def test_a_rate_that_is_no_number_is_refused(tmp_path: Path) -> None:
    message = "`min_lr` is expected to be a number of at least 0, but got '0.1'"
    with pytest.raises(ConfigurationError, match=message):
        train_plain(tmp_path, CosineLR(min_lr="0.1"))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=message):
        strategy = SupernetStrategy(callbacks=[CosineLR(min_lr="0.1")])  # type: ignore[arg-type]
        NasExperiment(ToySpace(), toy_evaluator(1, root=tmp_path), strategy).run()
