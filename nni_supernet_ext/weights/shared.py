"""One copy of the weights for all subnets."""

from __future__ import annotations

from nni_supernet_ext.core.draw import Sample
from nni_supernet_ext.core.slots import WeightStore
from nni_supernet_ext.core.supernet import Supernet


class SharedWeights(WeightStore):
    """Share every candidate's weights among all subnets that contain it: plain weight sharing.

    Example:
        >>> from nni_supernet_ext.testing import toy_supernet
        >>> supernet = toy_supernet()
        >>> SharedWeights().activate(supernet, {'op': 'skip', 'width': 4})
        >>> supernet.active['op']
        'skip'

    Reference:
        Pham et al., "Efficient Neural Architecture Search via Parameter Sharing", ICML 2018, section 2.
    """

    def activate(self, supernet: Supernet, sample: Sample) -> None:
        """Activate the subnet in place."""
        supernet.activate(sample)

    def digest(self, supernet: Supernet) -> str:
        """Return the SHA-256 of all weights and statistics."""
        return supernet.digest()
