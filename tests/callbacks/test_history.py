"""The training history: what was recorded is what happened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from nni.nas.experiment import NasExperiment

from nni_supernet_ext.callbacks import ComplexityAwareLR
from nni_supernet_ext.callbacks.cosine_lr import CosineLR
from nni_supernet_ext.callbacks.history import TrainingHistory
from nni_supernet_ext.core import Draw, PathSampler, SupernetCallback
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.strategies import SupernetStrategy
from nni_supernet_ext.testing import ToySpace, toy_evaluator, toy_supernet


class Witness(SupernetCallback):
    """Write down every draw at once, the slow way.

    Lightning runs its hooks inside the optimizer's step, so the rate in force is known after it only.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[int, float, str, dict[str, Any]]] = []
        self.rates: list[float] = []

    def on_after_draw(self, state: Any) -> None:
        self.seen.append((state.iteration, float(state.loss), state.draw.role, dict(state.draw.sample)))

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        trainer.optimizers[0].register_step_post_hook(
            lambda optimizer, *_: self.rates.append(optimizer.param_groups[0]["lr"])
        )


class SaveAfter(pl.Callback):
    """Write a checkpoint after a number of steps."""

    def __init__(self, steps: int, path: Path) -> None:
        self.steps, self.path = steps, path

    def on_train_batch_end(self, trainer: Any, *arguments: Any) -> None:
        if trainer.global_step == self.steps:
            trainer.save_checkpoint(self.path)


class Sandwich(PathSampler):
    """Train a fixed subnet and a random one whose labels come in another order."""

    draws_per_step = 2

    def prepare(self, plan: Any) -> None:
        self.domain = plan.supernet.domain

    def draws(self, rng: Any, state: Any) -> list[Draw]:
        drawn = self.domain.random(rng)
        return [
            Draw({"op": "conv", "width": 8}, role="largest", weight=2.0),
            Draw(dict(reversed(sorted(drawn.items())))),
        ]


def train(tmp_path: Path, *callbacks: pl.Callback, epochs: int = 2, **arguments: Any) -> None:
    strategy = SupernetStrategy(callbacks=list(callbacks), checkpoint_dir=tmp_path / "supernet", **arguments)
    torch.manual_seed(0)
    experiment = NasExperiment(ToySpace(), toy_evaluator(epochs, root=tmp_path), strategy)
    experiment.config.experiment_working_directory = str(tmp_path)
    experiment.run()


@pytest.mark.parametrize("first", [True, False], ids=["before CaLR", "after CaLR"])
def test_rows_are_what_a_witness_saw(tmp_path: Path, first: bool) -> None:
    history, witness = TrainingHistory(), Witness()
    callbacks = [history, ComplexityAwareLR()] if first else [ComplexityAwareLR(), history]
    train(tmp_path, *callbacks, witness)
    rows = history.rows()
    assert [(r["iteration"], r["loss"], r["role"], r["sample"]) for r in rows] == witness.seen
    assert [r["learning_rate"] for r in rows] == witness.rates
    assert len(rows) == 8
    assert len(set(witness.rates)) == 8  # the rate that CaLR gave each step, not the base rate


def test_several_draws_make_several_rows_with_their_factors(tmp_path: Path) -> None:
    history, witness = TrainingHistory(), Witness()
    train(tmp_path, history, witness, paths=Sandwich(), epochs=1)
    rows = history.rows()
    assert [(r["iteration"], r["loss"], r["role"], r["sample"]) for r in rows] == witness.seen
    assert history.arrays()["iteration"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert history.arrays()["scale"].tolist() == [2.0, 1.0] * 4
    assert history.arrays()["learning_rate"].tolist() == [0.05] * 8


def test_rates_belong_to_their_own_step_with_one_step_per_draw(tmp_path: Path) -> None:
    history, witness = TrainingHistory(), Witness()
    train(tmp_path, history, witness, ComplexityAwareLR(), paths=Sandwich(), epochs=1, step_every="subnet")
    assert history.arrays()["learning_rate"].tolist() == witness.rates
    assert len(witness.rates) == 8


def test_interval_keeps_every_third_batch(tmp_path: Path) -> None:
    history, witness = TrainingHistory(every=3), Witness()
    train(tmp_path, history, witness, CosineLR())
    assert history.arrays()["iteration"].tolist() == [0, 3, 6]
    assert history.arrays()["loss"].tolist() == [witness.seen[i][1] for i in (0, 3, 6)]
    assert history.arrays()["learning_rate"].tolist() == [witness.rates[i] for i in (0, 3, 6)]


def test_losses_move_in_chunks_and_not_at_each_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moves: list[int] = []
    stock = TrainingHistory._move

    def counting(self: TrainingHistory) -> None:
        moves.append(len(self._waiting))
        stock(self)

    monkeypatch.setattr(TrainingHistory, "_move", counting)
    monkeypatch.setattr("nni_supernet_ext.callbacks.history._CHUNK", 3)
    history = TrainingHistory()
    train(tmp_path, history, epochs=1)
    assert moves[:2] == [3, 1]  # four steps: one full chunk, the rest at the end of the epoch


def test_measured_gives_each_row_its_own_complexity(tmp_path: Path) -> None:
    history = TrainingHistory()
    train(tmp_path, history)
    calls: list[int] = []

    def width(sample: dict[str, Any]) -> float:
        calls.append(1)
        return sample["width"]

    assert history.measured(width).tolist() == [row["sample"]["width"] for row in history.rows()]
    assert len(calls) == len({repr(row["sample"]) for row in history.rows()})


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists")
def test_resumed_training_appends_to_the_saved_rows(tmp_path: Path) -> None:
    whole = TrainingHistory()
    train(tmp_path / "whole", whole, CosineLR(), epochs=2, validate=0)

    class Stop(pl.Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 1:
                raise RuntimeError("stopped on purpose")

    broken = TrainingHistory()
    strategy = SupernetStrategy(
        callbacks=[broken, CosineLR(), Stop()], checkpoint_dir=tmp_path / "resumed" / "supernet", validate=0
    )
    torch.manual_seed(0)
    experiment = NasExperiment(ToySpace(), toy_evaluator(2, root=tmp_path), strategy)
    experiment.config.experiment_working_directory = str(tmp_path)
    with pytest.raises(RuntimeError, match="stopped on purpose"):
        experiment.run()
    assert len(broken.rows()) == 4
    resumed = TrainingHistory()
    train(tmp_path / "resumed", resumed, CosineLR(), epochs=2, validate=0)
    assert resumed.arrays()["iteration"].tolist() == list(range(8))
    assert resumed.rows()[:4] == broken.rows()
    assert resumed.samples() == whole.samples()
    np.testing.assert_array_equal(resumed.arrays()["learning_rate"], whole.arrays()["learning_rate"])


def test_plain_training_is_recorded_and_resumed(tmp_path: Path) -> None:
    network = toy_supernet().extract({"op": "conv", "width": 4})

    class Losses(pl.Callback):
        def __init__(self) -> None:
            self.losses: list[float] = []

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, index: int) -> None:
            self.losses.append(float(outputs["loss"]))

    history, losses = TrainingHistory(), Losses()
    save = SaveAfter(4, tmp_path / "kept.ckpt")
    settings: dict[str, Any] = {"root": tmp_path, "enable_checkpointing": False}
    toy_evaluator(2, callbacks=[history, losses, save, CosineLR()], **settings).evaluate(network)
    arrays = history.arrays()
    assert arrays["iteration"].tolist() == list(range(8))
    assert arrays["loss"].tolist() == losses.losses
    # 0.05 * (1 + cos(pi * t / 8)) / 2 at t = 0, 4 and 6: a half and (2 - sqrt 2) / 4 of the base rate
    assert arrays["learning_rate"][[0, 4, 6]] == pytest.approx([0.05, 0.025, 0.05 * 0.1464466094])
    assert history.samples() == []
    assert set(history.rows()[0]) == {"iteration", "loss", "learning_rate", "scale"}

    again = TrainingHistory()
    evaluator = toy_evaluator(2, callbacks=[again, CosineLR()], **settings)
    # NNI's evaluator module puts classes among its hyper-parameters.
    evaluator.fit_kwargs.update(ckpt_path=str(tmp_path / "kept.ckpt"), weights_only=False)
    evaluator.evaluate(network)
    assert again.arrays()["iteration"].tolist() == list(range(8))
    np.testing.assert_array_equal(again.arrays()["learning_rate"], arrays["learning_rate"])
    assert again.arrays()["loss"][:4].tolist() == losses.losses[:4]


def test_accumulated_batches_get_the_rate_of_their_step(tmp_path: Path) -> None:
    history = TrainingHistory()
    evaluator = toy_evaluator(1, root=tmp_path, callbacks=[history, CosineLR()], accumulate_grad_batches=2)
    evaluator.evaluate(toy_supernet().extract({"op": "conv", "width": 4}))
    # Steps are made at batches 1 and 3.
    rates = [0.05 * 0.8535533906] * 2 + [0.05 * 0.1464466094] * 2
    assert history.arrays()["learning_rate"] == pytest.approx(rates)


def test_a_second_run_starts_anew(tmp_path: Path) -> None:
    history = TrainingHistory()
    train(tmp_path / "a", history, epochs=1)
    train(tmp_path / "b", history, epochs=1)
    assert history.arrays()["iteration"].tolist() == [0, 1, 2, 3]


def test_recording_changes_no_weight(tmp_path: Path) -> None:
    weights = []
    for callbacks in ([], [TrainingHistory()]):
        torch.manual_seed(0)
        space = ToySpace()
        strategy = SupernetStrategy(callbacks=callbacks, validate=0, checkpoint_dir=tmp_path / str(len(callbacks)))
        experiment = NasExperiment(space, toy_evaluator(1, root=tmp_path), strategy)
        experiment.config.experiment_working_directory = str(tmp_path)
        experiment.run()
        weights.append(space.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_bad_interval_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="`every` is expected to be a positive integer, but got 0"):
        train(tmp_path, TrainingHistory(every=0))


def test_plain_steps_that_return_no_loss_have_no_row(tmp_path: Path) -> None:
    class Manual(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.weight = torch.nn.Parameter(torch.ones(1))

        def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
            loss = (self.weight * batch[0].mean()).sum()
            return {"loss": loss.detach()} if batch_idx == 1 else {"score": 1.0}

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    history = TrainingHistory()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", callbacks=[history], enable_checkpointing=False, **quiet)
    trainer.fit(
        Manual(), torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(6, 2)), batch_size=2)
    )
    assert history.arrays()["iteration"].tolist() == [1]
