"""What a ranking measurement consists of, apart from the training method."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Protocol:
    """Fix everything that two methods must share to be compared.

    Attributes:
        name: Key in `PROTOCOLS`; appears in the results.
        channels: Channels of the supernet's first stage.
        cells: Cells in each of its three stages.
        image_size: Side of the square images in pixels; larger images are averaged over areas.
        train_images: Training images, the first of the benchmark's own training half of CIFAR-10.
        batch_size: Examples in a training batch.
        epochs: Passes over the training images.
        learning_rate: Base learning rate of SGD.
        drop_last: Whether the last, smaller batch of an epoch is left out.
        momentum: Nesterov momentum of SGD.
        weight_decay: Weight decay of SGD, on all weights.
        clip: Global gradient norm to clip at.
        set_to_none: Whether weights that a step does not sample stay as they are (True), or go on moving by
            momentum and weight decay, as under torch 1 (False).
        augment: Whether training images are shifted by up to an eighth of their side and mirrored at random.
        bn_mode: ``'batch'``: normalization uses the statistics of the batch, also in evaluation;
            ``'recalibrated'``: running statistics, estimated anew for each evaluated subnet.
        evaluation_images: Images on which a subnet's accuracy is predicted, the first of the benchmark's own
            validation half.
        evaluation_batch: Examples in an evaluation batch.
        recalibration_batches: Training batches for a subnet's statistics where they are recalibrated.
        architectures: Number of architectures evaluated, each from another isomorphism group; None for all
            groups.
        architecture_seed: Seed that chooses them; the same for all methods and training seeds.
        channels_last: Memory format in which small networks run faster on processors.
    """

    name: str
    channels: int
    cells: int
    image_size: int
    train_images: int
    batch_size: int
    epochs: int
    learning_rate: float
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
    architectures: int | None = None
    architecture_seed: int = 0
    channels_last: bool = False

    @property
    def steps(self) -> int:
        """Number of training steps."""
        whole, rest = divmod(self.train_images, self.batch_size)
        return self.epochs * (whole + (rest > 0 and not self.drop_last))

    def as_dict(self) -> dict[str, Any]:
        """Return the protocol as plain values, for the results."""
        return asdict(self)


_ALL = (
    Protocol(
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
    ),
    # The published setting of dynamic supernet training on NAS-Bench-201, for a machine with a GPU; its
    # authors train on the benchmark's training half and evaluate on the validation half, as here.
    Protocol(
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
    ),
)

PROTOCOLS = {protocol.name: protocol for protocol in _ALL}
