"""The host's defects and noise: each fix against what NNI itself does, each filter against a near miss."""

from __future__ import annotations

import io
import logging
import random
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nni
import numpy as np
import pytest
import torch
from nni.mutable import MutableExpression, label_scope
from nni.nas.evaluator import FunctionalEvaluator
from nni.nas.experiment import NasExperiment, NasExperimentConfig
from nni.nas.hub.pytorch import AutoFormer, MobileNetV3Space
from nni.nas.nn.pytorch import (
    Cell,
    InputChoice,
    LayerChoice,
    ModelSpace,
    MutableBatchNorm2d,
    MutableConv2d,
    MutableLayerNorm,
    MutableLinear,
    Repeat,
)
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from nni.nas.oneshot.pytorch.supermodule.sampling import PathSamplingLayer
from nni.nas.profiler.pytorch.flops import FlopsProfiler
from nni.nas.strategy import RandomOneShot, RegularizedEvolution
from torch import nn

from nni_supernet_ext import _compat
from nni_supernet_ext._compat import nni_fixes, nni_layers, noise, startup, torchvision_ops
from nni_supernet_ext._compat.activation import compile_activation
from nni_supernet_ext._compat.expressions import Expressions
from nni_supernet_ext._compat.profiling import clean_profiling
from nni_supernet_ext._compat.samples import plain_sample
from nni_supernet_ext.errors import SpaceError

# ---------------------------------------------------------------------------------------------- supernets


class Everything(ModelSpace):
    """Every kind of choice, nested, with shared labels and with expressions over several of them."""

    def __init__(self) -> None:
        super().__init__()
        width = nni.choice("width", [2, 4])
        ratio = nni.choice("ratio", [1, 2, 3])
        hidden = width * ratio + 2
        self.stem = MutableConv2d(3, width, nni.choice("kernel", [1, 3]), padding=0, bias=False)
        self.expand = LayerChoice(
            {"conv": MutableConv2d(width, hidden, 1), "slim": MutableConv2d(width, hidden, 1, bias=False)},
            label="expand",
        )
        self.norm = MutableBatchNorm2d(hidden)
        self.blocks = Repeat(
            lambda index: LayerChoice([nn.ReLU(), nn.Tanh(), nn.Identity()], label=f"block{index}"),
            nni.choice("depth", [1, 2, 3]),
        )
        self.inputs = InputChoice(n_candidates=3, n_chosen=2, reduction="sum", label="inputs")
        self.head = MutableLinear(hidden, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.expand(self.stem(x)))
        y = self.blocks(x)
        return self.head(self.inputs([x, y, x * y]).mean((2, 3)))


class Cells(ModelSpace):
    def __init__(self) -> None:
        super().__init__()
        operations = {
            "conv": lambda _node, _op, _input: nn.Conv2d(4, 4, 3, padding=1),
            "skip": lambda _node, _op, _input: nn.Identity(),
        }
        with label_scope("net"):
            self.cells = nn.ModuleList([Cell(operations, 2, 1, 1, label="cell") for _ in range(2)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for cell in self.cells:
            x = cell([x])[:, :4]
        return x


def small_mobilenet() -> ModelSpace:
    widths = (4, 4, 4, 8, 8, 8, 8, 8, 8)
    return MobileNetV3Space(
        5, widths, width_multipliers=(1.0, 2.0), expand_ratios=(1.0, 2.0, 3.0), depth_range=(1, 2)
    )


def small_autoformer() -> ModelSpace:
    return AutoFormer((24, 36), (1.0, 2.0), (2, 3), (1, 2), img_size=16, patch_size=8, num_labels=5)


SPACES = {
    "every kind": (Everything, (2, 3, 6, 6)),
    "cells": (Cells, (2, 4, 5, 5)),
    "MobileNetV3Space": (small_mobilenet, (2, 3, 64, 64)),
    "AutoFormer": (small_autoformer, (2, 3, 16, 16)),
}


def supernet(space: ModelSpace) -> ModelSpace:
    torch.manual_seed(0)
    return RandomOneShot().mutate_model(space).eval()


def supernet_modules(model: nn.Module) -> list[BaseSuperNetModule]:
    return [module for module in model.modules() if isinstance(module, BaseSuperNetModule)]


def resample(model: nn.Module, sample: dict[str, Any]) -> None:
    for module in supernet_modules(model):
        module.resample(memo=dict(sample))


def draw(model: ModelSpace, rng: random.Random) -> dict[str, Any]:
    sample = {}
    for label, choice in model.simplify().items():
        count = getattr(choice, "n_chosen", None)
        sample[str(label)] = sorted(rng.sample(choice.values, count)) if count else rng.choice(choice.values)
    return sample


# --------------------------------------------------------------------------------------------- activation


@pytest.mark.parametrize("name", SPACES)
def test_activation_computes_what_resampling_computes(name: str) -> None:
    make, shape = SPACES[name]
    nni_fixes.apply_nni_fixes()
    model = supernet(make())
    activate = compile_activation(model)
    rng = random.Random(0)
    batch = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    samples = [draw(model, rng) for _ in range(6)]
    outputs = []
    with torch.no_grad():
        for sample in samples:
            resample(model, sample)
            outputs.append(model(batch))
        # In two rounds: the second finds every value remembered.
        for sample, expected in [*zip(samples, outputs, strict=True)] * 2:
            activate(sample)
            assert torch.equal(model(batch), expected)
    assert len({output.sum().item() for output in outputs}) > 1


@pytest.mark.parametrize("name", ["every kind", "MobileNetV3Space"])
def test_an_activated_subnet_equals_the_frozen_one(name: str) -> None:
    nni_fixes.apply_nni_fixes()
    make, shape = SPACES[name]
    model = supernet(make())
    sample = draw(model, random.Random(1))
    frozen = model.freeze(sample).eval()
    compile_activation(model)(sample)
    batch = torch.randn(shape)
    with torch.no_grad():
        assert torch.equal(model(batch), frozen(batch))


def test_known_values_are_not_evaluated_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = supernet(small_mobilenet())
    activate = compile_activation(model)
    rng = random.Random(0)
    samples = [draw(model, rng) for _ in range(3)]
    for sample in samples:
        activate(sample)
    calls = []
    validate = MutableExpression.check_contains
    monkeypatch.setattr(
        MutableExpression, "check_contains", lambda self, sample: calls.append(self) or validate(self, sample)
    )
    composed = [call for sample in samples for call in (activate(dict(sample)), *calls)]
    assert [call for call in composed if type(call) is MutableExpression] == []
    resample(model, samples[0])
    assert any(type(call) is MutableExpression for call in calls)


def test_a_missing_label_is_named() -> None:
    model = supernet(Everything())
    sample = draw(model, random.Random(0))
    del sample["ratio"], sample["inputs"]
    with pytest.raises(SpaceError, match=r"got none for \['ratio', 'inputs'\]\. Add the missing labels"):
        compile_activation(model)(sample)


def test_a_value_outside_the_choice_is_refused_as_by_nni() -> None:
    model = supernet(Everything())
    sample = draw(model, random.Random(0)) | {"ratio": 7}
    with pytest.raises(nni.mutable.exception.SampleValidationError, match="7"):
        compile_activation(model)(sample)


def test_a_sample_changed_in_place_is_seen() -> None:
    model = supernet(Everything())
    activate = compile_activation(model)
    sample = draw(model, random.Random(0)) | {"width": 2}
    activate(sample)
    sample["width"] = 4
    activate(sample)
    assert model.stem.forward_argument("out_channels") == 4


def test_the_same_sample_is_restored_after_somebody_else_resampled() -> None:
    model = supernet(Everything())
    activate = compile_activation(model)
    sample = draw(model, random.Random(0)) | {"width": 2, "depth": 3}
    activate(sample)
    resample(model, sample | {"width": 4, "depth": 1})
    activate(sample)
    assert (model.stem.forward_argument("out_channels"), model.blocks._sampled) == (2, 3)


def test_a_subclass_with_its_own_resample_is_left_to_it() -> None:
    class Reversed(PathSamplingLayer):
        def resample(self, memo: dict[str, Any]) -> dict[str, Any]:
            self._sampled = self.names[-1 - self.names.index(memo[self.label])]
            return {}

    class Space(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.op = LayerChoice([nn.ReLU(), nn.Tanh()], label="op")

    model = RandomOneShot(mutation_hooks=[Reversed.mutate]).mutate_model(Space())
    assert type(model.op) is Reversed
    compile_activation(model)({"op": 0})
    assert model.op._sampled == 1


def test_more_than_one_input_of_a_cell_is_refused() -> None:
    model = supernet(Cells())
    sample = draw(model, random.Random(0))
    label = next(label for label in sample if "input_2" in label)
    with pytest.raises(SpaceError, match=r"one input at label 'net/cell/input_2_0' of a cell, but got \[0, 1\]"):
        compile_activation(model)(sample | {label: [0, 1]})


def test_equal_values_of_different_types_are_kept_apart() -> None:
    resolve = Expressions().resolver(nni.choice("width", [2, 4]) * 3)
    assert type(resolve({"width": 2.0})) is float
    assert type(resolve({"width": 2})) is int


def test_values_that_cannot_be_hashed_are_computed_each_time() -> None:
    choice = nni.choice("shape", [{"rows": 2}, {"rows": 3}])
    expression = MutableExpression.condition(choice == {"rows": 3}, 10, 20)
    resolve = Expressions().resolver(expression)
    assert [resolve({"shape": {"rows": rows}}) for rows in (2, 3, 2)] == [20, 10, 20]


def test_one_remembered_table_serves_all_users_of_an_expression() -> None:
    expressions, width = Expressions(), nni.choice("width", [2, 4])
    doubled = width * 2
    assert expressions.resolver(doubled) is expressions.resolver(doubled)
    assert expressions.resolver(doubled) is not expressions.resolver(width * 2)


# ---------------------------------------------------------------------------------------------- NNI fixes


def test_a_layer_without_bias_is_frozen_with_its_weights() -> None:
    nni_fixes.apply_nni_fixes()
    model = supernet(Everything())
    sample = draw(model, random.Random(0)) | {"width": 2, "kernel": 1}
    stem = model.freeze(sample).stem
    assert stem.bias is None
    # NNI takes the first filters and the kernel's centre.
    assert torch.equal(stem.weight, model.stem.weight[:2, :, 1:2, 1:2])


def test_a_layer_norm_is_sliced_and_frozen_without_a_warning() -> None:
    nni_fixes.apply_nni_fixes()

    class Space(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.norm = MutableLayerNorm(nni.choice("width", [2, 4]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(x)

    model = supernet(Space())
    nn.init.normal_(model.norm.weight)
    compile_activation(model)({"width": 2})
    expected = torch.tensor([[-1.0, 1.0]]) * model.norm.weight[:2]
    torch.testing.assert_close(model(torch.tensor([[1.0, 3.0]])), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(model.freeze({"width": 2}).norm.weight, model.norm.weight[:2])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep NNI's list of experiments out of the user's home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def evolution(folder: Path, trials: int, experiment_id: str | None = None) -> NasExperiment:
    class Space(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.op = LayerChoice([nn.ReLU(), nn.Tanh(), nn.Identity()], label="op")
            self.other = LayerChoice([nn.ReLU(), nn.Tanh(), nn.Identity()], label="other")

    config = NasExperimentConfig("sequential", "raw", "local")
    config.experiment_working_directory = folder
    config.max_trial_number = trials
    strategy = RegularizedEvolution(population_size=2, sample_size=2, dedup=False)
    return NasExperiment(Space(), FunctionalEvaluator(report_one), strategy, config, id=experiment_id)


def report_one(_model: nn.Module) -> None:
    nni.report_final_result(1.0)


def test_a_multi_trial_experiment_is_resumed(home: Path) -> None:
    nni_fixes.apply_nni_fixes()
    first = evolution(home, 3)
    first.run()
    first.stop()
    second = evolution(home, 5, first.id)
    second.resume()
    second.stop()
    assert second._engine._model_count == 5


def test_an_experiment_closes_its_log(tmp_path: Path) -> None:
    nni_fixes.apply_nni_fixes()
    from nni.experiment import experiment
    from nni.runtime import log

    log.start_experiment_logging("closes", tmp_path / "experiment.log", "info")
    handler = log._handlers["closes"]
    experiment.stop_experiment_logging("closes")
    assert handler.stream is None
    assert handler not in logging.getLogger("nni").handlers


@pytest.mark.parametrize(
    "fix",
    [
        nni_layers.fix_freeze_of_mutable_layers,
        nni_layers.fix_batch_norm_without_momentum,
        nni_layers.fix_batch_norm_without_weights,
        nni_layers.fix_dropout_of_mutable_attention,
        nni_layers.fix_padding_of_mutable_kernels,
        nni_layers.fix_slicing_of_layer_norm,
        nni_fixes.fix_loading_of_experiment_state,
        nni_fixes.fix_experiment_log_left_open,
    ],
)
def test_a_fix_leaves_alone_what_is_right_already(fix: Any) -> None:
    nni_fixes.apply_nni_fixes()
    assert fix() is False


def test_a_failed_profile_leaves_no_hook() -> None:
    model = supernet(Everything())
    compile_activation(model)(draw(model, random.Random(0)))
    handle = model.stem.register_forward_hook(lambda *_: None)
    with pytest.raises(RuntimeError, match="shape inference"), clean_profiling(model):
        FlopsProfiler(model, torch.zeros(2, 3, 6, 6))
    hooks = [key for m in model.modules() for key in (*m._forward_hooks, *m._forward_pre_hooks)]
    assert hooks == [handle.id]


def test_a_plain_sample_can_be_loaded_by_torch_without_pickles() -> None:
    sample = {label: choice.values[0] for label, choice in Everything().simplify().items() if label != "inputs"}
    assert any(type(label) is not str for label in sample)
    sample |= {"inputs": [np.int64(0), 2], "rate": np.float64(0.5), "flag": np.bool_(True), "none": None}
    file = io.BytesIO()
    torch.save(plain_sample(sample), file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert loaded == sample
    assert {type(label) for label in loaded} == {str}
    assert [type(loaded[label]) for label in ("rate", "flag", "none")] == [float, bool, type(None)]
    assert [type(index) for index in loaded["inputs"]] == [int, int]


def test_a_value_that_has_no_plain_form_is_refused() -> None:
    with pytest.raises(SpaceError, match=r"but got type at label 'act'.*string candidates"):
        plain_sample({"act": nn.ReLU})


# -------------------------------------------------------------------------------------------------- noise


EXAMPLES = {
    noise.WARNINGS[0]: "<class 'torch.nn.parameter.Buffer'> is found to be not a nn.Module, which is unexpected.",
    noise.WARNINGS[1]: "`isinstance(treespec, LeafSpec)` is deprecated, use `isinstance(treespec, TreeSpec)`",
    noise.WARNINGS[2]: "pkg_resources is deprecated as an API. See https://setuptools.pypa.io",
}


@pytest.fixture
def fresh_filters() -> Iterator[list[warnings.WarningMessage]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        warnings.simplefilter("always")
        noise.install_noise_filters()
        yield caught


@pytest.mark.parametrize("entry", noise.WARNINGS)
def test_a_known_warning_is_ignored_only_from_its_own_place(
    entry: noise.WarningNoise, fresh_filters: list[warnings.WarningMessage]
) -> None:
    module = entry.module.replace("\\", "")
    warnings.warn_explicit(EXAMPLES[entry], entry.category, "file.py", 1, module=module)
    assert fresh_filters == []
    warnings.warn_explicit(EXAMPLES[entry], entry.category, "file.py", 1, module="user.code")
    warnings.warn_explicit("something else", entry.category, "file.py", 1, module=module)
    assert [str(shown.message) for shown in fresh_filters] == [EXAMPLES[entry], "something else"]


def test_installing_twice_adds_nothing() -> None:
    _compat.install()
    before = (list(warnings.filters), list(sys.meta_path))
    loggers = [list(logging.getLogger(entry.logger).filters) for entry in noise.LOGS]
    _compat.install()
    assert sorted(map(str, warnings.filters)) == sorted(map(str, before[0]))
    assert sys.meta_path == before[1]
    assert [list(logging.getLogger(entry.logger).filters) for entry in noise.LOGS] == loggers


@pytest.mark.parametrize("entry", noise.LOGS)
def test_a_known_log_message_is_dropped_and_its_neighbours_are_not(entry: noise.LogNoise) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger(entry.logger)
    logger.addHandler(handler)
    try:
        logger.warning("%s", "a real warning")
        logger.warning(entry.message + " and the rest")
    finally:
        logger.removeHandler(handler)
    assert stream.getvalue() == "a real warning\n"


def test_a_sequential_experiment_does_not_repeat_itself(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = NasExperimentConfig("sequential", "raw", "local")
    config.experiment_working_directory = home
    config.canonical_copy().canonical_copy()
    assert caplog.text == ""


# -------------------------------------------------------------------------------------------- torchvision


def test_working_operators_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def assert_has_ops() -> None: ...

    working = types.SimpleNamespace(_has_ops=lambda: True, _assert_has_ops=assert_has_ops)
    monkeypatch.setitem(sys.modules, "torchvision.extension", working)
    monkeypatch.setattr(torch.library, "define", lambda *_: pytest.fail("an operator was defined"))
    assert torchvision_ops.provide_missing_operators() is False
    assert working._assert_has_ops is assert_has_ops


def test_the_missing_operator_says_what_to_install() -> None:
    with pytest.raises(RuntimeError, match=r"Install the torchvision build that belongs to this torch"):
        torchvision_ops.refuse()


def test_the_gate_lets_everything_else_pass() -> None:
    gate = startup.NniSupernetExtGate()
    assert [gate.find_spec(name) for name in ("json", "torchvision", "nni.nas", "nni_supernet_ext")] == [None] * 4
    spec = gate.find_spec("nni")
    assert spec is not None
    assert spec.origin == nni.__file__
