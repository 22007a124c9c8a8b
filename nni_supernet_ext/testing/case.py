"""What the laws need to know of a method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nni_supernet_ext.testing.toys import ToySpace, toy_evaluator

Settings = Callable[[], dict[str, Any]]


def _plain() -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class MethodCase:
    """Describe a method to the laws.

    Settings are functions that return keyword arguments of ``SupernetStrategy``, so that every run gets fresh
    objects. They must be defined at module level: some laws train in a process of their own.

    Args:
        name: Name of the public class or function.
        settings: The method at a setting that changes the training.
        neutral: The method at its neutral setting, or None with a reason in ``no_neutral``.
        reference: Plain training that the neutral setting must equal bit for bit. Default: all defaults.
        reference_evaluator: Keyword arguments of the evaluator for the reference, for example a schedule.
        no_neutral: Why the method has no neutral setting.
        space: Makes the model space. Default :class:`ToySpace`.
        evaluator: Makes an evaluator, a new one at each call. It is called with keyword arguments only: always
            ``max_epochs`` and ``root`` (folder for everything the trainer writes); those of
            ``reference_evaluator`` for the reference; and for the Lightning trainer ``devices`` and ``strategy``
            by :func:`check_ranks`, ``limit_train_batches`` by :func:`check_hot_path`. So take ``**trainer`` and
            hand it on, as :func:`toy_evaluator` (the default) does. The evaluator must use the CPU and shuffle by
            a generator of its own, or the seed of the data order is not fixed. :func:`check_clean` needs loaders
            rather than a data module, and no scheduler of the learning rate; :func:`check_freeze` a validation
            loader of pairs whose first part is the model's input; :func:`check_hot_path` two batches.
        no_randomness: Why another seed of the run changes nothing: the method draws nothing at random, or only
            watches. Without a reason, another seed must change the draws of a method that fills ``paths``, and
            the weights of any other.
        reads_by_design: Why every step reads values from the device, for :func:`check_hot_path`.

    Example:
        >>> from nni_supernet_ext.callbacks import MomentumSeparation
        >>> def settings():
        ...     return {'callbacks': [MomentumSeparation(by='op')]}
        >>> def neutral():
        ...     return {'callbacks': [MomentumSeparation(by=lambda sample: 0)]}
        >>> case = MethodCase('MomentumSeparation', settings, neutral)
    """

    name: str
    settings: Settings
    neutral: Settings | None = None
    reference: Settings = _plain
    reference_evaluator: Mapping[str, Any] = field(default_factory=dict)
    no_neutral: str = ""
    space: Callable[[], Any] = ToySpace
    evaluator: Callable[..., Any] = toy_evaluator
    no_randomness: str = ""
    reads_by_design: str = ""
