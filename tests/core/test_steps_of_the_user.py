"""Subnets are evaluated as the user's own steps and Lightning would: preparation, logging, trainer."""

from __future__ import annotations

from collections import UserDict

import pytest
import pytorch_lightning as pl
import torch
import torchmetrics
from nni.nas.evaluator.pytorch import ClassificationModule, DataLoader, Lightning, LightningModule, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.space import RawFormatModelSpace
from torch import nn
from torch.utils.data import Dataset

from nni_supernet_ext.core import SubnetEvaluator
from nni_supernet_ext.core.model_arguments import model_arguments
from nni_supernet_ext.core.own_hooks import warn_of_mixed_outputs
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.functional import recalibrate_batch_norm
from nni_supernet_ext.strategies import SupernetEvolution, SupernetStrategy
from nni_supernet_ext.strategies.evaluation_data import checked_evaluator
from nni_supernet_ext.testing import toy_supernet

OP = {"op": "wide"}


class Columns(ModelSpace):
    """Columns of numbers, with batch norm in front of everything."""

    def __init__(self):
        super().__init__()
        self.op = LayerChoice({"wide": nn.Linear(4, 8), "narrow": nn.Linear(4, 8, bias=False)}, label="op")
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x, shift=None):
        return self.head(self.norm(self.op(x if shift is None else x + shift)).relu())


class Raw(Dataset):
    """Bytes with a class that follows from them, as rows of a dictionary."""

    def __init__(self, size, seed):
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randint(0, 256, (size, 4), generator=generator, dtype=torch.uint8)
        self.y = self.x[:, :3].float().argmax(1)

    def __len__(self):
        return len(self.y)

    def __getitem__(self, index):
        return {"name": str(index), "x": self.x[index], "y": self.y[index]}


class Steps(LightningModule):
    """Prepares bytes in its steps, and calls the model by keyword."""

    def __init__(self):
        super().__init__()
        self.seen = torchmetrics.SumMetric()

    def prepared(self, batch):
        return (batch["x"].float() - 128) / 74, batch["y"]

    def training_step(self, batch, batch_idx):
        self.seen.update(1)
        x, y = self.prepared(batch)
        return nn.functional.cross_entropy(self.model(x=x, shift=torch.zeros_like(x)), y)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        assert not self.trainer.sanity_checking
        return batch

    def validation_step(self, batch, batch_idx):
        assert not self.trainer.sanity_checking
        x, y = self.prepared(batch)
        output = self.model(x=x, shift=torch.zeros_like(x))
        self.log("val_loss", nn.functional.cross_entropy(output, y), batch_size=len(y))
        self.log("val_acc", (output.argmax(1) == y).float().mean(), batch_size=len(y))
        self.log("hits", (output.argmax(1) == y).float().sum(), reduce_fx="sum")
        self.log("most", float(batch_idx), reduce_fx=torch.max)
        self.log("least", float(batch_idx), reduce_fx="min")
        if batch_idx == 1:
            self.log("now_and_then", 3.0)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)


def trained(tmp_path, steps=Steps, **trainer):
    torch.manual_seed(0)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    evaluator = Lightning(
        steps(),
        Trainer(max_epochs=20, accelerator="cpu", default_root_dir=str(tmp_path), **quiet, **trainer),
        train_dataloaders=DataLoader(Raw(96, 0), batch_size=32, shuffle=True),
        val_dataloaders=DataLoader(Raw(70, 1), batch_size=32),
    )
    space = Columns()
    strategy = SupernetStrategy(record=False, checkpoint_dir=tmp_path / "checkpoints")
    strategy(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    return space, evaluator, strategy


def test_a_search_prepares_as_the_steps_do_and_reduces_as_lightning_does(tmp_path):
    space, evaluator, _ = trained(tmp_path, num_sanity_val_steps=0)
    evaluator.module.trainer = None  # as a new evaluator's
    search = SupernetEvolution(population=2, cycles=0, progress=False, record=False, recalibrate_batches=3)
    search(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    x, y = ((evaluator.val_dataloaders.dataset.x.float() - 128) / 74, evaluator.val_dataloaders.dataset.y)
    network = search.best_network()
    with torch.no_grad():
        output = network(x)
    hits = (output.argmax(1) == y).sum().item()
    found = search.best.metrics
    assert hits / 70 > 0.6
    assert found["val_acc"] == pytest.approx(hits / 70)
    assert found["val_loss"] == pytest.approx(nn.functional.cross_entropy(output, y).item(), rel=1e-5)
    assert found["hits"] == hits
    assert (found["most"], found["least"], found["now_and_then"]) == (2.0, 0.0, 3.0)
    assert evaluator.module._trainer is None


def test_validation_in_training_prepares_too(tmp_path):
    _, evaluator, strategy = trained(tmp_path, num_sanity_val_steps=0)
    found = strategy.module.validation.results["largest"]
    supernet = strategy.trained
    supernet.activate({"op": "wide"})
    dataset = evaluator.train_dataloaders.dataset
    recalibrate_batch_norm(supernet.model, [(dataset.x.float() - 128) / 74])
    supernet.model.eval()
    validation = evaluator.val_dataloaders.dataset
    with torch.no_grad():
        output = supernet.model((validation.x.float() - 128) / 74)
    assert found["val_acc"] == pytest.approx((output.argmax(1) == validation.y).float().mean().item(), abs=0.06)


def test_the_trainers_limit_holds_in_a_search(tmp_path):
    space, evaluator, _ = trained(tmp_path, num_sanity_val_steps=0, limit_val_batches=2)
    search = SupernetEvolution(population=2, cycles=0, progress=False, record=False)
    search(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    assert search.best.metrics["most"] == 1.0


class Mean(pl.LightningModule):
    """Logs the first column, with weights of its own or Lightning's."""

    def __init__(self, weights):
        super().__init__()
        self.model = None
        self.weights = weights

    def set_model(self, model):
        self.model = model

    def training_step(self, batch, batch_idx):
        raise RuntimeError("never asked")

    def validation_step(self, batch, batch_idx):
        self.model(batch["x"])
        settings = {} if self.weights is None else {"batch_size": self.weights[batch_idx]}
        self.log("value", batch["x"][0, 0], **settings)


@pytest.mark.parametrize("weights", [None, [1, 99]])
def test_weights_of_a_mean(weights):
    batches = [UserDict(x=torch.zeros(3, 4)), UserDict(x=torch.ones(1, 4))]
    found = SubnetEvaluator(toy_supernet(Columns()), Mean(weights), batches).evaluate(OP)
    assert found["value"] == pytest.approx(0.25 if weights is None else 0.99)


def test_unknown_reduction_is_refused():
    class Odd(Mean):
        def validation_step(self, batch, batch_idx):
            self.log("value", 1.0, reduce_fx="median")

    with pytest.raises(
        ConfigurationError, match=r"`reduce_fx` of `log\('value', ...\)` .* got 'median'. Log a torch"
    ):
        SubnetEvaluator(toy_supernet(Columns()), Odd(None), [{"x": torch.zeros(3, 4)}]).evaluate(OP)


def test_arguments_leave_no_trace():
    """The model does not run, random states stay, and a step that cannot take the batch is passed over."""

    class Picky(Mean):
        def training_step(self, batch, batch_idx):
            torch.rand(3)
            self.log("loss", 1.0)
            return self.model(batch["x"] + torch.rand(()), shift=batch["x"])

        def validation_step(self, batch, batch_idx):
            return self.model(batch["other"])

    model = toy_supernet(Columns()).model
    module = Picky(None)
    module.set_model(model)
    model.train()
    state, x = torch.get_rng_state(), torch.ones(2, 4)
    args, kwargs = model_arguments(module, {"x": x}, model)
    assert args[0].shape == (2, 4) and kwargs["shift"] is x
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training and model.norm.training and not model._forward_pre_hooks
    assert model.norm.num_batches_tracked == 0
    with pytest.raises(ConfigurationError, match=r"`validation_step`: KeyError.*`training_step`: KeyError"):
        model_arguments(module, {"y": x}, model)


class Kept(Mean):
    """Computes its metric when the epoch ends."""

    def on_validation_epoch_start(self):
        self.kept = []

    def validation_step(self, batch, batch_idx):
        self.kept.append(self.model(batch["x"])[:, 0])

    def on_validation_epoch_end(self):
        self.log("value", torch.cat(self.kept).median())


def test_a_metric_of_the_epochs_end():
    supernet = toy_supernet(Columns())
    batches = [{"x": torch.randn(3, 4)}, {"x": torch.randn(2, 4)}]
    subnets = SubnetEvaluator(supernet, Kept(None), batches)
    for op in ("wide", "narrow"):
        found = subnets.evaluate({"op": op})
        supernet.activate({"op": op})
        with torch.no_grad():
            expected = torch.cat([supernet.model.eval()(batch["x"])[:, 0] for batch in batches]).median()
        assert found == {"value": pytest.approx(expected.item())}


class Reporting(Mean):
    """Reads its results from the trainer, as NNI's documentation does to report them."""

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        self.log("highest", self.kept)
        self.kept.update(self.model(batch["x"]))

    def on_validation_epoch_end(self):
        self.heard.append({name: float(value) for name, value in self.trainer.callback_metrics.items()})
        self.log("late", 2 * self.trainer.callback_metrics["value"])


def test_a_hook_finds_the_results_of_each_subnet_in_the_trainer(tmp_path):
    supernet = toy_supernet(Columns())
    batches = [{"x": torch.randn(3, 4)}, {"x": torch.randn(2, 4)}]
    module, trainer = (
        Reporting(None),
        pl.Trainer(logger=False, enable_checkpointing=False, default_root_dir=tmp_path),
    )
    module.heard, module.kept = [], torchmetrics.MaxMetric()
    trainer.callback_metrics["of the training"] = torch.tensor(1.0)
    subnets = SubnetEvaluator(supernet, module, batches, trainer=trainer)
    found = [subnets.evaluate({"op": op}) for op in ("wide", "narrow")]
    assert found[0] != found[1] and all(metrics["late"] == 2 * metrics["value"] for metrics in found)
    for metrics, heard in zip(found, module.heard, strict=True):
        del metrics["late"], heard["of the training"]
        assert heard == metrics and set(metrics) == {"value", "highest"}
    assert trainer.callback_metrics.keys() == {"of the training"}, "afterwards as before"


def test_the_warning_of_mixed_outputs(caplog):
    warn_of_mixed_outputs(Kept(None), 1)
    warn_of_mixed_outputs(Mean(None), 4)
    warn_of_mixed_outputs(ClassificationModule(num_classes=3), 4)
    assert not caplog.messages
    warn_of_mixed_outputs(Kept(None), 4)
    assert "Hook `on_validation_epoch_end` of Kept sees" in caplog.text


class Clipped(Steps):
    """Clips by itself, and has weights beside the model."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.clipped = []

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
        before = [p.grad.norm() for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self.clip_gradients(optimizer, gradient_clip_val=1e-3, gradient_clip_algorithm="norm")
        self.clipped.append((gradient_clip_val, torch.stack(before).norm().item()))
        self.total = torch.stack(
            [p.grad.norm() for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        ).norm()


def test_clipping_of_the_users_own(tmp_path):
    _, evaluator, _ = trained(tmp_path, Clipped, num_sanity_val_steps=0)
    assert len(evaluator.module.clipped) == 20 * 3
    assert all(value is None and norm > 1e-3 for value, norm in evaluator.module.clipped)
    assert evaluator.module.total.item() == pytest.approx(1e-3, rel=1e-3)


def test_weights_beside_the_model_of_an_evaluator_that_has_not_trained(tmp_path, caplog):
    _, evaluator, _ = trained(tmp_path, Clipped, num_sanity_val_steps=0)
    checked_evaluator(evaluator)
    assert not [record for record in caplog.records if "beside the model" in record.getMessage()]
    loaders = {"train_dataloaders": evaluator.train_dataloaders, "val_dataloaders": evaluator.val_dataloaders}
    trainer = Trainer(max_epochs=1, accelerator="cpu", logger=False, default_root_dir=str(tmp_path))
    checked_evaluator(Lightning(Clipped(), trainer, **loaders))
    assert "holds 1 weights beside the model, 'scale' the first" in caplog.text
