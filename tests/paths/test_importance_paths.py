"""Path importance sampling: hand-computed distributions, what is measured, frequencies, bias, refusals."""

from __future__ import annotations

from collections import Counter
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from nni_supernet_ext.core import Draw, StepState, SupernetCallback
from nni_supernet_ext.core.candidate_parameters import CandidateParameters
from nni_supernet_ext.errors import CheckpointError, ConfigurationError, TrainingDivergedError
from nni_supernet_ext.paths import ImportancePathSampler, SandwichSampler, UniformPathSampler
from nni_supernet_ext.testing import MethodCase, ToyCellSpace, ToySpace, toy_data, toy_supernet
from nni_supernet_ext.testing.training import train

CASE = MethodCase("case", dict)
CELLS = MethodCase("case", dict, space=ToyCellSpace)


class Bench:
    """A sampler with a supernet whose gradients the test writes itself."""

    def __init__(self, space: Any = None, total: int = 100, scale: float | None = None, **arguments: Any) -> None:
        self.sampler = ImportancePathSampler(**arguments)
        self.supernet = toy_supernet(space)
        scaler = None if scale is None else SimpleNamespace(_scale=torch.tensor(scale))
        self.scale = scale or 1.0
        self.plan: Any = SimpleNamespace(
            supernet=self.supernet,
            paths=self.sampler,
            step_every="batch",
            total_iterations=total,
            trainer=SimpleNamespace(world_size=1, strategy=None, precision_plugin=SimpleNamespace(scaler=scaler)),
        )
        assert not list(self.sampler.problems(self.plan))
        self.sampler.prepare(self.plan)
        self.weights = CandidateParameters(self.supernet)
        self.rng = np.random.default_rng(0)
        self.state = StepState(total_iterations=total)

    def step(self, *draws: tuple[dict[str, Any], dict[str, float]], factors: tuple[float, ...] = ()) -> None:
        """Run a step over forced draws: sample, and label -> the gradient norm its candidate is to have."""
        self.sampler.draws(self.rng, self.state)
        self.state.draws = [Draw(sample) for sample, _ in draws]
        self.state.scales = list(factors) or [1.0] * len(draws)
        for parameter in self.supernet.model.parameters():
            parameter.grad = None
        for index, (sample, norms) in enumerate(draws):
            self.state.index = index
            for label, norm in norms.items():
                own = self.weights.of(label, sample)
                for parameter in own:
                    # Each tensor's norm is norm / sqrt(number of tensors), so the joint one is norm.
                    gradient = torch.zeros_like(parameter)
                    gradient.view(-1)[index] = norm / len(own) ** 0.5 * self.scale * self.state.scales[index]
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
            self.sampler.on_after_draw(self.state)
        self.state.iteration += 1

    def turn(self) -> dict[str, dict[Any, float]]:
        """Begin the next epoch and return the distributions in force."""
        self.state.epoch += 1
        self.sampler.draws(self.rng, self.state)
        return self.sampler.probabilities


def _sample(first: str, second: str) -> dict[str, Any]:
    return {"edge_0": first, "edge_1": second}


def _three_steps(**arguments: Any) -> dict[str, dict[Any, float]]:
    bench = Bench(ToyCellSpace(), delta=0.5, **arguments)
    bench.step((_sample("conv", "point"), {"edge_0": 3.0, "edge_1": 1.0}))
    bench.step((_sample("conv", "skip"), {"edge_0": 5.0}))
    bench.step((_sample("point", "conv"), {"edge_0": 2.0, "edge_1": 6.0}))
    return bench.turn()


def test_three_steps_by_hand_per_choice() -> None:
    p = _three_steps()
    # edge_0: conv (3 + 5) / 2 = 4, point 2; edge_1: conv 6, point 1.
    assert p["edge_0"] == pytest.approx({"conv": 4 / 6 / 2 + 1 / 6, "point": 2 / 6 / 2 + 1 / 6, "skip": 1 / 6})
    assert p["edge_1"] == pytest.approx({"conv": 6 / 7 / 2 + 1 / 6, "point": 1 / 7 / 2 + 1 / 6, "skip": 1 / 6})


def test_three_steps_by_hand_per_operation() -> None:
    p = _three_steps(granularity="operation")
    # conv: (3 + 5 + 6) / 3, point: (1 + 2) / 2.
    total = 14 / 3 + 3 / 2
    expected = {"conv": 14 / 3 / total / 2 + 1 / 6, "point": 3 / 2 / total / 2 + 1 / 6, "skip": 1 / 6}
    assert p["edge_0"] == pytest.approx(expected) and p["edge_1"] == pytest.approx(expected)


def test_three_steps_by_hand_pairwise_and_summed_norms() -> None:
    p = _three_steps(granularity="operation", accumulation="pairwise", norm="sum")
    # Four tensors of half the norm each: sums are twice the norms. conv 0 -> 3 -> 6.5 -> 9.25, point 0 -> 1 -> 2.5.
    assert p["edge_0"] == pytest.approx(
        {"conv": 9.25 / 11.75 / 2 + 1 / 6, "point": 2.5 / 11.75 / 2 + 1 / 6, "skip": 1 / 6}
    )


def test_operation_twice_on_a_path_is_averaged_first() -> None:
    bench = Bench(ToyCellSpace(), delta=0.5, granularity="operation", accumulation="pairwise")
    bench.step((_sample("conv", "conv"), {"edge_0": 2.0, "edge_1": 6.0}))
    bench.step((_sample("point", "skip"), {"edge_0": 6.0}))
    # conv: 0 -> 4 / 2 = 2; point: 0 -> 3.
    assert bench.turn()["edge_1"] == pytest.approx({"conv": 0.2 + 1 / 6, "point": 0.3 + 1 / 6, "skip": 1 / 6})


def test_schedule_is_the_progress_when_the_epoch_begins() -> None:
    bench = Bench(ToyCellSpace(), total=4)
    bench.step((_sample("conv", "skip"), {"edge_0": 3.0}))
    assert bench.turn()["edge_0"]["conv"] == pytest.approx(0.25 + 0.75 / 3)
    bench.step((_sample("skip", "skip"), {}))
    assert bench.turn()["edge_0"]["conv"] == pytest.approx(0.5 + 0.5 / 3), "an unmeasured candidate keeps its norm"


def test_unseen_candidates_fall_to_the_uniform_share_where_asked() -> None:
    bench = Bench(ToyCellSpace(), delta=0.5, unseen="zero")
    bench.step((_sample("conv", "skip"), {"edge_0": 3.0}))
    bench.turn()
    bench.step((_sample("point", "skip"), {"edge_0": 1.0}))
    assert bench.turn()["edge_0"] == pytest.approx({"conv": 1 / 6, "point": 4 / 6, "skip": 1 / 6})


def test_each_draw_of_a_step_is_measured_on_its_own() -> None:
    bench = Bench(ToyCellSpace(), delta=0.5)
    both = (_sample("conv", "skip"), {"edge_0": 3.0}), (_sample("conv", "skip"), {"edge_0": 5.0})
    bench.step(*both, (_sample("point", "skip"), {"edge_0": 4.0}))
    assert bench.turn()["edge_0"] == pytest.approx({"conv": 0.25 + 1 / 6, "point": 0.25 + 1 / 6, "skip": 1 / 6})


def test_loss_scale_and_weights_are_divided_out() -> None:
    bench = Bench(ToyCellSpace(), delta=0.5, scale=1024.0)
    bench.step((_sample("conv", "skip"), {"edge_0": 3.0}), factors=(0.25,))
    bench.sampler._read()
    assert bench.sampler._table.current().max() == pytest.approx(3.0)


def test_norms_that_are_not_finite_are_left_out_and_all_of_them_stop_the_training() -> None:
    bench = Bench(ToyCellSpace(), delta=0.5)
    bench.step((_sample("conv", "skip"), {"edge_0": float("nan")}))
    bench.step((_sample("conv", "skip"), {"edge_0": float("inf")}))
    bench.step((_sample("point", "skip"), {"edge_0": 1.0}))
    assert bench.turn()["edge_0"] == pytest.approx({"conv": 1 / 6, "point": 4 / 6, "skip": 1 / 6})
    bench.step((_sample("conv", "skip"), {"edge_0": float("nan")}))
    with pytest.raises(TrainingDivergedError, match="gradient norms of an epoch are expected to be finite"):
        bench.turn()


def test_update_every_step() -> None:
    bench = Bench(ToyCellSpace(), delta=0.5, update="step")
    bench.step((_sample("conv", "skip"), {"edge_0": 3.0}))
    bench.step((_sample("point", "skip"), {"edge_0": 1.0}))
    assert bench.sampler.probabilities["edge_0"]["conv"] == pytest.approx(0.5 + 1 / 6)
    bench.step((_sample("skip", "skip"), {}))
    assert bench.sampler.probabilities["edge_0"]["conv"] == pytest.approx(0.375 + 1 / 6)


def test_frequencies_follow_the_distribution() -> None:
    bench = Bench(ToyCellSpace(), delta=0.8)
    bench.step((_sample("conv", "point"), {"edge_0": 3.0, "edge_1": 2.0}))
    bench.step((_sample("point", "conv"), {"edge_0": 1.0, "edge_1": 6.0}))
    p = bench.turn()
    n = 20_000
    drawn = [bench.sampler.draws(bench.rng, bench.state)[0].sample for _ in range(n)]
    pairs = Counter((sample["edge_0"], sample["edge_1"]) for sample in drawn)
    cells = list(product(p["edge_0"], p["edge_1"]))
    expected = [n * p["edge_0"][a] * p["edge_1"][b] for a, b in cells]
    assert chisquare([pairs[cell] for cell in cells], expected).pvalue > 1e-3
    assert chisquare([pairs[cell] for cell in cells]).pvalue < 1e-6, "the test could not tell it from uniform"


def test_without_a_share_of_the_norms_the_draws_are_those_of_uniform_sampling() -> None:
    bench = Bench(ToyCellSpace(), delta=0.0)
    uniform = UniformPathSampler()
    uniform.prepare(bench.plan)
    bench.step((_sample("conv", "point"), {"edge_0": 3.0, "edge_1": 2.0}))
    bench.turn()
    first, second = np.random.default_rng(5), np.random.default_rng(5)
    for _ in range(200):
        assert bench.sampler.draws(first, bench.state) == uniform.draws(second, bench.state)


def _subnet_gradients(supernet: Any) -> dict[tuple[Any, Any], torch.Tensor]:
    """Gradient of every weight of the supernet, as one vector, for each of the toy space's six subnets."""
    images, labels = toy_data(16).tensors
    gradients = {}
    for sample in supernet.domain.grid():
        supernet.activate(sample)
        supernet.model.zero_grad()
        torch.nn.functional.cross_entropy(supernet.model(images), labels).backward()
        parts = [
            torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten()
            for p in supernet.model.parameters()
        ]
        gradients[sample["op"], sample["width"]] = torch.cat(parts).double()
    return gradients


@pytest.mark.parametrize("reweight", [True, False])
def test_reweighted_draws_have_the_full_gradient_on_average(reweight: bool) -> None:
    bench = Bench(ToySpace(), delta=0.8, reweight=reweight)
    gradients = _subnet_gradients(bench.supernet)
    bench.step(({"op": "conv", "width": 8}, {"op": 9.0}))
    bench.step(({"op": "linear", "width": 4}, {"op": 1.0}))
    bench.turn()
    full = sum(gradients.values()) / len(gradients)  # type: ignore[arg-type]
    n, total, square = 20_000, torch.zeros_like(full), torch.zeros_like(full)
    for _ in range(n):
        (draw,) = bench.sampler.draws(bench.rng, bench.state)
        gradient = draw.weight * gradients[draw.sample["op"], draw.sample["width"]]
        total += gradient
        square += gradient**2
    mean = total / n
    error = ((square / n - mean**2).clamp_min(1e-12) / n).sqrt()
    off = ((mean - full).abs() / error).max()
    # About 1,000 elements: the largest of as many standard normal numbers stays below 5.
    assert (off < 5.0) if reweight else (off > 20.0)


class OwnGradients(SupernetCallback):
    """Record each draw's own gradient norms through tensor hooks, which see one backward pass only."""

    def __init__(self) -> None:
        self.norms: list[dict[str, float]] = []
        self._seen: dict[int, torch.Tensor] = {}

    def prepare(self, plan: Any) -> None:
        self.plan, self.weights = plan, CandidateParameters(plan.supernet)
        self.handles = [p.register_hook(self._see(id(p))) for p in plan.supernet.model.parameters()]

    def _see(self, key: int) -> Any:
        return lambda gradient: self._seen.__setitem__(key, gradient.clone())

    def on_after_draw(self, state: StepState) -> None:
        sample = state.draw.sample
        found = {}
        for label in ("op", "width"):
            own = [self._seen[id(p)] for p in self.weights.of(label, sample) if id(p) in self._seen]
            if own:
                joint = torch.cat([g.flatten() for g in own]).norm() / state.scales[state.index]
                found[label] = float(joint)
        self.norms.append(found)
        self._seen.clear()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        for handle in self.handles:
            handle.remove()


@pytest.mark.parametrize("step_every", ["batch", "subnet"])
def test_host_measures_each_draw_of_a_sandwich(tmp_path: Any, step_every: str) -> None:
    recorded: list[list[tuple[str, Any, float]]] = []

    class Recording(ImportancePathSampler):
        def _read(self) -> None:
            keep, self._table.add = self._table.add, lambda draw: recorded.append(list(draw))  # type: ignore
            super()._read()
            self._table.add = keep  # type: ignore[method-assign]

    own = OwnGradients()
    paths = SandwichSampler(Recording(delta=0.5), gradients="mean")
    train(CASE, {"paths": paths, "callbacks": [own], "step_every": step_every}, tmp_path, epochs=1)
    assert len(recorded) == len(own.norms) == 16
    for measured, expected in zip(recorded, own.norms, strict=True):
        assert {label: norm for label, _, norm in measured} == pytest.approx(expected, rel=2e-4)


def test_clipped_gradients_are_measured_after_clipping(tmp_path: Any) -> None:
    def largest(gradient: str) -> float:
        paths = ImportancePathSampler(delta=0.5, gradient=gradient)  # type: ignore[arg-type]
        train(CASE, {"paths": paths, "gradient_clip_val": 0.01}, tmp_path / gradient, epochs=1)
        paths._read()
        return float(paths._table.current().max())

    assert largest("clipped") <= 0.01 < largest("raw")


def test_training_changes_the_draws_and_finds_candidates_of_every_kind(tmp_path: Any) -> None:
    paths = ImportancePathSampler(delta=0.9)
    train(CASE, {"paths": paths}, tmp_path)
    assert set(paths.probabilities) == {"op", "width"}
    p = paths.probabilities["op"]
    assert p["skip"] == pytest.approx(0.1 / 3) and p["conv"] != pytest.approx(p["linear"])


def test_no_device_value_is_read_within_an_epoch(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from nni_supernet_ext.core.gradient_probe import GradientNormProbe

    sizes: list[int] = []
    read = GradientNormProbe.read
    monkeypatch.setattr(GradientNormProbe, "read", lambda self: sizes.append(len(self)) or read(self))
    train(CASE, {"paths": ImportancePathSampler()}, tmp_path, epochs=2)
    assert [size for size in sizes if size] == [4, 4], "one reading of four steps per epoch"


@pytest.mark.parametrize(
    ("arguments", "more", "message"),
    [
        ({"granularity": "path"}, {}, "`granularity` is expected to be one of"),
        ({"update": "batch"}, {}, "`update` is expected to be one of"),
        ({"delta": 1.0}, {}, "`delta` is expected to be one of"),
        ({"labels": 5}, {}, "`labels` is expected to be a list of choices' labels or None, but got 5"),
        ({"labels": "op"}, {}, "`labels` is expected to be a list of choices' labels or None, but got 'op'"),
        ({"accept": "all"}, {}, "`accept` is expected to be a function of the sample or None, but got 'all'"),
        ({"labels": ["nothing"]}, {}, "whose candidates have weights, but got"),
        ({"granularity": "operation"}, {}, "'choice' where choices have different candidates"),
        ({"reweight": True, "accept": lambda s: True}, {}, "False where samples are rejected"),
    ],
)
def test_refusals(tmp_path: Any, arguments: dict[str, Any], more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        train(CASE, {"paths": ImportancePathSampler(**arguments), **more}, tmp_path)


def test_refuses_clipped_gradients_of_several_draws(tmp_path: Any) -> None:
    paths = SandwichSampler(ImportancePathSampler(gradient="clipped"))
    with pytest.raises(ConfigurationError, match="'raw' with several draws"):
        train(CASE, {"paths": paths}, tmp_path)
    train(
        CASE,
        {"paths": SandwichSampler(ImportancePathSampler(gradient="clipped")), "step_every": "subnet"},
        tmp_path / "works",
        epochs=1,
    )


def test_operation_granularity_in_the_host(tmp_path: Any) -> None:
    paths = ImportancePathSampler(delta=0.9, granularity="operation", accumulation="pairwise", update="step")
    train(CELLS, {"paths": paths}, tmp_path, epochs=1)
    assert paths.probabilities["edge_0"] == paths.probabilities["edge_1"]


def test_loss_scale_is_that_of_a_real_scaler() -> None:
    from nni_supernet_ext._compat.loss_scale import loss_scale

    scaler = torch.amp.GradScaler("cpu", init_scale=512.0)
    trainer = SimpleNamespace(precision_plugin=SimpleNamespace(scaler=scaler))
    scaler.scale(torch.ones(()))
    scale = loss_scale(trainer)
    assert scale is not None and float(scale) == scaler.get_scale() == 512.0
    assert loss_scale(SimpleNamespace(precision_plugin=SimpleNamespace())) is None


def test_a_checkpoint_of_another_granularity_is_refused(tmp_path: Path) -> None:
    folder = {"checkpoint_dir": tmp_path / "checkpoint"}
    train(CELLS, {"paths": ImportancePathSampler(granularity="operation"), **folder}, tmp_path, epochs=1)
    with pytest.raises(CheckpointError, match="another `parts`"):
        train(CELLS, {"paths": ImportancePathSampler(), **folder}, tmp_path, epochs=2)


@pytest.mark.parametrize("delta", [lambda progress: progress, "linear"])
def test_a_share_that_depends_on_progress_needs_an_end(tmp_path: Path, delta: Any) -> None:
    settings = {"paths": ImportancePathSampler(delta)}
    endless = {"max_time": "00:00:00:05"}
    with pytest.raises(ConfigurationError, match="known number of iterations for ImportancePathSampler"):
        train(CASE, settings, tmp_path, epochs=-1, evaluator_arguments=endless)
