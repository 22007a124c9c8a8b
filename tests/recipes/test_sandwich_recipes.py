"""The published settings train, and set what they say."""

from __future__ import annotations

import pytest
import torch
from nni.nas.evaluator.pytorch import Classification

from nni_supernet_ext import recipes
from nni_supernet_ext.callbacks import ComplexityAwareLR
from nni_supernet_ext.core import SupernetCallback
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.testing import MethodCase, ToySpace, toy_evaluator, train
from nni_supernet_ext.testing.damping import DampedToySpace


class DropoutSpace(ToySpace):
    def __init__(self):
        super().__init__()
        self.dropout = torch.nn.Dropout(0.2)

    def forward(self, x):
        return super().forward(self.dropout(x))


def evaluator(max_epochs=1, *, root=".", **trainer):
    plain = toy_evaluator(max_epochs, root=root)
    settings = recipes.sandwich_evaluator_settings(batch_size=16, epochs=max_epochs)
    return Classification(
        **settings,
        train_dataloaders=plain.train_dataloaders,
        val_dataloaders=plain.val_dataloaders,
        num_classes=10,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=str(root),
        **trainer,
    )


class Watch(SupernetCallback):
    def __init__(self):
        self.rates, self.largest, self.decays, self.dropouts = [], [], set(), []

    def on_before_update(self, state, optimizer):
        assert optimizer.defaults["nesterov"] and optimizer.defaults["momentum"] == 0.9
        self.rates.append([group["lr"] for group in optimizer.param_groups])
        self.decays |= {(p.dim() >= 2, g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}

    def on_after_update(self, state, optimizer):
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self.largest.append(max(g.abs().max().item() for g in grads))


def merged(strategy_of, **settings):
    """Give a recipe's strategy through the laws' training function, which makes its own from settings."""
    strategy = strategy_of(**settings)
    names = ("paths", "objective", "callbacks", "gradient_clip_val", "gradient_clip_algorithm")
    return {name: getattr(strategy, name) for name in names}


@pytest.mark.parametrize("name", ["alphanet", "attentivenas", "bignas"])
def test_each_recipe_trains_with_its_evaluator(tmp_path, name):
    watch = Watch()
    case = MethodCase(name, dict, space=DropoutSpace, evaluator=evaluator)
    settings = merged(getattr(recipes, name), warmup_iterations=1, callbacks=[watch])
    result = train(case, settings, tmp_path, epochs=1)
    base = 0.1 * 16 / 256
    # One batch of warm-up to half the rate, then a cosine over the other three, at every batch.
    cosine = [base * (1 + torch.cos(torch.tensor(torch.pi * i / 3)).item()) / 2 for i in range(3)]
    assert [rate for rate, _ in watch.rates] == pytest.approx([base / 2, *cosine])
    assert watch.decays == {(True, 1e-5), (False, 0.0)}
    assert all(largest <= 1.0 for largest in watch.largest)
    assert [len(step) for step in result.draws] == [4] * 4


def test_the_recipes_differ_where_the_papers_do():
    objectives = {name: getattr(recipes, name)().objective for name in ("alphanet", "attentivenas", "bignas")}
    assert {name: o.divergence for name, o in objectives.items()} == {
        "alphanet": "adaptive_alpha",
        "attentivenas": "kl",
        "bignas": "kl",
    }
    assert all(o.beta == 1.0 and o.temperature == 1.0 for o in objectives.values())
    paths = recipes.attentivenas(pick="worst", n_candidates=50, predictor=len).paths
    assert (paths.base.pick, paths.base.n_candidates, paths.base.predictor) == ("worst", 50, len)


def test_settings_of_the_user_win():
    strategy = recipes.alphanet(gradient_clip_val=None, seed=7, step_every="subnet")
    assert (strategy.gradient_clip_val, strategy.seed, strategy.step_every) == (None, 7, "subnet")


def test_a_space_without_dropout_says_what_to_do(tmp_path):
    case = MethodCase("alphanet", dict, space=DampedToySpace)
    with pytest.raises(ConfigurationError, match="leave the callback out"):
        train(case, merged(recipes.alphanet), tmp_path, epochs=1)
    train(case, merged(recipes.alphanet, regularize_largest_only=False), tmp_path, epochs=1)


def test_another_owner_of_the_learning_rate(tmp_path):
    case = MethodCase("bignas", dict)
    calr = {"callbacks": [ComplexityAwareLR()], "regularize_largest_only": False}
    with pytest.raises(ConfigurationError, match="Decision `lr` is expected to have one owner"):
        train(case, merged(recipes.bignas, **calr), tmp_path, epochs=1)
    train(case, merged(recipes.bignas, warmup_iterations=None, **calr), tmp_path, epochs=1)


@pytest.mark.parametrize(("batch_size", "epochs", "name"), [(0, 1, "batch_size"), (64, -1, "epochs")])
def test_settings_of_no_training_are_refused(batch_size, epochs, name):
    with pytest.raises(ConfigurationError, match=f"`{name}` is expected to be a positive integer"):
        recipes.sandwich_evaluator_settings(batch_size, epochs)


@pytest.mark.parametrize("given", [None, SupernetCallback()])
@pytest.mark.parametrize("name", ["alphanet", "attentivenas", "bignas", "dynas", "spos"])
def test_what_is_no_list_of_callbacks_is_refused(name, given):
    with pytest.raises(ConfigurationError, match=r"`callbacks` is expected"):
        getattr(recipes, name)(callbacks=given)
