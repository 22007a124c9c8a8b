"""Divergences against definitions written out in 60-digit arithmetic, one class after the other."""

from __future__ import annotations

import math
from functools import partial

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy

from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.functional import (
    adaptive_alpha_divergence,
    alpha_divergence,
    jensen_shannon_divergence,
    kl_divergence,
    reversed_kl_divergence,
)

mp.mp.dps = 60

ALL = {
    "kl": kl_divergence,
    "reversed_kl": reversed_kl_divergence,
    "jensen_shannon": jensen_shannon_divergence,
    "alpha_-1": partial(alpha_divergence, alpha=-1.0),
    "alpha_0.5": partial(alpha_divergence, alpha=0.5),
    "alpha_2": partial(alpha_divergence, alpha=2.0),
    "adaptive": adaptive_alpha_divergence,
}

logits = st.lists(st.floats(-200, 200, width=32), min_size=3, max_size=3)
mild = st.lists(st.floats(-5, 5, width=32), min_size=3, max_size=3)


def probabilities(values):
    powers = [mp.exp(mp.mpf(v)) for v in values]
    total = mp.fsum(powers)
    return [power / total for power in powers]


def slow_alpha(q, p, alpha, clip):
    """Definition of the alpha-divergence, class by class, with the power clipped."""
    total = mp.mpf(0)
    for qi, pi in zip(q, p, strict=True):
        power = (pi / qi) ** mp.mpf(alpha)
        if clip is not None and power > clip:
            power = mp.mpf(clip)
        total += qi * (power - 1)
    return total / (mp.mpf(alpha) * (mp.mpf(alpha) - 1))


def slow_clipped_gradient(q, p, alpha, clip):
    """-1/alpha E_q[min((p/q)^alpha, clip) grad log q]; grad log q_i to logit j is [i = j] - q_j."""
    gradient = []
    for j in range(len(q)):
        total = mp.mpf(0)
        for i in range(len(q)):
            power = (p[i] / q[i]) ** mp.mpf(alpha)
            if power > clip:
                power = mp.mpf(clip)
            total += q[i] * power * ((1 if i == j else 0) - q[j])
        gradient.append(-total / mp.mpf(alpha))
    return [float(g) for g in gradient]


def slow_kl(first, second):
    return mp.fsum(a * mp.log(a / b) for a, b in zip(first, second, strict=True))


def value_and_gradient(divergence, student, teacher, dtype=torch.float64):
    student = torch.tensor([student], dtype=dtype, requires_grad=True)
    value = divergence(student, torch.tensor([teacher], dtype=dtype))
    value.backward()
    return value.item(), student.grad[0].tolist()


@settings(max_examples=60)
@given(student=logits, teacher=logits)
def test_kl_and_reversed_kl_equal_the_definition(student, teacher):
    q, p = probabilities(student), probabilities(teacher)
    value, gradient = value_and_gradient(kl_divergence, student, teacher)
    assert value == pytest.approx(float(slow_kl(p, q)), rel=1e-9, abs=1e-12)
    assert gradient == pytest.approx([float(a - b) for a, b in zip(q, p, strict=True)], abs=1e-12)
    value, gradient = value_and_gradient(reversed_kl_divergence, student, teacher)
    expected = slow_kl(q, p)
    assert value == pytest.approx(float(expected), rel=1e-9, abs=1e-12)
    by_hand = [float(b * (mp.log(b / a) - expected)) for a, b in zip(p, q, strict=True)]
    assert gradient == pytest.approx(by_hand, rel=1e-9, abs=1e-10)


@settings(max_examples=60)
@given(student=logits, teacher=logits, alpha=st.sampled_from([-2.0, -1.0, -0.5, 0.5, 1.5, 2.0]))
def test_alpha_divergence_and_its_clipped_gradient_equal_the_definition(student, teacher, alpha):
    q, p = probabilities(student), probabilities(teacher)
    value, gradient = value_and_gradient(partial(alpha_divergence, alpha=alpha), student, teacher)
    assert value == pytest.approx(float(slow_alpha(q, p, alpha, 5)), rel=1e-9, abs=1e-11)
    assert gradient == pytest.approx(slow_clipped_gradient(q, p, alpha, 5), rel=1e-9, abs=1e-11)


@settings(max_examples=25)
@given(student=mild, teacher=mild, alpha=st.sampled_from([-1.0, 0.5, 2.0]))
def test_without_clipping_the_gradient_is_the_derivative_of_the_value(student, teacher, alpha):
    p = probabilities(teacher)

    def at(j, shift):
        moved = [v + (shift if i == j else 0) for i, v in enumerate(map(mp.mpf, student))]
        return slow_alpha(probabilities(moved), p, alpha, None)

    step = mp.mpf(10) ** -30
    expected = [float((at(j, step) - at(j, -step)) / (2 * step)) for j in range(3)]
    unclipped = partial(alpha_divergence, alpha=alpha, beta_clip=None)
    assert value_and_gradient(unclipped, student, teacher)[1] == pytest.approx(expected, rel=1e-8, abs=1e-9)


def test_clipping_changes_the_gradient_where_it_clips():
    clipped, free = (
        value_and_gradient(partial(alpha_divergence, alpha=-1.0, beta_clip=c), [4.0, 0.0, 0.0], [0.0] * 3)
        for c in (5.0, None)
    )
    assert clipped[0] == pytest.approx(free[0])  # The largest power is q/p < 3.
    assert clipped[1] == pytest.approx(free[1])
    clipped, free = (
        value_and_gradient(partial(alpha_divergence, alpha=-1.0, beta_clip=c), [0.0] * 3, [4.0, 0.0, 0.0])
        for c in (5.0, None)
    )
    assert max(map(abs, clipped[1])) < 2.0 < max(map(abs, free[1]))
    assert clipped[0] < free[0]


@settings(max_examples=60)
@given(student=logits, teacher=logits)
def test_adaptive_takes_value_and_gradient_of_the_larger(student, teacher):
    q, p = probabilities(student), probabilities(teacher)
    minus, plus = slow_alpha(q, p, -1, 5), slow_kl(p, q)
    value, gradient = value_and_gradient(adaptive_alpha_divergence, student, teacher)
    assert value == pytest.approx(float(max(minus, plus)), rel=1e-9, abs=1e-11)
    if abs(minus - plus) < 1e-9:
        return
    if plus > minus:
        expected = [float(a - b) for a, b in zip(q, p, strict=True)]
    else:
        expected = slow_clipped_gradient(q, p, -1, 5)
    assert gradient == pytest.approx(expected, rel=1e-9, abs=1e-11)


def test_adaptive_chooses_for_every_sample():
    student = torch.tensor([[0.0, 0.0], [3.0, 0.0]], dtype=torch.float64)
    teacher = torch.tensor([[3.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    minus = alpha_divergence(student, teacher, -1.0, reduction="none")
    plus = kl_divergence(student, teacher, reduction="none")
    assert (minus > plus).tolist() == [True, False]
    both = adaptive_alpha_divergence(student, teacher, reduction="none")
    assert both.tolist() == [minus[0].item(), plus[1].item()]
    # Not the larger of the two means.
    assert both.mean() > max(minus.mean(), plus.mean())


@settings(max_examples=30)
@given(student=logits, teacher=logits)
def test_alpha_one_is_kl_and_alpha_zero_is_reversed_kl(student, teacher):
    for alpha, other in ((1.0, kl_divergence), (0.0, reversed_kl_divergence)):
        mine = value_and_gradient(partial(alpha_divergence, alpha=alpha), student, teacher)
        assert mine == value_and_gradient(other, student, teacher)


@pytest.mark.parametrize("alpha", [0.998, 1.002, -0.002, 0.002])
def test_the_limits_are_continuous(alpha):
    student, teacher = [0.3, -0.2, 0.9], [1.0, 0.1, -0.5]
    near = value_and_gradient(partial(alpha_divergence, alpha=alpha), student, teacher)
    at = value_and_gradient(partial(alpha_divergence, alpha=float(round(alpha))), student, teacher)
    assert near[0] == pytest.approx(at[0], rel=5e-3)
    assert near[1] == pytest.approx(at[1], rel=5e-3, abs=2e-3)


@settings(max_examples=40)
@given(p=mild, q=mild)
def test_against_scipy(p, q):
    first, second = ([float(x) for x in probabilities(v)] for v in (p, q))
    student, teacher = torch.tensor([q], dtype=torch.float64), torch.tensor([p], dtype=torch.float64)
    assert kl_divergence(student, teacher).item() == pytest.approx(entropy(first, second), abs=1e-12)
    assert reversed_kl_divergence(student, teacher).item() == pytest.approx(entropy(second, first), abs=1e-12)
    distance = jensenshannon(np.asarray(first), np.asarray(second))
    distance = 0.0 if math.isnan(distance) else distance  # scipy's rounding below zero
    assert jensen_shannon_divergence(student, teacher).item() == pytest.approx(distance**2, abs=1e-12)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_far_off_logits_are_finite(name, dtype):
    far = torch.tensor([[200.0, -200.0, 0.0], [-200.0, 200.0, 200.0], [200.0, 200.0, -200.0]], dtype=dtype)
    for student in (far, -far, far.roll(1, 1), torch.zeros_like(far)):
        student = student.clone().requires_grad_()
        value = ALL[name](student, far)
        assert value.isfinite() and value.dtype == torch.float32
        value.backward()
        assert student.grad.isfinite().all()


@pytest.mark.parametrize("name", ALL)
def test_equal_distributions_have_no_divergence_and_no_gradient(name):
    value, gradient = value_and_gradient(ALL[name], [1.0, 2.0, -3.0], [11.0, 12.0, 7.0])
    assert value == pytest.approx(0.0, abs=1e-12)
    assert gradient == pytest.approx([0.0] * 3, abs=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_dense_outputs_are_many_classifications(name):
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 3, 4, 5, generator=generator).double() for _ in range(2))
    dense = ALL[name](student, teacher, reduction="none")
    assert dense.shape == (2, 4, 5)
    flat = ALL[name](
        student.permute(0, 2, 3, 1).reshape(-1, 3), teacher.permute(0, 2, 3, 1).reshape(-1, 3), reduction="none"
    )
    assert torch.allclose(dense.reshape(-1), flat)
    assert torch.allclose(ALL[name](student, teacher), flat.mean())
    assert torch.allclose(ALL[name](student, teacher, reduction="sum"), flat.sum())
    last = ALL[name](student.movedim(1, -1), teacher.movedim(1, -1), dim=-1)
    assert torch.allclose(last, flat.mean())


@pytest.mark.parametrize("name", ALL)
def test_the_teacher_gets_no_gradient(name):
    teacher = torch.randn(4, 3, requires_grad=True)
    ALL[name](torch.randn(4, 3, requires_grad=True), teacher).backward()
    assert teacher.grad is None


def test_explicit_zeros_are_zeros():
    student, teacher = torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 0.0]])
    adaptive = adaptive_alpha_divergence(student, teacher, alpha_minus=0.0, alpha_plus=0.0)
    assert adaptive == reversed_kl_divergence(student, teacher)
    assert adaptive != adaptive_alpha_divergence(student, teacher)


def test_temperature_limits():
    # Hot: the divergence times T^2 tends to half the variance of the logits' differences over the classes.
    student, teacher = (torch.tensor([v], dtype=torch.float64) for v in ([1.0, 0.0, 2.0], [0.0, 3.0, 1.0]))
    hot = 1e4**2 * kl_divergence(student / 1e4, teacher / 1e4)
    assert hot.item() == pytest.approx(np.var([1.0, -3.0, 1.0]) / 2, rel=1e-3)
    # Cold: all teacher's probability on its best class, whose gap to the student's best grows as 1/T.
    cold = 1e-3 * kl_divergence(student / 1e-3, teacher / 1e-3)
    assert cold.item() == pytest.approx(2.0 - 0.0, rel=1e-6)


def test_label_smoothing_is_a_divergence_from_the_smoothed_labels():
    # The label loss of the largest subnet is torch's; here against its definition, written out.
    values, label, smoothing = [200.0, -200.0, 3.0], 1, 0.1
    q = probabilities(values)
    expected = mp.mpf(0)
    for k in range(3):
        target = smoothing / 3 + (1 - smoothing if k == label else 0)
        expected -= target * mp.log(q[k])
    loss = torch.nn.CrossEntropyLoss(label_smoothing=smoothing)
    got = loss(torch.tensor([values], dtype=torch.float64), torch.tensor([label]))
    assert got.item() == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((torch.zeros(2, 3), torch.zeros(2, 4)), "teacher's shape"),
        ((torch.zeros(2, 1), torch.zeros(2, 1)), "at least two classes"),
        ((torch.zeros(3), torch.zeros(3)), "at least two classes"),
        ((torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 3)), "floating-point tensor"),
        (("logits", torch.zeros(2, 3)), "`student` is expected to be a floating-point tensor.* got str"),
    ],
)
def test_what_cannot_be_distilled_is_refused(arguments, match):
    with pytest.raises(ConfigurationError, match=match):
        kl_divergence(*arguments)


def test_wrong_settings_are_refused():
    pair = torch.zeros(2, 3), torch.zeros(2, 3)
    with pytest.raises(ConfigurationError, match="`reduction` is expected"):
        kl_divergence(*pair, reduction="batchmean")
    with pytest.raises(ConfigurationError, match="`alpha` is expected to be a finite"):
        alpha_divergence(*pair, alpha=float("nan"))
    with pytest.raises(ConfigurationError, match="`alpha_minus` is expected to be a finite"):
        adaptive_alpha_divergence(*pair, alpha_minus=float("inf"))
    with pytest.raises(ConfigurationError, match="`beta_clip` is expected to be a number of at least 1"):
        alpha_divergence(*pair, alpha=-1.0, beta_clip=0.0)


# A class that a network excludes has the logit -inf: its probability is zero, not merely small.
WITHOUT_LAST = [1.0, 2.0, -math.inf]


@pytest.mark.parametrize("name", ALL)
def test_a_class_that_both_exclude_is_no_class(name):
    student = torch.tensor([[0.5, -1.0, -math.inf]], dtype=torch.float64, requires_grad=True)
    fewer = torch.tensor([[0.5, -1.0]], dtype=torch.float64, requires_grad=True)
    value = ALL[name](student, torch.tensor([WITHOUT_LAST], dtype=torch.float64))
    expected = ALL[name](fewer, torch.tensor([WITHOUT_LAST[:2]], dtype=torch.float64))
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    value.backward()
    expected.backward()
    assert student.grad[0, 2] == 0
    assert student.grad[0, :2].tolist() == pytest.approx(fewer.grad[0].tolist(), rel=1e-12)


def test_a_class_that_only_the_teacher_excludes_adds_nothing_to_kl():
    student = torch.tensor([[0.5, 1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([WITHOUT_LAST], dtype=torch.float64)
    p, q = torch.softmax(teacher, 1)[0].tolist(), torch.softmax(student, 1)[0].tolist()
    value = kl_divergence(student, teacher)
    assert value.item() == pytest.approx(entropy(p, q), rel=1e-12)  # scipy: 0 log 0 = 0
    value.backward()
    assert student.grad[0].tolist() == pytest.approx([qi - pi for pi, qi in zip(p, q, strict=True)])
    # Clipped: q (5 - 1) / 2 for the excluded class, whose power with alpha -1 is infinite.
    minus = sum(qi * (min(qi / pi, 5.0) - 1) / 2 for pi, qi in zip(p[:2], q, strict=False)) + q[2] * 4 / 2
    assert adaptive_alpha_divergence(student, teacher).item() == pytest.approx(max(entropy(p, q), minus))
    assert jensen_shannon_divergence(student, teacher).item() == pytest.approx(jensenshannon(p, q) ** 2)


def test_a_class_that_only_the_student_excludes_is_infinitely_wrong_for_kl():
    student, teacher = torch.tensor([WITHOUT_LAST]), torch.tensor([[0.5, 1.0, 0.0]])
    assert kl_divergence(student, teacher).item() == math.inf
    assert adaptive_alpha_divergence(student, teacher).item() == math.inf
    p, q = torch.softmax(teacher, 1)[0].tolist(), torch.softmax(student, 1)[0].tolist()
    assert reversed_kl_divergence(student, teacher).item() == pytest.approx(entropy(q, p), rel=1e-5)


def test_nan_is_not_hidden_by_the_other_alpha():
    teacher = torch.tensor([[0.0, 1.0]])
    assert adaptive_alpha_divergence(torch.tensor([[math.nan, 0.0]]), teacher).isnan()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_probability_that_underflows_is_not_zero(dtype):
    likely, excluded = torch.tensor([[0.0, -200.0]], dtype=dtype), torch.tensor([[0.0, -math.inf]], dtype=dtype)
    student = excluded.clone().requires_grad_()
    value = kl_divergence(student, likely)
    assert value.item() == math.inf
    value.backward()
    assert student.grad.tolist() == [[0.0, 0.0]]  # q - p, which rounds to zero
    student = likely.clone().requires_grad_()
    value = reversed_kl_divergence(student, excluded)
    assert value.item() == math.inf
    value.backward()
    assert not student.grad.isfinite().any()
    assert adaptive_alpha_divergence(excluded, likely).item() == math.inf
    assert jensen_shannon_divergence(excluded, likely).item() == 0.0
    assert kl_divergence(likely, excluded).item() == 0.0


def test_the_gradient_of_an_infinite_divergence_is_the_difference_of_probabilities():
    student = torch.tensor([WITHOUT_LAST], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[0.5, 1.0, 0.0]], dtype=torch.float64)
    kl_divergence(student, teacher).backward()
    expected = torch.softmax(student.detach(), 1) - torch.softmax(teacher, 1)
    assert student.grad[0].tolist() == pytest.approx(expected[0].tolist(), rel=1e-12)


def test_nan_stays_nan():
    broken, whole = torch.tensor([[math.nan, 0.0]]), torch.tensor([[0.0, 1.0]])
    for divergence in ALL.values():
        assert divergence(broken, whole).isnan() and divergence(whole, broken).isnan()
