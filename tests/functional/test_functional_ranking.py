"""Ranking metrics: against scipy, against definitions by brute force, and against measured tables."""

from __future__ import annotations

import csv
import gzip
import itertools
import math
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from nni_supernet_ext import functional as ours
from nni_supernet_ext.errors import ConfigurationError, DataError

small = st.integers(0, 4)  # few distinct numbers, hence many ties
pairs = st.integers(2, 7).flatmap(lambda n: st.tuples(*[st.lists(small, min_size=n, max_size=n)] * 2))
METRICS = [
    ours.kendall_tau,
    ours.spearman_rho,
    ours.pearson_r,
    ours.precision_at_top,
    partial(ours.kendall_tau_top, fraction=1.0),
    partial(ours.best_of_top, n=1),
    ours.regret,
    partial(ours.improvement, n=1),
    partial(ours.top_mean, n=1),
    partial(ours.bootstrap_interval, metric=ours.kendall_tau, n=2),
]


def tau_b(predicted: list, actual: list) -> float:
    """Kendall's definition: all pairs, one by one."""
    agree = disagree = untied_p = untied_a = 0
    for (p, a), (q, b) in itertools.combinations(zip(predicted, actual, strict=True), 2):
        agree += (p - q) * (a - b) > 0
        disagree += (p - q) * (a - b) < 0
        untied_p += p != q
        untied_a += a != b
    return (agree - disagree) / math.sqrt(untied_p * untied_a) if untied_p and untied_a else math.nan


def over_all_orders(predicted: list, actual: list, count: int, score: object) -> float:
    """Break ties in every possible way: the exact mean of ``score`` over all sorts by ``predicted``."""
    scores = []
    for order in itertools.permutations(range(len(predicted))):
        if all(predicted[i] >= predicted[j] for i, j in itertools.pairwise(order)):
            scores.append(Fraction(score([actual[i] for i in order[:count]])))
    return float(sum(scores) / len(scores))


@given(pairs)
def test_kendall_equals_definition(pair: tuple[list, list]) -> None:
    assert ours.kendall_tau(*pair) == pytest.approx(tau_b(*pair), nan_ok=True)


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=2, max_size=30))
def test_spearman_is_pearson_of_mean_ranks(points: list[tuple[float, float]]) -> None:
    x, y = (np.array(values) for values in zip(*points, strict=True))
    ranks = [np.array([(v < w).sum() + ((v == w).sum() + 1) / 2 for w in v]) for v in (x, y)]
    assume(all(np.ptp(rank) > 0 for rank in ranks))
    assert ours.spearman_rho(x, y) == pytest.approx(float(np.corrcoef(*ranks)[0, 1]), abs=1e-9)


@given(st.lists(st.tuples(st.integers(-100, 100), st.integers(-100, 100)), min_size=2, max_size=30))
def test_pearson_equals_exact_arithmetic(points: list[tuple[int, int]]) -> None:
    x, y = zip(*points, strict=True)
    n = len(points)
    xx, yy, xy = (
        n * sum(a * b for a, b in zip(u, v, strict=True)) - sum(u) * sum(v) for u, v in ((x, x), (y, y), (x, y))
    )
    assume(xx > 0 and yy > 0)
    assert ours.pearson_r(x, y) == pytest.approx(xy / math.sqrt(xx * yy), abs=1e-12)


def test_large_inputs_equal_scipy() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=20_000).round(2)
    y = x + rng.normal(size=20_000)
    assert ours.kendall_tau(x, y) == stats.kendalltau(x, y).statistic
    assert ours.spearman_rho(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert ours.pearson_r(x, y) == pytest.approx(stats.pearsonr(x, y).statistic)


@given(pairs, st.data())
def test_selections_are_means_over_all_orders(pair: tuple[list, list], data: st.DataObject) -> None:
    predicted, actual = pair
    count = data.draw(st.integers(1, len(actual)))
    mean = partial(over_all_orders, predicted, actual, count)
    assert ours.best_of_top(predicted, actual, count) == pytest.approx(mean(max))
    assert ours.regret(predicted, actual, count) == pytest.approx(max(actual) - mean(max), abs=1e-12)
    threshold = sorted(actual, reverse=True)[count - 1]
    hits = mean(lambda chosen: Fraction(sum(value >= threshold for value in chosen), count))
    assert ours.precision_at_top(predicted, actual, count / len(actual)) == pytest.approx(hits)
    of_top = mean(lambda chosen: Fraction(sum(chosen), count))
    assert ours.top_mean(predicted, actual, count) == pytest.approx(of_top)
    assert ours.removal_curve(predicted, actual)[len(actual) - count] == pytest.approx(of_top)
    average = Fraction(sum(actual), len(actual))
    if max(actual) != min(actual):
        gain = mean(lambda chosen: (Fraction(sum(chosen), count) - average) / (max(actual) - average))
        assert ours.improvement(predicted, actual, count) == pytest.approx(gain, abs=1e-12)


@given(pairs, st.floats(0.01, 1))
def test_tau_top_equals_definition(pair: tuple[list, list], fraction: float) -> None:
    predicted, actual = pair
    threshold = sorted(actual, reverse=True)[math.ceil(fraction * len(actual)) - 1]
    top = [(p, a) for p, a in zip(predicted, actual, strict=True) if a >= threshold]
    assume(len(top) > 1)
    found = ours.kendall_tau_top(predicted, actual, fraction)
    assert found == pytest.approx(tau_b(*zip(*top, strict=True)), nan_ok=True)


def test_fractions_that_floats_cannot_hold_are_not_rounded_up() -> None:
    actual = list(range(100))
    predicted = actual.copy()
    predicted[92], predicted[93] = 93, 92  # swaps the eighth and the seventh: 6 of 7 right, but 8 of 8
    assert 0.07 * 100 > 7
    assert ours.precision_at_top(predicted, actual, 0.07) == pytest.approx(6 / 7)


def test_a_constant_predictor_is_as_good_as_chance() -> None:
    actual = np.arange(10.0)
    constant = np.zeros(10)
    assert ours.precision_at_top(constant, actual, 0.2) == pytest.approx(0.2)
    assert ours.regret(constant, actual) == pytest.approx(4.5)
    assert ours.improvement(constant, actual, 3) == pytest.approx(0.0)


def test_removal_curve_removes_the_worst_predicted_first() -> None:
    predicted, actual = [3.0, 1.0, 4.0, 2.0], [70.0, 50.0, 60.0, 90.0]
    remaining = sorted(zip(predicted, actual, strict=True))
    means = [sum(a for _, a in remaining[k:]) / (4 - k) for k in range(4)]
    assert ours.removal_curve(predicted, actual).tolist() == pytest.approx(means)
    assert ours.removal_curve(torch.zeros(4), actual).tolist() == pytest.approx([67.5] * 4)
    with pytest.raises(ConfigurationError, match="expected to have the same length"):
        ours.removal_curve(predicted, actual[:3])
    with pytest.raises(DataError, match="free of NaN"):
        ours.removal_curve(predicted, [1.0, 2.0, 3.0, math.nan])


def test_what_is_not_selected_does_not_count_even_if_it_is_infinite() -> None:
    assert ours.top_mean([3, 2, 1], [90.0, 80.0, -math.inf], 2) == 85.0
    assert ours.top_mean([3, 2, 1], [90.0, 80.0, -math.inf], 3) == -math.inf
    assert math.isnan(ours.improvement([3, 2, 1], [90.0, 80.0, -math.inf], 2))  # of an infinite mean


def test_improvement_ends() -> None:
    actual = [50.0, 60.0, 70.0, 100.0]
    assert ours.improvement(actual, actual, 1) == 1.0
    assert ours.improvement(actual, actual, 4) == pytest.approx(0.0)
    assert ours.improvement([4, 3, 2, 1], actual, 1) == pytest.approx((50 - 70) / (100 - 70))


@pytest.mark.parametrize("metric", [ours.kendall_tau, ours.spearman_rho, ours.pearson_r])
def test_constant_input_is_nan_without_warning(metric: object) -> None:
    assert math.isnan(metric([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]))
    assert math.isnan(metric([1.0, 2.0, 3.0], [0.1, 0.1, 0.1]))
    assert math.isnan(ours.improvement([1, 2, 3], [0.1, 0.1, 0.1], 1))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("convert", [tuple, np.float32, torch.tensor, partial(torch.tensor, requires_grad=True)])
def test_kinds_of_input_and_plain_results(metric: object, convert: object) -> None:
    x, y = [0.5, 0.25, 0.75, 1.0], [1.0, 3.0, 2.0, 8.0]
    found = metric(convert(x), convert(y))
    assert found == metric(x, y)
    assert all(type(number) is float for number in (found if isinstance(found, tuple) else (found,)))


def test_infinite_predictions_are_ranked() -> None:
    assert ours.kendall_tau([-math.inf, 0.0, 1.0], [1, 2, 3]) == pytest.approx(1.0)
    assert ours.spearman_rho([-math.inf, 0.0, 1.0], [1, 2, 3]) == pytest.approx(1.0)
    assert ours.best_of_top([-math.inf, 0.0, math.inf], [1, 2, 3], 1) == 3.0


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("predicted", "actual", "error", "match"),
    [
        ([1, 2], [1, 2, 3], ConfigurationError, "expected to have the same length, but got 2 and 3"),
        ([1], [1], ConfigurationError, "expected to have at least 2 items, but got 1"),
        ([[[1, 2]]], [1, 2], ConfigurationError, r"`predicted` is expected to be one-dimensional.*\(1, 1, 2\)"),
        (
            [1, 2, 3],
            [math.nan, 1, math.nan],
            DataError,
            "`actual` is expected to be free of NaN, but got 2 NaN",
        ),
    ],
)
def test_input_errors(metric: object, predicted: list, actual: list, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        metric(predicted, actual)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (partial(ours.precision_at_top, fraction=0), r"`fraction` is expected .* \(0, 1\], but got 0"),
        (partial(ours.kendall_tau_top, fraction=1.1), r"`fraction` is expected .* \(0, 1\], but got 1.1"),
        (ours.kendall_tau_top, r"`fraction` is expected to select at least 2 of 3 subnets, but got 0\.1"),
        (partial(ours.best_of_top, n=0), r"`n` is expected to be within \[1, 3\], but got 0"),
        (partial(ours.best_of_top, n=1.5), r"`n` is expected to be an integer, but got 1\.5"),
        (partial(ours.top_mean, n=2.0), r"`n` is expected to be an integer, but got 2\.0"),
        (partial(ours.regret, n=None), "`n` is expected to be an integer, but got None"),
        (partial(ours.bootstrap_interval, metric=ours.regret, n=1.5), r"`n` is expected to be an integer, .* 1\.5"),
        (partial(ours.regret, n=4), r"`n` is expected to be within \[1, 3\], but got 4"),
        (partial(ours.improvement, n=4), r"`n` is expected to be within \[1, 3\], but got 4"),
        (partial(ours.bootstrap_interval, metric=ours.regret, n=0), r"`n` and `level` .* got 0 and 0\.95"),
        (partial(ours.top_mean, n=0), r"`n` is expected to be within \[1, 3\], but got 0"),
        (partial(ours.bootstrap_interval, metric=ours.regret, over="runs"), "`over` is expected .* got 'runs'"),
        (
            partial(ours.bootstrap_interval, metric=ours.regret, over="both"),
            r"`predicted` is expected to have the shape \(seeds, size\).*got \(3,\)\. Train with more seeds",
        ),
        (partial(ours.bootstrap_interval, metric=ours.regret, level=95), r"`n` and `level` .* 1000 and 95"),
    ],
)
def test_setting_errors(call: object, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        call([1, 2, 3], [1, 2, 3])


def test_pearson_refuses_infinity() -> None:
    with pytest.raises(ConfigurationError, match="`predicted` is expected to be finite, but got 1 inf"):
        ours.pearson_r([math.inf, 1, 2], [1, 2, 3])


def test_bootstrap_equals_scipy_and_theory() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=80)
    y = x + rng.normal(size=80)
    low, high = ours.bootstrap_interval(x, y, ours.pearson_r, n=2000, level=0.9, seed=1)
    theirs = stats.bootstrap(
        (x, y), lambda a, b: stats.pearsonr(a, b).statistic, paired=True, vectorized=False, n_resamples=2000,
        confidence_level=0.9, method="percentile", rng=np.random.default_rng(2),
    ).confidence_interval  # fmt: skip
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.02)
    # The mean of y: normal, with standard error s / sqrt(n) (ddof 0), 5 % beyond 1.645 on each side.
    low, high = ours.bootstrap_interval(x, y, lambda _, b: float(b.mean()), n=4000, level=0.9)
    assert (low, high) == pytest.approx(tuple(y.mean() + np.array([-1.645, 1.645]) * y.std() / 80**0.5), abs=0.03)


def test_bootstrap_seed_undefined_draws_and_global_state() -> None:
    x, y = [1, 2, 3, 4, 5, 6], [2, 1, 4, 3, 6, 5]
    state = np.random.get_state()[1].copy()
    first = ours.bootstrap_interval(x, y, ours.kendall_tau, n=50)
    assert first == ours.bootstrap_interval(x, y, ours.kendall_tau, n=50, seed=0)
    assert first != ours.bootstrap_interval(x, y, ours.kendall_tau, n=50, seed=1)
    assert (np.random.get_state()[1] == state).all()
    # Half of the draws of two subnets are constant; the others have tau 1.
    assert ours.bootstrap_interval([1, 2], [1, 2], ours.kendall_tau, n=50) == pytest.approx((1.0, 1.0))
    assert all(map(math.isnan, ours.bootstrap_interval([1, 1], [1, 2], ours.kendall_tau, n=50)))


def test_bootstrap_over_seeds_equals_all_draws_by_hand() -> None:
    actual = [1.0, 2.0, 3.0, 4.0]
    seeds = np.array([[1, 2, 3, 4], [4, 3, 2, 1], [1, 3, 2, 4]], dtype=float)  # tau 1, -1, 2/3
    taus = [tau_b(list(row), actual) for row in seeds]
    means = sorted(sum(drawn) / 3 for drawn in itertools.product(taus, repeat=3))
    found = ours.bootstrap_interval(torch.tensor(seeds), actual, ours.kendall_tau, n=4000, level=0.8, over="seeds")
    # 27 equally likely draws: the 10 % and 90 % quantiles lie within the third and the twenty-fifth mean.
    assert means[2] - 1e-9 <= found[0] <= means[3] + 1e-9
    assert means[23] - 1e-9 <= found[1] <= means[24] + 1e-9


def test_bootstrap_over_both_is_wider_than_over_either() -> None:
    rng = np.random.default_rng(3)
    actual = rng.normal(size=60)
    seeds = actual + rng.normal(size=(8, 60)) * np.linspace(0.2, 3, 8)[:, None]

    def mean_error(row: np.ndarray, truth: np.ndarray) -> float:
        return float(np.abs(row - truth).mean())

    ends = {
        over: ours.bootstrap_interval(seeds, actual, mean_error, n=3000, level=0.9, over=over)
        for over in ("subnets", "seeds", "both")
    }
    half = {over: (high - low) / 2 for over, (low, high) in ends.items()}
    # A mean over a crossed design: variance of the seeds' means plus of the subnets' means plus of the rest.
    table = np.abs(seeds - actual)
    by_seed, by_subnet = table.mean(1), table.mean(0)
    rest = table - by_seed[:, None] - by_subnet[None, :] + table.mean()
    parts = {"seeds": by_seed.var() / 8, "subnets": by_subnet.var() / 60, "rest": rest.var() / 480}
    assert half["seeds"] == pytest.approx(1.645 * parts["seeds"] ** 0.5, rel=0.1)
    assert half["subnets"] == pytest.approx(1.645 * parts["subnets"] ** 0.5, rel=0.1)
    assert half["both"] == pytest.approx(1.645 * sum(parts.values()) ** 0.5, rel=0.1)


def test_one_seed_as_a_row_is_one_seed() -> None:
    predicted, actual = [3.0, 1.0, 2.0, 4.0], [3.0, 2.0, 1.0, 4.0]
    whole = ours.bootstrap_interval(predicted, actual, ours.spearman_rho, n=30)
    for row in ([predicted], np.array([predicted]), torch.tensor([predicted])):
        assert ours.bootstrap_interval(row, actual, ours.spearman_rho, n=30) == whole
    with pytest.raises(ConfigurationError, match=r"with at least 2 seeds, but got \(1, 4\)"):
        ours.bootstrap_interval([predicted], actual, ours.spearman_rho, over="seeds")
    with pytest.raises(ConfigurationError, match=r"one-dimensional, but got shape \(0, 4\)"):
        ours.bootstrap_interval(np.zeros((0, 4)), actual, ours.spearman_rho)


def test_several_seeds_over_subnets_is_the_mean_metric() -> None:
    x, y = np.array([[1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 3.0, 4.0]]), [1.0, 2.0, 4.0, 3.0]

    def mean_of_both(_: np.ndarray, truth: np.ndarray) -> float:
        rows = [[{1.0: 0, 2.0: 1, 4.0: 2, 3.0: 3}[value] for value in truth]]
        return float(np.mean([ours.pearson_r(row[rows[0]], truth) for row in x]))

    both = ours.bootstrap_interval(x, y, ours.pearson_r, n=40, seed=4)
    assert both == pytest.approx(ours.bootstrap_interval(x[0], y, mean_of_both, n=40, seed=4))


def test_nas_bench_201_reference_values(data_dir: Path) -> None:
    table = data_dir / "nasbench201.csv.gz"
    if not table.is_file():
        pytest.skip(f"The table {table} is absent.")
    with gzip.open(table, "rt") as file:
        rows = list(csv.DictReader(file))
    names = ("c10_test", "c10_valid", "flops_M", "oneshot_supernet_acc")
    test, valid, flops, supernet = (np.array([float(row[name]) for row in rows]) for name in names)
    assert round(ours.kendall_tau(valid, test), 3) == 0.894
    assert round(ours.kendall_tau(flops, test), 3) == 0.578
    assert round(ours.kendall_tau(supernet, test), 3) == 0.484
    assert round(ours.kendall_tau_top(valid, test), 3) == 0.514
    assert round(ours.kendall_tau_top(flops, test), 3) == 0.079


@pytest.mark.parametrize("over", ["subnets", "both"])
def test_bootstrap_refuses_rows_of_different_lengths(over: str) -> None:
    with pytest.raises(ConfigurationError, match=r"but got rows of different lengths\. Give every seed's"):
        ours.bootstrap_interval([[1, 2, 3], [1, 2]], [1, 2, 3], ours.kendall_tau, n=2, over=over)
