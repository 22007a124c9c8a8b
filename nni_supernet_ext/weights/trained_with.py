"""Remember with which weight store a supernet was trained, so that nobody evaluates it with another by mistake."""

from __future__ import annotations

from torch import nn

from nni_supernet_ext.core.slots import WeightStore
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.weights.shared import SharedWeights

_ATTRIBUTE = "_supernet_weight_store"


def note_weight_store(model: nn.Module, store: WeightStore) -> None:
    """Note on a supernet what decides, from now on, which weights a subnet has; copies of it know that too.

    Args:
        model: The supernet's model.
        store: The weight store. One that derives from ``SharedWeights`` leaves everything in the supernet itself.
    """
    if isinstance(store, SharedWeights):
        model.__dict__.pop(_ATTRIBUTE, None)
    else:
        model.__dict__[_ATTRIBUTE] = type(store).__name__


def refuse_shared_weights(model: nn.Module, weights: WeightStore) -> None:
    """Refuse to evaluate with shared weights a supernet that was trained with another weight store.

    Args:
        model: The supernet's model.
        weights: The weight store of a search or an evaluation.

    Raises:
        ConfigurationError: Every subnet would get whichever weights are in the supernet at the moment.

    Example:
        >>> from nni_supernet_ext.testing import toy_supernet
        >>> refuse_shared_weights(toy_supernet().model, SharedWeights())  # which it was trained with
    """
    trained = model.__dict__.get(_ATTRIBUTE)
    if trained is not None and isinstance(weights, SharedWeights):
        raise ConfigurationError(
            f"Argument `weights` is expected to be the {trained} that belongs to this supernet since its training, "
            f"but got {type(weights).__name__}, the default: every subnet would have whichever weights are in the "
            "supernet at the moment. Use `weights=strategy.weights` of the strategy that trained it."
        )
