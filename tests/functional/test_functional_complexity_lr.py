"""Complexity-aware learning rate: against the paper's formulas in exact and in high-precision arithmetic."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import mpmath
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.functional import complexity_aware_lr, complexity_exponent, exponent_coefficients

mpmath.mp.dps = 80

NB201 = {"minimum": 72_752, "maximum": 1_524_272}  # convolution and linear weights, NAS-Bench-201
G = {"log": mpmath.log, "linear": mpmath.mpf, "exp": mpmath.exp}


def slow_coefficients(minimum: float, maximum: float, gamma: float, transform: str) -> tuple:
    g = G[transform]
    largest, smallest = mpmath.mpf(gamma), 1 / mpmath.mpf(gamma)
    omega = -(largest - smallest) / (g(mpmath.mpf(maximum)) - g(mpmath.mpf(minimum)))
    return omega, smallest - omega * g(mpmath.mpf(maximum))


def slow_exponent(complexity: float, minimum: float, maximum: float, gamma: float, transform: str) -> float:
    omega, tau = slow_coefficients(minimum, maximum, gamma, transform)
    return float(omega * G[transform](mpmath.mpf(complexity)) + tau)


@pytest.mark.parametrize(("ones", "threes"), [(6, 0), (0, 6), (0, 0)])
def test_nas_bench_201_numbers(ones: int, threes: int) -> None:
    # Every cell edge occurs in 5 cells of 16, 32 and 64 channels each.
    per_conv1x1 = 5 * (16**2 + 32**2 + 64**2)
    assert per_conv1x1 == 26_880
    complexity = 72_752 + per_conv1x1 * (ones + 9 * threes)
    expected = {(6, 0): 2.5598, (0, 6): 0.25, (0, 0): 4.0}[ones, threes]
    assert complexity_exponent(complexity, **NB201) == pytest.approx(expected, abs=5e-5)
    assert 72_752 + 6 * 9 * per_conv1x1 == 1_524_272


def test_published_coefficients() -> None:
    omega, tau = exponent_coefficients(**NB201)
    assert (round(omega, 5), round(tau, 5)) == (-1.23265, 17.79933)


positive = st.floats(1e-3, 1e9)


@given(st.tuples(positive, positive, positive).map(sorted), st.floats(1, 10), st.sampled_from(["log", "linear"]))
def test_exponent_equals_high_precision(values: list[float], gamma: float, transform: str) -> None:
    low, value, high = values
    assume(high > low)
    found = complexity_exponent(value, minimum=low, maximum=high, gamma_max=gamma, transform=transform)
    assert found == pytest.approx(slow_exponent(value, low, high, gamma, transform), rel=1e-9)
    assert 1 / gamma <= found <= gamma


@given(st.floats(-1e7, 1e7), st.floats(0, 1), st.floats(1e-6, 100), st.floats(1, 10))
def test_exp_is_safe_for_millions(low: float, position: float, width: float, gamma: float) -> None:
    high = low + width
    value = min(high, low + position * width)
    assume(high > low)
    found = complexity_exponent(value, minimum=low, maximum=high, gamma_max=gamma, transform="exp")
    with mpmath.workdps(120):
        expected = slow_exponent(value, low, high, gamma, "exp")
    assert found == pytest.approx(expected, rel=1e-9)


def test_exp_over_a_wide_range_keeps_all_but_the_largest_at_the_maximum() -> None:
    exponents = [complexity_exponent(c, **NB201, transform="exp") for c in (72_752, 1_000_000, 1_524_272)]
    assert exponents == [4.0, 4.0, 0.25]


@pytest.mark.parametrize("transform", ["log", "linear", "exp"])
@pytest.mark.parametrize("gamma", [1.0, 3.0, 4.0, 7.3])
def test_ends_are_exact_and_the_middle_falls(transform: str, gamma: float) -> None:
    exponents = [
        complexity_exponent(c, minimum=1.0, maximum=3.0, gamma_max=gamma, transform=transform)
        for c in (1.0, 1.2, 2.0, 2.9, 3.0)
    ]
    assert exponents[0] == gamma
    assert exponents[-1] == 1 / gamma
    if gamma == 1:
        assert exponents == [1.0] * 5
    else:
        assert all(left > right for left, right in itertools.pairwise(exponents))


@pytest.mark.parametrize("transform", ["log", "linear", "exp"])
def test_coefficients_equal_high_precision(transform: str) -> None:
    found = exponent_coefficients(0.5, 4.25, 3.0, transform)
    assert found == pytest.approx(tuple(map(float, slow_coefficients(0.5, 4.25, 3.0, transform))), rel=1e-13)


def test_the_unit_does_not_matter_for_log() -> None:
    in_millions = complexity_exponent(0.234032, minimum=0.072752, maximum=1.524272)
    assert in_millions == pytest.approx(complexity_exponent(234_032, **NB201), rel=1e-12)


def test_rounding_at_the_ends_is_tolerated() -> None:
    low, high = 0.1 + 0.2, 3.3
    assert complexity_exponent(0.3, minimum=low, maximum=high) == 4.0
    assert complexity_exponent(math.nextafter(high, 4), minimum=low, maximum=high) == 0.25


@given(st.integers(1, 10**6), st.integers(0, 10**6), st.integers(0, 4), st.sampled_from([0.0, 0.025, 0.1, 1.0]))
def test_lr_equals_fractions(total: int, iteration: int, exponent: int, base: float) -> None:
    assume(iteration <= total)
    exact = Fraction(base) * (1 - Fraction(iteration, total)) ** exponent
    assert complexity_aware_lr(base, iteration, total, exponent) == pytest.approx(float(exact), rel=1e-14)


def test_lr_by_hand() -> None:
    # (1 - 3/4) ** 0.25 = 4 ** -0.25 = 1 / sqrt(2)
    assert complexity_aware_lr(0.2, 3, 4, 0.25) == pytest.approx(0.2 / math.sqrt(2), rel=1e-15)
    assert complexity_aware_lr(0.2, 0, 4, 0.25) == 0.2
    assert complexity_aware_lr(0.2, 4, 4, 4.0) == 0.0
    assert type(complexity_aware_lr(1, 0, 4, 1)) is float


def test_the_large_subnet_keeps_the_larger_rate() -> None:
    small, large = (complexity_exponent(c, **NB201) for c in NB201.values())
    rates = [
        (complexity_aware_lr(0.025, t, 100, small), complexity_aware_lr(0.025, t, 100, large))
        for t in range(1, 100)
    ]
    assert all(slower > faster for faster, slower in rates)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            {"maximum": 72_752.0},
            "every subnet has the same complexity 72752.0. Use a plain scheduler or another",
        ),
        ({"maximum": 10}, "`maximum` is expected to be larger than `minimum`, but got 10.0 and 72752.0"),
        (
            {"complexity": 72_751},
            r"`complexity` is expected to be within \[72752.0, 1524272.0\], but got 72751",
        ),
        ({"complexity": math.nan}, "`complexity` is expected to be within .* but got nan"),
        ({"minimum": math.nan}, "`minimum` and `maximum` are expected to be finite, but got nan"),
        ({"maximum": math.inf}, "`minimum` and `maximum` are expected to be finite"),
        ({"gamma_max": 0.5}, "`gamma_max` is expected to be finite and at least 1, but got 0.5"),
        ({"gamma_max": math.nan}, "`gamma_max` is expected to be finite and at least 1, but got nan"),
        ({"minimum": 0}, "`minimum` is expected to be positive for transform 'log', but got 0.0"),
        ({"transform": "sqrt"}, "`transform` is expected to be 'log', 'linear' or 'exp', but got 'sqrt'"),
    ],
)
def test_exponent_errors(change: dict, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        complexity_exponent(**{"complexity": 234_032, **NB201, **change})


@pytest.mark.parametrize(("low", "high"), [(72_752, 1_524_272), (-5_000, -4_000)])
def test_exp_coefficients_refuse_what_floats_cannot_hold(low: float, high: float) -> None:
    with pytest.raises(ConfigurationError, match=r"finite, non-zero exponential.*`complexity_exponent`"):
        exponent_coefficients(low, high, transform="exp")


@pytest.mark.parametrize(("low", "high"), [(0.0, 700.0), (-600.0, -599.0)])
def test_exp_coefficients_reach_the_limits_of_floats(low: float, high: float) -> None:
    omega, tau = exponent_coefficients(low, high, transform="exp")
    assert omega * math.exp(low) + tau == pytest.approx(4.0, rel=1e-12)
    assert omega * math.exp(high) + tau == pytest.approx(0.25, rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((0.1, -1, 10, 1.0), r"`iteration` is expected to be within \[0, 10\], but got -1"),
        ((0.1, 11, 10, 1.0), r"`iteration` is expected to be within \[0, 10\], but got 11"),
        ((0.1, 0, 0, 1.0), "`total_iterations` is expected to be at least 1, but got 0"),
        ((-0.1, 0, 10, 1.0), "`base_lr` is expected to be at least 0, but got -0.1"),
        ((0.1, 0, 10, -1.0), "`exponent` is expected to be at least 0, but got -1.0"),
        ((0.1, 0, 10, math.nan), "`exponent` is expected to be at least 0, but got nan"),
        ((math.nan, 12, 10, -1.0), "3 problems were found"),
    ],
)
def test_lr_errors(arguments: tuple, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        complexity_aware_lr(*arguments)
