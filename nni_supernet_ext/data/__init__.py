"""Data samplers: which examples a step sees."""

from nni_supernet_ext.data.importance import ImportanceDataSampler

__all__ = ["ImportanceDataSampler"]
