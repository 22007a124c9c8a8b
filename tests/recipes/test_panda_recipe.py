"""PA&DA's published settings train, and set what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
from nni.nas.evaluator.pytorch import Classification

from nni_supernet_ext import recipes
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.spaces import nasbench201
from nni_supernet_ext.testing import MethodCase, toy_evaluator, train


def _evaluator(max_epochs: int = 1, *, root: str | Path = ".", **trainer: object) -> Classification:
    plain = toy_evaluator(max_epochs, root=root)
    return Classification(
        **recipes.panda_evaluator_settings(max_epochs),
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


def _space() -> object:
    return nasbench201(channels=2, cells_per_stage=1)


@pytest.mark.parametrize("variant", ["paper", "script"])
def test_both_variants_train_on_nasbench201(tmp_path: Path, variant: str) -> None:
    strategy = recipes.panda(variant)
    settings = {name: getattr(strategy, name) for name in ("paths", "data", "gradient_clip_val")}
    case = MethodCase("panda", dict, space=_space, evaluator=_evaluator)
    train(case, settings, tmp_path, epochs=3)
    p = strategy.paths.probabilities
    assert set(p) == {f"cell/{edge}" for edge in ("0_1", "0_2", "1_2", "0_3", "1_3", "2_3")}
    # The third epoch's share is 2/3, of which candidates without weights get nothing.
    for edge in p.values():
        assert edge["none"] == edge["skip_connect"] == edge["avg_pool_3x3"] == pytest.approx(1 / 15)
    shared = len({tuple(edge.values()) for edge in p.values()}) == 1
    assert shared == (variant == "script")


def test_refuses_an_unknown_variant() -> None:
    with pytest.raises(ConfigurationError, match="`variant` is expected to be 'paper' or 'script'"):
        recipes.panda("original")
