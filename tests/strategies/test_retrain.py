"""Retraining a subnet as a network of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from nni_supernet_ext.callbacks import ComplexityAwareLR, MomentumSeparation
from nni_supernet_ext.callbacks.cosine_lr import CosineLR
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.strategies.retrain import _initialise, retrain
from nni_supernet_ext.testing import toy_evaluator, toy_supernet


class Watch(pl.Callback):
    """Keep the initial weights and every rate in force."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.initial: dict[str, torch.Tensor] = {}
        self.callbacks: list[Any] = []
        self.modes: list[dict[str, bool]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *arguments: Any) -> None:
        self.modes.append({name: module.training for name, module in pl_module.model.named_modules()})

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.initial = {name: value.clone() for name, value in pl_module.model.state_dict().items()}
        self.callbacks = list(trainer.callbacks)
        trainer.optimizers[0].register_step_post_hook(
            lambda optimizer, *_: self.rates.append(optimizer.param_groups[0]["lr"])
        )


class Bare(nn.Module):
    """Have a parameter and no way to draw it anew."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.head = nn.Linear(3, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.mean(dim=(2, 3)) * self.scale)


def network() -> nn.Module:
    return toy_supernet().extract({"op": "conv", "width": 4})


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> list[bool]:
    return [torch.equal(first[name], second[name]) for name in first if first[name].is_floating_point()]


def test_cosine_is_added_for_the_run_and_taken_away_after_it(tmp_path: Path) -> None:
    watch = Watch()
    evaluator = toy_evaluator(1, root=tmp_path, callbacks=[watch])
    before = list(evaluator.trainer.callbacks)
    retrain(network(), evaluator)
    # 0.05 * (1 + cos(pi * t / 4)) / 2 by hand
    assert watch.rates == pytest.approx([0.05, 0.04267767, 0.025, 0.00732233])
    assert evaluator.trainer.callbacks == before


def test_callbacks_are_taken_away_after_an_error_too(tmp_path: Path) -> None:
    class Broken(pl.Callback):
        def on_train_batch_start(self, *arguments: Any) -> None:
            raise RuntimeError("broken on purpose")

    evaluator = toy_evaluator(1, root=tmp_path, callbacks=[Broken()])
    before = list(evaluator.trainer.callbacks)
    with pytest.raises(RuntimeError, match="broken on purpose"):
        retrain(network(), evaluator)
    assert evaluator.trainer.callbacks == before


def test_from_scratch_draws_new_weights_in_a_copy(tmp_path: Path) -> None:
    inherited, watch = network(), Watch()
    before = {name: value.clone() for name, value in inherited.state_dict().items()}
    torch.manual_seed(1)
    evaluator = toy_evaluator(1, root=tmp_path, callbacks=[watch])
    retrain(inherited, evaluator)
    convolutions = {name: value for name, value in before.items() if value.dim() == 4}
    assert len(convolutions) == 2
    assert not any(same(convolutions, watch.initial))
    assert all(same(before, inherited.state_dict()))
    assert not any(same(convolutions, evaluator.module.model.state_dict()))


def test_inherited_weights_are_the_start_without_from_scratch(tmp_path: Path) -> None:
    inherited, watch = network(), Watch()
    before = {name: value.clone() for name, value in inherited.state_dict().items()}
    retrain(inherited, toy_evaluator(1, root=tmp_path, callbacks=[watch]), from_scratch=False)
    assert all(same(before, watch.initial))
    assert all(same(before, inherited.state_dict()))


def test_metrics_are_those_of_the_trained_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    evaluator = toy_evaluator(4, root=tmp_path)
    metrics = retrain(network(), evaluator)
    assert all(type(value) is float for value in metrics.values())
    trained = evaluator.module.model.eval()
    with torch.no_grad():
        right = sum(int((trained(x).argmax(1) == y).sum()) for x, y in evaluator.val_dataloaders)
    assert metrics["val_acc"] == pytest.approx(right / 32)


def test_no_schedule_leaves_the_rate_alone(tmp_path: Path) -> None:
    watch = Watch()
    retrain(network(), toy_evaluator(1, root=tmp_path, callbacks=[watch]), schedule=None)
    assert watch.rates == [0.05] * 4


def test_an_owner_among_the_callbacks_is_kept(tmp_path: Path) -> None:
    watch = Watch()
    retrain(network(), toy_evaluator(1, root=tmp_path, callbacks=[watch, CosineLR(min_lr=0.05)]))
    assert watch.rates == [0.05] * 4
    assert sum(isinstance(callback, CosineLR) for callback in watch.callbacks) == 1


def test_a_scheduler_of_the_module_is_kept(tmp_path: Path) -> None:
    watch = Watch()
    evaluator = toy_evaluator(1, root=tmp_path, callbacks=[watch])
    stock = evaluator.module.configure_optimizers

    def configure_optimizers() -> Any:
        optimizer = stock()
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.1)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    evaluator.module.configure_optimizers = configure_optimizers
    retrain(network(), evaluator)
    assert watch.rates == pytest.approx([0.05, 0.005, 0.0005, 0.00005])


@pytest.mark.parametrize("method", [ComplexityAwareLR, MomentumSeparation])
def test_methods_for_supernets_are_refused(tmp_path: Path, method: Any) -> None:
    evaluator = toy_evaluator(1, root=tmp_path, callbacks=[method()])
    with pytest.raises(ConfigurationError, match=f"got {method.__name__}.*plain cosine"):
        retrain(network(), evaluator)


def test_an_evaluator_that_has_trained_is_refused(tmp_path: Path) -> None:
    evaluator = toy_evaluator(1, root=tmp_path)
    retrain(network(), evaluator)
    with pytest.raises(ConfigurationError, match=r"already trained.*Make a new evaluator"):
        retrain(network(), evaluator)


def test_other_bad_arguments_are_refused_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"2 problems(.|\n)*`schedule`(.|\n)*`evaluator`.*got str"):
        retrain(network(), "evaluator", schedule="linear")  # type: ignore[arg-type]


def test_parameters_that_cannot_be_drawn_anew_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"`reset_parameters`.*got none in .'Bare'.*from_scratch=False"):
        retrain(Bare(), toy_evaluator(1, root=tmp_path))
    assert "val_acc" in retrain(Bare(), toy_evaluator(1, root=tmp_path), from_scratch=False)


class Pretrained(nn.Module):
    """Have a frozen backbone with weights 7, a layer with only its weight frozen, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4, affine=False), Bare())
        self.backbone[3].head = nn.Identity()
        self.backbone[3].forward = lambda x: x  # type: ignore[method-assign]
        self.mixed = nn.Linear(4, 4)
        self.head = nn.Linear(4, 10)
        with torch.no_grad():
            for value in [*self.parameters(), *self.buffers()]:
                value.fill_(7)
        self.backbone.requires_grad_(False)
        self.mixed.weight.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.mixed(self.backbone[0](x.mean(dim=(2, 3)))))

    def reset_parameters(self) -> None:
        self.backbone[0].reset_parameters()  # as some networks do for their parts
        self.head.reset_parameters()


def test_from_scratch_keeps_what_is_frozen(tmp_path: Path) -> None:
    network, watch = Pretrained(), Watch()
    retrain(network, toy_evaluator(1, root=tmp_path, callbacks=[watch]))
    seven = {name: bool((value == 7).all()) for name, value in watch.initial.items()}
    drawn = {name for name, kept in seven.items() if not kept}
    assert drawn == {"mixed.bias", "head.weight", "head.bias"}
    assert "backbone.2.running_mean" in seven and "backbone.3.scale" in seven


def test_statistics_of_what_is_trained_start_anew(tmp_path: Path) -> None:
    inherited, watch = network(), Watch()
    with torch.no_grad():
        for value in inherited.buffers():
            value.fill_(7)
    retrain(inherited, toy_evaluator(1, root=tmp_path, callbacks=[watch]))
    assert watch.initial["norm.running_mean"].abs().sum() == 0


def test_a_network_in_eval_mode_is_trained_in_train_mode(tmp_path: Path) -> None:
    inherited, watch = network().eval(), Watch()
    evaluator = toy_evaluator(2, root=tmp_path, callbacks=[watch])
    retrain(inherited, evaluator)
    assert len(watch.modes) == 8  # also after a validation
    assert all(all(modes.values()) for modes in watch.modes)
    assert evaluator.module.model.norm.running_mean.abs().sum() > 0
    assert not any(module.training for module in inherited.modules())


@pytest.mark.filterwarnings("ignore:Found .* in eval mode")
def test_what_is_frozen_stays_in_eval_mode(tmp_path: Path) -> None:
    watch = Watch()
    retrain(Pretrained().eval(), toy_evaluator(1, root=tmp_path, callbacks=[watch]))
    in_eval = {name for name, training in watch.modes[0].items() if not training}
    assert in_eval == {"backbone", *(f"backbone.{part}" for part in ("0", "1", "2", "3", "3.head"))}


@pytest.mark.filterwarnings("ignore:Found .* in eval mode")
def test_modes_chosen_for_a_network_in_train_mode_are_kept(tmp_path: Path) -> None:
    inherited, watch = network().train(), Watch()
    inherited.norm.eval()
    retrain(inherited, toy_evaluator(1, root=tmp_path, callbacks=[watch]))
    assert [name for name, training in watch.modes[0].items() if not training] == ["norm"]


def test_a_network_starts_as_it_does_when_it_is_built() -> None:
    class Attentive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2)
            self.head = nn.Linear(4, 10)
            self.reset_parameters()

        def reset_parameters(self) -> None:
            nn.init.zeros_(self.head.weight)

    network = Attentive()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(7)
    _initialise(network, set())
    assert network.head.weight.abs().sum() == 0
    assert network.attention.out_proj.bias.abs().sum() == 0  # torch's own choice for attention
    assert all((parameter != 7).all() for parameter in network.parameters())
