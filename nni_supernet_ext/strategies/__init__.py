"""NNI strategies: train a supernet, search it."""

from nni_supernet_ext.strategies.evolution import EvaluatedSubnet, SupernetEvolution
from nni_supernet_ext.strategies.supernet import SupernetStrategy

__all__ = ["EvaluatedSubnet", "SupernetEvolution", "SupernetStrategy"]
