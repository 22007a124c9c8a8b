"""The law of clean hands: a training leaves everything as it was, and sets only what is its own."""

from __future__ import annotations

from pathlib import Path

from nni_supernet_ext.testing.case import MethodCase
from nni_supernet_ext.testing.laws.data_contents import DataContents
from nni_supernet_ext.testing.laws.demands import require
from nni_supernet_ext.testing.laws.trainer_settings import trainer_settings
from nni_supernet_ext.testing.laws.watch import Watch
from nni_supernet_ext.testing.training import train


def check_clean(case: MethodCase, root: Path) -> None:
    """Check that the fit leaves model, optimizer, data and evaluator as they were, and sets only what is claimed.

    Draws are the path sampler's: nobody else may change them, and it itself only before it has returned them.

    Args:
        case: The method. Its evaluator holds loaders rather than a data module, and no learning-rate scheduler.
        root: Empty folder for everything that is written.

    Returns:
        Nothing where the law holds.

    Raises:
        AssertionError: What is left behind: hooks, replaced methods, parameters frozen, attributes of modules,
            buffers, entries of the optimizer's parameter groups, torch's global settings, the trainer's
            settings and callbacks, arguments, loaders, or other values in the tensors of a data set. Or what was
            set in a parameter group or in the optimizer's state during the training though no part claims it. Or
            how the draws of a step were changed.

    Example:
        >>> import tempfile
        >>> from nni_supernet_ext.testing import CASES
        >>> check_clean(CASES[0], Path(tempfile.mkdtemp()))
    """
    evaluator = case.evaluator(max_epochs=1, root=root)
    loaders = (evaluator.train_dataloaders, evaluator.val_dataloaders)
    contents, limits = DataContents(loaders), trainer_settings(evaluator.trainer)
    callbacks, fit_kwargs = list(evaluator.trainer.callbacks), dict(evaluator.fit_kwargs)
    kept = MethodCase(case.name, case.settings, space=case.space, evaluator=lambda **_: evaluator)
    settings, watch = case.settings(), Watch()
    settings["callbacks"] = [*settings.get("callbacks", []), watch]
    run = train(kept, settings, root, epochs=1)
    require(
        not watch.draws.change,
        f"{case.name} changes the draws of a step that the path sampler has returned: {watch.draws.change}. Draw "
        "them so in a PathSampler; factors belong on `state.scales`",
    )
    left = watch.left_behind(run.strategy.trained.model, evaluator.module)
    require(not left, f"{case.name} leaves {'; '.join(left)}")
    undeclared = [f"`{entry}` ({values})" for entry, values in watch.undeclared.items()]
    require(not undeclared, f"{case.name} sets {', '.join(undeclared)} of the optimizer without a claim on it")
    settings_left = [name for name, value in trainer_settings(evaluator.trainer).items() if limits[name] != value]
    require(not settings_left, f"{case.name} leaves settings of the trainer changed: {settings_left}")
    require(evaluator.trainer.callbacks == callbacks, f"{case.name} leaves callbacks on the trainer")
    require(evaluator.fit_kwargs == fit_kwargs, f"{case.name} leaves the evaluator's fit_kwargs changed")
    data = (evaluator.train_dataloaders, evaluator.val_dataloaders)
    require(data == loaders, f"{case.name} leaves other data in the evaluator")
    require(
        not contents.changed(), f"{case.name} leaves tensors of the data changed in place: {contents.changed()}"
    )
