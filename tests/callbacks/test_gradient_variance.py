"""Gradient variance in the host, against stored gradients and untouched training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning.plugins.precision import MixedPrecision

from nni_supernet_ext.callbacks import GradientVariance, PathTrainability
from nni_supernet_ext.core import SupernetCallback
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.testing import MethodCase
from nni_supernet_ext.testing.stop import StopAfter
from nni_supernet_ext.testing.training import train

CASE = MethodCase("case", dict)


class Stored(SupernetCallback):
    """Keep every gradient of every step: what the callback must not need."""

    def __init__(self) -> None:
        self.epochs: list[dict[int, list[np.ndarray]]] = [{}]

    def on_before_update(self, state: Any, optimizer: Any) -> None:
        for index, p in enumerate(optimizer.param_groups[0]["params"]):
            if p.grad is not None:
                self.epochs[-1].setdefault(index, []).append(p.grad.double().numpy().copy())

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.epochs.append({})

    def value(self, epoch: int) -> float:
        repeated = [np.stack(g) for g in self.epochs[epoch].values() if len(g) > 1]
        return sum(g.var(axis=0).sum() for g in repeated) / sum(g[0].size for g in repeated)


def test_equals_the_variance_of_stored_gradients(tmp_path: Path) -> None:
    variance, stored = GradientVariance(), Stored()
    run = train(CASE, {"callbacks": [variance, stored], "gradient_clip_val": 0.001}, tmp_path, epochs=2)
    np.testing.assert_allclose(variance.history, [stored.value(0), stored.value(1)], rtol=1e-4)
    assert variance.history[0] > 0
    logged = run.evaluator.trainer.callback_metrics["gradient_variance"]
    assert float(logged) == pytest.approx(variance.history[-1])


def test_every_other_step(tmp_path: Path) -> None:
    variance = GradientVariance(every=2)
    steps: list[int] = []
    variance._moments.add = lambda tensors, gradients: steps.append(len(tensors))  # type: ignore[method-assign]
    moments = variance._moments

    class Keep(SupernetCallback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            variance._moments = moments

        def on_draws(self, state: Any) -> None:
            variance._moments = moments

    train(CASE, {"callbacks": [variance, Keep()]}, tmp_path, epochs=1)
    assert len(steps) == 2


def test_history_goes_on_after_a_resume(tmp_path: Path) -> None:
    whole = GradientVariance()
    train(CASE, {"callbacks": [whole]}, tmp_path / "whole", epochs=2)
    folder = {"checkpoint_dir": tmp_path / "checkpoint"}
    train(CASE, {"callbacks": [GradientVariance(), StopAfter(1)], **folder}, tmp_path / "half", epochs=2)
    rest = GradientVariance()
    train(CASE, {"callbacks": [rest], **folder}, tmp_path / "half", epochs=2)
    assert rest.history == whole.history


def test_memory_is_one_copy_of_the_weights(tmp_path: Path) -> None:
    variance = GradientVariance()
    variance.on_fit_end = lambda trainer, pl_module: None  # type: ignore[method-assign]
    run = train(CASE, {"callbacks": [variance]}, tmp_path, epochs=2)
    weights = sum(p.numel() for p in run.strategy.trained.model.parameters())
    kept = sum(t.numel() for t in (*variance._moments._means, *variance._moments._squares))
    assert kept <= weights + len(list(run.strategy.trained.model.parameters()))


def test_an_epoch_that_measures_no_weight_twice_has_no_variance(tmp_path: Path) -> None:
    variance = GradientVariance(every=5)
    run = train(CASE, {"callbacks": [variance]}, tmp_path, epochs=2)  # four steps an epoch
    assert len(variance.history) == 2 and all(map(math.isnan, variance.history))
    assert "gradient_variance" not in run.evaluator.trainer.callback_metrics


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (GradientVariance(every=0), "`every` is expected to be a positive integer"),
        (PathTrainability(n_paths=0), "`n_paths` is expected to be a positive integer"),
        (PathTrainability(n_examples=1), "`n_examples` is expected to be an integer of at least 2"),
    ],
)
def test_refusals(tmp_path: Path, callback: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        train(CASE, {"callbacks": [callback]}, tmp_path)


def test_steps_that_loss_scaling_skips_are_left_out(tmp_path: Path) -> None:
    """A scale that is far too large makes the first gradients infinite, and those steps are not made."""

    class Finite(Stored):
        skipped = 0

        def on_before_update(self, state: Any, optimizer: Any) -> None:
            for index, p in enumerate(optimizer.param_groups[0]["params"]):
                finite = p.grad is not None and bool(p.grad.isfinite().all())
                self.skipped += p.grad is not None and not finite
                if finite:
                    self.epochs[-1].setdefault(index, []).append(p.grad.double().numpy().copy())

    stored, variance = Finite(), GradientVariance()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24, growth_interval=3)
    precision = MixedPrecision("16-mixed", "cpu", scaler=scaler)
    settings = {"callbacks": [stored, variance]}
    train(CASE, settings, tmp_path, epochs=5, evaluator_arguments={"plugins": [precision]})
    assert stored.skipped > 0
    assert variance.history[-2:] == pytest.approx([stored.value(3), stored.value(4)], rel=1e-4)
    assert not np.isinf(variance.history).any()


class Reached(Stored):
    """Keep the gradients of the weights that the drawn subnet computes with, by the toy space's own names."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        names = {id(p): name for name, p in pl_module.plan.supernet.model.named_parameters()}
        self.names = [names[id(p)] for p in pl_module.plan.optimizer.param_groups[0]["params"]]

    def on_before_update(self, state: Any, optimizer: Any) -> None:
        candidates = {draw.sample["op"] for draw in state.pending}
        for index, (name, p) in enumerate(zip(self.names, optimizer.param_groups[0]["params"], strict=True)):
            if not name.startswith("op.") or name.split(".")[1] in candidates:
                self.epochs[-1].setdefault(index, []).append(p.grad.double().numpy().copy())


@pytest.mark.parametrize("step_every", ["batch", "subnet"])
def test_zeroed_gradients_do_not_count_as_steps_that_reached_a_weight(tmp_path: Path, step_every: str) -> None:
    variance, reached, all_kept = GradientVariance(), Reached(), Stored()
    settings = {"callbacks": [variance, reached, all_kept], "set_to_none": False, "step_every": step_every}
    run = train(CASE, settings, tmp_path, epochs=3)
    assert any(name.startswith("op.") for name in reached.names)
    expected = [reached.value(epoch) for epoch in range(3)]
    assert variance.history == pytest.approx(expected, rel=1e-4)
    assert expected[-1] != pytest.approx(all_kept.value(2), rel=1e-2), "the run does not tell the two apart"
    assert not any(p._post_accumulate_grad_hooks for p in run.strategy.trained.model.parameters())
