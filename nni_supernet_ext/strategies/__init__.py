"""NNI strategies: train a supernet, search it."""

from nni_supernet_ext.strategies.best_of_parts import RetrainedSubnet, retrain_best_of_parts
from nni_supernet_ext.strategies.evaluated import EvaluatedSubnet
from nni_supernet_ext.strategies.evolution import SupernetEvolution
from nni_supernet_ext.strategies.few_shot import FewShotStrategy
from nni_supernet_ext.strategies.gradient_split import GradientSplit
from nni_supernet_ext.strategies.retrain import retrain
from nni_supernet_ext.strategies.splits import ChoiceSplit, Division, SplitContext, SplitRule
from nni_supernet_ext.strategies.sub_supernets import SubSupernet, SubSupernetWeights
from nni_supernet_ext.strategies.supernet import SupernetStrategy

__all__ = [
    "ChoiceSplit",
    "Division",
    "EvaluatedSubnet",
    "FewShotStrategy",
    "GradientSplit",
    "RetrainedSubnet",
    "SplitContext",
    "SplitRule",
    "SubSupernet",
    "SubSupernetWeights",
    "SupernetEvolution",
    "SupernetStrategy",
    "retrain",
    "retrain_best_of_parts",
]
