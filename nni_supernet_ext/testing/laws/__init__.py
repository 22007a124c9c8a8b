"""The laws: what must hold for every method. Each raises AssertionError with what broke."""

from nni_supernet_ext.testing.laws.clean import check_clean
from nni_supernet_ext.testing.laws.commute import check_commute
from nni_supernet_ext.testing.laws.compose import check_compose, merge_settings
from nni_supernet_ext.testing.laws.freeze import check_freeze
from nni_supernet_ext.testing.laws.neutral import check_neutral
from nni_supernet_ext.testing.laws.ranks import check_ranks
from nni_supernet_ext.testing.laws.resume import check_resume
from nni_supernet_ext.testing.laws.seed import check_seed

__all__ = [
    "check_clean",
    "check_commute",
    "check_compose",
    "check_freeze",
    "check_neutral",
    "check_ranks",
    "check_resume",
    "check_seed",
    "merge_settings",
]
