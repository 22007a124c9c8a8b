"""Laws that every method obeys, with toy settings to run them: for this package and for yours."""

from nni_supernet_ext.testing.case import MethodCase
from nni_supernet_ext.testing.cases import CASES
from nni_supernet_ext.testing.device_reads import device_reads
from nni_supernet_ext.testing.laws.clean import check_clean
from nni_supernet_ext.testing.laws.commute import check_commute
from nni_supernet_ext.testing.laws.compose import check_compose
from nni_supernet_ext.testing.laws.freeze import check_freeze
from nni_supernet_ext.testing.laws.hot_path import check_hot_path
from nni_supernet_ext.testing.laws.neutral import check_neutral
from nni_supernet_ext.testing.laws.ranks import check_ranks
from nni_supernet_ext.testing.laws.resume import check_resume
from nni_supernet_ext.testing.laws.seed import check_seed
from nni_supernet_ext.testing.toys import ToyCellSpace, ToySpace, toy_data, toy_evaluator, toy_supernet
from nni_supernet_ext.testing.training import train

__all__ = [
    "CASES",
    "MethodCase",
    "ToyCellSpace",
    "ToySpace",
    "check_clean",
    "check_commute",
    "check_compose",
    "check_freeze",
    "check_hot_path",
    "check_neutral",
    "check_ranks",
    "check_resume",
    "check_seed",
    "device_reads",
    "toy_data",
    "toy_evaluator",
    "toy_supernet",
    "train",
]
