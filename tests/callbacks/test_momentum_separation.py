"""MS in the host: the buffers really exchanged, equal to the pure function, kept over checkpoints."""

from __future__ import annotations

from functools import partial
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nni_supernet_ext.callbacks import MomentumSeparation
from nni_supernet_ext.core import Draw, PathSampler, Supernet
from nni_supernet_ext.errors import CheckpointError, ConfigurationError
from nni_supernet_ext.functional import separated_momentum_step
from nni_supernet_ext.strategies import SupernetStrategy
from nni_supernet_ext.testing import MethodCase, ToyCellSpace, ToySpace
from nni_supernet_ext.testing.stop import StopAfter
from nni_supernet_ext.testing.toys import toy_evaluator
from nni_supernet_ext.testing.training import differing, train


def _case(**arguments):
    return MethodCase("case", dict, **arguments)


@pytest.mark.parametrize("nesterov", [False, True])
def test_training_equals_the_pure_function(tmp_path, nesterov):
    optimizer = partial(torch.optim.SGD, momentum=0.9, nesterov=nesterov)
    run = train(
        _case(),
        {"callbacks": [MomentumSeparation(by="op")]},
        tmp_path,
        evaluator_arguments={"optimizer": optimizer},
    )
    clusters = {draws[0]["op"] for draws in run.draws}
    assert len(clusters) > 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        space = ToySpace()
        SupernetStrategy().mutate_model(space)
    supernet, parameters, buffers = Supernet(space), list(space.parameters()), {}
    draws = iter(run.draws)
    loader = toy_evaluator().train_dataloaders
    for _ in range(2):
        for x, y in islice(loader, 4):  # as Lightning: never past the last batch
            sample = next(draws)[0]
            supernet.activate(sample)
            for p in parameters:
                p.grad = None
            torch.nn.functional.cross_entropy(space(x), y).backward()
            separated_momentum_step(
                parameters,
                [p.grad for p in parameters],
                buffers,
                sample["op"],
                lr=0.05,
                momentum=0.9,
                weight_decay=1e-4,
                nesterov=nesterov,
            )
    for name, p in space.named_parameters():
        torch.testing.assert_close(run.weights[name], p.detach(), rtol=1e-6, atol=1e-7)


def test_buffers_are_exchanged_by_reference(tmp_path):
    """Every cluster meets its own buffer object again; nothing is copied."""
    seen: dict[str, set[int]] = {}

    class Watch(MomentumSeparation):
        def on_after_update(self, state, optimizer):
            head = optimizer.param_groups[0]["params"][-1]
            pointer = optimizer.state[head]["momentum_buffer"].data_ptr()
            seen.setdefault(state.draw.sample["op"], set()).add(pointer)

    train(_case(), {"callbacks": [Watch(by="op")]}, tmp_path, epochs=4)
    assert len(seen) == 3
    assert all(len(pointers) == 1 for pointers in seen.values())
    assert len(set.union(*seen.values())) == 3


def test_adam_keeps_moments_and_step_counts_apart(tmp_path):
    counts: dict[str, list[float]] = {}

    class Watch(MomentumSeparation):
        def on_after_update(self, state, optimizer):
            head = optimizer.param_groups[0]["params"][-1]
            counts.setdefault(state.draw.sample["op"], []).append(float(optimizer.state[head]["step"]))

    train(
        _case(),
        {"callbacks": [Watch(by="op")]},
        tmp_path,
        epochs=4,
        evaluator_arguments={"optimizer": torch.optim.Adam},
    )
    assert sum(len(steps) for steps in counts.values()) == 16
    for steps in counts.values():
        assert steps == [float(i + 1) for i in range(len(steps))]


def test_default_choice_of_a_chain_is_its_first_layer(tmp_path):
    ms = MomentumSeparation()
    train(_case(), {"callbacks": [ms]}, tmp_path, epochs=1)
    assert ms.label == "op"


def test_default_choice_of_cells_is_random_by_seed(tmp_path):
    labels = set()
    for seed in range(8):
        ms = MomentumSeparation()
        train(_case(space=ToyCellSpace), {"callbacks": [ms]}, tmp_path, epochs=1, seed=seed)
        labels.add(ms.label)
    assert labels == {"edge_0", "edge_1"}


def test_function_of_the_sample_as_cluster(tmp_path):
    by_width = train(_case(), {"callbacks": [MomentumSeparation(by="width")]}, tmp_path)
    function = train(_case(), {"callbacks": [MomentumSeparation(by=lambda s: s["width"] > 4)]}, tmp_path)
    plain = train(_case(), {}, tmp_path)
    assert not differing(by_width.weights, function.weights)
    assert differing(by_width.weights, plain.weights)


class Mixed(PathSampler):
    """Two draws of different clusters in one step."""

    draws_per_step = 2

    def draws(self, rng, state):
        return [Draw({"op": "conv", "width": 8}), Draw({"op": "skip", "width": 8})]


def test_mixed_clusters_in_one_step_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"one cluster.*step_every='subnet'"):
        train(_case(), {"paths": Mixed(), "callbacks": [MomentumSeparation(by="op")]}, tmp_path)
    with pytest.raises(ConfigurationError, match=r"one cluster.*step_every='subnet'"):
        by = lambda sample: sample["op"]  # noqa: E731
        train(_case(), {"paths": Mixed(), "callbacks": [MomentumSeparation(by=by)]}, tmp_path)
    with pytest.raises(ConfigurationError, match="holds no choice fixed within a step"):
        train(_case(), {"paths": Mixed(), "callbacks": [MomentumSeparation()]}, tmp_path)
    run = train(
        _case(),
        {"paths": Mixed(), "step_every": "subnet", "callbacks": [MomentumSeparation(by="op")]},
        tmp_path,
    )
    assert len(run.rates) == 16


@pytest.mark.parametrize(
    ("by", "optimizer", "message"),
    [
        ("nope", None, r"`by` is expected to be the label .* but got 'nope'. Use one of \['width', 'op'\]"),
        (3, None, r"`by` is expected to be a label, a function of the sample or None, but got 3"),
        ("op", torch.optim.SGD, "expected to have momentum .* SGD with momentum 0"),
        ("op", torch.optim.Adagrad, "expected to be SGD, Adam.* but got Adagrad"),
    ],
)
def test_bad_settings_are_refused(tmp_path, by, optimizer, message):
    with pytest.raises(ConfigurationError, match=message):
        train(
            _case(),
            {"callbacks": [MomentumSeparation(by=by)]},
            tmp_path,
            evaluator_arguments={"optimizer": optimizer},
        )


def test_two_owners_of_momentum_are_refused(tmp_path):
    callbacks = [MomentumSeparation(by="op"), MomentumSeparation(by="width")]
    with pytest.raises(ConfigurationError, match="`momentum` is expected to have one owner, but got 2"):
        train(_case(), {"callbacks": callbacks}, tmp_path)


def test_numpy_clusters_survive_a_checkpoint(tmp_path):
    def wide(sample):
        return np.int64(sample["width"] > 4)

    whole = train(_case(), {"callbacks": [MomentumSeparation(by=wide)]}, tmp_path / "whole", epochs=2)
    folder = {"checkpoint_dir": tmp_path / "checkpoint"}
    train(
        _case(), {"callbacks": [MomentumSeparation(by=wide), StopAfter(1)], **folder}, tmp_path / "half", epochs=2
    )
    rest = train(_case(), {"callbacks": [MomentumSeparation(by=wide)], **folder}, tmp_path / "rest", epochs=2)
    assert not differing(rest.weights, whole.weights)


def test_clusters_that_no_checkpoint_can_hold_are_refused(tmp_path):
    callback = MomentumSeparation(by=lambda sample: object())
    with pytest.raises(ConfigurationError, match="`by` is expected to return numbers, texts or tuples"):
        train(_case(), {"callbacks": [callback]}, tmp_path)


def test_a_checkpoint_of_other_clusters_is_refused(tmp_path):
    folder = {"checkpoint_dir": tmp_path / "checkpoint"}
    train(_case(), {"callbacks": [MomentumSeparation(by="op")], **folder}, tmp_path, epochs=1)
    with pytest.raises(CheckpointError, match="another `parts`"):
        train(_case(), {"callbacks": [MomentumSeparation(by="width")], **folder}, tmp_path, epochs=2)


def test_steps_counted_on_the_device_are_put_back_there(tmp_path):
    """The meta device stands for an accelerator: what arrives on the CPU has to be moved."""
    parameter = torch.nn.Parameter(torch.zeros(2, device="meta"))
    callback = MomentumSeparation(by="op")
    for fused, kind in ((True, "meta"), (False, "cpu")):
        group = {"params": [parameter], "fused": fused}
        callback._optimizer = SimpleNamespace(param_groups=[group])
        saved = {"step": torch.tensor(3.0), "exp_avg": torch.zeros(2)}
        callback.restore_state({"started": True, "active": "skip", "clusters": [("conv", {0: saved})]})
        restored = callback._states["conv"][parameter]
        assert (restored["step"].device.type, restored["exp_avg"].device.type) == (kind, "meta")
