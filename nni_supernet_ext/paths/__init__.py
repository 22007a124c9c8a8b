"""Path samplers: which subnets a training step draws."""

from nni_supernet_ext.paths.attentive import AttentivePathSampler
from nni_supernet_ext.paths.complexity import ComplexityPathSampler
from nni_supernet_ext.paths.fair import FairPathSampler
from nni_supernet_ext.paths.importance import ImportancePathSampler
from nni_supernet_ext.paths.magic import GradualPathSampler
from nni_supernet_ext.paths.sandwich import SandwichSampler
from nni_supernet_ext.paths.uniform import UniformPathSampler

__all__ = [
    "AttentivePathSampler",
    "ComplexityPathSampler",
    "FairPathSampler",
    "GradualPathSampler",
    "ImportancePathSampler",
    "SandwichSampler",
    "UniformPathSampler",
]
