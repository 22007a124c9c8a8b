"""Diagnostics of a supernet: against backward passes of extracted subnets, and without any trace."""

from __future__ import annotations

import copy
import random
from collections import Counter

import numpy as np
import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn

from nni_supernet_ext.diagnostics import (
    SubnetGradients,
    deviation_by_complexity,
    pair_at_distance,
    score_subnets,
    similarity_by_distance,
)
from nni_supernet_ext.errors import ConfigurationError, DataError
from nni_supernet_ext.functional import grad_norm, hamming_distance, naswot, snip, synflow
from nni_supernet_ext.testing import ToyCellSpace, toy_data, toy_supernet

IMAGES, LABELS = toy_data(16).tensors
SAMPLES = [{"op": op, "width": width} for op in ("conv", "linear", "skip") for width in (4, 8)]
CELLS = [{"edge_0": a, "edge_1": b} for a in ("conv", "point", "skip") for b in ("conv", "point", "skip")]


def test_gradients_equal_those_of_the_extracted_subnet() -> None:
    supernet = toy_supernet(ToyCellSpace())
    gradients = SubnetGradients(supernet)
    names = [name for name, p in supernet.model.named_parameters() if p.requires_grad]
    for sample in CELLS:
        found = dict(zip(names, gradients.of(sample, (IMAGES, LABELS)), strict=True))
        network = supernet.extract(sample)
        nn.functional.cross_entropy(network(IMAGES), LABELS).backward()
        own = sorted(float(p.grad.double().norm()) for p in network.parameters())
        ours = sorted(float(g.double().norm()) for g in found.values() if g is not None)
        assert ours == pytest.approx(own, rel=1e-5), sample
        assert torch.allclose(found["stem.weight"], network.stem.weight.grad, atol=1e-7)


def test_no_trace_is_left() -> None:
    supernet = toy_supernet()
    supernet.activate(SAMPLES[0])
    supernet.model.norm.eval()
    supernet.model.stem.weight.grad = torch.ones_like(supernet.model.stem.weight)
    state = copy.deepcopy(supernet.model.state_dict())
    modes = [part.training for part in supernet.model.modules()]
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state()[1], random.getstate()
    gradients = SubnetGradients(supernet)
    similarity_by_distance(gradients, (IMAGES, LABELS), n_pairs=2)
    deviation_by_complexity(gradients, [(IMAGES, LABELS)] * 2, n_subnets=3)
    score_subnets(supernet, SAMPLES, lambda network: snip(network, IMAGES, LABELS))
    assert all(torch.equal(state[key], value) for key, value in supernet.model.state_dict().items())
    assert [part.training for part in supernet.model.modules()] == modes
    assert supernet.active == SAMPLES[0]
    assert torch.equal(supernet.model.stem.weight.grad, torch.ones_like(supernet.model.stem.weight))
    assert sum(p.grad is not None for p in supernet.model.parameters()) == 1
    assert torch.equal(torch_state, torch.get_rng_state())
    assert (numpy_state == np.random.get_state()[1]).all() and python_state == random.getstate()


def test_pairs_without_a_finite_gradient_do_not_count() -> None:
    supernet = toy_supernet(ToyCellSpace())
    broken = torch.full_like(IMAGES, float("nan")), LABELS
    found = similarity_by_distance(SubnetGradients(supernet), broken, distances=[1], n_pairs=2)
    assert np.isnan(found[1])


def test_similarity_is_the_mean_cosine_of_the_pairs() -> None:
    supernet = toy_supernet(ToyCellSpace())
    found = similarity_by_distance(SubnetGradients(supernet), (IMAGES, LABELS), n_pairs=3, seed=4)
    rng = np.random.default_rng(4)
    for distance in (1, 2):
        cosines = []
        for _ in range(3):
            vectors = []
            for sample in pair_at_distance(supernet.domain, distance, rng):
                supernet.activate(sample)
                supernet.model.zero_grad(set_to_none=True)
                nn.functional.cross_entropy(supernet.model(IMAGES), LABELS).backward()
                vectors.append([p.grad for p in supernet.model.parameters()])
            both = [(a, b) for a, b in zip(*vectors, strict=True) if a is not None and b is not None]
            first, second = (torch.cat([pair[side].flatten() for pair in both]) for side in (0, 1))
            cosines.append(float(nn.functional.cosine_similarity(first, second, dim=0)))
        assert found[distance] == pytest.approx(np.mean(cosines), abs=1e-5)
    same = similarity_by_distance(SubnetGradients(supernet), (IMAGES, LABELS), [0], n_pairs=2)
    assert same[0] == pytest.approx(1)


def test_pairs_differ_in_exactly_so_many_choices_and_cover_the_space() -> None:
    domain, rng = toy_supernet(ToyCellSpace()).domain, np.random.default_rng(0)
    for distance in (0, 1, 2):
        pairs = [pair_at_distance(domain, distance, rng) for _ in range(300)]
        assert {hamming_distance(*pair) for pair in pairs} == {distance}
        assert len(Counter(tuple(second.values()) for _, second in pairs)) == 9
    for distance in (3, -1, 1.0):
        with pytest.raises(ConfigurationError, match=rf"`distance` is .*got {distance}. Use one of 0 to 2"):
            pair_at_distance(domain, distance, rng)


class Fixed(ModelSpace):
    """One choice that leaves something to choose, and one that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.op = LayerChoice({"one": nn.Linear(3, 3), "other": nn.Linear(3, 3)}, label="op")
        self.head = LayerChoice({"only": nn.Linear(3, 10)}, label="head")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.op(x.mean(dim=(2, 3))))


def test_distances_count_choices_with_several_candidates() -> None:
    supernet = toy_supernet(Fixed())
    gradients = SubnetGradients(supernet)
    assert set(similarity_by_distance(gradients, (IMAGES, LABELS), n_pairs=2)) == {1}
    gradients.of = None  # type: ignore[method-assign,assignment] # nothing is measured before a refusal
    with pytest.raises(ConfigurationError, match=r"at most 1, but got 2\. Use one of 0 to 1"):
        similarity_by_distance(gradients, (IMAGES, LABELS), distances=[1, 2])


def test_deviation_of_groups_by_complexity() -> None:
    supernet = toy_supernet()
    gradients = SubnetGradients(supernet)
    batches = [toy_data(8, seed=seed).tensors for seed in range(3)]
    found = deviation_by_complexity(gradients, batches, lambda s: s["width"], n_subnets=8, n_groups=2, seed=1)
    rng = np.random.default_rng(1)
    samples = sorted((supernet.domain.random(rng) for _ in range(8)), key=lambda s: s["width"])
    for group, (cost, deviation) in zip((samples[:4], samples[4:]), found, strict=True):
        assert cost == np.mean([sample["width"] for sample in group])
        roots = []
        for sample in group:
            stacks = zip(*(gradients.of(sample, batch) for batch in batches), strict=True)
            every = [torch.stack(row).double().numpy().var(axis=0).ravel() for row in stacks if row[0] is not None]
            roots.append(np.sqrt(np.concatenate(every).mean()))
        assert deviation == pytest.approx(np.mean(roots), rel=1e-5)
    with pytest.raises(ConfigurationError, match=r"`n_groups` is expected to be at most 2, .*but got 3"):
        deviation_by_complexity(gradients, batches, n_subnets=2)
    for wrong in ({"n_subnets": 4.0}, {"n_groups": True}):
        with pytest.raises(ConfigurationError, match=f"`{next(iter(wrong))}` is expected to be a positive integer"):
            deviation_by_complexity(gradients, batches, **wrong)
    with pytest.raises(ConfigurationError, match=r"'flops', which needs an input\. Use `flop_count"):
        deviation_by_complexity(gradients, batches, "flops")
    with pytest.raises(ConfigurationError, match="at least 2 batches"):
        deviation_by_complexity(gradients, batches[:1])
    with pytest.raises(ConfigurationError, match="`n_pairs`"):
        similarity_by_distance(gradients, batches[0], n_pairs=0)
    with pytest.raises(DataError, match="a loss without gradient"):
        SubnetGradients(supernet, lambda model, batch: model(batch[0]).sum().detach()).of(samples[0], batches[0])


@pytest.mark.parametrize(
    "score",
    [
        lambda network: grad_norm(network, IMAGES, LABELS),
        lambda network: snip(network, IMAGES, LABELS),
        lambda network: synflow(network, IMAGES),
        lambda network: naswot(network, IMAGES),
    ],
    ids=["grad_norm", "snip", "synflow", "naswot"],
)
def test_scores_in_place_equal_those_of_the_extracted_subnets(score) -> None:
    supernet = toy_supernet(ToyCellSpace())
    # At least one edge with a ReLU, which naswot needs.
    samples = [sample for sample in CELLS if set(sample.values()) != {"skip"}]
    own = [score(supernet.extract(sample)) for sample in samples]
    assert score_subnets(supernet, samples, score) == pytest.approx(own, rel=1e-5)
    assert len(set(own)) > 3


def test_scores_of_subnets_with_sliced_weights() -> None:
    supernet = toy_supernet()
    for score in (lambda n: snip(n, IMAGES, LABELS), lambda n: synflow(n, IMAGES)):
        own = [score(supernet.extract(sample)) for sample in SAMPLES]
        assert score_subnets(supernet, SAMPLES, score) == pytest.approx(own, rel=1e-4)
