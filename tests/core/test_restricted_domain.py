"""A part of a space: fewer candidates of some choices, everything else as before."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn

from nni_supernet_ext.core import find_extremes, resolve_complexity
from nni_supernet_ext.core.domain import Domain
from nni_supernet_ext.core.supernet import Supernet
from nni_supernet_ext.errors import SpaceError
from nni_supernet_ext.spaces import nasbench201
from nni_supernet_ext.strategies import SupernetStrategy


def test_labels_with_a_scope_keep_their_name_and_extremes_follow_the_region() -> None:
    model = SupernetStrategy().mutate_model(nasbench201(4, 1))
    whole = Domain(model)
    part = whole.restricted({"cell/0_1": ["none", "conv_1x1"], "cell/2_3": ["conv_3x3"]})
    assert part.labels == whole.labels and part.size() == 2 * 5**4
    assert whole.size() == 5**6 and whole.candidates["cell/2_3"] != ["conv_3x3"]
    supernet = Supernet(model, part)
    measure = resolve_complexity("weights", supernet)
    extremes = find_extremes(measure, part)
    assert extremes.exact
    assert extremes.smallest["cell/2_3"] == extremes.largest["cell/2_3"] == "conv_3x3"
    assert extremes.largest["cell/0_1"] == "conv_1x1" and extremes.smallest["cell/0_1"] == "none"
    rng = np.random.default_rng(0)
    samples = [part.random(rng) for _ in range(300)]
    assert {s["cell/0_1"] for s in samples} == {"none", "conv_1x1"}
    assert {s["cell/2_3"] for s in samples} == {"conv_3x3"}
    part.validate(samples[0])
    with pytest.raises(SpaceError, match="choice `cell/2_3`"):
        part.validate({**samples[0], "cell/2_3": "none"})


class Weighted(ModelSpace):
    def __init__(self) -> None:
        super().__init__()
        candidates = {name: nn.Identity() for name in "abc"}
        self.op = LayerChoice(candidates, weights=[0.6, 0.2, 0.2], label="op")


def test_prior_weights_are_rescaled() -> None:
    part = Domain(Weighted()).restricted({"op": ["a", "c"]})
    assert part.prior("op") == pytest.approx([0.75, 0.25])
    rng = np.random.default_rng(0)
    counts = Counter(part.random(rng)["op"] for _ in range(4000))
    assert abs(counts["a"] - 3000) < 140  # five standard deviations


@pytest.mark.parametrize("regions", [{"op": []}, {"op": ["x"]}, {"nowhere": ["a"]}])
def test_unknown_or_empty_regions_are_refused(regions) -> None:
    with pytest.raises(SpaceError, match="keep at least one existing candidate"):
        Domain(Weighted()).restricted(regions)
