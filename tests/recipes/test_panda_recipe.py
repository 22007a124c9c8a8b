"""PA&DA's published settings train, and set what they say."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from nni.nas.evaluator.pytorch import Classification, DataLoader
from nni.nas.hub.pytorch import DARTS, MobileNetV3Space
from torch.utils.data import TensorDataset

from nni_supernet_ext import recipes
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.spaces import nasbench201
from nni_supernet_ext.testing import MethodCase, toy_evaluator, train


def _evaluator(
    max_epochs: int = 1, *, space: str = "nasbench201", root: str | Path = ".", **trainer: object
) -> Classification:
    plain = toy_evaluator(max_epochs, root=root)
    settings = recipes.panda_evaluator_settings(space, max_epochs)
    size = {"darts": 8, "mobilenet": 32}.get(space)
    images = TensorDataset(torch.randn(8, 3, size, size), torch.arange(8)) if size else None
    return Classification(
        **{**settings, "learning_rate": min(settings["learning_rate"], 0.05)},
        train_dataloaders=DataLoader(images, batch_size=4) if images else plain.train_dataloaders,
        val_dataloaders=DataLoader(images, batch_size=4) if images else plain.val_dataloaders,
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


@pytest.mark.parametrize(
    ("name", "space"),
    [
        ("darts", lambda: DARTS(width=4, num_cells=3, dataset="cifar", auxiliary_loss=False)),
        ("mobilenet", lambda: MobileNetV3Space(num_labels=10, base_widths=(8,) * 9)),
    ],
)
def test_trains_the_papers_other_spaces(tmp_path: Path, name: str, space: Callable[[], object]) -> None:
    """Candidates with weights get shares by their gradients, those without only the uniform one."""
    strategy = recipes.panda()
    settings = {part: getattr(strategy, part) for part in ("paths", "data", "gradient_clip_val")}
    case = MethodCase("panda", dict, space=space, evaluator=partial(_evaluator, space=name))
    train(case, settings, tmp_path, epochs=2)
    p = strategy.paths.probabilities
    assert all(sum(choice.values()) == pytest.approx(1.0) for choice in p.values())
    assert any(len(set(choice.values())) > 1 for choice in p.values())
    if name == "darts":
        # A choice that drew only pooling has measured nothing, and stays uniform.
        measured = [choice for label, choice in p.items() if "/op_" in label and len(set(choice.values())) > 1]
        assert measured
        for choice in measured:
            assert choice["max_pool_3x3"] == choice["avg_pool_3x3"] == pytest.approx(0.5 / len(DARTS.DARTS_OPS))


def test_settings_name_a_space() -> None:
    assert recipes.panda_evaluator_settings("mobilenet")["max_epochs"] == 120
    with pytest.raises(ConfigurationError, match="`space` is expected to be one of"):
        recipes.panda_evaluator_settings("resnet")


def test_refuses_an_unknown_variant() -> None:
    with pytest.raises(ConfigurationError, match="`variant` is expected to be 'paper' or 'script'"):
        recipes.panda("original")
