"""What `nnictl experiment export` makes of values, and what they are read as."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import nni
import pytest
from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace, MutableDropout, MutableLinear
from torch import nn

from nni_supernet_ext.core.domain import Domain
from nni_supernet_ext.errors import ConfigurationError, DataError
from nni_supernet_ext.recording import read_export, sample_from_parameters, search_axes, subnet_parameters
from nni_supernet_ext.testing import ToySpace


def exported(folder: Path, values: list[Any]) -> Path:
    path = folder / "export.json"
    parameter = {"stage": "subnet", "op": "conv", "width": 4}
    rows = [{"parameter": parameter, "value": value, "trialJobId": str(i)} for i, value in enumerate(values)]
    path.write_text(json.dumps(rows))
    return path


@pytest.mark.parametrize(("mode", "order"), [("max", [0.9, 0.5]), ("min", [0.5, 0.9])])
@pytest.mark.parametrize("missing", ['{"default": null}', '{"default": NaN}', '{"loss": 1}', "", None, "null"])
def test_a_subnet_that_was_nan_comes_last(tmp_path: Path, missing: Any, mode: str, order: list[float]) -> None:
    path = exported(tmp_path, [missing, '{"default": 0.5}', '"{\\"default\\": 0.9}"'])
    values = [subnet.metrics["default"] for subnet in read_export(path, Domain(ToySpace()), mode)]
    assert values[:2] == order and math.isnan(values[2])


def test_an_empty_cell_comes_last(tmp_path: Path) -> None:
    path = tmp_path / "export.csv"
    path.write_text("trialJobId,reward,stage,op,width\na,,subnet,skip,4\nb,0.5,subnet,conv,4\n")
    best, last = read_export(path, Domain(ToySpace()))
    assert best.metrics == {"default": 0.5} and math.isnan(last.metrics["default"])


def test_another_word_for_a_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="`mode` is expected to be 'max' or 'min', but got 'maximize'"):
        read_export(exported(tmp_path, [0.5]), Domain(ToySpace()), "maximize")


class Numbers(ModelSpace):
    def __init__(self) -> None:
        super().__init__()
        self.layer = MutableLinear(4, nni.choice("width", [4, 8]))
        self.dropout = MutableDropout(nni.choice("p", [0.0, 1e-5, 0.5]))

    def forward(self, x):
        return self.dropout(self.layer(x))


@pytest.mark.parametrize(("given", "p"), [("0", 0.0), (0, 0.0), ("0.00001", 1e-5), ("1e-05", 1e-5), (".5", 0.5)])
def test_numbers_are_known_by_their_value(given: Any, p: float) -> None:
    assert sample_from_parameters({"width": "4.0", "p": given}, Domain(Numbers())) == {"width": 4, "p": p}


def test_a_metric_that_one_subnet_lacks_is_nan(tmp_path: Path) -> None:
    """What was not finite is not written."""
    path = exported(tmp_path, ['{"default": 0.5, "val_loss": 2.0}', '{"flops": 7}'])
    best, last = read_export(path, Domain(ToySpace()))
    assert best.metrics == pytest.approx({"default": 0.5, "val_loss": 2.0, "flops": math.nan}, nan_ok=True)
    assert last.metrics == pytest.approx({"default": math.nan, "val_loss": math.nan, "flops": 7}, nan_ok=True)


class Staged(ModelSpace):
    """Choices that a table can confuse: one has the name of the records' own axis, one may choose nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = LayerChoice({"supernet": nn.Identity(), "subnet": nn.Tanh()}, label="stage")
        self.inputs = InputChoice(n_candidates=2, n_chosen=None, label="inputs")

    def forward(self, x):
        return self.layer(x)


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_a_space_with_a_stage_of_its_own_and_no_inputs(tmp_path: Path, kind: str) -> None:
    domain = Domain(Staged())
    assert search_axes(domain)["stage"]["_value"] == ["supernet", "subnet"]
    samples = [{"stage": name, "inputs": []} for name in ("supernet", "subnet")]
    trials: list[dict[str, Any]] = [subnet_parameters(sample) for sample in samples]
    assert all(trial.keys() - {"inputs"} == search_axes(domain).keys() for trial in trials)
    trials.append({"stage": "supernet"})
    path = tmp_path / f"export.{kind}"
    if kind == "json":
        rows = [{"parameter": trial, "value": str(-i), "trialJobId": str(i)} for i, trial in enumerate(trials)]
        path.write_text(json.dumps(rows))
    else:  # as NNI writes it
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, [*trials[0], "reward", "trialJobId"])
            writer.writeheader()
            writer.writerows({**trial, "reward": -i, "trialJobId": i} for i, trial in enumerate(trials))
    assert [subnet.sample for subnet in read_export(path, domain)] == samples


def test_a_table_of_another_origin_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("trialJobId,op,width\na,conv,4\n")
    with pytest.raises(DataError, match="expected to come from `nnictl experiment export`"):
        read_export(path, Domain(ToySpace()))
