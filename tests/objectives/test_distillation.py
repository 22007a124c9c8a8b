"""In-place distillation in the host: who teaches whom, with what loss, and what is refused."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from nni.nas.evaluator.pytorch import DataLoader, Lightning
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from nni_supernet_ext.core import Draw, PathSampler, SupernetCallback
from nni_supernet_ext.core.probes import recorded_outputs
from nni_supernet_ext.errors import ConfigurationError, TrainingDivergedError
from nni_supernet_ext.functional import alpha_divergence
from nni_supernet_ext.objectives import InplaceDistillation
from nni_supernet_ext.objectives._same_inputs import SameInputs
from nni_supernet_ext.objectives.distillation import DIVERGENCES
from nni_supernet_ext.paths import FairPathSampler, SandwichSampler
from nni_supernet_ext.testing import MethodCase, ToySpace, toy_data, toy_evaluator, toy_supernet, train
from nni_supernet_ext.testing.toys import CLASSES, ToyModule

CASE = MethodCase("InplaceDistillation", dict)


class Watch(SupernetCallback):
    """Keep what the first step saw."""

    def __init__(self):
        self.losses, self.batch, self.draws, self.gradients, self.steps = [], None, None, None, 0

    def on_draws(self, state):
        self.steps += 1
        if self.batch is None:
            self.batch, self.draws = state.batch, list(state.draws)

    def on_after_draw(self, state):
        self.losses.append(state.loss.clone())

    def on_before_update(self, state, optimizer):
        if self.gradients is None:
            grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
            self.gradients = [None if g is None else g.clone() for g in grads]


def run(tmp_path, objective, sampler=None, case=CASE, **settings):
    watch = Watch()
    arguments = {
        "paths": sampler if sampler is not None else SandwichSampler(),
        "objective": objective,
        "callbacks": [watch],
        "validate": 0,
        **settings,
    }
    return train(case, arguments, tmp_path, epochs=1), watch


def by_hand(watch, beta, temperature):
    """The first step written out for KL: losses of all draws, and gradients of their sum."""
    supernet = toy_supernet(seed=0)
    images, labels = watch.batch
    losses, teacher = [], None
    for draw in watch.draws:
        supernet.activate(draw.sample)
        logits = supernet.model(images)
        loss = F.cross_entropy(logits, labels)
        if teacher is None:
            teacher = logits.detach()
        else:
            p = F.softmax(teacher / temperature, 1)
            kl = F.kl_div(F.log_softmax(logits / temperature, 1), p, reduction="batchmean")
            loss = (1 - beta) * loss + beta * temperature**2 * kl
        loss.backward()
        losses.append(loss.item())
    return losses, [p.grad for p in supernet.model.parameters()]


@pytest.mark.parametrize(("beta", "temperature"), [(0.9, 1.0), (1.0, 2.0), (0.3, 0.5), (0.0, 1.0)])
def test_losses_and_gradients_equal_the_step_written_out(tmp_path, beta, temperature):
    _, watch = run(tmp_path, InplaceDistillation("kl", beta=beta, temperature=temperature))
    losses, gradients = by_hand(watch, beta, temperature)
    assert [draw.role for draw in watch.draws] == ["largest", "subnet", "subnet", "smallest"]
    assert [loss.item() for loss in watch.losses[:4]] == pytest.approx(losses, rel=1e-5, abs=1e-6)
    for mine, expected in zip(watch.gradients, gradients, strict=True):
        assert torch.allclose(mine, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("step_every", ["batch", "subnet"])
def test_each_draw_runs_forward_once_and_nothing_is_left(tmp_path, step_every):
    forwards = []

    class Counting(ToySpace):
        def forward(self, x):
            if self.training and torch.is_grad_enabled():
                forwards.append(1)
            return super().forward(x)

    objective = InplaceDistillation()
    case = MethodCase("InplaceDistillation", dict, space=Counting)
    result, watch = run(tmp_path, objective, case=case, step_every=step_every)
    assert len(forwards) == 4 * watch.steps
    assert not result.strategy.trained.model._forward_hooks
    assert objective._outputs == []


def test_the_teacher_s_targets_are_its_logits_of_this_forward_without_gradient(tmp_path):
    seen = []

    def mine(student, teacher):
        seen.append((student.detach().clone(), teacher, teacher.requires_grad, student.requires_grad))
        return F.mse_loss(student, teacher)

    _, watch = run(tmp_path, InplaceDistillation(mine, temperature=4.0))
    supernet = toy_supernet(seed=0)
    supernet.activate(watch.draws[0].sample)
    expected = supernet.model(watch.batch[0]) / 4.0
    for student, teacher, teacher_grad, student_grad in seen[:3]:
        assert torch.allclose(teacher, expected, rtol=1e-5, atol=1e-6)
        assert not teacher_grad and student_grad and student.shape == (16, CLASSES)
    assert len(seen) == 3 * watch.steps


def test_a_divergence_per_sample_is_averaged(tmp_path):
    minus = partial(alpha_divergence, alpha=-1.0)
    _, mean = run(tmp_path / "mean", InplaceDistillation(minus))
    _, each = run(tmp_path / "none", InplaceDistillation(partial(minus, reduction="none")))
    assert [v.item() for v in mean.losses] == pytest.approx([v.item() for v in each.losses])


@pytest.mark.parametrize("name", ["adaptive_alpha", "reversed_kl", "jensen_shannon"])
def test_named_divergences_train(tmp_path, name):
    _, watch = run(tmp_path / name, InplaceDistillation(name))
    _, other = run(tmp_path / "kl", InplaceDistillation("kl"))
    assert [v.item() for v in watch.losses[1:4]] != [v.item() for v in other.losses[1:4]]
    assert watch.losses[0] == other.losses[0]


class Several(ToySpace):
    """Return logits of all classes and, as another output, of their halves."""

    def forward(self, x):
        logits = super().forward(x)
        return {"all": logits, "more": (logits[:, :5], logits.argmax(1))}


class FirstOutput(ToyModule):
    def forward(self, x):
        return super().forward(x)["all"]


def several_evaluator(max_epochs=1, *, root=".", module=FirstOutput, data=None, **trainer):
    plain = toy_evaluator(max_epochs, root=root, **trainer)
    inner = module(learning_rate=0.05, optimizer=torch.optim.SGD, num_classes=CLASSES)
    loaders = (plain.train_dataloaders, plain.val_dataloaders)
    if data is not None:
        loaders = (DataLoader(data, batch_size=8),) * 2
    return Lightning(inner, plain.trainer, train_dataloaders=loaders[0], val_dataloaders=loaders[1])


SEVERAL = MethodCase("InplaceDistillation", dict, space=Several, evaluator=several_evaluator)


def test_several_outputs_are_averaged_or_selected(tmp_path):
    taught = []

    def spy(student, teacher):
        taught.append(tuple(student.shape))
        return (student - teacher).square().mean()

    def floats(output):
        return [output["all"], output["more"][0]]

    run(tmp_path / "a", InplaceDistillation(spy, select=floats), case=SEVERAL)
    assert taught[:2] == [(16, 10), (16, 5)] and len(taught) == 2 * 3 * 4
    taught.clear()
    run(tmp_path / "b", InplaceDistillation(spy, select=lambda output: output["all"]), case=SEVERAL)
    assert taught == [(16, 10)] * 12


def test_outputs_that_are_no_logits_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"floating-point tensors to distil.*int64.*`select`"):
        run(tmp_path, InplaceDistillation(), case=SEVERAL)


def test_outputs_of_another_shape_than_the_teacher_s_are_refused(tmp_path):
    calls = []

    def changing(output):
        calls.append(1)
        return output["all"][:, : 10 - len(calls)]

    with pytest.raises(ConfigurationError, match=r"teacher's shapes \[\(16, 9\)\], but got \[\(16, 8\)\]"):
        run(tmp_path, InplaceDistillation(select=changing), case=SEVERAL)


class Dense(ToySpace):
    """Segment: ten classes for each of 4 x 4 positions."""

    def forward(self, x):
        x = torch.relu(self.op(torch.relu(self.norm(self.stem(x)))))
        return self.head(x.movedim(1, -1)).movedim(-1, 1)


class Segmentation(ToyModule):
    def training_step(self, batch, batch_idx):
        return self.criterion(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        logits = self(batch[0])
        self.log("val_loss", self.criterion(logits, batch[1]))
        self.log("val_acc", (logits.argmax(1) == batch[1]).float().mean())


def test_segmentation_is_distilled_position_by_position(tmp_path):
    images = toy_data(16).tensors[0]
    labels = torch.arange(16 * 4 * 4).reshape(16, 4, 4) % CLASSES
    evaluator = partial(several_evaluator, module=Segmentation, data=TensorDataset(images, labels))
    case = MethodCase("InplaceDistillation", dict, space=Dense, evaluator=evaluator)
    shapes = []

    def spy(student, teacher):
        shapes.append(tuple(student.shape))
        return alpha_divergence(student, teacher, -1.0, reduction="none")

    run(tmp_path, InplaceDistillation(spy), case=case)
    assert shapes == [(8, 10, 4, 4)] * 6


class Fixed(PathSampler):
    """Draw the same subnet in the given roles, which are not declared before training."""

    draws_per_step = None

    def __init__(self, *given):
        self.given = given

    def draws(self, rng, state):
        return [Draw({"width": 8, "op": "conv"}, role=role) for role in self.given]


@pytest.mark.parametrize(
    ("sampler", "match"),
    [
        (SandwichSampler(order=("random", "largest")), "drawn before its students, but got the order"),
        (SandwichSampler(order=("smallest", "random")), "role 'largest', the teacher, but got the roles"),
        (SandwichSampler(order=("largest",)), "a teacher and its students.*draws one subnet"),
        (Fixed("subnet", "largest"), "drawn before its students"),
        (Fixed("subnet", "subnet"), "role 'largest', the teacher"),
    ],
)
def test_steps_without_a_teacher_first_are_refused(tmp_path, sampler, match):
    with pytest.raises(ConfigurationError, match=match):
        run(tmp_path, InplaceDistillation(), sampler)


def test_fair_draws_have_no_teacher_as_is_said_before_training_with_all_other_problems(tmp_path):
    with pytest.raises(ConfigurationError) as refused:
        run(tmp_path, InplaceDistillation(temperature=0.0), FairPathSampler())
    assert [name in problem for name, problem in zip(("temperature", "roles"), refused.value.problems, strict=True)]
    assert "the roles ['subnet', 'subnet'" in refused.value.problems[1]


def test_the_first_largest_teaches_a_second_one(tmp_path):
    objective = InplaceDistillation(lambda s, t: (s - t).abs().mean(), beta=1.0)
    _, watch = run(tmp_path, objective, Fixed("largest", "largest"))
    assert watch.losses[0] > 0 and watch.losses[1] == 0.0  # the same subnet in the same weights


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"temperature": 0.0}, "`temperature` is expected to be a positive number, but got 0.0"),
        ({"temperature": -1.0}, "`temperature` is expected"),
        ({"temperature": float("nan")}, "`temperature` is expected"),
        ({"beta": 1.5}, r"`beta` is expected to be in \[0, 1\], but got 1.5"),
        ({"beta": -0.1}, "`beta` is expected"),
        ({"divergence": "hellinger"}, "`divergence` is expected to be one of"),
        ({"divergence": ["kl"]}, "`divergence` is expected to be one of"),
        ({"select": "logits"}, "`select` is expected to be a function of the model's output or None, but got 'log"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, arguments, match):
    with pytest.raises(ConfigurationError, match=match):
        run(tmp_path, InplaceDistillation(**arguments))


def test_all_problems_are_reported_at_once(tmp_path):
    with pytest.raises(ConfigurationError) as caught:
        run(tmp_path, InplaceDistillation("x", beta=2, temperature=0), SandwichSampler(n_random=-1))
    assert len(caught.value.problems) == 4


def test_logits_that_are_not_finite_stop_the_training_and_name_the_student(tmp_path):
    class Broken(ToySpace):
        def forward(self, x):
            logits = super().forward(x)
            return logits * float("nan") if self.training and self.op._sampled == "skip" else logits

    case = MethodCase("InplaceDistillation", dict, space=Broken)
    with pytest.raises(TrainingDivergedError, match=r"nan at iteration 0 for the .*op=skip"):
        run(tmp_path, InplaceDistillation(beta=1.0), case=case)


def test_students_without_labels_do_not_see_an_infinite_label_loss(tmp_path):
    class OnlyLargest(ToyModule):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return loss if self.model.op._sampled == "conv" else loss * float("inf")

    evaluator = partial(several_evaluator, module=OnlyLargest)
    case = MethodCase("InplaceDistillation", dict, evaluator=evaluator)
    sampler = SandwichSampler(n_random=0)
    _, watch = run(tmp_path, InplaceDistillation(beta=1.0), sampler, case=case)
    assert all(loss.isfinite() for loss in watch.losses)


def test_the_recorder_is_removed_when_the_forward_fails():
    model = torch.nn.Linear(2, 2)
    with pytest.raises(RuntimeError), recorded_outputs(model):
        model(torch.zeros(3, 5))
    assert not model._forward_hooks


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("temperature", [3.0, 7.0, 0.001])
@pytest.mark.parametrize("name", ["kl", "adaptive_alpha"])
def test_half_precision_outputs_are_distilled_in_full_precision(dtype, temperature, name):
    rng = torch.Generator().manual_seed(0)
    teacher = (4 * torch.randn(64, 10, generator=rng)).to(dtype)
    student = (teacher.float() + 0.3 * torch.randn(64, 10, generator=rng)).to(dtype)
    if temperature < 1:
        teacher, student = torch.full((4, 2), 200.0), torch.full((4, 2), -200.0)
        teacher[:, 1], student[:, 1] = -200.0, 200.0
        teacher, student = teacher.to(dtype), student.to(dtype)
    objective = InplaceDistillation(name, beta=1.0, temperature=temperature)
    objective._outputs = [teacher]
    found = objective._distilled([student])
    exact = (
        DIVERGENCES[name](student.double() / temperature, teacher.double() / temperature).mean() * temperature**2
    )
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(exact.item(), rel=1e-3)


@pytest.mark.parametrize("temperature", [1e-30, 1e20])
def test_extreme_temperatures_stay_finite(temperature):
    objective = InplaceDistillation("kl", beta=1.0, temperature=temperature)
    student = torch.tensor([[200.0, -200.0]], requires_grad=True)
    objective._outputs = [torch.tensor([[-200.0, 200.0]])]
    loss = objective._distilled([student])
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()


def test_a_class_masked_by_infinity_can_be_distilled(tmp_path):
    class Masked(ToySpace):
        def forward(self, x):
            logits = super().forward(x).clone()
            logits[:, -1] = -torch.inf
            return logits

    class WithoutLast(ToyModule):
        def training_step(self, batch, batch_idx):
            x, y = batch
            return super().training_step((x, y % (CLASSES - 1)), batch_idx)

    case = MethodCase(
        "InplaceDistillation", dict, space=Masked, evaluator=partial(several_evaluator, module=WithoutLast)
    )
    for divergence in DIVERGENCES:
        _, watch = run(tmp_path, InplaceDistillation(divergence, beta=1.0), case=case)
        assert all(loss.isfinite() for loss in watch.losses), divergence


@pytest.mark.parametrize("arguments", [{"temperature": "2"}, {"beta": None}])
def test_arguments_that_are_no_numbers_are_refused(tmp_path, arguments):
    name = next(iter(arguments))
    with pytest.raises(ConfigurationError, match=f"`{name}` is expected"):
        run(tmp_path, InplaceDistillation(**arguments))


class Mixing(ToyModule):
    """Mix the images of every training batch, in the step or, rightly, before it."""

    in_step = True
    draw = staticmethod(torch.randperm)

    def mixed(self, batch):
        images, labels = batch
        return 0.5 * images + 0.5 * images[self.draw(len(images))], labels

    def training_step(self, batch, batch_idx):
        return super().training_step(self.mixed(batch) if self.in_step else batch, batch_idx)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch if self.in_step or not self.trainer.training else self.mixed(batch)


class MixingOnce(Mixing):
    in_step = False


class MixingAlike(Mixing):
    draw = staticmethod(lambda n: torch.arange(n).flip(0))


def module_case(kind):
    def make(*arguments, **settings):
        evaluator = toy_evaluator(*arguments, **settings)
        evaluator.module.__class__ = kind
        return evaluator

    return MethodCase("InplaceDistillation", dict, evaluator=make)


def test_inputs_drawn_anew_for_every_student_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"same inputs.*mixup.*on_after_batch_transfer"):
        run(tmp_path, InplaceDistillation(), case=module_case(Mixing))


@pytest.mark.parametrize("kind", [MixingOnce, MixingAlike])
def test_inputs_drawn_once_or_equal_are_distilled(tmp_path, kind):
    result, watch = run(tmp_path, InplaceDistillation(), case=module_case(kind))
    assert watch.steps == 4
    assert not result.strategy.trained.model._forward_pre_hooks


class Preceded(ToyModule):
    """Have trained weights of its own before the model, through which a step may mix what it was given."""

    mixes = False

    def before(self, images):
        return self.stem(images[torch.randperm(len(images))] if self.mixes else images)

    def training_step(self, batch, batch_idx):
        return super().training_step((self.before(batch[0]), batch[1]), batch_idx)


class PrecededMixing(Preceded):
    mixes = True


def preceded(kind):
    made = module_case(kind)

    def make(*arguments, **settings):
        evaluator = made.evaluator(*arguments, **settings)
        evaluator.module.stem = torch.nn.Conv2d(3, 3, 1)
        return evaluator

    return MethodCase("InplaceDistillation", dict, evaluator=make)


def test_inputs_of_weights_that_are_updated_between_the_draws_are_distilled(tmp_path):
    _, watch = run(tmp_path, InplaceDistillation(), case=preceded(Preceded), step_every="subnet")
    assert watch.steps == 4


def test_inputs_of_weights_that_all_draws_share_are_compared(tmp_path):
    assert run(tmp_path, InplaceDistillation(), case=preceded(Preceded))[1].steps == 4
    with pytest.raises(ConfigurationError, match="same inputs"):
        run(tmp_path, InplaceDistillation(), case=preceded(PrecededMixing))


def test_only_the_first_steps_are_looked_at():
    model, inputs = torch.nn.Identity(), SameInputs()
    for step in range(6):
        with inputs.watched(model, is_teacher=True):
            model(torch.zeros(2))
            assert len(model._forward_pre_hooks) == (step < 4)
        for other in (torch.zeros(2), torch.ones(3)):
            with inputs.watched(model, is_teacher=False):
                model(other)
    with inputs.watched(model, is_teacher=False):
        model(torch.ones(2))
