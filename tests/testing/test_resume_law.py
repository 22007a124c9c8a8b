"""What the law of resuming must catch: state that shows late, and final weights that a repeated run has not."""

from __future__ import annotations

import pytest
import torch

from nni_supernet_ext import testing
from nni_supernet_ext.core import SupernetCallback


def _caught(callback, message, root):
    case = testing.MethodCase("Wrong", lambda: {"callbacks": [callback()]}, no_neutral="It is wrong.")
    with pytest.raises(AssertionError, match=message):
        testing.check_resume([case], root)


def test_state_that_first_matters_in_the_third_epoch(tmp_path):
    class Late(SupernetCallback):
        """Gathers in the first epoch what it uses two epochs later, and saves none of it."""

        def prepare(self, plan):
            self.total = 0.0

        def on_after_draw(self, state):
            if state.epoch == 0:
                self.total = self.total + state.loss

        def on_draws(self, state):
            if state.epoch == 2:
                state.scales = [float(self.total) + 0.5] * len(state.draws)

    _caught(Late, "Wrong trains other weights after resuming", tmp_path)


def test_final_weights_that_a_repeated_run_has_not(tmp_path):
    class Halved(SupernetCallback):
        """Changes the weights where a finished run never comes by."""

        def prepare(self, plan):
            self.model = plan.supernet.model

        @torch.no_grad()
        def on_train_end(self, trainer, module):
            self.model.head.weight.mul_(0.5)

    _caught(Halved, "Wrong ends with other weights when its finished run is repeated: .*head.weight", tmp_path)
