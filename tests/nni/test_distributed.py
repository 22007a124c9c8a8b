"""Search on NNI's training service: batches of subnets, results by number, failed trials repeated."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nni
import numpy as np
import pytest
import pytorch_lightning as pl
from nni.nas.evaluator.pytorch import Lightning, Trainer
from nni.nas.execution.event import IntermediateMetricEvent, ModelEventType
from nni.nas.experiment import NasExperiment

from nni_supernet_ext._compat.samples import plain_sample
from nni_supernet_ext.strategies import SupernetEvolution
from nni_supernet_ext.strategies.distributed import DistributedEvaluation, TrialsFailedError, distributed_config
from nni_supernet_ext.strategies.subnet_batch import SubnetBatch, load_evaluator, share_supernet
from nni_supernet_ext.testing import ToySpace, toy_evaluator, toy_supernet
from nni_supernet_ext.testing.toys import ToyModule


class Engine:
    """Stand for NNI's engine: report every batch's subnets as some other trial's, the last batch first."""

    def __init__(self, fails: Callable[[int], bool]) -> None:
        self.callbacks: list[Any] = []
        self.batches: list[SubnetBatch] = []
        self.fails = fails

    def register_model_event_callback(self, kind: ModelEventType, callback: Any) -> None:
        assert kind is ModelEventType.IntermediateMetric
        self.callbacks.append(callback)

    def unregister_model_event_callback(self, kind: ModelEventType, callback: Any) -> None:
        self.callbacks.remove(callback)

    def submit_models(self, *batches: SubnetBatch) -> None:
        for batch, other in zip(reversed(batches), batches, strict=True):
            number = len(self.batches)
            self.batches.append(batch)
            for index, sample in zip(batch.indices, batch.samples, strict=True):
                if self.fails(number):
                    break
                metrics = {"default": 0.0, "val_acc": float(sample["width"]), "subnet": index}
                for callback in self.callbacks:
                    callback(IntermediateMetricEvent(other, metrics))

    def wait_models(self, *batches: SubnetBatch) -> None:
        pass


def samples(count: int) -> list[dict[str, Any]]:
    return [{"op": "conv", "width": width} for width in range(count)]


def test_results_belong_to_the_number_they_carry() -> None:
    engine, found = Engine(lambda number: number == 1), []
    evaluation = DistributedEvaluation(engine, Path("shared"), 3, "val_acc", 1)  # type: ignore[arg-type]
    evaluation.evaluate(samples(7), lambda sample, metrics: found.append((sample["width"], metrics)))
    assert sorted(width for width, _ in found) == list(range(7))
    assert all(metrics == {"val_acc": float(width)} for width, metrics in found)
    assert [len(batch.samples) for batch in engine.batches] == [1, 3, 3, 3], "only the failed batch again"
    assert not engine.callbacks


def test_trials_that_always_fail_are_an_error() -> None:
    evaluation = DistributedEvaluation(Engine(lambda number: True), Path("shared"), 2, "val_acc", 1)  # type: ignore[arg-type]
    with pytest.raises(TrialsFailedError, match="4 of them"):
        evaluation.evaluate(samples(4), lambda sample, metrics: None)


def test_batch_survives_the_way_to_the_trial() -> None:
    batch = SubnetBatch("/shared", samples(3), [4, 5, 6], "val_acc", -1)
    again = nni.load(nni.dump(batch))
    assert isinstance(again, SubnetBatch)
    assert again._dump() == batch._dump()


class Asking(ToyModule):
    """Asks for its trainer in its steps and hooks."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.log("epochs", float(self.trainer.max_epochs or 0))

    def on_validation_epoch_end(self) -> None:
        self.log("doubled", 2 * self.trainer.callback_metrics["val_loss"])


def test_steps_find_a_trainer_in_a_trial(tmp_path: Path) -> None:
    supernet = toy_supernet(ToySpace())
    callback = pl.Callback()
    vars(callback)["lock"] = threading.Lock()  # what no pickle holds
    trainer = Trainer(
        max_epochs=7, callbacks=[callback], devices=2, strategy="ddp", accelerator="cpu", logger=False
    )
    loader = toy_evaluator(1, root=tmp_path).val_dataloaders
    given = Lightning(Asking(num_classes=10), trainer, val_dataloaders=loader)
    share_supernet(tmp_path / "shared", supernet, given, loader, {})
    evaluator = load_evaluator(tmp_path / "shared")
    found = evaluator.evaluate(supernet.domain.random(np.random.default_rng(0)))
    assert found["epochs"] == 7 and found["doubled"] == pytest.approx(2 * found["val_loss"])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # NNI leaves a socket open
# NNI leaves the socket open with which it looks whether a port is free.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_two_trials_at_once_find_what_one_process_finds(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    space = toy_supernet(ToySpace()).model
    histories = []
    for distributed in (False, True):
        search = SupernetEvolution(population=4, cycles=0, subnets_per_trial=2, record=False, progress=False)
        config = distributed_config(2) if distributed else None
        made = NasExperiment(space, toy_evaluator(1, root=tmp_path), search, config)
        made.config.experiment_working_directory = str(tmp_path)
        try:
            made.run(port=port)
            if distributed:
                jobs = made.list_trial_jobs()
                assert len(jobs) == 2, "two subnets to a trial"
                assert made.export_top_models(formatter="dict") == [plain_sample(search.best.sample)]
        finally:
            made.stop()
        histories.append(search.history)
    assert histories[0] == histories[1]
