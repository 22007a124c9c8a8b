"""Weight stores: which copy of the weights a subnet uses."""

from nni_supernet_ext.weights.shared import SharedWeights
from nni_supernet_ext.weights.splitting import WeightSplitting

__all__ = ["SharedWeights", "WeightSplitting"]
