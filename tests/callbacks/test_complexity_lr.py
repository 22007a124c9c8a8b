"""CaLR in the host: the rate that was really in force, the weighted sum, and what is refused."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn

from nni_supernet_ext.callbacks import ComplexityAwareLR, TrainingHistory
from nni_supernet_ext.core import Draw, PathSampler
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.paths import FairPathSampler
from nni_supernet_ext.spaces import nasbench201
from nni_supernet_ext.strategies import SupernetStrategy
from nni_supernet_ext.testing import MethodCase, ToySpace
from nni_supernet_ext.testing.toys import toy_evaluator
from nni_supernet_ext.testing.training import train

BASE = 0.05
TOTAL = 8  # two epochs of four batches
# Weights of convolutions and linear layers of the toy space, counted by hand:
# stem 3*w*9, conv w*w*9, linear w*w, head w*10.
SIZES = {
    (4, "conv"): 108 + 144 + 40,
    (4, "linear"): 108 + 16 + 40,
    (4, "skip"): 108 + 40,
    (8, "conv"): 216 + 576 + 80,
    (8, "linear"): 216 + 64 + 80,
    (8, "skip"): 216 + 80,
}


def _case(space=ToySpace, **settings):
    return MethodCase("case", lambda: settings, space=space)


def _gamma(size, gamma_max=4.0):
    """The exponent by two-point interpolation in log size: gamma_max at 148, 1/gamma_max at 872."""
    import math

    share = (math.log(size) - math.log(148)) / (math.log(872) - math.log(148))
    return gamma_max + share * (1 / gamma_max - gamma_max)


def test_rate_in_force_is_the_paper_formula(tmp_path):
    run = train(_case(), {"callbacks": [ComplexityAwareLR(gamma_max=4.0)]}, tmp_path)
    assert len(run.rates) == TOTAL
    for t, (draws, rate) in enumerate(zip(run.draws, run.rates, strict=True)):
        size = SIZES[draws[0]["width"], draws[0]["op"]]
        assert rate == pytest.approx(BASE * (1 - t / TOTAL) ** _gamma(size), rel=1e-12)
    assert run.evaluator.trainer.optimizers[0].param_groups[0]["lr"] == BASE


def test_optimizer_moves_weights_by_the_rate_in_force(tmp_path):
    """The first step of SGD moves a weight by rate * (gradient + decay); check it on the head's bias."""
    moved = []

    class Watch(ComplexityAwareLR):
        def on_before_update(self, state, optimizer):
            super().on_before_update(state, optimizer)
            self.p = optimizer.param_groups[0]["params"][-1]
            self.before, self.grad = self.p.detach().clone(), self.p.grad.clone()

        def on_after_update(self, state, optimizer):
            moved.append(((self.before - self.p.detach()), self.grad + 1e-4 * self.before, state.learning_rate))
            super().on_after_update(state, optimizer)

    optimizer = torch.optim.SGD  # without momentum every step is the plain rule
    train(_case(), {"callbacks": [Watch()]}, tmp_path, evaluator_arguments={"optimizer": optimizer})
    assert len(moved) == TOTAL
    for step, gradient, rate in moved:
        torch.testing.assert_close(step, rate * gradient, rtol=1e-4, atol=1e-8)


def test_nasbench201_reference_values(tmp_path):
    calr = ComplexityAwareLR()
    space = nasbench201()
    strategy = SupernetStrategy()
    from nni_supernet_ext.core import Supernet, find_extremes, resolve_complexity

    supernet = Supernet(strategy.mutate_model(space))
    calr._measure = resolve_complexity("weights", supernet)
    extremes = find_extremes(calr._measure, supernet.domain)
    assert (extremes.minimum, extremes.maximum, extremes.exact) == (72_752, 1_524_272, True)
    calr._low, calr._high = extremes.minimum, extremes.maximum
    all_1x1 = dict.fromkeys(supernet.domain.labels, "conv_1x1")
    assert calr.exponent(all_1x1) == pytest.approx(2.5598, abs=5e-5)


class Pair(PathSampler):
    """Two fixed subnets in each step."""

    draws_per_step = 2

    def draws(self, rng, state):
        return [Draw({"op": "conv", "width": 8}), Draw({"op": "skip", "width": 4}, weight=0.5)]


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("scale_weight_decay", [True, False])
def test_several_draws_equal_a_handwritten_loop(tmp_path, nesterov, scale_weight_decay):
    """Algorithm 2 by hand: weight each draw's gradient, run the momentum over the sum."""
    from functools import partial

    sgd = partial(torch.optim.SGD, momentum=0.9, nesterov=nesterov)
    calr = ComplexityAwareLR(scale_weight_decay=scale_weight_decay)
    run = train(
        _case(),
        {"paths": Pair(), "callbacks": [calr], "validate": 0, "recalibrate_batches": 0},
        tmp_path,
        evaluator_arguments={"optimizer": sgd, "limit_val_batches": 0},
    )
    weights = _by_hand(nesterov, scale_weight_decay)
    for name, value in weights.items():
        torch.testing.assert_close(run.weights[name], value, rtol=1e-5, atol=1e-6)


def _by_hand(nesterov, scale_weight_decay):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        space = ToySpace()
        SupernetStrategy().mutate_model(space)
    loader = toy_evaluator().train_dataloaders
    parameters = dict(space.named_parameters())
    velocity: dict[str, torch.Tensor] = {}
    t = 0
    from nni_supernet_ext.core import Supernet

    supernet = Supernet(space)
    for _ in range(2):
        for x, y in islice(loader, 4):  # as Lightning: never past the last batch
            total = {name: torch.zeros_like(p) for name, p in parameters.items()}
            touched = set()
            factors = []
            for (op, width), weight in ((("conv", 8), 1.0), (("skip", 4), 0.5)):
                factor = (1 - t / TOTAL) ** _gamma(SIZES[width, op])
                factors.append(factor)
                supernet.activate({"op": op, "width": width})
                for p in parameters.values():
                    p.grad = None
                torch.nn.functional.cross_entropy(space(x), y).backward()
                for name, p in parameters.items():
                    if p.grad is not None:
                        touched.add(name)
                        total[name] += weight * factor * p.grad
            decay = 1e-4 * (sum(factors) / 2 if scale_weight_decay else 1.0)
            with torch.no_grad():
                for name in touched:
                    g = total[name] + decay * parameters[name]
                    velocity[name] = 0.9 * velocity[name] + g if name in velocity else g.clone()
                    step = g + 0.9 * velocity[name] if nesterov else velocity[name]
                    parameters[name] -= BASE * step
            t += 1
    return {name: p.detach() for name, p in parameters.items()}


def test_several_draws_with_adam_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"expected to be SGD .* but got Adam"):
        train(
            _case(),
            {"paths": Pair(), "callbacks": [ComplexityAwareLR()]},
            tmp_path,
            evaluator_arguments={"optimizer": torch.optim.Adam},
        )


def test_each_subnet_its_own_step_uses_its_own_rate(tmp_path):
    run = train(_case(), {"paths": Pair(), "step_every": "subnet", "callbacks": [ComplexityAwareLR()]}, tmp_path)
    assert len(run.rates) == 2 * TOTAL
    assert run.rates[2] == pytest.approx(BASE * (1 - 1 / TOTAL) ** 0.25)
    assert run.rates[3] == pytest.approx(BASE * (1 - 1 / TOTAL) ** 4)


def test_second_owner_of_the_rate_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"`lr` is expected to have one owner.*LambdaLR"):
        train(
            _case(),
            {"callbacks": [ComplexityAwareLR()]},
            tmp_path,
            evaluator_arguments={"schedule": lambda t: 1.0},
        )


def test_equal_bounds_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="same complexity"):
        train(_case(), {"callbacks": [ComplexityAwareLR(complexity=lambda sample: 7.0)]}, tmp_path)


def test_endless_training_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="known number of iterations"):
        train(_case(), {"callbacks": [ComplexityAwareLR()]}, tmp_path, epochs=-1)


def test_bad_gamma_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="`gamma_max` is expected to be a number of at least 1"):
        train(_case(), {"callbacks": [ComplexityAwareLR(gamma_max=0.5)]}, tmp_path)


def test_flops_as_complexity(tmp_path):
    calr = ComplexityAwareLR(complexity="flops")
    train(_case(), {"callbacks": [calr]}, tmp_path, epochs=1)
    # 8x8 input, stride 2: 16 positions. Multiply-adds by hand.
    largest = 16 * (3 * 8 * 9 + 8 * 8 * 9) + 8 * 10
    smallest = 16 * (3 * 4 * 9) + 4 * 10
    assert (calr._low, calr._high) == (smallest, largest)


@pytest.mark.parametrize("watch_first", [True, False])
def test_a_rate_in_a_tensor_is_recorded_whatever_the_order(tmp_path, watch_first):
    def optimizer(parameters, lr, **settings):
        return torch.optim.SGD(parameters, lr=torch.tensor(lr), momentum=0.9, foreach=False)

    history, calr = TrainingHistory(), ComplexityAwareLR()
    callbacks = [history, calr] if watch_first else [calr, history]
    train(_case(), {"callbacks": callbacks}, tmp_path, evaluator_arguments={"optimizer": optimizer})
    plain = train(_case(), {"callbacks": [ComplexityAwareLR()]}, tmp_path)
    assert history.arrays()["learning_rate"] == pytest.approx(plain.rates, rel=1e-5)


def test_flops_are_counted_in_half_precision(tmp_path):
    calr = ComplexityAwareLR(complexity="flops")
    train(_case(), {"callbacks": [calr]}, tmp_path, epochs=1, evaluator_arguments={"precision": "bf16-true"})
    assert calr._high > calr._low > 0


@pytest.mark.parametrize(("steps", "batches"), [(20, 4), (24, 4), (30, 5)])
def test_a_limit_of_steps_counts_batches_of_several_steps(tmp_path, steps, batches):
    """Lightning begins another batch while steps are left, so six steps a batch make 20 steps four batches."""
    settings = {"paths": FairPathSampler(), "step_every": "subnet", "callbacks": [ComplexityAwareLR()]}
    run = train(_case(), settings, tmp_path, epochs=4, evaluator_arguments={"max_steps": steps})
    assert run.strategy.plan.total_iterations == batches
    assert all(rate > 0 for rate in run.rates)


class Many(ModelSpace):
    """Nine choices of four: too many subnets to enumerate, and only the words of the measure below to go by."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        layers = (LayerChoice([nn.Identity(), nn.ReLU(), nn.Tanh(), nn.SELU()], label=f"op{i}") for i in range(9))
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(4, 10)

    def forward(self, x):
        return self.head(self.body(self.stem(x)).mean(dim=(2, 3)))


def _hidden_peak(sample):
    """No single choice leads to the peak, so a search misses it."""
    values = [sample[f"op{i}"] for i in range(9)]
    return 40 - sum(values) + 100 * all(value == 3 for value in values[:6])


def test_a_subnet_beyond_the_ends_found_has_the_ends_exponent(tmp_path, caplog):
    rate = ComplexityAwareLR(_hidden_peak, gamma_max=4.0)
    train(_case(space=Many), {"callbacks": [rate]}, tmp_path, epochs=1)
    peak = {f"op{i}": 3 for i in range(9)}
    assert _hidden_peak(peak) == 113
    caplog.clear()
    assert rate.exponent(peak) == rate.exponent({f"op{i}": 0 for i in range(9)}) == 0.25
    assert rate.exponent({**peak, "op8": 0}) == 0.25
    (message,) = caplog.messages
    assert message.startswith("A subnet has complexity 113, beyond the 14 to 40 that a search found")


def test_a_subnet_beyond_given_bounds_is_refused(tmp_path):
    rate = ComplexityAwareLR(_hidden_peak, bounds=(14, 40))
    train(_case(space=Many), {"callbacks": [rate]}, tmp_path, epochs=1)
    with pytest.raises(ConfigurationError, match="113"):
        rate.exponent({f"op{i}": 3 for i in range(9)})
