"""The NAS-Bench-Macro oracle: a small table by hand, and every row of the real one."""

from __future__ import annotations

import csv
import gzip

import pytest

from nni_supernet_ext.benchmarks import BenchmarkOracle, NasBench201Oracle, NasBenchMacroOracle, TableFormat
from nni_supernet_ext.errors import ConfigurationError, DataError, SpaceError

COLUMNS = {
    "arch": ["00000012", "00000120", "21021102"],
    "canonical": ["00000120", "00000120", "21021120"],
    "acc_mean": [70.0, 70.0, 92.0],
    "acc_1": [71.0, 71.0, 91.5],
    "acc_2": [70.0, 70.0, 92.0],
    "acc_3": [69.0, 69.0, float("nan")],
    "params": [400_000, 400_000, 900_000],
    "flops": [8e6, 8e6, 5e7],
}
SAMPLE = {
    "layer0": "mb6_k5",
    "layer1": "mb3_k3",
    "layer2": "identity",
    "layer3": "mb6_k5",
    "layer4": "mb3_k3",
    "layer5": "mb3_k3",
    "layer6": "identity",
    "layer7": "mb6_k5",
}


@pytest.fixture
def small() -> NasBenchMacroOracle:
    return NasBenchMacroOracle.from_columns(COLUMNS)


@pytest.fixture(scope="module")
def real(data_dir) -> NasBenchMacroOracle:
    if not (data_dir / "nas_bench_macro.csv.gz").is_file():
        pytest.skip("nas_bench_macro.csv.gz is absent from the data folder.")
    return NasBenchMacroOracle(data_dir)


def test_look_ups_by_sample_digits_and_row(small):
    for architecture in (SAMPLE, dict(reversed(SAMPLE.items())), "21021102", 2):
        assert small.index(architecture) == 2
        assert small.sample(architecture) == SAMPLE
        assert small.accuracy(architecture) == 92.0
        assert small.accuracy(architecture, run=1) == 91.5
        assert small.params(architecture) == 900_000
        assert small.flops(architecture) == 50_000_000
        assert small.canonical(architecture) == "21021120"
    assert small.accuracies(["00000012", SAMPLE]).tolist() == [70.0, 92.0]
    assert small.accuracies(run=1).tolist() == [71.0, 71.0, 91.5]


def test_equal_networks_are_represented_by_the_trained_one(small):
    assert small.distinct() == [1]


def test_a_saved_table_is_read_back(small, tmp_path):
    for name in ("table.csv", "table.csv.gz"):
        again = NasBenchMacroOracle(small.save(tmp_path / name))
        assert list(again.table) == list(small.table)
        for column, values in small.table.items():
            assert [str(v) for v in again.table[column]] == [str(v) for v in values]


@pytest.mark.parametrize(
    ("architecture", "error", "match"),
    [
        ("0000001", DataError, "one of the table's 3, but got '0000001'"),
        ("11111111", DataError, r"got '11111111'\. Compare it with `oracle\.table\['arch'\]`"),
        (3, DataError, "got 3"),
        (1.7, SpaceError, r"expected to be a sample, a code or a row, but got 1\.7"),
        (2.0, SpaceError, r"a sample, a code or a row, but got 2\.0"),
        (None, SpaceError, "a sample, a code or a row, but got None"),
        ({"layer0": "identity"}, SpaceError, r"labels \['layer0', .* but got \['layer0'\].*NAS-Bench-Macro"),
        ({**SAMPLE, "layer3": "conv"}, SpaceError, r"choose from \['identity', .*'conv'"),
    ],
)
def test_unknown_architectures_are_refused(small, architecture, error, match):
    with pytest.raises(error, match=match):
        small.accuracy(architecture)


def test_unknown_runs_columns_and_codes_are_refused(small, tmp_path, monkeypatch):
    with pytest.raises(ConfigurationError, match=r"`run` is expected to be one of \[None, 1, 2, 3\], but got 4"):
        small.accuracy(SAMPLE, run=4)
    with pytest.raises(DataError, match="column `params`"):
        NasBenchMacroOracle.from_columns({"arch": ["0" * 8], "canonical": ["0" * 8]}).params(0)
    with pytest.raises(DataError, match="8 digits 0 to 2, but got '00000003'"):
        NasBenchMacroOracle.from_columns({"arch": ["00000003"], "canonical": ["00000003"]})
    with pytest.raises(DataError, match=r"lead to the NAS-Bench-Macro table.*xiusu/NAS-Bench-Macro"):
        NasBenchMacroOracle(tmp_path)
    monkeypatch.delenv("NNI_SUPERNET_DATA", raising=False)
    with pytest.raises(DataError, match="NAS-Bench-Macro table, but got None"):
        NasBenchMacroOracle()


def test_the_base_serves_other_benchmarks_and_packaged_tables(tmp_path, monkeypatch):
    monkeypatch.setenv("NNI_SUPERNET_DATA", "/nowhere")
    (tmp_path / "pairs.csv").write_text("arch,canonical,accuracy\n00,0,50\n01,1,75\n10,1,\n")

    class Pairs(BenchmarkOracle):
        format = TableFormat(
            "Pairs", "pairs", ("first", "second"), ("skip", "conv"), packaged=tmp_path / "pairs.csv"
        )

    oracle = Pairs()
    assert oracle.accuracy({"first": "skip", "second": "conv"}) == 75.0
    assert oracle.distinct() == [0, 1]
    assert len(list(oracle.samples())) == 3
    with pytest.raises(DataError, match="column `iso_group`"):
        NasBench201Oracle.from_columns(
            {"arch": ["|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"], "code": ["000000"]}
        ).distinct()


class Pairs(BenchmarkOracle):
    format = TableFormat("Pairs", "pairs", ("first", "second"), ("skip", "conv"))


def test_tables_as_spreadsheets_and_editors_leave_them(tmp_path):
    text = "arch,canonical,accuracy\r\n00,0,50\r\n01,1,75.5\r\n\r\n"
    (tmp_path / "pairs.csv").write_bytes(text.encode("utf-8-sig"))
    assert Pairs(tmp_path).accuracies().tolist() == [50.0, 75.5]
    (tmp_path / "none.csv").write_text("arch,canonical,accuracy\n\n")
    with pytest.raises(DataError, match=r"but got: no row below \['arch', 'canonical', 'accuracy'\]"):
        Pairs(tmp_path / "none.csv")


def test_every_row_equals_the_file(real, data_dir):
    with gzip.open(data_dir / "nas_bench_macro.csv.gz", "rt") as stream:
        rows = list(csv.DictReader(stream))
    assert len(real) == len(rows) == 6_561
    for index, (sample, row) in enumerate(zip(real.samples(), rows, strict=True)):
        assert real.index(sample) == real.index(row["arch"]) == index
        assert real.accuracy(sample) == float(row["acc_mean"])
        assert real.accuracy(index, run=3) == float(row["acc_3"])
        assert (real.params(index), real.flops(index)) == (int(row["params"]), int(row["flops"]))
        assert real.canonical(index) == row["canonical"]


def test_samples_of_the_spaces_are_found_as_they_are(real, data_dir):
    import numpy as np

    from nni_supernet_ext.core import Domain
    from nni_supernet_ext.spaces import nasbench201, nasbench_macro, nasbench_macro_flops, nasbench_macro_params

    domain, rng = Domain(nasbench_macro(channels=4, head_channels=8)), np.random.default_rng(0)
    for _ in range(20):
        sample = domain.random(rng)
        assert real.sample(sample) == sample
        assert real.params(sample) == nasbench_macro_params(sample)
        assert real.flops(sample) == nasbench_macro_flops(sample)
    if (data_dir / "nasbench201.csv.gz").is_file():
        sample = Domain(nasbench201(channels=4, cells_per_stage=1)).random(rng)
        assert NasBench201Oracle(data_dir).sample(sample) == sample


def test_duplicates_of_the_real_table(real):
    distinct = real.distinct()
    assert len(distinct) == 3_969
    # Moving the identities behind the first layer of a stage (2, 3 and 3 layers) to its end: the canonical form.
    for code, canonical in zip(real.table["arch"].tolist(), real.table["canonical"].tolist(), strict=True):
        stages = (code[:2], code[2:5], code[5:])
        moved = (stage[0] + "".join(sorted(stage[1:], key=lambda digit: digit == "0")) for stage in stages)
        assert "".join(moved) == canonical
    assert round(real.accuracies(distinct).mean(), 3) == 90.285


def test_duplicates_of_the_real_nas_bench_201(data_dir):
    if not (data_dir / "nasbench201.csv.gz").is_file():
        pytest.skip("nasbench201.csv.gz is absent from the data folder.")
    oracle = NasBench201Oracle(data_dir)
    distinct = oracle.distinct()
    assert len(distinct) == 6_466 == len({oracle.iso_group(row) for row in distinct})
