"""A state that no run could resume from is refused before it is written, where it lies and by whose fault."""

from __future__ import annotations

import io
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple

import numpy as np
import pytest
import torch

from nni_supernet_ext.callbacks import ComplexityAwareLR
from nni_supernet_ext.core import Draw, SupernetCallback
from nni_supernet_ext.core.plain_state import plain_state
from nni_supernet_ext.errors import CheckpointError
from nni_supernet_ext.paths import SandwichSampler, UniformPathSampler
from nni_supernet_ext.testing import MethodCase, ToySpace
from nni_supernet_ext.testing.training import train

CASE = MethodCase("case", dict)
LABEL = next(iter(ToySpace().simplify().values())).label
Pair = namedtuple("Pair", "first second")


class Greedy(UniformPathSampler):
    """Keeps whatever it is told, from an epoch on."""

    def __init__(self, kept, after=0):
        super().__init__()
        self.kept, self.after, self.epoch = kept, after, 0

    def draws(self, rng, state):
        self.epoch = state.epoch
        return super().draws(rng, state)

    def checkpoint_state(self):
        return {"pool": self.kept if self.epoch >= self.after else None}


def _torch_loads(value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    torch.load(file, weights_only=True)


PLAIN = [
    None,
    True,
    -3,
    2**70,
    float("nan"),
    "text",
    torch.ones(2, dtype=torch.float16),
    torch.nn.Parameter(torch.ones(2)),
    [1, (2, [3.0, "four"])],
    {"a": 1, 2: {(3, "b"): None}},
    OrderedDict(a=[1]),
    Counter("abca"),
    torch.nn.Linear(2, 2).state_dict(),
    torch.Size([1, 2]),
    torch.float32,
]


@pytest.mark.parametrize("value", PLAIN, ids=[str(type(v).__name__) for v in PLAIN])
def test_what_torch_reads_back_is_accepted(value):
    _torch_loads(value)
    assert plain_state("Part", value) is value


ODD = [
    (np.zeros(2), "", "numpy.ndarray"),
    ([0, {"x": np.float64(0.5)}], r"\[1\]\['x'\]", r"numpy.float64 .*0\.5.*Save `\.tolist\(\)`"),
    ((1, np.bool_(True)), r"\[1\]", "numpy.bool"),
    ({"d": defaultdict(list)}, r"\['d'\]", r"collections.defaultdict .*Save `dict\(\.\.\.\)`"),
    ({"a": {LABEL: 1}}, r"\['a'\]\.keys\(\)\[0\]", r".*Save `str\.__str__\(\.\.\.\)`"),
    ([Draw({"op": "conv"})], r"\[0\]", r"nni_supernet_ext.core.draw.Draw .*plain containers"),
    (OrderedDict(a=np.int64(1)), r"\['a'\]", "numpy.int64"),
    (deque([1]), "", "collections.deque"),
    (Pair(1, 2), "", ".*Pair"),
    (range(3), "", "range"),
    (10**3000, "", "int 1000"),
    (lambda: 0, "", "function"),
]


@pytest.mark.parametrize(("value", "place", "what"), ODD, ids=[str(type(v).__name__) for v, _, _ in ODD])
def test_what_torch_refuses_is_refused_with_its_place(value, place, what):
    with pytest.raises(Exception):  # noqa: B017 - torch's own, of several kinds
        _torch_loads(value)
    message = rf"^`Part\.checkpoint_state\(\){place}` is expected to be plain .*, but got {what}"
    with pytest.raises(CheckpointError, match=message) as error:
        plain_state("Part", value)
    assert str(error.value).endswith("turn it back in `restore_state`.")


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", 1j, frozenset({1})], ids=repr)
def test_torch_decides_what_is_plain_where_versions_differ(value):
    try:
        _torch_loads(value)
    except Exception:
        with pytest.raises(CheckpointError, match=r"\['v'\]"):
            plain_state("Part", {"v": value})
    else:
        assert plain_state("Part", {"v": value}) == {"v": value}


def test_a_container_within_itself_is_no_endless_search():
    state = {"list": []}
    state["list"].append(state["list"])
    assert plain_state("Part", state) is state


def test_the_part_is_named_and_nothing_is_written(tmp_path):
    settings = {"paths": Greedy([0, 1, 2, np.float64(0.5)]), "checkpoint_dir": tmp_path / "checkpoint"}
    with pytest.raises(CheckpointError, match=r"^`Greedy\.checkpoint_state\(\)\['pool'\]\[3\]` is expected to be"):
        train(CASE, settings, tmp_path)
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_good_checkpoint_outlives_a_state_that_goes_bad(tmp_path):
    settings = {"paths": Greedy(np.zeros(2), after=1), "checkpoint_dir": tmp_path / "checkpoint"}
    with pytest.raises(CheckpointError, match=r"`Greedy\.checkpoint_state\(\)\['pool'\]`"):
        train(CASE, settings, tmp_path, epochs=3)
    saved = torch.load(tmp_path / "checkpoint" / "last.ckpt", weights_only=True)
    assert saved["epoch"] == 0
    assert saved["nni_supernet_ext"]["iteration"] == 4


def test_states_of_wrapped_parts_and_callbacks_are_looked_at(tmp_path):
    class Odd(SupernetCallback):
        def checkpoint_state(self):
            return {"seen": {LABEL}}

    sandwich = SandwichSampler(base=Greedy(np.zeros(2)))
    with pytest.raises(CheckpointError, match=r"`SandwichSampler\.checkpoint_state\(\)\['state'\]\['pool'\]`"):
        train(CASE, {"paths": sandwich}, tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"`Odd\.checkpoint_state\(\)\['seen'\]"):
        train(CASE, {"callbacks": [ComplexityAwareLR(), Odd()]}, tmp_path / "b")
