"""Multiply-adds of the subnets of a mobile search space, by arithmetic."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nni_supernet_ext.errors import SpaceError
from nni_supernet_ext.spaces.attentive_blocks import squeezed_width
from nni_supernet_ext.spaces.attentive_mobilenet import IMAGENET_STAGES, Stage

__all__ = ["attentive_mobilenet_flops"]

_STAGE_LABEL = re.compile(r"(width|kernel|expansion|depth)_\d+$")


def attentive_mobilenet_flops(
    stages: Sequence[Stage] = IMAGENET_STAGES,
    stem_width: int = 0,
    head_width: int = 0,
    resolution: int = 0,
    n_classes: int = 1000,
    stem_stride: int = 2,
) -> Callable[[Mapping[str, Any]], float]:
    """Build the function that counts a subnet's FLOPs as the papers count: multiply-adds of one image.

    Convolutions and the classifier count, at the subnet's own resolution; biases, normalisation, activations
    and pooling do not. Every choice makes the count larger when its candidate grows.

    Args:
        stages: The stages of the space. Default: the ImageNet space's.
        stem_width: Stem channels, where they are no choice.
        head_width: Features before the classifier, where they are no choice.
        resolution: Input side, where it is no choice.
        n_classes: Outputs of the classifier. Default 1000.
        stem_stride: Stride of the first convolution. Default 2.

    Returns:
        Function from a sample to multiply-adds. It raises SpaceError for a sample of another space: a choice is
        missing, or decided by what is none of its candidates, or a stage is not one of these.

    Example:
        >>> from nni_supernet_ext.spaces import attentive_mobilenet
        >>> space, flops = attentive_mobilenet(), attentive_mobilenet_flops()
        >>> smallest = {label: choice.values[0] for label, choice in space.simplify().items()}
        >>> largest = {label: choice.values[-1] for label, choice in space.simplify().items()}
        >>> round(flops(smallest) / 1e6, 2), round(flops(largest) / 1e6, 1)
        (203.39, 1939.3)

    Reference:
        Wang et al., "AttentiveNAS", CVPR 2021: 203 to 1,939 MFLOPs.
    """

    options = _options(stages)
    needed = {"stem": stem_width, "head": head_width, "resolution": resolution}
    wanted = [*options, *(label for label, value in needed.items() if not value)]

    def count(sample: Mapping[str, Any]) -> float:
        _refuse_another_space(sample, wanted, options)
        side = -(-int(sample.get("resolution", resolution)) // stem_stride)
        width = sample.get("stem", stem_width)
        total = 3 * 9 * width * side**2
        for number, stage in enumerate(stages, start=1):
            macs, width, side = _stage(stage, number, sample, width, side)
            total += macs
        features = sample.get("head", head_width)
        return total + 6 * width * width * side**2 + 6 * width * features + features * n_classes

    return count


def _options(stages: Sequence[Stage]) -> dict[str, tuple[int, ...]]:
    """Return the choices of the stages: label -> candidates."""
    return {
        f"{name}_{number}": candidates
        for number, stage in enumerate(stages, start=1)
        for name, candidates in _candidates(stage).items()
        if len(candidates) > 1
    }


def _candidates(stage: Stage) -> dict[str, tuple[int, ...]]:
    return {
        "width": stage.widths,
        "kernel": stage.kernels,
        "expansion": stage.expansions,
        "depth": stage.depths,
    }


def _refuse_another_space(
    sample: Mapping[str, Any], wanted: Sequence[str], options: Mapping[str, tuple[int, ...]]
) -> None:
    missing = [label for label in wanted if label not in sample]
    wrong = {label: sample[label] for label in sample if _STAGE_LABEL.match(label) and label not in options}
    wrong |= {label: sample[label] for label in options if label in sample and sample[label] not in options[label]}
    found = [f"nothing for {missing}"] * bool(missing) + [f"{wrong}, which it does not have"] * bool(wrong)
    if found:
        raise SpaceError(
            "Argument `sample` is expected to decide the choices of the space whose FLOPs are counted, but got "
            f"{' and '.join(found)}. Describe the sample's space in the arguments of `attentive_mobilenet_flops`."
        )


def _stage(stage: Stage, number: int, sample: Mapping[str, Any], inputs: int, side: int) -> tuple[int, int, int]:
    """Return the multiply-adds of a stage, its width and the side of its output."""
    width, kernel, expansion, depth = (
        sample.get(f"{name}_{number}", candidates[0]) for name, candidates in _candidates(stage).items()
    )
    total = 0
    for index in range(depth):
        hidden = inputs * expansion
        expands = stage.expansions != (1,)
        total += inputs * hidden * side**2 if expands else 0
        side = -(-side // stage.stride) if index == 0 else side
        total += hidden * kernel**2 * side**2 + hidden * width * side**2
        total += 2 * hidden * squeezed_width(hidden) if stage.squeeze else 0
        total += inputs * width * side**2 if index == 0 and inputs != width else 0
        inputs = width
    return total, width, side
