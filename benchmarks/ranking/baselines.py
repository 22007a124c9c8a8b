"""Predictors that train nothing: costs, and scores of untrained networks on one batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
from grounds import Ground
from images import Images
from protocols import Protocol
from torch import Tensor, nn

from nni_supernet_ext.benchmarks import BenchmarkOracle
from nni_supernet_ext.core import Supernet
from nni_supernet_ext.diagnostics import score_subnets
from nni_supernet_ext.functional import grad_norm, naswot, snip, synflow
from nni_supernet_ext.strategies import SupernetStrategy

COSTS = ("params", "flops")
SCORES: dict[str, Callable[[nn.Module, Tensor, Tensor], float]] = {
    "grad_norm": grad_norm,
    "snip": snip,
    "synflow": lambda network, x, y: synflow(network, x),
    "naswot": lambda network, x, y: naswot(network, x),
}
BASELINES = (*COSTS, *SCORES)


def cost(name: str, ground: Ground, oracle: BenchmarkOracle, indices: Sequence[int]) -> dict[str, Any]:
    """Predict by a cost: the larger the better."""
    return {"predicted": [ground.costs[name](oracle.sample(index)) for index in indices]}


def score(
    name: str,
    protocol: Protocol,
    ground: Ground,
    oracle: BenchmarkOracle,
    indices: Sequence[int],
    images: Images,
    seed: int,
) -> dict[str, Any]:
    """Predict by a training-free score of each subnet with the seed's untrained weights.

    The subnets share these weights, so that they differ by structure alone; the batch is the first of the training
    images.
    """
    pl.seed_everything(seed, verbose=False)
    supernet = Supernet(SupernetStrategy().mutate_model(ground.space(protocol)))
    supernet.model.train()
    batch = slice(protocol.batch_size)
    x, y = images.x_train[batch], images.y_train[batch]
    since = time.perf_counter()
    samples = [oracle.sample(index) for index in indices]
    scores = score_subnets(supernet, samples, lambda network: SCORES[name](network, x, y))
    return {"predicted": scores, "evaluation_seconds": round(time.perf_counter() - since, 1)}
