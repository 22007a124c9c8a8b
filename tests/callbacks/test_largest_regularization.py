"""Dropout and stochastic depth for the largest subnet only: the rate really used by every forward pass."""

from __future__ import annotations

import nni
import pytest
import torch
from nni.nas.nn.pytorch import MutableLinear, MutableMultiheadAttention
from torch import nn
from torch.nn import functional as F

from nni_supernet_ext.callbacks import LargestSubnetRegularization
from nni_supernet_ext.core import SupernetCallback
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.paths import (
    AttentivePathSampler,
    ComplexityPathSampler,
    FairPathSampler,
    GradualPathSampler,
    ImportancePathSampler,
    SandwichSampler,
    UniformPathSampler,
)
from nni_supernet_ext.testing import MethodCase, ToySpace, train


class DropPath(nn.Module):
    """Stochastic depth as timm names it."""

    def __init__(self, drop_prob):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x):
        return x


class Own(nn.Identity):
    strength = 0.5


class Regularised(ToySpace):
    """Record, for each training forward pass with gradient, the rates in force."""

    used: list = []  # noqa: RUF012 - shared on purpose

    def __init__(self):
        super().__init__()
        self.drop, self.path, self.own = nn.Dropout2d(0.2), DropPath(0.3), Own()

    def forward(self, x):
        if self.training and torch.is_grad_enabled():
            self.used.append((self.drop.p, self.path.drop_prob, self.own.strength))
        return super().forward(self.path(self.drop(x)))


ON, OFF = (0.2, 0.3, 0.5), (0.0, 0.0, 0.0)
CASE = MethodCase("LargestSubnetRegularization", dict, space=Regularised)


def run(tmp_path, callback, sampler=None, case=CASE, extra=()):
    Regularised.used.clear()
    paths = sampler if sampler is not None else SandwichSampler()
    callbacks = [callback, *extra]
    return train(case, {"paths": paths, "callbacks": callbacks, "validate": 0}, tmp_path, epochs=1)


def rates(result):
    model = result.strategy.trained.model
    return model.drop.p, model.path.drop_prob, model.own.strength


def test_only_the_largest_subnet_is_regularised(tmp_path):
    result = run(tmp_path, LargestSubnetRegularization(modules={Own: "strength"}))
    assert Regularised.used == [ON, OFF, OFF, OFF] * 4
    assert rates(result) == ON


@pytest.mark.parametrize("order", [("smallest", "random", "largest"), ("random", "largest", "smallest")])
def test_whatever_the_order(tmp_path, order):
    callback = LargestSubnetRegularization(modules={Own: "strength"})
    run(tmp_path, callback, SandwichSampler(order=order, n_random=1))
    assert Regularised.used == [ON if part == "largest" else OFF for part in order] * 4


def test_other_roles_and_unnamed_modules(tmp_path):
    run(tmp_path, LargestSubnetRegularization("smallest"))
    assert Regularised.used == [(0.0, 0.0, 0.5)] * 3 * 1 + [ON] + ([(0.0, 0.0, 0.5)] * 3 + [ON]) * 3


def test_the_rates_are_off_while_candidates_are_compared(tmp_path):
    seen = []

    class Compared(Regularised):
        def forward(self, x):
            if self.training and not torch.is_grad_enabled():
                seen.append(self.drop.p)
            return super().forward(x)

    case = MethodCase("LargestSubnetRegularization", dict, space=Compared)
    sampler = SandwichSampler(AttentivePathSampler(n_candidates=2, n_bins=1), n_random=1)
    run(tmp_path, LargestSubnetRegularization(), sampler, case)
    assert len(seen) == 2 * 4 and set(seen) == {0.0}


def test_the_rates_come_back_when_training_fails(tmp_path):
    class Trip(SupernetCallback):
        def on_after_draw(self, state):
            raise KeyError("tripped")

    Regularised.used.clear()
    spaces = []

    def make():
        spaces.append(Regularised())
        return spaces[-1]

    case = MethodCase("LargestSubnetRegularization", dict, space=make)
    with pytest.raises(KeyError, match="tripped"):
        run(tmp_path, LargestSubnetRegularization(), case=case, extra=[Trip()])
    assert (spaces[0].drop.p, spaces[0].path.drop_prob) == (0.2, 0.3)


def test_nothing_to_switch_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"contain dropout or stochastic depth.*but got none"):
        run(tmp_path, LargestSubnetRegularization(), case=MethodCase("x", dict))
    with pytest.raises(ConfigurationError, match=r"`roles` is expected to name a role that SandwichSampler draws"):
        run(tmp_path, LargestSubnetRegularization("biggest"))


@pytest.mark.parametrize(
    "paths",
    [
        UniformPathSampler(),
        ComplexityPathSampler(),
        GradualPathSampler(),
        AttentivePathSampler(),
        ImportancePathSampler(),
        FairPathSampler(),
    ],
    ids=lambda paths: type(paths).__name__,
)
def test_samplers_without_a_largest_subnet_are_refused_before_training(tmp_path, paths):
    Regularised.used.clear()
    settings = {"paths": paths, "callbacks": [LargestSubnetRegularization()]}
    with pytest.raises(ConfigurationError, match=rf"name a role that {type(paths).__name__} draws, .*'subnet'"):
        train(CASE, settings, tmp_path)
    assert not Regularised.used
    train(CASE, {**settings, "paths": SandwichSampler(paths, n_random=1)}, tmp_path, epochs=1)


def test_a_schedule_of_the_rates_is_followed(tmp_path):
    class Schedule(SupernetCallback):
        def on_train_epoch_start(self, trainer, pl_module):
            pl_module.plan.supernet.model.drop.p = 0.1 * (trainer.current_epoch + 1)

    Regularised.used.clear()
    settings = {"paths": SandwichSampler(n_random=0), "callbacks": [Schedule(), LargestSubnetRegularization()]}
    result = train(CASE, {**settings, "validate": 0}, tmp_path, epochs=2)
    first, second = [rates[0] for rates in Regularised.used[:2]], [rates[0] for rates in Regularised.used[-2:]]
    assert (first, second) == ([0.1, 0.0], [0.2, 0.0])
    assert result.strategy.trained.model.drop.p == 0.2


class Attentive(ToySpace):
    """With dropout inside an attention and a recurrent layer, where no dropout layer shows it."""

    used: list = []  # noqa: RUF012 - shared on purpose

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.4, batch_first=True)
        self.recurrent = nn.LSTM(8, 8, num_layers=2, dropout=0.3, batch_first=True)

    def forward(self, x):
        if self.training and torch.is_grad_enabled():
            self.used.append((self.attention.dropout, self.recurrent.dropout))
        rows = x.flatten(1, 2)
        extra = self.recurrent(self.attention(rows, rows, rows)[0])[0].mean()
        return super().forward(x) + extra


def test_dropout_inside_attention_and_recurrent_layers(tmp_path):
    Attentive.used.clear()
    run(
        tmp_path,
        LargestSubnetRegularization(),
        case=MethodCase("LargestSubnetRegularization", dict, space=Attentive),
    )
    assert Attentive.used == [(0.4, 0.3), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)] * (len(Attentive.used) // 4)


class Elastic(ToySpace):
    """Attend over the pixels, of mutable width and with a rate of dropout that may be a choice."""

    rate: float | tuple[float, ...] = 0.4

    def __init__(self):
        super().__init__()
        width = nni.choice("embed", [4, 8])
        rate = nni.choice("rate", list(self.rate)) if isinstance(self.rate, tuple) else self.rate
        self.embed = MutableLinear(3, width)
        self.attend = MutableMultiheadAttention(width, 1, dropout=rate)
        self.back = MutableLinear(width, 3)

    def forward(self, x):
        y = self.embed(x.flatten(2).permute(2, 0, 1))
        y = self.back(self.attend(y, y, y, need_weights=False)[0])
        return super().forward(x + y.permute(1, 2, 0).reshape(x.shape))


class ElasticRate(Elastic):
    rate = (0.4, 0.6)


@pytest.mark.parametrize("space", [Elastic, ElasticRate])
def test_dropout_inside_attention_of_mutable_size(tmp_path, monkeypatch, space):
    used, stock = [], F.multi_head_attention_forward

    def watched(*arguments, **settings):
        if torch.is_grad_enabled():
            used.append(arguments[10])
        return stock(*arguments, **settings)

    monkeypatch.setattr(F, "multi_head_attention_forward", watched)
    case = MethodCase("LargestSubnetRegularization", dict, space=space)
    result = run(tmp_path, LargestSubnetRegularization(), case=case)
    assert len(used) == 16
    assert all(rate in (0.4, 0.6) for rate in used[::4])
    assert all(rate == 0 for draw in (1, 2, 3) for rate in used[draw::4])
    rates = {result.strategy.trained.model.attend.dropout}
    assert rates == ({0.6} if space is ElasticRate else {0.4})
