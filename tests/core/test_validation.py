"""Validation of fixed subnets: what is evaluated, with which statistics, under which names."""

from __future__ import annotations

import copy

import pytest
import pytorch_lightning as pl
import torch
import torchmetrics
from nni.nas.evaluator.pytorch import DataLoader, Lightning
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from pytorch_lightning.callbacks import EMAWeightAveraging
from torch import nn

from nni_supernet_ext.core import SubnetEvaluator
from nni_supernet_ext.errors import ConfigurationError, DataError, SpaceError
from nni_supernet_ext.functional import recalibrate_batch_norm
from nni_supernet_ext.testing import MethodCase, toy_data, toy_evaluator
from nni_supernet_ext.testing.toys import ToyModule
from nni_supernet_ext.testing.training import differing, train

CONV = {"op": "conv", "width": 8}
SKIP = {"op": "skip", "width": 4}


def _case(**arguments):
    return MethodCase("case", dict, **arguments)


class NormSpace(ModelSpace):
    """Candidates with batch norm of their own."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.op = LayerChoice(
            {"conv": nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)), "norm": nn.BatchNorm2d(4)}, label="op"
        )
        self.head = nn.Linear(4, 10)

    def forward(self, x):
        return self.head(self.op(self.stem(x)).relu().mean(dim=(2, 3)))


def test_named_subnets_are_evaluated_with_recalibrated_statistics(tmp_path):
    """Recompute the last validation by hand: same batches, same statistics, plain evaluation."""
    subnets = {"first": {"op": "conv"}, "second": {"op": "norm"}}
    run = train(_case(space=NormSpace), {"validate": subnets, "recalibrate_batches": 100}, tmp_path)
    supernet, results = run.strategy.trained, run.strategy.module.validation.results
    images = torch.cat([x for x, _ in run.evaluator.val_dataloaders])
    labels = torch.cat([y for _, y in run.evaluator.val_dataloaders])
    train_images = run.evaluator.train_dataloaders.dataset.tensors[0]
    for name, sample in subnets.items():
        supernet.activate(sample)
        # All training data, in batches of 16: their order does not matter for the average of equal batches
        # beyond rounding, but which images share a batch does; so allow for that.
        recalibrate_batch_norm(supernet.model, train_images.split(16))
        supernet.model.eval()
        with torch.no_grad():
            loss = torch.nn.functional.cross_entropy(supernet.model(images), labels)
        assert results[name]["val_loss"] == pytest.approx(loss.item(), rel=0.02)
    assert results["first"]["val_loss"] != results["second"]["val_loss"]


def test_metrics_are_logged_by_subnet_and_as_mean(tmp_path):
    run = train(_case(), {"validate": {"a": CONV, "b": SKIP}}, tmp_path)
    metrics = {name: float(value) for name, value in run.evaluator.trainer.callback_metrics.items()}
    assert metrics["val_loss"] == pytest.approx((metrics["val_loss/a"] + metrics["val_loss/b"]) / 2)
    assert metrics["val_acc"] == pytest.approx((metrics["val_acc/a"] + metrics["val_acc/b"]) / 2)
    assert run.strategy.module.validation.results["a"]["val_acc"] == metrics["val_acc/a"]


def test_validation_leaves_training_alone(tmp_path):
    """Weights and running statistics after training are the same with, without and with other validation."""
    settings = [{"validate": 0}, {"validate": {"a": {"op": "conv"}}}, {"validate": 3, "recalibrate_batches": 1}]
    runs = [train(_case(space=NormSpace), each, tmp_path / str(i)) for i, each in enumerate(settings)]
    none = train(_case(space=NormSpace), {}, tmp_path, evaluator_arguments={"limit_val_batches": 0})
    for run in runs:
        assert not differing(run.weights, none.weights)
        assert run.draws == none.draws


def test_averaged_weights_keep_their_statistics(tmp_path):
    """Lightning's averaging exchanges weights and statistics around a validation, before the module's own hooks."""
    runs = [
        train(
            _case(space=NormSpace),
            {"validate": 1},
            tmp_path / str(batches),
            evaluator_arguments={"limit_val_batches": batches, "callbacks": [EMAWeightAveraging(decay=0.9)]},
        )
        for batches in (0, 2)
    ]
    plain = train(_case(space=NormSpace), {}, tmp_path / "plain")
    assert not differing(runs[0].weights, runs[1].weights)
    assert differing(runs[0].weights, plain.weights)


def test_a_copy_for_averaging_holds_weights_and_not_the_run(tmp_path):
    module = train(_case(), {}, tmp_path).strategy.module
    twin = copy.deepcopy(module)
    assert twin.plan is module.plan and twin.plan.trainer is module.plan.trainer
    own, copied = dict(module.state_dict()), dict(twin.state_dict())
    assert own and not differing(own, copied)
    assert all(own[name].data_ptr() != copied[name].data_ptr() for name in own if own[name].numel())
    assert twin.training_module is not module.training_module


def test_logged_metric_objects_are_kept_apart(tmp_path):
    """A metric logged as an object accumulates over batches; each subnet must have its own."""

    class Module(ToyModule):
        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            x, y = batch
            self.accumulated.update(self(x).argmax(1), y)
            self.log("val_f1", self.accumulated)

    def evaluator(**arguments):
        made = toy_evaluator(**arguments)
        made.module.accumulated = torchmetrics.F1Score("multiclass", num_classes=10, average="macro")
        made.module.__class__ = Module
        return made

    settings = {"validate": {"a": CONV, "b": SKIP}, "recalibrate_batches": 0}
    run = train(_case(evaluator=evaluator), settings, tmp_path)
    supernet = run.strategy.trained
    images = torch.cat([x for x, _ in run.evaluator.val_dataloaders])
    labels = torch.cat([y for _, y in run.evaluator.val_dataloaders])
    for name, sample in (("a", CONV), ("b", SKIP)):
        supernet.activate(sample)
        supernet.model.eval()
        with torch.no_grad():
            predicted = supernet.model(images).argmax(1)
        expected = torchmetrics.functional.f1_score(
            predicted, labels, "multiclass", num_classes=10, average="macro"
        )
        assert run.strategy.module.validation.results[name]["val_f1"] == pytest.approx(expected.item())


def test_unknown_sample_is_refused(tmp_path):
    with pytest.raises(SpaceError, match=r"`validate\['a'\]` is expected .* label"):
        train(_case(), {"validate": {"a": {"op": "conv"}}}, tmp_path)
    with pytest.raises(SpaceError, match="pool"):
        train(_case(), {"validate": {"a": {"op": "pool", "width": 4}}}, tmp_path)


def test_export_lists_only_validated_subnets_best_first(tmp_path):
    subnets = {"a": CONV, "b": SKIP, "c": {"op": "linear", "width": 8}}
    run = train(_case(), {"validate": subnets}, tmp_path, epochs=6)
    results = run.strategy.module.validation.results
    best = max(results, key=lambda name: results[name]["val_acc"])
    samples = [model.sample for model in run.strategy.list_models(limit=None)]
    assert len(samples) == 3
    assert samples[0] == run.strategy.module.validation.subnets[best]


def test_evaluator_of_subnets_equals_plain_evaluation(tmp_path):
    run = train(_case(space=NormSpace), {}, tmp_path)
    supernet, evaluator = run.strategy.trained, run.evaluator
    before = {name: value.clone() for name, value in supernet.model.state_dict().items()}
    subnets = SubnetEvaluator(
        supernet,
        evaluator.module,
        evaluator.val_dataloaders,
        calibration=evaluator.train_dataloaders,
        recalibrate_batches=3,
    )
    result = subnets.evaluate({"op": "norm"})
    assert not differing(before, supernet.model.state_dict())
    assert subnets.evaluate({"op": "norm"}) == result
    supernet.activate({"op": "norm"})
    recalibrate_batch_norm(supernet.model, [inputs for inputs, _ in subnets._calibration])
    supernet.model.eval()
    images = torch.cat([x for x, _ in evaluator.val_dataloaders])
    labels = torch.cat([y for _, y in evaluator.val_dataloaders])
    with torch.no_grad():
        output = supernet.model(images)
    assert result["val_acc"] == pytest.approx((output.argmax(1) == labels).double().mean().item())
    assert result["val_loss"] == pytest.approx(nn.functional.cross_entropy(output, labels).item(), rel=1e-5)


def test_empty_validation_data_is_refused(tmp_path):
    run = train(_case(), {}, tmp_path, epochs=1)
    with pytest.raises(DataError, match="at least one batch, but got an empty loader"):
        SubnetEvaluator(run.strategy.trained, run.evaluator.module, [])


class SeveralLoaders(ToyModule):
    """Tell validation loaders apart, and keep a metric object beside numbers."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        output = self(x)
        self.log("val_loss", nn.functional.cross_entropy(output, y))
        self.accumulated.update(output.argmax(1), y)
        self.log("val_right", self.accumulated)
        self.log(f"seen_{dataloader_idx}", float(len(y)), add_dataloader_idx=False)

    def _get_result_for_report(self):
        return 0.0  # NNI's own looks for `val_acc`


def _several(loaders=None, module=SeveralLoaders):
    def evaluator(**arguments):
        made = toy_evaluator(**arguments)
        made.module.accumulated = torchmetrics.Accuracy("multiclass", num_classes=10)
        made.module.__class__ = module
        other = DataLoader(toy_data(48, seed=9), batch_size=16)
        made.val_dataloaders = [made.val_dataloaders, other] if loaders is None else loaders(made.val_dataloaders)
        return made

    return evaluator


def test_several_validation_loaders_are_kept_apart(tmp_path):
    subnets = {"a": CONV, "b/c": SKIP}
    case = _case(evaluator=_several())
    run = train(case, {"validate": subnets, "recalibrate_batches": 0}, tmp_path, epochs=1)
    supernet, results = run.strategy.trained, run.strategy.module.validation.results
    for name, sample in subnets.items():
        supernet.activate(sample)
        supernet.model.eval()
        expected = {"seen_0": 16.0, "seen_1": 16.0}
        for index, loader in enumerate(run.evaluator.val_dataloaders):
            images, labels = loader.dataset.tensors
            with torch.no_grad():
                output = supernet.model(images)
            expected[f"val_loss/dataloader_idx_{index}"] = nn.functional.cross_entropy(output, labels).item()
            right = (output.argmax(1) == labels).double().mean().item()
            expected[f"val_right/dataloader_idx_{index}"] = right
        assert results[name] == pytest.approx(expected, rel=1e-5)
    assert len(list(run.strategy.list_models(limit=None))) == 2
    metrics = run.evaluator.trainer.callback_metrics
    both = [results[name]["val_right/dataloader_idx_1"] for name in subnets]
    assert float(metrics["val_right/dataloader_idx_1"]) == pytest.approx(sum(both) / 2)


def test_one_loader_in_a_list_is_one_loader(tmp_path):
    case = _case(evaluator=_several(lambda loader: [loader]))
    run = train(case, {"validate": {"a": CONV}, "recalibrate_batches": 0}, tmp_path, epochs=1)
    assert set(run.strategy.module.validation.results["a"]) == {"val_loss", "val_right", "seen_0"}


@pytest.mark.parametrize("loaders", [lambda one: [one, one], lambda one: {"x": one, "y": one}])
def test_several_loaders_for_a_module_that_takes_one_are_refused(tmp_path, loaders):
    message = (
        r"`validation_step` of ToyModule is expected to take `dataloader_idx` with 2.*Add the argument, or join"
    )
    with pytest.raises(ConfigurationError, match=message):
        train(_case(evaluator=_several(loaders, ToyModule)), {}, tmp_path)


def test_several_loaders_of_a_data_module_are_refused_too(tmp_path):
    class Data(pl.LightningDataModule):
        def train_dataloader(self):
            return toy_evaluator().train_dataloaders

        def val_dataloader(self):
            return [toy_evaluator().val_dataloaders] * 2

    def evaluator(**arguments):
        made = toy_evaluator(**arguments)
        return Lightning(made.module, made.trainer, datamodule=Data())

    with pytest.raises(ConfigurationError, match=r"`dataloader_idx` with 2 validation loaders"):
        train(_case(evaluator=evaluator), {}, tmp_path)
