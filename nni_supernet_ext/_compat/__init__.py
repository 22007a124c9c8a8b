"""The only place that knows private or version-dependent parts of the host (NNI, Lightning, torchvision).

`install` is called first thing by the package's ``__init__``; it imports neither NNI nor Lightning nor torch.
"""

from __future__ import annotations

from nni_supernet_ext._compat.noise import install_noise_filters
from nni_supernet_ext._compat.startup import open_gate

__all__ = ["install"]


def install() -> None:
    """Prepare this process for importing NNI: torchvision's import and the known noise.

    May be called any number of times.

    Example:
        >>> install()
    """
    open_gate()
    install_noise_filters()
