"""Plain weight sharing activates in place and keeps one copy of everything."""

from __future__ import annotations

import torch

from nni_supernet_ext.testing import toy_supernet
from nni_supernet_ext.weights import SharedWeights


def test_subnets_that_share_a_candidate_share_its_weights():
    supernet, store = toy_supernet(), SharedWeights()
    count = sum(1 for _ in supernet.model.parameters())
    x = torch.randn(2, 3, 8, 8)
    store.activate(supernet, {"op": "conv", "width": 8})
    wide = supernet.model(x)
    with torch.no_grad():
        supernet.model.stem.weight[:4] += 1.0
    assert not torch.equal(supernet.model(x), wide)
    store.activate(supernet, {"op": "skip", "width": 4})
    assert supernet.active == {"op": "skip", "width": 4}
    assert sum(1 for _ in supernet.model.parameters()) == count
    assert store.checkpoint_state() == {}
