"""Normalisation layers that a space keeps in eval mode: they stay so, with the statistics that they have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn

from nni_supernet_ext.callbacks import ComplexityAwareLR, RankingConsistency
from nni_supernet_ext.core import SubnetEvaluator
from nni_supernet_ext.core.complexity import resolve_complexity
from nni_supernet_ext.diagnostics import SubnetGradients
from nni_supernet_ext.functional import recalibrate_batch_norm
from nni_supernet_ext.strategies import GradientSplit
from nni_supernet_ext.strategies.splits import SplitContext
from nni_supernet_ext.testing import MethodCase, toy_evaluator, toy_supernet
from nni_supernet_ext.testing.training import train

FROZEN = "stem.1"


class FrozenStem(ModelSpace):
    """A stem that is not trained, as one that was pretrained, and candidates that are."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)).requires_grad_(False).eval()
        self.stem[1].running_mean.fill_(0.25)
        self.stem[1].running_var.fill_(4.0)
        self.op = LayerChoice({"conv": nn.Conv2d(4, 4, 3), "skip": nn.Identity()}, label="op")
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 10)

    def forward(self, x):
        return self.head(self.norm(self.op(self.stem(x))).relu().mean(dim=(2, 3)))


def _modes(model):
    return {name: module.training for name, module in model.named_modules()}


def _is_as_made(model):
    layer = model.get_submodule(FROZEN)
    return (
        not layer.training
        and bool((layer.running_mean == 0.25).all() and (layer.running_var == 4.0).all())
        and int(layer.num_batches_tracked) == 0
    )


@pytest.mark.filterwarnings("ignore:.*module.*in eval mode at the start of training")
@pytest.mark.parametrize(
    "callbacks",
    [
        lambda: [],
        lambda: [ComplexityAwareLR(complexity="flops")],
        lambda: [RankingConsistency([{"op": "conv"}, {"op": "skip"}], [0.5, 0.25])],
    ],
    ids=["plain", "flops", "ranking"],
)
def test_training_leaves_them_alone(callbacks, tmp_path):
    case = MethodCase("case", dict, space=FrozenStem)
    model = train(case, {"callbacks": callbacks()}, tmp_path).strategy.trained.model
    assert _is_as_made(model)
    assert model.norm.training and not torch.equal(model.norm.running_mean, torch.zeros(4))


def test_subnets_are_evaluated_with_their_statistics():
    """The mean and variance of the only other layer, by hand, behind a frozen one; modes are put back."""
    evaluator, supernet = toy_evaluator(), toy_supernet(FrozenStem())
    images, labels = evaluator.train_dataloaders.dataset.tensors
    before = _modes(supernet.model)
    subnets = SubnetEvaluator(
        supernet, evaluator.module, evaluator.val_dataloaders, calibration=[(images, labels)], recalibrate_batches=1
    )
    network = subnets.extract({"op": "skip"})
    stem = supernet.model.stem
    features = (stem[0](images) - 0.25) / (4.0 + stem[1].eps) ** 0.5
    assert _is_as_made(network) and _is_as_made(supernet.model)
    torch.testing.assert_close(network.norm.running_mean, features.mean((0, 2, 3)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(network.norm.running_var, features.var((0, 2, 3)), atol=1e-5, rtol=1e-5)
    assert _modes(supernet.model) == before


@pytest.mark.filterwarnings("ignore:.*module.*in eval mode at the start of training")
def test_a_ranking_in_the_midst_of_validation_ranks_with_their_statistics(tmp_path):
    """Lightning has everything in eval mode by then; the search, after the training, finds the same losses."""
    samples, batches = [{"op": "conv"}, {"op": "skip"}], {"recalibrate_batches": 2}
    ranking = RankingConsistency(samples, [0.5, 0.25], metric="val_loss", mode="min", **batches)
    case = MethodCase("case", dict, space=FrozenStem)
    supernet = train(case, {"callbacks": [ranking]}, tmp_path).strategy.trained
    evaluator = toy_evaluator()
    calibration = {"calibration": evaluator.train_dataloaders, **batches}
    subnets = SubnetEvaluator(supernet, evaluator.module, evaluator.val_dataloaders, **calibration)
    losses = [subnets.evaluate(sample)["val_loss"] for sample in samples]
    assert (-ranking.predicted).tolist() == pytest.approx(losses, abs=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_only_a_model_in_train_mode_tells_which_are_frozen(training):
    model = nn.Sequential(nn.BatchNorm1d(1), nn.BatchNorm1d(1)).train(training)
    model[0].eval()
    assert recalibrate_batch_norm(model, [torch.tensor([[1.0], [3.0]])]) == (1 if training else 2)
    assert model[0].running_mean.item() == (0.0 if training else 2.0)


def _count_flops(supernet, evaluator):
    resolve_complexity("flops", supernet, torch.randn(2, 3, 8, 8))({"op": "conv"})


def _split_by_gradients(supernet, evaluator):
    data = evaluator.train_dataloaders
    evaluator.module.set_model(supernet.model)
    GradientSplit(batches=1, subnets=1).cuts(
        SplitContext(supernet, np.random.default_rng(0), (), evaluator.module, data)
    )


def _take_gradients(supernet, evaluator):
    images, labels = next(iter(evaluator.train_dataloaders))
    gradients = SubnetGradients(supernet, lambda model, batch: nn.functional.cross_entropy(model(images), labels))
    gradients.of({"op": "conv"}, None)


def _extract(supernet, evaluator):
    supernet.extract({"op": "conv"}, verify=torch.randn(2, 3, 8, 8))


@pytest.mark.parametrize("look", [_count_flops, _split_by_gradients, _take_gradients, _extract])
def test_whoever_looks_at_a_supernet_leaves_its_modes(look):
    evaluator, supernet = toy_evaluator(), toy_supernet(FrozenStem())
    supernet.activate({"op": "skip"})
    before = _modes(supernet.model)
    look(supernet, evaluator)
    assert _modes(supernet.model) == before
    assert _is_as_made(supernet.model)
