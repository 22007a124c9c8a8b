"""Published settings as functions: each returns a strategy, or the evaluator's part of one."""

from __future__ import annotations

from nni_supernet_ext.recipes.baselines import fairnas, few_shot, spos
from nni_supernet_ext.recipes.conditional import conditional, conditional_evaluator_settings
from nni_supernet_ext.recipes.dynas import dynas
from nni_supernet_ext.recipes.panda import panda, panda_evaluator_settings
from nni_supernet_ext.recipes.sandwich import alphanet, attentivenas, bignas, sandwich_evaluator_settings

__all__ = [
    "alphanet",
    "attentivenas",
    "bignas",
    "conditional",
    "conditional_evaluator_settings",
    "dynas",
    "fairnas",
    "few_shot",
    "panda",
    "panda_evaluator_settings",
    "sandwich_evaluator_settings",
    "spos",
]
