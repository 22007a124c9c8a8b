"""The tuner of experiments with one trial, made as NNI's dispatcher makes it."""

from __future__ import annotations

import subprocess
import sys

import nni
import pytest

from nni_supernet_ext import trial
from nni_supernet_ext.trial import OnceTuner

DISPATCHER = """
import sys
from nni.tools.package_utils import create_customized_class_instance

tuner = create_customized_class_instance({"className": "nni_supernet_ext.trial.OnceTuner", "codeDirectory": "."})
print(tuner.generate_parameters(0), sorted({"torch", "pytorch_lightning"} & set(sys.modules)))
"""


def test_dispatcher_makes_it_without_what_trials_need() -> None:
    command = [sys.executable, "-c", DISPATCHER]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip().splitlines()[-1] == "{'stage': 'supernet'} []"


def test_issues_one_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NNI_MODE", raising=False)
    tuner = OnceTuner({"epochs": 3})
    assert tuner.generate_parameters(0) == {"stage": "supernet", "epochs": 3}, "else it would pass for a subnet"
    with pytest.raises(nni.NoMoreTrialError):
        tuner.generate_parameters(1)
    monkeypatch.setenv("NNI_MODE", "resume")
    with pytest.raises(nni.NoMoreTrialError):
        OnceTuner().generate_parameters(0)


def test_the_package_gives_its_names_when_asked() -> None:
    assert all(getattr(trial, name).__name__ == name for name in trial.__all__)
    assert set(trial.__all__) <= set(dir(trial))
    with pytest.raises(AttributeError, match="no attribute 'Trail'"):
        trial.Trail  # noqa: B018
