"""The recipe for conditional weights trains both benchmark spaces, split at the end."""

from __future__ import annotations

import pytest
from nni.nas.evaluator.pytorch import Classification
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace

from nni_supernet_ext import recipes
from nni_supernet_ext.core.split_layer import split_layers
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.spaces import nasbench201, nasbench_macro
from nni_supernet_ext.testing import toy_evaluator


@pytest.mark.parametrize(
    ("name", "space", "arguments", "depths"),
    [
        ("nasbench201", lambda: nasbench201(2, 1), ("nasbench201", [0.5, 0.75]), {1, 2}),
        ("nasbench_macro", lambda: nasbench_macro(2, 8), (), {1}),
    ],
)
def test_it_trains_and_splits(tmp_path, name, space, arguments, depths):
    strategy = recipes.conditional(*arguments, validate=1, recalibrate_batches=1, seed=3)
    plain = toy_evaluator()
    evaluator = Classification(
        **{**recipes.conditional_evaluator_settings(name), "max_epochs": 2},
        train_dataloaders=plain.train_dataloaders,
        val_dataloaders=plain.val_dataloaders,
        num_classes=10,
        export_onnx=False,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=str(tmp_path),
    )
    strategy(RawFormatModelSpace(space(), evaluator), SequentialExecutionEngine())
    assert {layer.depth for layer in split_layers(strategy.trained.model)} == depths
    groups = evaluator.trainer.optimizers[0].param_groups
    assert [group["weight_decay"] for group in groups] == [3e-4 if name == "nasbench201" else 5e-4, 0.0]
    assert groups[0]["momentum"] == 0.9
    n_copies = sum(".copies." in name for name, _ in strategy.trained.model.named_parameters())
    assert n_copies and sum(len(group["params"]) for group in groups) > n_copies


def test_settings_win_over_the_recipe():
    assert recipes.conditional(milestones=[3], schedule=None).callbacks == []
    assert recipes.conditional(milestones=[3]).weights.milestones == [3]


def test_unknown_space_is_refused():
    with pytest.raises(ConfigurationError, match=r"one of .*'nasbench_macro'"):
        recipes.conditional_evaluator_settings("darts")
