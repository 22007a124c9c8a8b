"""A checkpoint of other settings or another network is refused; a longer training and a schedule are not."""

from __future__ import annotations

import logging
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR

from nni_supernet_ext.callbacks import ComplexityAwareLR, CosineLR, MomentumSeparation
from nni_supernet_ext.core import SupernetCallback
from nni_supernet_ext.core.optimizer_settings import KEY
from nni_supernet_ext.errors import CheckpointError
from nni_supernet_ext.paths import ImportancePathSampler, SandwichSampler
from nni_supernet_ext.testing import MethodCase, toy_evaluator
from nni_supernet_ext.testing.stop import StopAfter
from nni_supernet_ext.testing.training import differing, train

CASE = MethodCase("a", dict)
ADAM = {"optimizer": torch.optim.Adam}
CLIPPED = {"gradient_clip_val": 1.0}


def _saved(root: Path, settings: dict[str, Any], arguments: dict[str, Any], epochs: int = 2) -> Path:
    folder = root / "checkpoint"
    callbacks = [*settings.get("callbacks", []), StopAfter(1)]
    settings = {**settings, "callbacks": callbacks, "checkpoint_dir": folder}
    train(CASE, settings, root, epochs=epochs, evaluator_arguments=arguments)
    return folder


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (({}, {}), ({}, {"learning_rate": 0.01}), r"`lr` of the optimizer: saved with 0\.05, resumed with 0\.01"),
        (
            ({}, {}),
            ({}, {"optimizer": partial(torch.optim.SGD, momentum=0.5)}),
            r"`momentum` of the optimizer: saved with 0\.9, resumed with 0\.5",
        ),
        (({}, {}), ({}, ADAM), "`optimizer`: saved with 'SGD', resumed with 'Adam'"),
        (
            ({}, ADAM),
            ({}, {"optimizer": partial(torch.optim.Adam, betas=(0.8, 0.999))}),
            r"`betas` of the optimizer: saved with \[0\.9, 0\.999\], resumed with \[0\.8, 0\.999\]",
        ),
        (({}, {}), (CLIPPED, {}), r"`gradient_clip_val`: saved with None, resumed with 1\.0"),
        ((CLIPPED, {}), ({"gradient_clip_val": 5}, {}), r"`gradient_clip_val`: saved with 1\.0, resumed with 5\.0"),
        (
            (CLIPPED, {}),
            ({**CLIPPED, "gradient_clip_algorithm": "value"}, {}),
            "`gradient_clip_algorithm`: saved with 'norm', resumed with 'value'",
        ),
        (({}, {}), ({"set_to_none": False}, {}), "`set_to_none`: saved with True, resumed with False"),
        (
            ({"callbacks": [ComplexityAwareLR(gamma_max=2)]}, {}),
            ({"callbacks": [ComplexityAwareLR(gamma_max=4)]}, {}),
            r"`gamma_max of ComplexityAwareLR`: saved with 2\.0, resumed with 4\.0",
        ),
        (
            ({"paths": SandwichSampler(ImportancePathSampler(delta=0.5), complexity="parameters")}, {}),
            ({"paths": SandwichSampler(ImportancePathSampler(delta=0.9), complexity="parameters")}, {}),
            r"`delta of ImportancePathSampler`: saved with 0\.5, resumed with 0\.9",
        ),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, first: Any, second: Any, message: str) -> None:
    folder = _saved(tmp_path, *first)
    with pytest.raises(CheckpointError, match=f"another {message}.*another `checkpoint_dir`"):
        train(CASE, {**second[0], "checkpoint_dir": folder}, tmp_path, evaluator_arguments=second[1])


def test_finished_training_is_not_taken_for_one_at_another_rate(tmp_path: Path) -> None:
    train(CASE, {"checkpoint_dir": tmp_path / "c"}, tmp_path)
    with pytest.raises(CheckpointError, match="another `lr` of the optimizer"):
        train(CASE, {"checkpoint_dir": tmp_path / "c"}, tmp_path, evaluator_arguments={"learning_rate": 0.01})


def test_finished_training_is_not_taken_for_one_with_another_part(tmp_path: Path) -> None:
    train(CASE, {"checkpoint_dir": tmp_path / "c", "callbacks": [ComplexityAwareLR(gamma_max=2)]}, tmp_path)
    with pytest.raises(CheckpointError, match="another `gamma_max of ComplexityAwareLR`"):
        train(CASE, {"checkpoint_dir": tmp_path / "c", "callbacks": [ComplexityAwareLR()]}, tmp_path)


def _scheduled(make: Any) -> Any:
    """Let the evaluator configure the scheduler that a function makes of the optimizer."""

    def evaluator(**arguments: Any) -> Any:
        made = toy_evaluator(**arguments)

        def configure() -> Any:
            optimizer = torch.optim.SGD(made.module.parameters(), lr=0.05, momentum=0.9)
            return [optimizer], [] if make is None else [make(optimizer)]

        made.module.configure_optimizers = configure
        return made

    return MethodCase("scheduled", dict, evaluator=evaluator)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            partial(StepLR, step_size=1, gamma=0.5),
            r"`gamma` of the scheduler StepLR: saved with 0\.1, resu",
        ),
        (partial(CosineAnnealingLR, T_max=2), r"`schedulers`: saved with \['StepLR'\], resumed with \['Cosine"),
        (None, r"`schedulers`: saved with \['StepLR'\], resumed with \[\]"),
    ],
)
def test_another_scheduler_is_refused(tmp_path: Path, other: Any, message: str) -> None:
    settings = {"checkpoint_dir": tmp_path / "c"}
    case = _scheduled(partial(StepLR, step_size=1, gamma=0.1))
    train(case, {**settings, "callbacks": [StopAfter(1)]}, tmp_path, epochs=2)
    with pytest.raises(CheckpointError, match=f"another {message}"):
        train(_scheduled(other), settings, tmp_path, epochs=2)
    assert len(train(case, settings, tmp_path, epochs=2).draws) == 4


def _one_cycle(module: Any) -> Any:
    """Give the optimizer a schedule that changes rate and momentum at once, when it is made."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=module.trainer.max_epochs * 4)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _with_one_cycle(**arguments: Any) -> Any:
    made = toy_evaluator(**arguments)
    made.module.configure_optimizers = lambda: _one_cycle(made.module)
    return made


@pytest.mark.parametrize(
    ("case", "settings", "arguments"),
    [
        (CASE, {"callbacks": [CosineLR(warmup_iterations=3)]}, {}),
        (CASE, {"callbacks": [ComplexityAwareLR(), MomentumSeparation(by="op")]}, {}),
        (CASE, {}, {"schedule": lambda step: (step + 1) / 10}),
        (MethodCase("cycle", dict, evaluator=_with_one_cycle), {}, {}),
    ],
    ids=["cosine", "calr", "warm-up", "one-cycle"],
)
def test_what_changes_the_rate_in_training_is_no_other_setting(
    tmp_path: Path, case: MethodCase, settings: dict[str, Any], arguments: dict[str, Any]
) -> None:
    saved = {**settings, "checkpoint_dir": tmp_path / "c"}
    stopped = {**saved, "callbacks": [*settings.get("callbacks", []), StopAfter(1)]}
    train(case, stopped, tmp_path, epochs=3, evaluator_arguments=arguments)
    resumed = train(case, saved, tmp_path, epochs=3, evaluator_arguments=arguments)
    assert len(resumed.draws) == 8
    whole = train(case, settings, tmp_path / "whole", epochs=3, evaluator_arguments=arguments)
    assert not differing(whole.weights, resumed.weights)


def test_a_longer_training_goes_on(tmp_path: Path) -> None:
    train(CASE, {"checkpoint_dir": tmp_path / "c"}, tmp_path, epochs=1)
    assert len(train(CASE, {"checkpoint_dir": tmp_path / "c"}, tmp_path, epochs=3).draws) == 8


def test_another_implementation_of_the_optimizer_goes_on(tmp_path: Path) -> None:
    folder = _saved(tmp_path, {}, {})
    other = {"optimizer": partial(torch.optim.SGD, momentum=0.9, foreach=True)}
    assert len(train(CASE, {"checkpoint_dir": folder}, tmp_path, evaluator_arguments=other).draws) == 4


def test_checkpoint_from_before_the_settings_were_kept_goes_on(tmp_path: Path) -> None:
    folder = _saved(tmp_path, {}, {})
    saved = torch.load(folder / "last.ckpt", weights_only=True)
    del saved[KEY], saved["nni_supernet_ext"]["fingerprint"]["shapes"]
    torch.save(saved, folder / "last.ckpt")
    assert len(train(CASE, {"checkpoint_dir": folder}, tmp_path).draws) == 4


class Sized(ModelSpace):
    """Have a layer of the given size that no choice knows of, and perhaps one more."""

    def __init__(self, size: int, extra: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, size, 3)
        self.op = LayerChoice({"relu": nn.ReLU(), "skip": nn.Identity()}, label="op")
        self.head = nn.Linear(size, 10)
        if extra:
            self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.op(self.stem(x)).mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            lambda: Sized(4),
            lambda: Sized(6),
            r"shape of a weight.*`stem\.weight`: saved with \(4, 3, 3, 3\), resumed with \(6, 3, 3, 3\)",
        ),
        (
            lambda: Sized(4),
            lambda: Sized(4, True),
            r"set of weights.*`scale`: saved without it, resumed with \(1,\)",
        ),
        (
            lambda: Sized(4, True),
            lambda: Sized(4),
            r"set of weights.*`scale`: saved with \(1,\), resumed without it",
        ),
    ],
)
def test_another_network_is_refused(tmp_path: Path, first: Any, second: Any, message: str) -> None:
    saved = {"checkpoint_dir": tmp_path / "c"}
    train(MethodCase("a", dict, space=first), saved, tmp_path, epochs=1)
    with pytest.raises(CheckpointError, match=f"same network, but got another {message}.*another `checkpoint_dir`"):
        train(MethodCase("a", dict, space=second), saved, tmp_path, epochs=1)


def test_same_settings_are_not_spoken_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = _saved(tmp_path, CLIPPED, {})
    with caplog.at_level(logging.WARNING, logger="nni_supernet_ext"):
        train(CASE, {**CLIPPED, "checkpoint_dir": folder}, tmp_path)
    assert not caplog.records


class Odd(SupernetCallback):
    """Decide something by arguments that no two processes hold as the same objects, or that cannot be read."""

    def __init__(self, claim: str, rate: float = math.nan, table: Any = None, later: Any = None) -> None:
        self.claims = frozenset({claim})
        self.rate = [rate, torch.tensor(rate)]
        self.table = {nn.Identity(): 1, len: 2, (1, nn.Identity()): 3, nn.Conv2d: 4} if table is None else table

    @property
    def later(self) -> Any:
        raise RuntimeError("Not trained yet.")


def test_arguments_that_cannot_be_compared_stand_in_no_one_s_way(tmp_path: Path) -> None:
    folder = _saved(tmp_path, {"callbacks": [Odd("one")]}, {})
    with pytest.raises(CheckpointError, match="another `table of Odd`"):
        train(CASE, {"callbacks": [Odd("one", table={nn.Conv2d: 5})], "checkpoint_dir": folder}, tmp_path)
    assert len(train(CASE, {"callbacks": [Odd("one")], "checkpoint_dir": folder}, tmp_path).draws) == 4


def test_two_parts_of_a_class_are_compared_one_by_one(tmp_path: Path) -> None:
    def parts(first: float, second: float) -> list[Any]:
        return [Odd("one", first), Odd("two", second)]

    folder = _saved(tmp_path, {"callbacks": parts(1.0, 2.0)}, {})
    for other, name in ((parts(3.0, 2.0), "Odd"), (parts(1.0, 3.0), "Odd 2")):
        with pytest.raises(CheckpointError, match=f"another `rate of {name}`"):
            train(CASE, {"callbacks": other, "checkpoint_dir": folder}, tmp_path)
