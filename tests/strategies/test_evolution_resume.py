"""What a search takes over from an earlier one, and what it goes on without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.experiment import NasExperiment
from nni.nas.space import RawFormatModelSpace

from nni_supernet_ext.core import SubnetEvaluator
from nni_supernet_ext.errors import CheckpointError, ConfigurationError
from nni_supernet_ext.strategies import SupernetEvolution
from nni_supernet_ext.strategies.journal import Journal
from nni_supernet_ext.strategies.sub_supernets import SubSupernet, SubSupernetWeights
from nni_supernet_ext.testing import toy_evaluator, toy_supernet


def run(search: SupernetEvolution, root: Path, model: Any = None, **engine: Any) -> SupernetEvolution:
    model = model if model is not None else toy_supernet().model
    search(RawFormatModelSpace(model, toy_evaluator(root=root)), SequentialExecutionEngine(**engine))
    return search


def evolution(**settings: Any) -> SupernetEvolution:
    return SupernetEvolution(**{"population": 3, "cycles": 1, "record": False, "progress": False, **settings})


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Samples that are really evaluated."""
    samples: list[Any] = []
    original = SubnetEvaluator.evaluate

    def evaluate(self: SubnetEvaluator, sample: Any) -> dict[str, float]:
        samples.append(sample)
        return original(self, sample)

    monkeypatch.setattr(SubnetEvaluator, "evaluate", evaluate)
    return samples


def fail_once(monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException) -> None:
    original, calls = SubnetEvaluator.evaluate, [0]

    def evaluate(self: SubnetEvaluator, sample: Any) -> dict[str, float]:
        calls[0] += 1
        if calls[0] == number:
            raise error
        return original(self, sample)

    monkeypatch.setattr(SubnetEvaluator, "evaluate", evaluate)


def parts(seed: int, regions: tuple[list[str], list[str]] = (["conv"], ["linear", "skip"])) -> SubSupernetWeights:
    models = [toy_supernet(seed=seed + number).model for number in range(2)]
    return SubSupernetWeights(
        SubSupernet(number, {"op": region}, dict(model.state_dict()))
        for number, (region, model) in enumerate(zip(regions, models, strict=True))
    )


def test_a_journal_of_other_sub_supernets_is_refused(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    first = run(evolution(weights=parts(0), journal=journal), tmp_path)
    again = run(evolution(weights=parts(0), journal=journal), tmp_path)
    assert [s.metrics for s in again.history] == [s.metrics for s in first.history]
    with pytest.raises(CheckpointError, match="is expected to belong to this search"):
        run(evolution(weights=parts(5), journal=journal), tmp_path)


def test_the_digest_tells_weights_regions_and_order_apart() -> None:
    supernet, store = toy_supernet(), parts(0)
    assert store.digest(supernet) == parts(0).digest(toy_supernet(seed=9))
    other_regions = parts(0, (["conv", "linear"], ["skip"]))
    reordered = SubSupernetWeights([SubSupernet(1 - p.index, p.region, p.weights) for p in store.parts])
    assert len({each.digest(supernet) for each in (store, parts(5), other_regions, reordered)}) == 4


def test_known_subnets_do_not_count_towards_the_budget(tmp_path: Path, evaluated: list[Any]) -> None:
    journal = tmp_path / "journal.jsonl"
    first = run(evolution(journal=journal), tmp_path, max_model_count=3)
    second = run(evolution(journal=journal), tmp_path, max_model_count=2)
    assert (len(first.history), len(second.history), len(evaluated)) == (3, 5, 5)
    assert [s.sample for s in second.history[:3]] == [s.sample for s in first.history]
    assert len(list(second.list_models())) == 5


def test_an_interrupted_search_is_resumed_to_its_whole_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = toy_supernet().model

    def experiment(**known: Any) -> tuple[NasExperiment, SupernetEvolution]:
        search = SupernetEvolution(population=3, cycles=1, progress=False)
        made = NasExperiment(space, toy_evaluator(root=tmp_path), search, **known)
        made.config.experiment_working_directory = str(tmp_path)
        made.config.max_trial_number = 5
        return made, search

    with monkeypatch.context() as patch:
        fail_once(patch, 4, KeyboardInterrupt())
        interrupted, begun = experiment()
        interrupted.run()
        interrupted.stop()
    assert len(begun.history) == 3
    resumed, search = experiment(id=interrupted.id)
    resumed.resume()
    resumed.stop()
    assert len(search.history) == 5


def test_saved_evaluations_of_other_weights_are_refused(tmp_path: Path) -> None:
    first = run(evolution(), tmp_path)
    same, other = evolution(), evolution()
    for search in (same, other):
        search.load_state_dict(first.state_dict())
    assert run(same, tmp_path).history == first.history
    with pytest.raises(CheckpointError, match="are expected to be of this search"):
        run(other, tmp_path, toy_supernet(seed=3).model)


def test_a_failed_subnet_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_once(monkeypatch, 2, RuntimeError("one bad subnet"))
    search = run(evolution(), tmp_path, continue_on_failure=True)
    assert len(search.history) == len(list(search.list_models())) == 5
    assert search.best.sample


def test_a_metric_that_nothing_logs_is_no_failure_of_the_subnet(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"got 'val_f1'. It logs \['val_acc', 'val_loss'\]"):
        run(evolution(metric="val_f1"), tmp_path, continue_on_failure=True)


def test_a_journal_of_another_precision_is_refused(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    run(evolution(journal=journal), tmp_path)
    with pytest.raises(CheckpointError, match="expected to belong to this search"):
        half = RawFormatModelSpace(toy_supernet().model, toy_evaluator(root=tmp_path, precision="bf16-mixed"))
        evolution(journal=journal)(half, SequentialExecutionEngine())


def test_a_metric_that_the_journal_does_not_hold_is_refused(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    run(evolution(journal=journal), tmp_path)
    with pytest.raises(ConfigurationError, match=r"got 'val_f1'. It logs \['val_acc', 'val_loss'\]"):
        run(evolution(journal=journal, metric="val_f1"), tmp_path)


def test_what_follows_a_cut_line_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path, {}).add({"op": "conv"}, {"val_acc": 0.5})
    path.write_text(path.read_text()[:-9])
    resumed = Journal(path, {})
    assert not resumed.entries
    resumed.add({"op": "conv"}, {"val_acc": 0.5})
    assert Journal(path, {}).get({"op": "conv"}) == {"val_acc": 0.5}


@pytest.mark.parametrize("content", [b'{"journal": "nni_super', b"hello\n", b"[]\n", b"\n", b"\xff\xfe\n"])
def test_a_file_that_is_no_journal_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is expected to belong to this search"):
        Journal(path, {"seed": 0})


def test_sub_supernets_are_not_taken_for_their_weights() -> None:
    with pytest.raises(ConfigurationError, match=r"2 problems(.|\n)*`constraint`(.|\n)*`weights` is expected"):
        evolution(weights=torch.nn.Identity(), constraint=5)
