"""What the law of seeds must catch: state of an earlier run, global generators, a seed that is ignored."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from nni_supernet_ext import testing
from nni_supernet_ext.core import Draw, PathSampler, SupernetCallback


class Stale(PathSampler):
    """Goes through the subnets in turn, on from where the last training ended."""

    step = 0

    def prepare(self, plan):
        self.subnets = list(plan.supernet.domain.grid())[:5]
        self.first = int(np.random.default_rng(plan.seed).integers(2))

    def draws(self, rng, state):
        self.step += 1
        return [Draw(self.subnets[(self.first + self.step) % 5])]


class StaleScale(SupernetCallback):
    """Scales the gradient of its first step, of the first training alone."""

    scaled = False

    def on_draws(self, state):
        if not self.scaled:
            self.scaled, state.scales = True, [3.0]


class GlobalDraws(PathSampler):
    """Draws by NumPy's global state, and puts it back."""

    def prepare(self, plan):
        self.domain = plan.supernet.domain

    def draws(self, rng, state):
        kept = np.random.get_state()
        seed = int(np.random.randint(1 << 30)) + int(rng.integers(1 << 30))
        np.random.set_state(kept)
        return [Draw(self.domain.random(np.random.default_rng(seed)))]


class GlobalScale(SupernetCallback):
    """Scales gradients by the global state of Python's module, and puts it back."""

    def on_draws(self, state):
        kept = random.getstate()
        state.scales = [random.random()]
        random.setstate(kept)


class Noise(SupernetCallback):
    """Adds noise to the head's gradient from a generator with a seed of its own, or of the run."""

    def __init__(self, seeded):
        self.seeded = seeded

    def prepare(self, plan):
        self.weight = plan.supernet.model.head.bias
        self.generator = torch.Generator().manual_seed(plan.seed if self.seeded else 0)

    def on_before_update(self, state, optimizer):
        self.weight.grad += 0.01 * torch.randn(self.weight.shape, generator=self.generator)


class LateChange(SupernetCallback):
    """Changes the sample of a draw that is done: wrong, but no matter of seeds."""

    def on_after_draw(self, state):
        state.draw.sample["op"] = "conv"


def _case(settings, **reasons):
    return testing.MethodCase("Wrong", settings, no_neutral="It is wrong.", **reasons)


def _caught(settings, message, root, **reasons):
    with pytest.raises(AssertionError, match=message):
        testing.check_seed(_case(settings, **reasons), root)


def test_a_sampler_that_is_not_reset(tmp_path):
    _caught(lambda: {"paths": Stale()}, "draws other subnets where its parts have trained before", tmp_path)


def test_a_callback_that_is_not_reset(tmp_path):
    message = "trains other weights .* where its parts have trained before: `prepare` must reset all state"
    _caught(lambda: {"callbacks": [StaleScale()]}, message, tmp_path, no_randomness="It draws nothing.")


def test_global_draws_that_are_put_back(tmp_path):
    _caught(lambda: {"paths": GlobalDraws()}, "draws other subnets with the same seed", tmp_path)


def test_global_noise_that_is_put_back(tmp_path):
    _caught(lambda: {"callbacks": [GlobalScale()]}, "trains other weights .* with the same seed", tmp_path)


def test_noise_that_ignores_the_seed(tmp_path):
    message = "ignores the seed: another one trains the same weights"
    _caught(lambda: {"callbacks": [Noise(seeded=False)]}, message, tmp_path)


def test_noise_in_spite_of_no_randomness(tmp_path):
    message = "trains other weights .* with another seed, in spite of `no_randomness`"
    _caught(lambda: {"callbacks": [Noise(seeded=True)]}, message, tmp_path, no_randomness="It draws nothing.")


def test_the_record_is_not_what_a_method_changes(tmp_path):
    testing.check_seed(_case(lambda: {"callbacks": [LateChange()]}, no_randomness="It draws nothing."), tmp_path)


def test_noise_by_the_seed(tmp_path):
    testing.check_seed(_case(lambda: {"callbacks": [Noise(seeded=True)]}), tmp_path)


def test_global_state_is_as_before(tmp_path):
    random.seed(7), np.random.seed(7), torch.manual_seed(7)
    testing.check_seed(testing.CASES[0], tmp_path)
    drawn = random.random(), np.random.rand(), torch.rand(()).item()
    random.seed(7), np.random.seed(7), torch.manual_seed(7)
    assert drawn == (random.random(), np.random.rand(), torch.rand(()).item())
