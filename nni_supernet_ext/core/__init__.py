"""The training step of a supernet: draws, slots, checks, validation, complexity."""

from nni_supernet_ext.core.callback import SupernetCallback
from nni_supernet_ext.core.candidate_parameters import CandidateParameters
from nni_supernet_ext.core.complexity import Extremes, find_extremes, resolve_complexity
from nni_supernet_ext.core.component import Component
from nni_supernet_ext.core.domain import Domain, categorical_drawer
from nni_supernet_ext.core.draw import Draw, describe_sample
from nni_supernet_ext.core.evaluation import SubnetEvaluator
from nni_supernet_ext.core.flop_count import flop_count
from nni_supernet_ext.core.parameter_count import parameter_count
from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.core.slots import DataSampler, Objective, PathSampler, WeightStore
from nni_supernet_ext.core.state import StepState
from nni_supernet_ext.core.supernet import Supernet

__all__ = [
    "CandidateParameters",
    "Component",
    "DataSampler",
    "Domain",
    "Draw",
    "Extremes",
    "Objective",
    "PathSampler",
    "Plan",
    "StepState",
    "SubnetEvaluator",
    "Supernet",
    "SupernetCallback",
    "WeightStore",
    "categorical_drawer",
    "describe_sample",
    "find_extremes",
    "flop_count",
    "parameter_count",
    "resolve_complexity",
]
