"""What the law of neutrality must catch: a neutral setting in which the method is missing."""

from __future__ import annotations

import pytest

from nni_supernet_ext import testing
from nni_supernet_ext.callbacks import TrainingHistory
from nni_supernet_ext.paths import FairPathSampler, UniformPathSampler


def _history():
    return {"callbacks": [TrainingHistory()]}


def _fair():
    return {"paths": FairPathSampler(fixed="op")}


def _uniform():
    return {"paths": UniformPathSampler()}


@pytest.mark.parametrize(
    ("settings", "neutral", "missing"),
    [(_history, dict, "TrainingHistory"), (_fair, dict, "FairPathSampler"), (_fair, _uniform, "FairPathSampler")],
)
def test_the_method_is_missing(settings, neutral, missing, tmp_path):
    with pytest.raises(AssertionError, match=rf"Wrong has a neutral setting without \['{missing}'\]"):
        testing.check_neutral(testing.MethodCase("Wrong", settings, neutral), tmp_path)
