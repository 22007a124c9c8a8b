"""NAS-Bench-201 from NNI's database and from NATS-Bench's files, and the latencies beside the table."""

from __future__ import annotations

import bz2
import importlib.util
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from nni_supernet_ext.benchmarks import NasBench201Oracle
from nni_supernet_ext.benchmarks.nasbench201_codes import code_of_arch, costs, unique_form
from nni_supernet_ext.errors import ConfigurationError, DataError

ARCHS = [  # official order, not that of the codes
    "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|",
    "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|skip_connect~1|none~2|",
    "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|",
]
CODES = ["421211", "000310", "000300"]
DATASETS = ("cifar10-valid", "cifar10", "cifar100", "imagenet16-120")


def accuracy(arch: int, epochs: int, dataset: str, kind: str, seed: int) -> float:
    """Give every measurement a number of its own, exact in binary."""
    kinds = {"valid": 0, "test": 1, "ori_test": 2}
    return 10 * arch + (epochs == 12) * 4 + DATASETS.index(dataset) + kinds[kind] / 4 + seed / 16


def expected(arch: int, epochs: int, dataset: str, kind: str, seeds: int) -> float:
    return sum(accuracy(arch, epochs, dataset, kind, seed) for seed in range(seeds)) / seeds


def check(oracle: NasBench201Oracle) -> None:
    assert oracle.table["code"].tolist() == CODES
    assert oracle.table["arch"].tolist() == ARCHS
    for index, arch in enumerate(ARCHS):
        seeds = 2 if index else 3
        for epochs in (200, 12):
            for args, dataset, kind in (
                (("cifar10", "test"), "cifar10", "ori_test"),
                (("cifar10", "valid"), "cifar10-valid", "valid"),
                (("cifar100", "test"), "cifar100", "test"),
                (("cifar100", "valid"), "cifar100", "valid"),
                (("imagenet16-120", "test"), "imagenet16-120", "test"),
                (("imagenet16-120", "valid"), "imagenet16-120", "valid"),
            ):
                assert oracle.accuracy(arch, *args, epochs=epochs) == pytest.approx(
                    expected(index, epochs, dataset, kind, seeds)
                ), (args, epochs)
    assert oracle.params(ARCHS[2]) == 73_306 + 243_040
    assert oracle.flops(ARCHS[2]) == 7_783_050 + 35_389_440
    assert oracle.iso_group(1) == oracle.iso_group(2) != oracle.iso_group(0)
    assert oracle.distinct() == [0, 1]


# --- NNI's own database


@pytest.fixture
def nni_database(tmp_path: Path) -> Path:
    schema = pytest.importorskip("nni.nas.benchmark.nasbench201.schema", reason="needs peewee below 4")
    from nni.nas.benchmark.nasbench201.db_gen import parse_arch_str
    from playhouse.sqlite_ext import SqliteExtDatabase

    file = tmp_path / "nasbench201.db"
    database = SqliteExtDatabase(str(file))
    before = schema.proxy.obj
    schema.proxy.initialize(database)
    rest = dict.fromkeys(
        (
            "train_acc", "parameters", "latency", "flops", "training_time", "valid_evaluation_time",
            "test_evaluation_time", "ori_test_evaluation_time",
        ),
        0.0,
    )  # fmt: skip
    with database:
        database.create_tables([schema.Nb201TrialConfig, schema.Nb201TrialStats, schema.Nb201IntermediateStats])
        for index, arch in enumerate(ARCHS):
            for epochs in (12, 200):
                for dataset in DATASETS:
                    config = schema.Nb201TrialConfig.create(
                        arch=parse_arch_str(arch), num_epochs=epochs, dataset=dataset, num_channels=16, num_cells=5
                    )
                    for seed in range(2 if index else 3):
                        kinds = {
                            f"{kind}_acc": accuracy(index, epochs, dataset, kind, seed)
                            for kind in ("valid", "test", "ori_test")
                        }
                        schema.Nb201TrialStats.create(config=config, seed=seed, **kinds, **rest)
    database.close()
    schema.proxy.obj = before
    return file


def test_nni_database(nni_database, tmp_path):
    from nni.nas.benchmark.nasbench201.schema import proxy

    before = proxy.obj
    oracle = NasBench201Oracle.from_nni(nni_database)
    check(oracle)
    assert proxy.obj is before
    check(NasBench201Oracle(oracle.save(tmp_path / "saved.csv.gz")))


def test_nni_database_is_found_where_nni_keeps_it(nni_database, monkeypatch, tmp_path):
    from nni.nas.benchmark import constants

    name = Path(constants.DB_URLS["nasbench201"]).name
    nni_database.rename(tmp_path / name)
    monkeypatch.setattr(constants, "DATABASE_DIR", str(tmp_path))
    check(NasBench201Oracle.from_nni())


def test_absent_and_empty_nni_databases_are_refused(tmp_path, monkeypatch):
    schema = pytest.importorskip("nni.nas.benchmark.nasbench201.schema", reason="needs peewee below 4")
    from playhouse.sqlite_ext import SqliteExtDatabase

    with pytest.raises(DataError, match=r"absent\.db, which is no file.*download_benchmark\(.nasbench201.\)"):
        NasBench201Oracle.from_nni(tmp_path / "absent.db")
    database = SqliteExtDatabase(str(tmp_path / "empty.db"))
    with schema.Nb201TrialConfig.bind_ctx(database), schema.Nb201TrialStats.bind_ctx(database):
        database.create_tables([schema.Nb201TrialConfig, schema.Nb201TrialStats])
    database.close()
    with pytest.raises(DataError, match="expected to hold trained architectures, but got none"):
        NasBench201Oracle.from_nni(tmp_path / "empty.db")
    monkeypatch.setitem(sys.modules, "playhouse.sqlite_ext", None)
    with pytest.raises(DataError, match=r"peewee \(below 4\) is expected to be installed.*pip install"):
        NasBench201Oracle.from_nni(tmp_path / "empty.db")


@pytest.mark.parametrize("content", [b"", b"index,arch\n" * 100])
def test_files_that_are_no_nni_database_are_refused(tmp_path, content):
    proxy = pytest.importorskip("nni.nas.benchmark.nasbench201.schema", reason="needs peewee below 4").proxy
    before = proxy.obj
    (tmp_path / "other.db").write_bytes(content)
    with pytest.raises(
        DataError, match=r"NNI's nasbench201 database, but got .*other\.db, which cannot be read.*get"
    ):
        NasBench201Oracle.from_nni(tmp_path / "other.db")
    assert proxy.obj is before


# --- NATS-Bench


class FakeNats:
    """Answer as the package's topology API does, from a folder read one architecture at a time."""

    fast_mode = True

    def __init__(self) -> None:
        self.arch2infos_dict: dict[int, dict] = {}
        self.evaluated_indexes: set[int] = set()

    def __len__(self) -> int:
        return len(ARCHS)

    def arch(self, index: int) -> str:
        return ARCHS[index]

    def get_more_info(self, index, dataset, iepoch=None, hp="12", is_random=True):
        assert is_random is False
        self.arch2infos_dict[index] = {}
        self.evaluated_indexes.add(index)
        seeds = 2 if index else 3
        name = {"ImageNet16-120": "imagenet16-120"}.get(dataset, dataset)
        test = "ori_test" if name.startswith("cifar10-") or name == "cifar10" else "test"
        info = {"train-accuracy": 0.0, "test-accuracy": expected(index, int(hp), name, test, seeds)}
        if name != "cifar10":
            info["valid-accuracy"] = expected(index, int(hp), name, "valid", seeds)
        return info


def test_nats_bench_as_documented(tmp_path, monkeypatch):
    calls, api = [], FakeNats()

    def create(path, search_space, fast_mode=False, verbose=True):
        calls.append((path, search_space, fast_mode, verbose))
        return api

    monkeypatch.setitem(sys.modules, "nats_bench", types.SimpleNamespace(create=create))
    check(NasBench201Oracle.from_nats(tmp_path))
    assert calls == [(str(tmp_path), "tss", True, False)]
    assert not api.arch2infos_dict and not api.evaluated_indexes, "what was read is not freed"
    NasBench201Oracle.from_nats(tmp_path / "file.pickle.pbz2")
    assert calls[1][2] is False


@pytest.mark.skipif(importlib.util.find_spec("nats_bench") is None, reason="nats_bench is not installed")
def test_nats_bench_itself(tmp_path):
    from nats_bench import ArchResults, ResultsCount, pickle_save

    sets = {
        "cifar10-valid": {"x-valid": "valid", "ori-test": "ori_test"},
        "cifar10": {"ori-test": "ori_test"},
        "cifar100": {"x-valid": "valid", "x-test": "test", "ori-test": "ori_test"},
        "ImageNet16-120": {"x-valid": "valid", "x-test": "test", "ori-test": "ori_test"},
    }
    infos = {}
    for index, arch in enumerate(ARCHS):
        infos[index] = {}
        for epochs in (12, 200):
            results = ArchResults(index, arch)
            for dataset, kinds in sets.items():
                for seed in range(2 if index else 3):
                    losses = {epoch: 0.0 for epoch in range(epochs)}
                    count = ResultsCount(dataset, None, losses, losses, 0.0, 0.0, None, seed, epochs, None)
                    count.update_train_info(losses, losses, losses, losses)
                    for name, kind in kinds.items():
                        value = accuracy(index, epochs, dataset.lower(), kind, seed)
                        # Earlier epochs hold something else, which must not be read.
                        values = {f"{name}@{e}": value if e == epochs - 1 else -1.0 for e in range(epochs)}
                        count.update_eval(values, values, values)
                    results.update(dataset, seed, count)
            infos[index][str(epochs)] = results.state_dict()
    whole = {"meta_archs": ARCHS, "arch2infos": infos, "evaluated_indexes": list(range(len(ARCHS)))}
    check(NasBench201Oracle.from_nats(whole))
    pickle_save(whole, tmp_path / "whole.pickle")
    check(NasBench201Oracle.from_nats(tmp_path / "whole.pickle.pbz2"))
    folder = tmp_path / "simple"
    folder.mkdir()
    pickle_save({"meta_archs": ARCHS}, folder / "meta.pickle")
    for index, info in infos.items():
        pickle_save(info, folder / f"{index:06d}.pickle")
    check(NasBench201Oracle.from_nats(folder))
    (folder / "000001.pickle.pbz2").unlink()
    with pytest.raises(DataError, match="NATS-Bench topology files, but got: invalid data path"):
        NasBench201Oracle.from_nats(folder)


def test_absent_nats_bench_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nats_bench", None)
    with pytest.raises(DataError, match=r"nats_bench is expected to be installed.*pip install nats_bench"):
        NasBench201Oracle.from_nats(tmp_path)

    def create(*args, **kwargs):
        raise ValueError("neither a file or a dir")

    monkeypatch.setitem(sys.modules, "nats_bench", types.SimpleNamespace(create=create))
    with pytest.raises(DataError, match=r"expected to be the NATS-Bench topology files, but got: neither"):
        NasBench201Oracle.from_nats(tmp_path / "absent")


@pytest.mark.parametrize("content", [b"index,arch", b"\x80\x04cabsent_module\nabsent\n.", b"\x80\x04K\x01."])
def test_files_that_hold_no_nats_bench_are_refused(tmp_path, monkeypatch, content):
    """Of these, one is no pickle, one names a class that does not exist, and one is a number."""

    def create(path, *args, **kwargs):
        found = pickle.loads(bz2.decompress(Path(path).read_bytes()))
        return found["meta_archs"]

    monkeypatch.setitem(sys.modules, "nats_bench", types.SimpleNamespace(create=create))
    file = tmp_path / "other.pickle.pbz2"
    file.write_bytes(bz2.compress(content))
    with pytest.raises(DataError, match="expected to be the NATS-Bench topology files, but got"):
        NasBench201Oracle.from_nats(file)


# --- what follows from an architecture alone


def test_codes_by_hand():
    assert [code_of_arch(arch) for arch in ARCHS] == CODES
    with pytest.raises(DataError, match=r"expected to look like .*none~0"):
        code_of_arch("|conv_9x9~0|+|none~0|none~1|+|none~0|none~1|none~2|")


def test_groups_and_costs_of_all_architectures_equal_the_table(data_dir):
    if not (data_dir / "nasbench201.csv.gz").is_file():
        pytest.skip("nasbench201.csv.gz is absent from the data folder.")
    table = NasBench201Oracle(data_dir).table
    codes = table["code"].tolist()
    groups: dict[str, set[float]] = {}
    for code, group in zip(codes, table["iso_group"].tolist(), strict=True):
        groups.setdefault(unique_form(code), set()).add(group)
    assert len(groups) == 6_466
    assert all(len(members) == 1 for members in groups.values())
    ours = np.array([costs(code) for code in codes])
    theirs = np.stack([table[name] for name in ("params_M", "flops_M", "flops_M_in16")], axis=1)
    assert np.abs(ours - theirs).max() < 1e-9


# --- latencies


def with_hardware(tmp_path: Path, rows: list[str]) -> NasBench201Oracle:
    lines = "\n".join(f"{arch},{code},{row}" for row, (arch, code) in enumerate(zip(ARCHS, CODES, strict=True)))
    (tmp_path / "nasbench201.csv").write_text(f"arch,code,index\n{lines}\n")
    header = "index,c10_raspi4_latency,c10_raspi4_energy,c10_edgetpu_latency,c100_raspi4_latency,help_gold_6226"
    (tmp_path / "nasbench201_hw.csv").write_text("\n".join([header, *rows]) + "\n")
    return NasBench201Oracle(tmp_path)


def test_latencies(tmp_path):
    oracle = with_hardware(tmp_path, ["0,1.5,9,0.5,2.5,7", "2,3.5,9,-1,4.5,8"])
    assert oracle.latency(ARCHS[0], "raspi4") == 1.5
    assert oracle.latency(ARCHS[0], "raspi4", dataset="cifar100") == 2.5
    assert oracle.latency(ARCHS[2], "help_gold_6226") == 8
    with pytest.raises(DataError, match=r"'edgetpu' is expected to have a latency of architecture 2, but got none"):
        oracle.latency(ARCHS[2], "edgetpu")
    with pytest.raises(DataError, match="latency of architecture 1, but got none"):
        oracle.latency(ARCHS[1], "raspi4")
    with pytest.raises(ConfigurationError, match=r"`device` .*'edgetpu', 'help_gold_6226'\].* 'raspi5'"):
        oracle.latency(0, "raspi5")
    with pytest.raises(ConfigurationError, match="'cifar10' for the device 'help_gold_6226'"):
        oracle.latency(0, "help_gold_6226", dataset="cifar100")
    elsewhere = NasBench201Oracle(tmp_path / "nasbench201.csv", hardware_path=tmp_path / "nasbench201_hw.csv")
    assert elsewhere.latency(0, "raspi4") == 1.5


def test_absent_latencies_are_refused(tmp_path):
    with_hardware(tmp_path, [])
    (tmp_path / "nasbench201_hw.csv").unlink()
    with pytest.raises(DataError, match=r"HW-NAS-Bench table.*HW-NAS-Bench-v1_0\.pickle"):
        NasBench201Oracle(tmp_path).latency(0, "raspi4")


def test_real_latencies(data_dir):
    if not (data_dir / "nasbench201_hw.csv.gz").is_file():
        pytest.skip("nasbench201_hw.csv.gz is absent from the data folder.")
    oracle = NasBench201Oracle(data_dir)
    assert oracle.latency(0, "raspi4") == 10.482
    assert oracle.latency(0, "fpga", dataset="imagenet16-120") == 0.64912
    assert oracle.latency(0, "help_samsung_s7") == 29
