"""A killed run goes on: SIGKILL under NasExperiment, the same command again, another configuration refused."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from functools import partial

import pytest
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging

from nni_supernet_ext.callbacks import ComplexityAwareLR, MomentumSeparation
from nni_supernet_ext.errors import CheckpointError
from nni_supernet_ext.testing import MethodCase, ToyCellSpace
from nni_supernet_ext.testing.stop import StopAfter
from nni_supernet_ext.testing.training import differing, train

SCRIPT = textwrap.dedent(
    """
    import os, signal, sys
    import torch
    torch.set_num_threads(1)
    import pytorch_lightning as pl
    from nni.nas.experiment import NasExperiment
    from nni_supernet_ext.callbacks import ComplexityAwareLR, MomentumSeparation
    from nni_supernet_ext.strategies import SupernetStrategy
    from nni_supernet_ext.testing import ToySpace, toy_evaluator

    root, mode = sys.argv[1:3]

    class Kill(pl.Callback):
        def on_train_epoch_start(self, trainer, module):
            print("EPOCH", trainer.current_epoch, flush=True)
            if mode == "killed" and trainer.current_epoch == 2:
                os.kill(os.getpid(), signal.SIGKILL)

    torch.manual_seed(0)
    space = ToySpace()
    evaluator = toy_evaluator(4, root=root, callbacks=[Kill()])
    strategy = SupernetStrategy(callbacks=[ComplexityAwareLR(), MomentumSeparation(by="op")])
    experiment = NasExperiment(space, evaluator, strategy, id="toy")
    experiment.config.experiment_working_directory = root
    experiment.resume() if mode == "resumed" else experiment.run()
    torch.save(space.state_dict(), f"{root}/{mode}.pt")
    experiment.stop()
    """
)


def _run(script, root, mode):
    arguments = [sys.executable, str(script), str(root), mode]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=600, check=False)


def test_experiment_resumes_after_sigkill_bit_for_bit(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    whole = tmp_path / "straight"
    whole.mkdir()
    killed = _run(script, tmp_path, "killed")
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    resumed = _run(script, tmp_path, "resumed")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "EPOCH 2" in resumed.stdout
    assert "EPOCH 1" not in resumed.stdout
    straight = _run(script, whole, "straight")
    assert straight.returncode == 0, straight.stdout + straight.stderr
    first = torch.load(tmp_path / "resumed.pt", weights_only=False)
    second = torch.load(whole / "straight.pt", weights_only=False)
    assert not differing(first, second)


def _interrupted(root, settings, **arguments):
    callbacks = [*settings.pop("callbacks", []), StopAfter(1)]
    folder = root / "checkpoint"
    train(MethodCase("a", dict), {**settings, "callbacks": callbacks, "checkpoint_dir": folder}, root, **arguments)
    return folder


def test_same_command_again_goes_on(tmp_path):
    folder = _interrupted(tmp_path, {})
    run = train(MethodCase("a", dict), {"checkpoint_dir": folder}, tmp_path)
    assert len(run.draws) == 4
    again = train(MethodCase("a", dict), {"checkpoint_dir": folder}, tmp_path)
    assert again.draws == []
    assert not differing(run.weights, again.weights)


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        ({"seed": 1}, {"seed": 2}, "seed"),
        ({}, {"step_every": "subnet"}, "step_every"),
        ({}, {"callbacks": [MomentumSeparation(by="op")]}, "parts"),
        ({"callbacks": [ComplexityAwareLR()]}, {}, "parts"),
    ],
)
def test_checkpoint_of_another_configuration_is_refused(tmp_path, first, second, what):
    folder = _interrupted(tmp_path, first)
    with pytest.raises(CheckpointError, match=f"another `{what}`.*another `checkpoint_dir`"):
        train(MethodCase("a", dict), {**second, "checkpoint_dir": folder}, tmp_path)
    assert (folder / "last.ckpt").exists()


def test_checkpoint_of_another_program_is_refused(tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    run = train(MethodCase("a", dict), {"checkpoint_dir": folder}, tmp_path, epochs=1)
    saved = torch.load(folder / "last.ckpt", weights_only=True)
    del saved["nni_supernet_ext"]
    torch.save(saved, folder / "last.ckpt")
    with pytest.raises(CheckpointError, match="expected to come from SupernetStrategy"):
        train(MethodCase("a", dict), {"checkpoint_dir": folder}, tmp_path)
    assert run.draws


def test_checkpoint_loads_without_trusting_it(tmp_path):
    """NNI's labels are a subclass of str that torch refuses; none may be in the checkpoint."""
    folder = tmp_path / "checkpoint"
    callbacks = [ComplexityAwareLR(), MomentumSeparation(by="op")]
    train(MethodCase("a", dict), {"checkpoint_dir": folder, "callbacks": callbacks}, tmp_path, epochs=1)
    torch.load(folder / "last.ckpt", weights_only=True)


def test_checkpoints_can_be_switched_off(tmp_path):
    run = train(MethodCase("a", dict), {}, tmp_path, evaluator_arguments={"enable_checkpointing": False})
    assert run.strategy.state_dict() == {}
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("settings", "arguments"),
    [
        ({"set_to_none": False}, {"limit_val_batches": 0}),
        ({"set_to_none": False}, {"check_val_every_n_epoch": 2}),
        ({}, {"precision": "64-true"}),
    ],
)
def test_training_resumes_bit_for_bit(tmp_path, settings, arguments):
    arguments = {"optimizer": partial(torch.optim.SGD, momentum=0.9), **arguments}
    case = MethodCase("a", dict, space=ToyCellSpace)
    whole = train(case, settings, tmp_path / "whole", epochs=4, evaluator_arguments=arguments)
    saved = {**settings, "checkpoint_dir": tmp_path / "checkpoint"}
    train(case, {**saved, "callbacks": [StopAfter(1)]}, tmp_path / "a", epochs=4, evaluator_arguments=arguments)
    resumed = train(case, saved, tmp_path / "b", epochs=4, evaluator_arguments=arguments)
    assert len(resumed.draws) == 12
    assert not differing(whole.weights, resumed.weights)


def test_averaged_weights_come_back(tmp_path):
    """Stopped and gone on; then started once more when it was over: all three end with the averages."""
    settings = {"checkpoint_dir": tmp_path / "checkpoint"}

    def run(*stop, **settings):
        averaging = {"callbacks": [EMAWeightAveraging(decay=0.9)]}
        settings = {**settings, "callbacks": [*stop]}
        return train(MethodCase("a", dict), settings, tmp_path, epochs=3, evaluator_arguments=averaging)

    whole = run()
    run(StopAfter(1), **settings)
    resumed, over = run(**settings), run(**settings)
    assert (len(resumed.draws), len(over.draws)) == (8, 0)
    assert not differing(whole.weights, resumed.weights)
    assert not differing(whole.weights, over.weights)
