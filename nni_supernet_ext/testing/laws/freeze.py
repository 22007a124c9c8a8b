"""The law of extraction: a subnet computes the same alone as within the supernet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from nni_supernet_ext.testing.case import MethodCase
from nni_supernet_ext.testing.laws.demands import require
from nni_supernet_ext.testing.training import train


def check_freeze(case: MethodCase, root: Path, n_samples: int = 4) -> None:
    """Check that an activated subnet computes what the extracted network computes, in evaluation mode.

    Args:
        case: The method. Its evaluator's validation loader gives pairs whose first part is the model's input,
            and its space keeps the weights when it is frozen.
        root: Empty folder for everything that is written.
        n_samples: How many random subnets to compare.

    Returns:
        Nothing where the law holds.

    Raises:
        AssertionError: A subnet computes something else; its sample is in the message.

    Example:
        >>> import tempfile
        >>> from nni_supernet_ext.testing import CASES
        >>> check_freeze(CASES[0], Path(tempfile.mkdtemp()))
    """
    run = train(case, case.settings(), root, epochs=1)
    supernet = run.strategy.trained
    rng = np.random.default_rng(0)
    batch = next(iter(run.evaluator.val_dataloaders))[0]
    for _ in range(n_samples):
        sample = supernet.domain.random(rng)
        run.strategy.weights.activate(supernet, sample)
        supernet.model.eval()
        network = supernet.extract(sample).eval()
        with torch.no_grad():
            same = torch.equal(supernet.model(batch), network(batch))
        require(same, f"{case.name}: the frozen subnet {sample} computes something else")
