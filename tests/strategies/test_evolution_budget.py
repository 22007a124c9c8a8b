"""A budget that very few subnets keep."""

from __future__ import annotations

from pathlib import Path

import pytest
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.space import RawFormatModelSpace
from torch import nn

from nni_supernet_ext.errors import ConstraintError
from nni_supernet_ext.strategies import SupernetEvolution, SupernetStrategy
from nni_supernet_ext.strategies.journal import sample_key
from nni_supernet_ext.testing import toy_evaluator


class Seven(ModelSpace):
    """2,187 subnets, of which eight have at most 182 parameters: at most one 1x1 convolution of 20."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.edges = nn.ModuleList([LayerChoice(self._candidates(), label=f"edge_{i}") for i in range(7)])
        self.head = nn.Linear(4, 10)

    def forward(self, x):
        x = self.stem(x)
        for edge in self.edges:
            x = edge(x)
        return self.head(x.mean((2, 3)))

    def _candidates(self) -> dict[str, nn.Module]:
        return {"conv": nn.Conv2d(4, 4, 3, padding=1), "point": nn.Conv2d(4, 4, 1), "skip": nn.Identity()}


def search(root: Path, **settings) -> SupernetEvolution:
    model = SupernetStrategy().mutate_model(Seven())
    made = SupernetEvolution(cycles=4, recalibrate_batches=0, record=False, progress=False, **settings)
    made(RawFormatModelSpace(model, toy_evaluator(root=root)), SequentialExecutionEngine())
    return made


@pytest.mark.parametrize(("population", "seed"), [(2, 0), (2, 1), (3, 1)])
def test_a_search_within_a_tight_budget_ends_where_nothing_is_left(tmp_path: Path, population, seed) -> None:
    found = search(tmp_path, population=population, max_parameters=182, seed=seed).history
    assert len({sample_key(subnet.sample) for subnet in found}) == len(found) == 8
    assert all(subnet.parameters <= 182 for subnet in found)


def test_the_smallest_subnet_alone_is_found(tmp_path: Path) -> None:
    (only,) = search(tmp_path, population=2, max_parameters=162).history
    assert set(only.sample.values()) == {"skip"}


def test_a_predicate_that_nothing_satisfies_is_an_error_with_a_budget_too(tmp_path: Path) -> None:
    with pytest.raises(ConstraintError, match="1000 random samples"):
        search(tmp_path, population=2, max_parameters=182, constraint=lambda sample: False)
