"""The comparison of throughput: equal inputs and steps for all contenders, ratios checked by hand."""

from __future__ import annotations

import argparse
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from nni_supernet_ext.core import Supernet
from nni_supernet_ext.spaces import nasbench201
from nni_supernet_ext.strategies import SupernetStrategy

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.usefixtures("log_levels")]


def pixels(count: int) -> Any:
    return np.random.default_rng(0).integers(256, size=(count, 32, 32, 3), dtype=np.uint8)


def test_both_kinds_of_images_are_the_same(scripts: Any, tiny: Any) -> None:
    shown, labels = pixels(6), np.arange(6)
    protocol = scripts["settings"].overridden(tiny, ["augment=false", "image_size=0"])
    images = scripts["images"].in_memory(shown, labels, shown, labels, protocol)
    one_by_one = scripts["plain_loop"].Pictures(shown, labels, 32, augment=False)
    for index, (x, y) in enumerate(one_by_one[i] for i in range(6)):
        assert y == images.y_train[index] == index
        assert torch.allclose(x, images.x_train[index], atol=1e-5)


def test_the_plain_loop_trains_what_the_sampler_draws(scripts: Any, tiny: Any) -> None:
    torch.manual_seed(0)
    supernet = Supernet(SupernetStrategy().mutate_model(nasbench201(2, 1)))
    before = {name: value.clone() for name, value in supernet.model.named_parameters()}
    pictures = scripts["plain_loop"].Pictures(pixels(64), np.arange(64) % 10, 32, augment=True)
    loader = scripts["plain_loop"].picture_loader(pictures, tiny.batch_size, True, 0, "cpu")
    losses = list(scripts["plain_loop"].plain_training(supernet, tiny, loader, "cpu"))
    assert len(losses) == tiny.epochs == 2
    assert all(1.5 < loss < 4.5 for loss in losses), "around ln 10 at the beginning"
    rng = np.random.default_rng(0)
    draws = [supernet.domain.random(rng) for _ in range(4)]
    moved = {name for name, value in supernet.model.named_parameters() if not torch.equal(value, before[name])}
    candidates = {tuple(name.split(".")[2:4]) for name in moved if ".conv_" in name}
    drawn = {(label.removeprefix("cell/"), op) for draw in draws for label, op in draw.items()}
    assert candidates and candidates <= drawn
    assert "stem.0.weight" in moved
    accuracy = scripts["plain_loop"].plain_evaluation(supernet, loader, "cpu")(draws[0])
    assert round(accuracy * 64, 6) in range(65)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_only_candidates_with_weights_are_compiled(scripts: Any) -> None:
    model = SupernetStrategy().mutate_model(nasbench201(2, 1))
    scripts["throughput"].CompiledCandidates().on_fit_start(None, model)
    compiled = [type(module).__name__ for module in model.modules() if module._compiled_call_impl is not None]
    assert len(compiled) == 3 * 6 * 2, "three cells of six edges with two convolutions"
    assert set(compiled) == {"ReluConvNorm"}


def test_ratios_by_hand(scripts: Any, tiny: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    throughput = scripts["throughput"]
    seconds = {"plain": iter([2.0, 4.0]), "ours": iter([1.0, 1.0])}
    monkeypatch.setattr(throughput, "EVALUATED_IMAGES", 32)
    monkeypatch.setattr(throughput, "_training", lambda name, comparison: next(seconds[name]))
    monkeypatch.setattr(
        throughput, "_evaluation", lambda name, comparison, subnets: {"plain": 6.0, "ours": 2.0}[name]
    )
    throughput.main(["--protocol", "tiny", "--steps", "5", "--rounds", "2", "--contenders", "ours"])
    line = json.loads(capsys.readouterr().out)
    assert line["training_speedup"] == {"plain": [1.0, 1.0], "ours": [2.0, 4.0]}
    # 32 images a step; plain 0.6 seconds in the median, ours 0.2.
    assert line["images_per_second"] == {"plain": 53.3, "ours": 160.0}
    assert line["training_minutes"] == {"plain": 0.0, "ours": 0.0}, "four steps in all"
    assert line["evaluation_speedup"] == {"plain": 1.0, "ours": 3.0}
    assert line["all_subnets_minutes"] == {"plain": 1562.5, "ours": 520.8}, "15,625 subnets"


def test_the_command_measures(scripts: Any, tiny: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    throughput = scripts["throughput"]
    monkeypatch.setattr(throughput, "EVALUATED_IMAGES", 32)
    throughput.main(["--protocol", "tiny", "--steps", "1", "--rounds", "1", "--subnets", "1", "--threads", "1"])
    line = json.loads(capsys.readouterr().out)
    assert list(line["images_per_second"]) == ["plain", "ours", "channels_last", "bf16"]
    assert all(value > 0 for value in line["images_per_second"].values())
    assert list(line["evaluation_speedup"]) == ["plain", "ours", "channels_last"]


@pytest.mark.parametrize("names", ["ours,ours", "fast", ""])
def test_unknown_contenders_are_refused(scripts: Any, names: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="channels_last"):
        scripts["throughput"]._contenders(names)


def test_a_comparison_times_the_second_of_two_epochs(scripts: Any, tiny: Any) -> None:
    options = SimpleNamespace(protocol="tiny", steps=3, evaluation_batch=None, accelerator="cpu", workers=0)
    comparison = scripts["throughput"].Comparison.of(options)
    assert (comparison.protocol.epochs, comparison.protocol.train_images) == (2, 3 * tiny.batch_size)
    assert comparison.protocol.steps == 2 * 3
