"""Look into a supernet: gradients of its subnets against each other, and scores that need no training."""

from __future__ import annotations

from nni_supernet_ext.diagnostics.deviation import deviation_by_complexity
from nni_supernet_ext.diagnostics.gradients import SubnetGradients
from nni_supernet_ext.diagnostics.scores import score_subnets
from nni_supernet_ext.diagnostics.similarity import pair_at_distance, similarity_by_distance

__all__ = [
    "SubnetGradients",
    "deviation_by_complexity",
    "pair_at_distance",
    "score_subnets",
    "similarity_by_distance",
]
