"""CaLR over several draws per step equals Algorithm 2 written out by hand, with and without MS."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import nn

from nni_supernet_ext.callbacks import ComplexityAwareLR, MomentumSeparation
from nni_supernet_ext.core import Supernet, SupernetCallback
from nni_supernet_ext.paths import FairPathSampler
from nni_supernet_ext.testing import ToyCellSpace, ToySpace, toy_evaluator
from nni_supernet_ext.testing.case import MethodCase
from nni_supernet_ext.testing.training import train

LR, BETA, DECAY, GAMMA = 0.05, 0.9, 0.02, 4.0


class Record(SupernetCallback):
    """Keep the initial weights, every batch and its draws."""

    def prepare(self, plan) -> None:
        model = plan.supernet.model
        self.start = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.steps: list = []

    def on_draws(self, state) -> None:
        batch = tuple(part.clone() for part in state.batch)
        self.steps.append((state.iteration, batch, [draw.sample for draw in state.draws]))


def weights_counted_by_hand(supernet, sample) -> int:
    """Convolution and linear weights of the subnet built on its own."""
    return sum(p.numel() for p in supernet.extract(sample).parameters() if p.dim() > 1)


def exponents(supernet) -> dict:
    sizes = {key(s): weights_counted_by_hand(supernet, s) for s in supernet.domain.grid()}
    low, high = math.log(min(sizes.values())), math.log(max(sizes.values()))
    slope = (1 / GAMMA - GAMMA) / (high - low)
    return {name: GAMMA + slope * (math.log(size) - low) for name, size in sizes.items()}


def key(sample) -> tuple:
    return tuple(sorted(sample.items()))


def algorithm_2(supernet, record, cluster_of, nesterov: bool, scale_decay: bool) -> dict:
    """Written out: g += g_k eta_k; mu_i = beta mu_i + g; W -= mu_i. Rates are inside, the update's is 1."""
    gamma, total = exponents(supernet), len(record.steps)
    parameters = dict(supernet.model.named_parameters())
    with torch.no_grad():
        for name, value in record.start.items():
            parameters[name].copy_(value)
    momenta: dict = {}
    supernet.model.train()
    for step, (inputs, labels), samples in record.steps:
        summed: dict = {}
        rates = [LR * (1 - step / total) ** gamma[key(sample)] for sample in samples]
        for sample, rate in zip(samples, rates, strict=True):
            supernet.activate(sample)
            loss = nn.functional.cross_entropy(supernet.model(inputs), labels)
            found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, found, strict=True):
                if gradient is not None:
                    summed[name] = summed.get(name, 0) + gradient.double() * rate
        shrink = sum(rates) / len(rates) if scale_decay else LR
        own = momenta.setdefault(cluster_of(samples[0]), {})
        with torch.no_grad():
            for name, gradient in summed.items():
                gradient = gradient + DECAY * shrink * parameters[name].double()
                own[name] = BETA * own[name] + gradient if name in own else gradient
                update = gradient + BETA * own[name] if nesterov else own[name]
                parameters[name].copy_(parameters[name].double() - update)
    return {name: p.detach().clone() for name, p in parameters.items()}


@pytest.mark.parametrize("separated", [False, True], ids=["shared", "separated"])
@pytest.mark.parametrize("nesterov", [False, True], ids=["plain", "nesterov"])
@pytest.mark.parametrize("scale_decay", [False, True], ids=["decay_kept", "decay_scaled"])
@pytest.mark.parametrize("space", [ToySpace, ToyCellSpace])
def test_trained_weights_equal_algorithm_2(tmp_path, space, separated, nesterov, scale_decay) -> None:
    label = "op" if space is ToySpace else "edge_1"
    record = Record()
    callbacks = [ComplexityAwareLR(gamma_max=GAMMA, scale_weight_decay=scale_decay), record]
    callbacks += [MomentumSeparation(by=label)] if separated else []

    def evaluator(**arguments):
        made = toy_evaluator(
            optimizer=partial(torch.optim.SGD, momentum=BETA, nesterov=nesterov),
            learning_rate=LR,
            **arguments,
        )
        made.module.hparams.weight_decay = DECAY
        return made

    case = MethodCase("algorithm 2", dict, space=space, evaluator=evaluator)
    paths = FairPathSampler(fixed=label if separated else None)
    run = train(case, {"paths": paths, "callbacks": callbacks}, tmp_path, epochs=3)
    trained = {name: p.detach().clone() for name, p in run.strategy.trained.model.named_parameters()}
    supernet = Supernet(run.strategy.trained.model)

    def cluster_of(sample):
        return sample[label] if separated else None

    expected = algorithm_2(supernet, record, cluster_of, nesterov, scale_decay)
    assert len({cluster_of(samples[0]) for _, _, samples in record.steps}) == (3 if separated else 1)
    worst = max((trained[name] - expected[name]).abs().max().item() for name in trained)
    assert worst < 1e-6
    moved = max((expected[name] - record.start[name]).abs().max().item() for name in trained)
    assert moved > 1e-2
    rates = [group["lr"] for group in run.evaluator.trainer.optimizers[0].param_groups]
    decays = [group["weight_decay"] for group in run.evaluator.trainer.optimizers[0].param_groups]
    assert rates == [LR] and decays == [DECAY]
