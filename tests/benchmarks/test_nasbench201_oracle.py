"""The NAS-Bench-201 oracle: a small table by hand, the published optima, and every row of the real table."""

from __future__ import annotations

import csv
import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from nni_supernet_ext.benchmarks import NasBench201Oracle
from nni_supernet_ext.errors import ConfigurationError, DataError, SpaceError

EMPTY = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
MIXED = "|skip_connect~0|+|nor_conv_1x1~0|nor_conv_3x3~1|+|avg_pool_3x3~0|none~1|skip_connect~2|"
MIXED_SAMPLE = {
    "cell/0_1": "skip_connect",
    "cell/0_2": "conv_1x1",
    "cell/1_2": "conv_3x3",
    "cell/0_3": "avg_pool_3x3",
    "cell/1_3": "none",
    "cell/2_3": "skip_connect",
}
COLUMNS = {
    "arch": [MIXED, EMPTY],
    "code": ["123401", "000000"],
    "iso_group": [4, 5],
    "params_M": [0.344346, 0.073306],
    "flops_M": [47.10465, 7.78305],
    "flops_M_in16": [11.7838, 1.9534],
    "c10_test": [91.5, 10.0],
    "c10_valid": [88.25, 9.75],
    "c100_valid": [66.0, 1.0],
    "in16_test": [33.5, 0.8333],
    "c10_test_e12": [70.5, float("nan")],
}


@pytest.fixture
def small() -> NasBench201Oracle:
    return NasBench201Oracle.from_columns(COLUMNS)


@pytest.fixture(scope="module")
def real(data_dir: Path) -> NasBench201Oracle:
    if not (data_dir / "nasbench201.csv.gz").is_file():
        pytest.skip("nasbench201.csv.gz is absent from the data folder.")
    return NasBench201Oracle(data_dir)


def write_csv(path: Path, columns: dict[str, list]) -> Path:
    lines = [",".join(columns)] + [
        ",".join("" if value != value else str(value) for value in row)
        for row in zip(*columns.values(), strict=True)
    ]
    text = "\n".join(lines) + "\n"
    if path.suffix == ".gz":
        with gzip.open(path, "wt") as stream:
            stream.write(text)
    else:
        path.write_text(text)
    return path


# --- look-ups in a table by hand


def test_accuracy_by_data_set_split_and_epochs(small):
    assert small.accuracy(MIXED_SAMPLE) == 91.5
    assert small.accuracy(MIXED_SAMPLE, dataset="cifar10", split="valid") == 88.25
    assert small.accuracy(MIXED_SAMPLE, dataset="cifar100", split="valid") == 66.0
    assert small.accuracy(MIXED_SAMPLE, dataset="ImageNet16-120") == 33.5
    assert small.accuracy(MIXED_SAMPLE, epochs=12) == 70.5
    assert np.isnan(small.accuracy(EMPTY, epochs=12))


def test_an_architecture_may_be_sample_string_or_index(small):
    bare = {label.removeprefix("cell/"): op for label, op in reversed(MIXED_SAMPLE.items())}
    for architecture in (MIXED_SAMPLE, bare, MIXED, 0, np.int64(0)):
        assert small.index(architecture) == 0
        assert small.sample(architecture) == MIXED_SAMPLE
        assert small.iso_group(architecture) == 4
    assert small.index(EMPTY) == 1
    assert len(small) == 2
    assert list(small.samples()) == [MIXED_SAMPLE, dict.fromkeys(MIXED_SAMPLE, "none")]


def test_costs_follow_the_classifier_of_the_data_set(small):
    assert small.params(MIXED) == 344_346
    assert small.params(MIXED, dataset="cifar100") == 344_346 + 5_850
    assert small.params(MIXED, dataset="imagenet16-120") == 344_346 + 7_150
    assert small.flops(MIXED) == 47_104_650
    assert small.flops(MIXED, dataset="cifar100") == 47_104_650 + 5_850
    assert small.flops(MIXED, dataset="imagenet16-120") == 11_783_800


def test_table_cannot_be_written(small):
    with pytest.raises(ValueError, match="read-only"):
        small.table["c10_test"][0] = 1.0
    with pytest.raises(TypeError):
        small.table["c10_test"] = np.zeros(2)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"dataset": "svhn"}, "Argument `dataset` is expected to be one of .*cifar100.* got 'svhn'"),
        ({"dataset": 10}, "Argument `dataset`"),
        ({"split": "train"}, "Argument `split` .* got 'train'"),
        ({"epochs": 90}, r"Argument `epochs` is expected to be one of \[200, 12\], but got 90"),
    ],
)
def test_unknown_measurements_are_refused(small, arguments, match):
    with pytest.raises(ConfigurationError, match=match):
        small.accuracy(MIXED_SAMPLE, **arguments)


def test_absent_measurements_are_refused(small):
    with pytest.raises(DataError, match="column `in16_valid_e12`"):
        small.accuracy(MIXED, dataset="imagenet16-120", split="valid", epochs=12)


@pytest.mark.parametrize(
    ("architecture", "error", "match"),
    [
        ({**MIXED_SAMPLE, "cell/0_1": "nor_conv_3x3"}, SpaceError, "got 'nor_conv_3x3'"),
        ({"cell/0_1": "none"}, SpaceError, "expected to have the labels"),
        ({**MIXED_SAMPLE, "depth": 3}, SpaceError, "'depth'"),
        ({**MIXED_SAMPLE, "cell/0_1": "none"}, DataError, "one of the table's 2"),
        ("|none~0|", DataError, r"got '\|none~0\|'"),
        (2, DataError, "got 2"),
        (-1, DataError, "got -1"),
    ],
)
def test_unknown_architectures_are_refused(small, architecture, error, match):
    with pytest.raises(error, match=match):
        small.accuracy(architecture)


# --- reading


@pytest.mark.parametrize("name", ["nasbench201.csv", "nasbench201.csv.gz", "other.csv.gz"])
def test_reads_csv_by_file_folder_and_variable(tmp_path, monkeypatch, name):
    file = write_csv(tmp_path / name, COLUMNS)
    monkeypatch.delenv("NNI_SUPERNET_DATA", raising=False)
    oracles = [NasBench201Oracle(file), NasBench201Oracle(str(file))]
    if not name.startswith("other"):
        monkeypatch.setenv("NNI_SUPERNET_DATA", str(tmp_path))
        oracles += [NasBench201Oracle(tmp_path), NasBench201Oracle()]
    for oracle in oracles:
        assert oracle.accuracy(MIXED_SAMPLE) == 91.5
        assert oracle.table["code"].tolist() == ["123401", "000000"]
        assert np.isnan(oracle.accuracy(EMPTY, epochs=12))
        assert oracle.table is oracles[0].table


def test_a_replaced_file_is_read_anew(tmp_path):
    file = write_csv(tmp_path / "nasbench201.csv", COLUMNS)
    assert NasBench201Oracle(file).accuracy(MIXED) == 91.5
    write_csv(file, {**COLUMNS, "c10_test": [50.0, 10.0]})
    os.utime(file, (1, 1))
    assert NasBench201Oracle(file).accuracy(MIXED) == 50.0


def test_absent_table_is_refused_with_the_way_to_get_it(tmp_path, monkeypatch):
    monkeypatch.delenv("NNI_SUPERNET_DATA", raising=False)
    with pytest.raises(
        DataError, match=r"got None.*NNI_SUPERNET_DATA.*pip install nats_bench.*nasbench201 database"
    ):
        NasBench201Oracle()
    for place in (tmp_path, tmp_path / "absent.csv"):
        with pytest.raises(DataError, match=r"lead to the NAS-Bench-201 table, but got .*pip install nats_bench"):
            NasBench201Oracle(place)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("table.pth", "x", r"ending in \.csv\.gz or \.csv, but got table\.pth"),
        ("table.csv.gz", "not gzip", "expected to be a csv table"),
        ("table.csv", "", "expected to be a csv table"),
        ("table.csv", "arch,code,x\na,000000\n", "expected to be a csv table"),
        ("table.csv", "arch,code,x\na,000000,much\n", "much"),
        ("table.csv", "arch,x\na,1\n", "column `code`"),
        ("table.csv", "arch,code\na,421\n", "Keep leading zeros"),
        ("table.csv", "arch,code\na,000005\n", "Keep leading zeros"),
        ("table.csv", "arch,code\na,000000\nb,000000\n", "a repeated one"),
    ],
)
def test_malformed_files_are_refused(tmp_path, name, content, match):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=match):
        NasBench201Oracle(tmp_path / name)


def test_damaged_files_are_refused(tmp_path):
    file = write_csv(tmp_path / "table.csv.gz", {**COLUMNS, "x": np.random.default_rng(0).random(2).tolist()})
    whole = bytearray(file.read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 20] = b"\xff" * 20
    file.write_bytes(whole)
    with pytest.raises(DataError, match=r"table\.csv\.gz is expected to be a csv table"):
        NasBench201Oracle(file)
    (tmp_path / "long.csv").write_text(f"arch,code\n{'x' * 200_000},000000\n")
    with pytest.raises(DataError, match=r"long\.csv is expected to be a csv table.*field larger"):
        NasBench201Oracle(tmp_path / "long.csv")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"c10_test": [91.5, "much"]}, "Column `c10_test` is expected to hold numbers, but got: .*much"),
        (
            {"c10_test": [[1.0], [2.0]]},
            r"Column `c10_test` .* one value per architecture, but got the shape \(2, 1\)",
        ),
        ({"arch": MIXED}, r"Column `arch` is expected to hold one value per architecture, but got the shape \(\)"),
    ],
)
def test_malformed_columns_are_refused(change, match):
    with pytest.raises(DataError, match=match):
        NasBench201Oracle.from_columns({**COLUMNS, **change})


def test_columns_of_unequal_length_are_refused():
    with pytest.raises(DataError, match="equal lengths"):
        NasBench201Oracle.from_columns({**COLUMNS, "c10_test": [1.0]})


# --- the real table


def test_published_optima(real):
    assert len(real) == 15_625
    # NAS-Bench-201's best architectures: 94.37, 73.51 and 47.31 percent test accuracy.
    for dataset, column, best in (
        ("cifar10", "c10_test", 94.37),
        ("cifar100", "c100_test", 73.51),
        ("imagenet16-120", "in16_test", 47.31),
    ):
        index = int(real.table[column].argmax())
        assert round(real.accuracy(index, dataset), 2) == best


def test_every_row_equals_the_file(real, data_dir):
    with gzip.open(data_dir / "nasbench201.csv.gz", "rt") as stream:
        rows = list(csv.DictReader(stream))
    for index, (sample, row) in enumerate(zip(real.samples(), rows, strict=True)):
        assert real.index(sample) == real.index(row["arch"]) == index == int(row["index"])
        inputs = row["arch"].replace("+", "").replace("nor_", "").strip("|").replace("||", "|").split("|")
        assert [part.split("~")[0] for part in inputs] == list(sample.values())
        assert real.accuracy(sample) == float(row["c10_test"])
        assert real.params(sample) == round(float(row["params_M"]) * 1e6)


def test_isomorphic_cells_share_a_group(real):
    assert len(np.unique(real.table["iso_group"])) == 6_466
    # A node without inputs feeds nothing on: its outgoing operations make no difference.
    one = {"0_1": "none", "0_2": "none", "1_2": "none", "0_3": "conv_3x3", "1_3": "none", "2_3": "none"}
    other = {**one, "1_3": "skip_connect"}
    different = {**one, "0_3": "conv_1x1"}
    assert real.iso_group(one) == real.iso_group(other) != real.iso_group(different)


def test_missing_seed_values_are_nan(real):
    two_seeds = real.table["n_seeds"] == 2
    assert two_seeds.sum() == 7_456
    assert np.isnan(real.table["c10_valid_s999"][two_seeds]).all()
    assert not np.isnan(real.table["c10_valid_s999"][~two_seeds]).any()


def test_the_table_is_shared_between_oracles(real, data_dir):
    assert NasBench201Oracle(data_dir).table is real.table


def test_latency_of_a_part_needs_official_indices(small):
    with pytest.raises(DataError, match="column `index` where it does not hold all 15625"):
        small.latency(0, "raspi4")


def test_rows_that_were_mixed_up_are_refused():
    with pytest.raises(DataError, match="`arch` and `code` are expected to name the same architectures"):
        NasBench201Oracle.from_columns({**COLUMNS, "code": ["000000", "123401"]})


def test_missing_whole_numbers_are_refused_and_no_group_is_no_group():
    nan = float("nan")
    oracle = NasBench201Oracle.from_columns({**COLUMNS, "iso_group": [nan, nan], "params_M": [nan, 0.073306]})
    assert oracle.distinct() == [0, 1]
    assert oracle.params(1) == 73306
    for look_up in (oracle.params, oracle.iso_group):
        with pytest.raises(DataError, match="is expected to hold a number for 0, but got nan"):
            look_up(0)


def test_a_table_is_saved_only_as_what_can_be_read(small, tmp_path):
    for name in ("table.txt", "table.gz"):
        with pytest.raises(ConfigurationError, match=r"expected to end in \.csv\.gz or \.csv"):
            small.save(tmp_path / name)
    assert not list(tmp_path.iterdir())
    (tmp_path / "twice.csv").write_text("arch,code,code\n")
    with pytest.raises(DataError, match="twice"):
        NasBench201Oracle(tmp_path / "twice.csv")
