"""Supernet training methods for neural architecture search as plug-ins of NNI 3.0."""

from nni_supernet_ext import _compat

_compat.install()

__version__ = "0.1.0"
