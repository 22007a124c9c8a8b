"""What a ranking measurement consists of, apart from the training method: the protocols."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Protocol:
    """Fix everything that two methods must share to be compared.

    Attributes:
        name: Key in `PROTOCOLS`; appears in the results.
        benchmark: Key in `GROUNDS`: search space, table and images.
        channels: Channels of the supernet's first stage.
        cells: Cells in each of its stages.
        image_size: Side of the square images in pixels; larger images are averaged over areas (0: as they are).
        train_images: Training images, the first of the benchmark's training part.
        batch_size: Examples in a training batch.
        epochs: Passes over the training images.
        learning_rate: Base learning rate of SGD.
        drop_last: Whether the last, smaller batch of an epoch is left out.
        momentum: Nesterov momentum of SGD.
        weight_decay: Weight decay of SGD, on all weights.
        clip: Global gradient norm to clip at.
        set_to_none: Whether weights that a step does not sample stay as they are (True), or go on moving by
            momentum and weight decay, as under torch 1 (False).
        augment: Whether training images are changed at random: CIFAR-10 is shifted by up to an eighth of its side
            and mirrored, digits get fresh noise.
        bn_mode: ``'batch'``: normalization uses the statistics of the batch, also in evaluation;
            ``'recalibrated'``: running statistics, estimated anew for each evaluated subnet.
        evaluation_images: Images on which a subnet's accuracy is predicted, the first of the benchmark's
            validation part.
        evaluation_batch: Examples in an evaluation batch.
        recalibration_batches: Training batches for a subnet's statistics where they are recalibrated.
        operations: Candidates kept in every choice, for a part of the space; None for all.
        whole_train_set: Whether validation images are cut from the end of the whole training set (True) instead of
            the benchmark's own validation half.
        architectures: Number of architectures evaluated, each a different network; None for one of each group of
            equal networks; ``'all'`` for every single one, because the members of a group differ in a supernet.
        architecture_seed: Seed that chooses them; the same for all methods and training seeds.
        channels_last: Memory format in which small networks run faster on processors.
        precision: Lightning's name of the number format of training, for example ``'bf16-mixed'``.
    """

    name: str
    channels: int
    cells: int
    image_size: int
    train_images: int
    batch_size: int
    epochs: int
    learning_rate: float
    benchmark: str = "nasbench201"
    drop_last: bool = True
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip: float = 5.0
    set_to_none: bool = True
    augment: bool = True
    bn_mode: str = "batch"
    evaluation_images: int = 25_000
    evaluation_batch: int = 250
    recalibration_batches: int = 20
    operations: tuple[str, ...] | None = None
    whole_train_set: bool = False
    architectures: int | str | None = None
    architecture_seed: int = 0
    channels_last: bool = False
    precision: str = "32-true"

    def __post_init__(self) -> None:
        """Take the list that JSON makes of a tuple."""
        if self.operations is not None:
            object.__setattr__(self, "operations", tuple(self.operations))

    @property
    def steps(self) -> int:
        """Number of training steps."""
        whole, rest = divmod(self.train_images, self.batch_size)
        return self.epochs * (whole + (rest > 0 and not self.drop_last))

    def as_dict(self) -> dict[str, Any]:
        """Return the protocol as plain values, for the results."""
        return asdict(self)


# The published setting of dynamic supernet training on NAS-Bench-201, for a machine with a GPU; its
# authors train on the benchmark's training half and evaluate on the validation half, as here.
_DYNAS = Protocol(
    name="dynas",
    channels=16,
    cells=5,
    image_size=32,
    train_images=25_000,
    batch_size=64,
    epochs=250,
    learning_rate=0.025,
    drop_last=False,
    evaluation_images=25_000,
    evaluation_batch=256,
)

_CONDITIONAL = replace(
    _DYNAS,
    name="conditional",
    cells=2,
    train_images=45_000,
    batch_size=256,
    weight_decay=3e-4,
    whole_train_set=True,
    bn_mode="recalibrated",
    evaluation_images=5_000,
    evaluation_batch=250,
    architectures=1_000,
)

_CPU = Protocol(
    name="cpu",
    channels=8,
    cells=1,
    image_size=16,
    train_images=25_000,
    batch_size=64,
    epochs=12,
    learning_rate=0.1,
    augment=False,
    evaluation_images=1_000,
    architectures=300,
    channels_last=True,
)
_NO_ZERO = ("skip_connect", "conv_1x1", "conv_3x3", "avg_pool_3x3")

_ALL = (
    # A complete benchmark that any laptop can repeat: 1,600 steps, where one network trained alone gets 240.
    Protocol(
        name="small",
        benchmark="digit_cells",
        channels=8,
        cells=1,
        image_size=0,
        train_images=512,
        batch_size=64,
        epochs=200,
        learning_rate=0.1,
        evaluation_images=585,
        evaluation_batch=585,
        channels_last=True,
    ),
    _CPU,
    # Parts of the same space that the paper of conditional weights looks at: without Zero (4,096 architectures) and
    # of convolutions only (64), and NAS-Bench-Macro, for the time that a processor has.
    replace(_CPU, name="cpu_no_zero", operations=_NO_ZERO, epochs=8, architectures=100),
    replace(_CPU, name="cpu_convolutions", operations=("conv_1x1", "conv_3x3"), epochs=6, architectures=None),
    replace(
        _CPU,
        name="cpu_macro",
        benchmark="nasbench_macro",
        channels=32,
        cells=8,
        train_images=5_000,
        batch_size=32,
        epochs=6,
        learning_rate=0.05,
        bn_mode="recalibrated",
        recalibration_batches=10,
        evaluation_images=500,
        architectures=80,
    ),
    _DYNAS,
    # The published setting of PA&DA on NAS-Bench-201: all 50,000 images, batch 256. Its authors evaluate on the
    # test images; here the last 5,000 training images are left out and used instead, which is a deviation.
    replace(
        _DYNAS,
        name="panda",
        train_images=45_000,
        batch_size=256,
        learning_rate=0.05,
        whole_train_set=True,
        evaluation_images=5_000,
    ),
    # The published setting of conditional supernet weights on NAS-Bench-201: 45,000 images to train and 5,000 to
    # evaluate, two cells in a stage, 20 batches for a subnet's statistics, 1,000 architectures. Batch size, rate,
    # decay and epochs are those of `recipes.conditional_evaluator_settings`; Nesterov momentum, clipping and the
    # decay of biases and normalisations are those of `dynas`.
    _CONDITIONAL,
    # The same paper on NAS-Bench-Macro: 50 epochs.
    replace(
        _CONDITIONAL,
        name="conditional_macro",
        benchmark="nasbench_macro",
        channels=32,
        cells=8,
        epochs=50,
        learning_rate=0.1,
        weight_decay=5e-4,
    ),
)

PROTOCOLS = {protocol.name: protocol for protocol in _ALL}
