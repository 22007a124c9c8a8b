"""BN recalibration: against a slow loop in numpy over the inputs each layer really got."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nni_supernet_ext.errors import ConfigurationError, DataError
from nni_supernet_ext.functional import BatchNormRecalibrator, preserved_batch_norm, recalibrate_batch_norm

BN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class SlicedBatchNorm(nn.BatchNorm2d):
    """A super-kernel layer as NNI has it: a prefix of the channels, and a momentum of its own."""

    def forward(self, x: Tensor) -> Tensor:
        width = x.shape[1]
        return F.batch_norm(
            x,
            self.running_mean[:width],
            self.running_var[:width],
            self.weight[:width],
            self.bias[:width],
            self.training,
            0.1,
            self.eps,
        )


class TwoPaths(nn.Module):
    """A supernet in small: the active path decides which layers run."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, momentum=None), nn.Dropout(0.5))
        self.paths = nn.ModuleList(nn.Sequential(nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)) for _ in range(2))
        self.sliced = SlicedBatchNorm(6)
        self.untracked = nn.BatchNorm2d(6, track_running_stats=False)
        self.head = nn.Sequential(nn.Flatten(), nn.LazyLinear(4), nn.BatchNorm1d(4, momentum=0.3))
        self.active = 0

    def forward(self, x: Tensor) -> Tensor:
        x = self.paths[self.active](self.stem(x))
        return self.head(self.untracked(self.sliced(x)).relu())


def batches(*sizes: int, shape: tuple[int, ...] = (3, 6, 6)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [3 * torch.randn(size, *shape, generator=generator) + k for k, size in enumerate(sizes)]


def supernet() -> TwoPaths:
    torch.manual_seed(0)
    model = TwoPaths().eval()
    model(batches(2)[0])
    for layer in norms(model).values():
        if layer.track_running_stats:
            layer.running_mean.normal_()
            layer.running_var.uniform_(1, 2)
            layer.num_batches_tracked.fill_(7)
    return model


def norms(model: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in model.named_modules() if isinstance(module, BN)}


def statistics(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def slow(model: nn.Module, data: list[Tensor]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Record every layer's inputs on a copy with dropout off and BN in train mode; average in float64."""
    model = copy.deepcopy(model).eval()
    seen: dict[str, list[np.ndarray]] = {}
    for name, layer in norms(model).items():
        layer.train()
        layer.register_forward_hook(
            lambda _, args, __, name=name: seen.setdefault(name, []).append(args[0].double().numpy())
        )
    with torch.no_grad():
        for batch in data:
            model(batch)
    result = {}
    for name, inputs in seen.items():
        mean = variance = count = 0
        for x in inputs:
            per_channel = np.moveaxis(x, 1, 0).reshape(x.shape[1], -1)
            mean = mean + len(x) * per_channel.mean(axis=1)
            variance = variance + len(x) * per_channel.var(axis=1, ddof=1)
            count += len(x)
        result[name] = mean / count, variance / count
    return result


def assert_equals_slow(model: nn.Module, expected: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    for name, (mean, variance) in expected.items():
        layer = model.get_submodule(name)
        if layer.track_running_stats:
            np.testing.assert_allclose(layer.running_mean[: len(mean)], mean, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(layer.running_var[: len(mean)], variance, rtol=1e-4)


@pytest.mark.parametrize("training", [False, True])
def test_equals_slow_loop_and_leaves_the_rest(training: bool) -> None:
    model, data = supernet().train(training), batches(4, 7, 2)
    model.stem[2].training = not training
    before, modes = statistics(model), [module.training for module in model.modules()]
    momenta = [layer.momentum for layer in norms(model).values()]
    weights = copy.deepcopy(dict(model.named_parameters()))
    expected = slow(model, data)

    assert recalibrate_batch_norm(model, data) == 4  # stem, path 0, sliced, head

    assert_equals_slow(model, expected)
    after = statistics(model)
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {name for name in before if name.startswith("paths.1")}
    assert model.stem[1].num_batches_tracked == 3
    assert [module.training for module in model.modules()] == modes
    assert [layer.momentum for layer in norms(model).values()] == momenta
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(weights[name], param) for name, param in model.named_parameters())
    assert all(param.grad is None for param in model.parameters())


def test_one_recalibrator_for_many_subnets_walks_the_tree_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = supernet(), batches(4, 3)
    recalibrator = BatchNormRecalibrator(model)
    expected = []
    for active in (0, 1):
        model.active = active
        expected.append(slow(model, data))

    def no_walk(*_: object, **__: object) -> Iterator[nn.Module]:
        raise RuntimeError("walked the module tree")

    for active in (1, 0, 1):
        model.active = active
        with monkeypatch.context() as patch:
            for method in ("modules", "named_modules", "children", "train", "eval"):
                patch.setattr(nn.Module, method, no_walk)
            recalibrator.recalibrate(data)
        assert_equals_slow(model, expected[active])


def test_an_earlier_state_has_no_influence() -> None:
    clean, dirty, data = supernet(), supernet(), batches(4, 3)
    for layer in norms(dirty).values():
        if layer.track_running_stats:
            layer.running_mean.fill_(float("nan"))
            layer.running_var.fill_(float("inf"))
    recalibrate_batch_norm(clean, data)
    recalibrate_batch_norm(dirty, data)
    assert torch.equal(clean.sliced.running_var, dirty.sliced.running_var)
    assert torch.equal(clean.head[2].running_mean, dirty.head[2].running_mean)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm1d(5), (5,)),
        (nn.BatchNorm1d(5), (5, 3)),
        (nn.BatchNorm2d(5), (5, 3, 2)),
        (nn.BatchNorm3d(5), (5, 2, 3, 2)),
        (nn.SyncBatchNorm(5), (5, 3, 2)),
        (SlicedBatchNorm(5), (5, 3, 2)),
    ],
)
def test_every_layer_type(layer: nn.Module, shape: tuple[int, ...]) -> None:
    model, data = nn.Sequential(layer), batches(5, 2, 9, 3, shape=shape)
    expected = slow(model, data)
    assert recalibrate_batch_norm(model, iter(data)) == 1
    assert_equals_slow(model, expected)


def test_a_sliced_layer_changes_only_the_channels_in_use() -> None:
    model = nn.Sequential(SlicedBatchNorm(6))
    model[0].running_mean.fill_(5)
    data = batches(4, 6, shape=(4, 3, 3))
    expected = slow(model, data)
    recalibrate_batch_norm(model, data)
    assert_equals_slow(model, expected)
    assert model[0].running_mean[4:].tolist() == [5, 5]
    assert model[0].running_var[4:].tolist() == [1, 1]


def test_a_layer_that_runs_twice_takes_both_runs() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(2 * self.norm(x) + 1)

    model, data = Twice(), batches(4, 6)
    expected = slow(model, data)
    recalibrate_batch_norm(model, data)
    assert_equals_slow(model, expected)
    # The second run sees mean 1 and variance about 4, so a mere last value or the first run would not do.
    assert expected["norm"][1][0] == pytest.approx((9 + 4) / 2, rel=0.2)


def test_forward_and_kinds_of_batches() -> None:
    model, data = nn.Sequential(nn.BatchNorm1d(2)), batches(4, 6, shape=(2,))
    expected = slow(model, data)
    recalibrate_batch_norm(model, [{"image": x} for x in data], forward=lambda batch: model(batch["image"]))
    assert_equals_slow(model, expected)
    model[0].reset_running_stats()
    recalibrate_batch_norm(model, [[x, torch.zeros(len(x))] for x in data])
    assert_equals_slow(model, expected)
    model[0].reset_running_stats()
    recalibrate_batch_norm(model, data, forward=lambda batch: model[0](input=batch))
    assert_equals_slow(model, expected)


def test_the_subnet_predicts_as_in_train_mode_afterwards() -> None:
    model, data = supernet(), batches(64)
    recalibrate_batch_norm(model, data)
    with torch.no_grad():
        recalibrated = model(data[0])
        for layer in norms(model).values():
            layer.train()
        assert torch.allclose(recalibrated, model(data[0]), atol=0.05)


def test_without_layers_nothing_happens() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False))
    assert recalibrate_batch_norm(model, batches(3, shape=(2,))) == 0


def test_preserved_is_exact_also_after_errors() -> None:
    model = supernet()
    model.stem[1].running_mean[0] = float("nan")
    before = {name: buffer.numpy().tobytes() for name, buffer in statistics(model).items()}
    with pytest.raises(KeyError), preserved_batch_norm(model):
        recalibrate_batch_norm(model, batches(4))
        assert {name: buffer.numpy().tobytes() for name, buffer in statistics(model).items()} != before
        raise KeyError
    assert {name: buffer.numpy().tobytes() for name, buffer in statistics(model).items()} == before


def broken_forward(model: nn.Module, after: int) -> object:
    calls = itertools.count()

    def forward(batch: Tensor) -> None:
        model(batch)
        if next(calls) == after:
            raise KeyboardInterrupt

    return forward


def test_an_interrupt_puts_everything_back() -> None:
    model = supernet().train()
    before, momenta = statistics(model), [layer.momentum for layer in norms(model).values()]
    with pytest.raises(KeyboardInterrupt):
        recalibrate_batch_norm(model, batches(4, 4, 4), forward=broken_forward(model, after=1))
    after = statistics(model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [layer.momentum for layer in norms(model).values()] == momenta
    assert all(module.training for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())


def flip_to_eval(model: nn.Module) -> object:
    return lambda batch: model.eval()(batch)


@pytest.mark.parametrize(
    ("data", "make_forward", "error", "match"),
    [
        ([], None, DataError, "`batches` is expected to yield at least one batch, but got none"),
        (batches(4, 1, shape=(6, 1, 1)), None, DataError, r"layer `1` more than one value .*\(1, 6, 1, 1\)"),
        (batches(4, 0, shape=(6, 1, 1)), None, DataError, r"layer `1` more than one value .*\(0, 6, 1, 1\)"),
        ([{"image": 1}], None, ConfigurationError, "tuples that start with one, but got dict"),
        ([()], None, ConfigurationError, "tuples that start with one, but got tuple"),
        (
            batches(4, shape=(6, 2, 2)),
            flip_to_eval,
            ConfigurationError,
            "layer `1` in train mode, but it ran",
        ),
        (
            batches(4, shape=(6, 2, 2)) + batches(4, shape=(5, 2, 2)),
            None,
            ConfigurationError,
            "the same subnet on every batch, but batch-norm layer `1` got 5 channels after 6",
        ),
    ],
)
def test_errors_change_nothing(data: list, make_forward: object, error: type, match: str) -> None:
    model = nn.Sequential(nn.Identity(), SlicedBatchNorm(6)).train()
    before = statistics(model)
    with pytest.raises(error, match=match):
        recalibrate_batch_norm(model, data, forward=make_forward and make_forward(model))
    after = statistics(model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert model[0].training
    assert model[1].training


@pytest.mark.filterwarnings("ignore:.* is found to be not a nn:RuntimeWarning")
def test_super_kernel_of_nni() -> None:
    nni = pytest.importorskip("nni")
    from nni.nas.nn.pytorch import ModelSpace, MutableBatchNorm2d, MutableConv2d
    from nni.nas.oneshot.pytorch.strategy import RandomOneShot

    class Space(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            width = nni.choice("width", [2, 5])
            self.conv = MutableConv2d(3, width, 1)
            self.norm = MutableBatchNorm2d(width)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.conv(x))

    model, data = RandomOneShot().mutate_model(Space()), batches(4, 7)
    for width in (5, 2):
        wide = statistics(model)
        for module in (model.conv, model.norm):
            module.resample(memo={"width": width})
        with torch.no_grad():
            outputs = [model.conv(x).double().transpose(0, 1).flatten(1).numpy() for x in data]
        assert recalibrate_batch_norm(model, data) == 1
        mean = sum(n * x.mean(axis=1) for n, x in zip((4, 7), outputs, strict=True)) / 11
        variance = sum(n * x.var(axis=1, ddof=1) for n, x in zip((4, 7), outputs, strict=True)) / 11
        assert_equals_slow(model, {"norm": (mean, variance)})
    assert torch.equal(model.norm.running_mean[2:], wide["norm.running_mean"][2:])
