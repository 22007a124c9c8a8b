"""The packaged benchmark: its images, its table, and the script that makes the table."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_digits

from nni_supernet_ext.benchmarks import DigitCellsOracle, digit_images, with_noise
from nni_supernet_ext.errors import ConfigurationError, SpaceError
from nni_supernet_ext.functional import kendall_tau
from nni_supernet_ext.spaces import digit_cells, digit_cells_flops, digit_cells_params, nasbench201_network
from tests.benchmarks.scripts import load_script


@pytest.fixture(scope="module")
def script() -> Any:
    return load_script("digit_cells")


@pytest.fixture(scope="module")
def oracle() -> DigitCellsOracle:
    return DigitCellsOracle()


def test_parts_are_all_digits_once() -> None:
    images = digit_images()
    labels = torch.cat([images.y_train, images.y_valid, images.y_test])
    digits = load_digits()
    assert torch.equal(labels.bincount(), torch.from_numpy(np.bincount(digits.target)))
    clean = {tuple(image) for image in (digits.images / 16).reshape(-1, 64)}
    assert all(tuple(image) in clean for image in images.x_train.double().reshape(-1, 64).numpy())
    again = digit_images()
    assert torch.equal(images.x_test, again.x_test) and torch.equal(images.x_valid, again.x_valid)


def test_noise_has_its_size_and_leaves_the_global_state_alone() -> None:
    before = torch.get_rng_state()
    noisy = with_noise(torch.ones(100_000), torch.Generator().manual_seed(1))
    assert torch.equal(before, torch.get_rng_state())
    assert abs(float(noisy.mean()) - 1) < 0.005 and abs(float(noisy.std()) - 0.3) < 0.005


def test_table_is_complete(oracle: DigitCellsOracle) -> None:
    assert oracle.table["code"].tolist() == ["".join(code) for code in itertools.product("123", repeat=6)]
    for seed in range(3):
        assert np.isfinite(oracle.table[f"test_{seed}"]).all()
    space = digit_cells().simplify()
    assert set(oracle.sample(0)) == set(space)
    assert all(sample[label] in space[label].values for sample in oracle.samples() for label in sample)


def test_seeds_agree_far_better_than_the_costs(oracle: DigitCellsOracle) -> None:
    """The benchmark is worth something only if its order is not noise and not the number of parameters."""
    taus = [
        stats.kendalltau(oracle.table[f"test_{a}"], oracle.table[f"test_{b}"]).statistic
        for a, b in itertools.combinations(range(3), 2)
    ]
    params = [digit_cells_params(sample) for sample in oracle.samples()]
    by_params = stats.kendalltau(params, oracle.accuracies()).statistic
    assert min(taus) > by_params + 0.05


def graph(code: str) -> nx.DiGraph:
    """Draw a network: image, convolutions and output as nodes, and how often each is added to what."""
    drawn, carried = nx.DiGraph(), {0: {"image": 1}}
    drawn.add_node("image", kind="image")
    for node in (1, 2, 3):
        carried[node] = {}
        for (source, target), digit in zip(((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)), code, strict=True):
            if target != node:
                continue
            passed = carried[source]
            if digit != "1":
                name = f"{source}_{node}"
                drawn.add_node(name, kind=digit)
                drawn.add_edges_from((term, name, {"times": times}) for term, times in passed.items())
                passed = {name: 1}
            for term, times in passed.items():
                carried[node][term] = carried[node].get(term, 0) + times
    drawn.add_node("output", kind="output")
    drawn.add_edges_from((term, "output", {"times": times}) for term, times in carried[3].items())
    return drawn


@pytest.mark.filterwarnings("ignore:The hashes produced for directed graphs:UserWarning")
def test_groups_are_the_isomorphic_networks(oracle: DigitCellsOracle) -> None:
    groups: dict[int, list[nx.DiGraph]] = {}
    for code, group in zip(oracle.table["code"].tolist(), oracle.table["group"].tolist(), strict=True):
        groups.setdefault(int(group), []).append(graph(code))
    same = {
        "node_match": lambda a, b: a["kind"] == b["kind"],
        "edge_match": lambda a, b: a["times"] == b["times"],
    }
    alike: dict[object, list[nx.DiGraph]] = {}
    for members in groups.values():
        assert all(nx.is_isomorphic(members[0], other, **same) for other in members[1:])
        hashed = nx.weisfeiler_lehman_graph_hash(members[0], edge_attr="times", node_attr="kind")
        alike.setdefault(hashed, []).append(members[0])
    for firsts in alike.values():
        for one, other in itertools.combinations(firsts, 2):
            assert not nx.is_isomorphic(one, other, **same)
    assert len(oracle.distinct()) == len(groups) == 483


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("123111", "132111", True),  # node 1 is the image, so the operations of 0-2 and 1-2 can be swapped
        ("121111", "111121", True),  # both are three times the image and one convolution of it
        ("112121", "211111", False),  # two convolutions of the image, and one that is used twice
        ("223111", "232111", False),
    ],
)
def test_texts_of_networks(script: Any, oracle: DigitCellsOracle, one: str, other: str, equal: bool) -> None:
    assert (script.network_of(one) == script.network_of(other)) == equal
    rows = [oracle.index(code) for code in (one, other)]
    assert len({oracle.table["group"][row] for row in rows}) == 2 - equal


def test_the_table_has_the_groups_that_the_script_finds(script: Any, oracle: DigitCellsOracle) -> None:
    groups: dict[str, int] = {}
    found = [groups.setdefault(script.network_of(code), len(groups)) for code in oracle.table["code"].tolist()]
    assert found == oracle.table["group"].tolist()


def test_costs_are_those_of_the_networks(oracle: DigitCellsOracle) -> None:
    for row in (0, 100, 728):
        sample = oracle.sample(row)
        network = nasbench201_network(sample, 8, cells_per_stage=1, in_channels=1, stages=1)
        assert digit_cells_params(sample) == sum(p.numel() for p in network.parameters())
        macs = []
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                macs.append(64 * module.weight.numel())  # 8x8 places each
        assert digit_cells_flops(sample) == sum(macs) + (8 + 1) * 10


def test_accuracy_is_the_mean_of_the_seeds(oracle: DigitCellsOracle) -> None:
    by_hand = [float(oracle.table[f"valid_{seed}"][5]) for seed in range(3)]
    assert oracle.accuracy(5, split="valid") == pytest.approx(sum(by_hand) / 3)
    assert oracle.accuracy(oracle.sample(5), split="valid", seed=1) == by_hand[1]
    with pytest.raises(ConfigurationError, match="`seed` is expected to be one of"):
        oracle.accuracy(5, seed=3)
    with pytest.raises(ConfigurationError, match="`split` is expected to be one of"):
        oracle.accuracy(5, split="train")
    with pytest.raises(SpaceError, match="Pass a complete sample of the DigitCells space"):
        oracle.accuracy({"cell/0_1": "skip_connect"})


@pytest.mark.parametrize("code", ["111111", "312231"])
def test_the_table_can_be_made_again(script: Any, oracle: DigitCellsOracle, code: str) -> None:
    """Train one architecture as the command does; versions of torch may round otherwise, seeds may not change."""
    (made,) = script.train(code, [0], digit_images())
    assert made["test"] == pytest.approx(float(oracle.table["test_0"][oracle.index(code)]), abs=4.0)


def test_networks_side_by_side_learn_what_each_would_alone(script: Any) -> None:
    images, steps = digit_images(), 12
    together = script.SideBySide([script.untrained("231332", seed) for seed in (4, 7)]).double()
    alone = [script.untrained("231332", seed).double() for seed in (4, 7)]
    x, y = images.x_train[: 16 * steps].double(), images.y_train[: 16 * steps]

    def learn(model: Any, inputs: Any) -> None:
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
        for part, labels in zip(inputs.split(16), y.split(16), strict=True):
            optimizer.zero_grad()
            logits = model(part)
            groups = logits.unbind(1) if logits.dim() == 3 else [logits]
            sum(torch.nn.functional.cross_entropy(group, labels) for group in groups).backward()
            optimizer.step()

    learn(together, torch.cat([x, -x], dim=1))
    learn(alone[0], x)
    learn(alone[1], -x)
    together.eval()
    logits = together(torch.cat([x, -x], dim=1))
    for group, (network, inputs) in enumerate(zip(alone, (x, -x), strict=True)):
        torch.testing.assert_close(logits[:, group], network.eval()(inputs))


def test_script_goes_on_and_writes_the_table(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[tuple[str, list[int]]] = []

    def quick(code: str, seeds: list[int], images: Any) -> list[dict[str, float]]:
        trained.append((code, seeds))
        if len(trained) == 2:
            raise KeyboardInterrupt
        return [{"valid": float(seed), "test": float(code), "loss": 0.5} for seed in seeds]

    monkeypatch.setattr(script, "train", quick)
    out = tmp_path / "table.csv"
    command = ["digit_cells.py", "--limit", "3", "--seeds", "0,1", "--work", str(tmp_path), "--out", str(out)]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(KeyboardInterrupt):
        script.main()
    assert not out.exists()
    with next(tmp_path.glob("*.jsonl")).open("a") as file:
        file.write('\n{"code": "111112", "seed": 0, "va')  # cut off by a kill
    script.main()
    assert trained == [("111111", [0, 1]), ("111112", [0, 1]), ("111112", [0, 1]), ("111113", [0, 1])]
    rows = out.read_text().splitlines()
    assert rows[0] == "code,group,valid_0,test_0,loss_0,valid_1,test_1,loss_1"
    assert rows[2] == "111112,1,0.0,111112.0,0.5,1.0,111112.0,0.5"


def test_a_supernets_order_can_be_scored(oracle: DigitCellsOracle) -> None:
    rows = oracle.distinct()
    one_seed = [oracle.accuracy(row, seed=0) for row in rows]
    assert kendall_tau(one_seed, oracle.accuracies(rows)) > 0.8


@pytest.mark.parametrize(
    "arguments", [["--shard", "2/1"], ["--shard", "x"], ["--shard", "0/0"], ["--seeds", "0,a"]]
)
def test_shares_and_seeds_that_train_nothing_are_refused(script, arguments, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["digit_cells.py", "--work", str(tmp_path / "work"), *arguments])
    with pytest.raises(SystemExit):
        script.main()
    assert (
        f"such as 0{'/2' if '--shard' in arguments else ',1,2'}, but got '{arguments[1]}'"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "work").exists()
