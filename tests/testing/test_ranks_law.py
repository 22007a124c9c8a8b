"""What the law of ranks must catch: processes that part after some epochs."""

from __future__ import annotations

import pytest

from nni_supernet_ext import testing
from nni_supernet_ext.core import SupernetCallback


@pytest.mark.timeout(900)
@pytest.mark.parametrize("epoch", [1, 2])
def test_ranks_that_part_later(epoch, tmp_path):
    class OwnLoss(SupernetCallback):
        """Decides by the loss of its own process, from some epoch on."""

        claims = frozenset({"lr"})

        def on_after_draw(self, state):
            self.factor = float(state.loss) if state.epoch >= epoch else 1.0

        def on_before_update(self, state, optimizer):
            self.rate = optimizer.param_groups[0]["lr"]
            optimizer.param_groups[0]["lr"] *= self.factor

        def on_after_update(self, state, optimizer):
            optimizer.param_groups[0]["lr"] = self.rate

    case = testing.MethodCase("OwnLoss", lambda: {"callbacks": [OwnLoss()]}, no_neutral="It is wrong.")
    with pytest.raises(AssertionError, match="OwnLoss ends with other weights on another rank"):
        testing.check_ranks([case], tmp_path)
