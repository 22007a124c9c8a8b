"""Path samplers: which subnets a training step draws."""

from nni_supernet_ext.paths.uniform import UniformPathSampler

__all__ = ["UniformPathSampler"]
