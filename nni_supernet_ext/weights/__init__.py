"""Weight stores: which copy of the weights a subnet uses."""

from nni_supernet_ext.weights.shared import SharedWeights

__all__ = ["SharedWeights"]
