"""Which choices the weights of each layer choice depend on: named schemes, mappings, and their faults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from nni.nas.oneshot.pytorch.supermodule.sampling import PathSamplingLayer
from torch import nn

from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.core.split_layer import SplitLayer
from nni_supernet_ext.core.supernet import Supernet
from nni_supernet_ext.functional.conditional_weights import dependency_cycle
from nni_supernet_ext.weights._graph import graph_dependencies

SCHEMES = ("sequential", "nasbench201", "graph")
Dependencies = Mapping[str, tuple[str, ...]]

_NASBENCH201 = {"1_2": ("0_1",), "1_3": ("0_1",), "2_3": ("0_2", "1_2")}


def resolve_dependencies(scheme: str | Mapping[str, Sequence[str]], plan: Plan) -> Dependencies:
    """Return a scheme's dependencies in a space, choices without any left out.

    Args:
        scheme: One of :data:`SCHEMES`, or label -> labels its weights depend on, the first one first.
        plan: The run.
    """
    if isinstance(scheme, Mapping):
        listed = {str.__str__(label): [on] if isinstance(on, str) else list(on) for label, on in scheme.items()}
        return {label: tuple(map(str.__str__, on)) for label, on in listed.items() if on}
    if scheme == "graph":
        # Of the whole space: a part of it that is trained alone must find the same.
        whole = Supernet(plan.supernet.model)
        whole.active = plan.supernet.active
        return graph_dependencies(whole, plan.example_inputs())
    labels = layer_labels(plan.supernet)
    if scheme == "sequential":
        return {label: (before,) for before, label in pairwise(labels)}
    return _nasbench201(labels)


def layer_labels(supernet: Supernet) -> list[str]:
    """Return the labels of all layer choices in the model's order, each once."""
    layers = (module for module in supernet.model.modules() if isinstance(module, PathSamplingLayer))
    return list(dict.fromkeys(str.__str__(layer.label) for layer in layers))


def _nasbench201(labels: Sequence[str]) -> Dependencies:
    """Return the dependencies of the cell's edges; their labels may stand in a scope."""
    by_edge = {label.rpartition("/")[2]: label for label in labels}
    return {
        by_edge.get(edge, edge): tuple(by_edge.get(source, source) for source in sources)
        for edge, sources in _NASBENCH201.items()
    }


def scheme_problems(scheme: object) -> Iterable[str]:
    """Yield what is wrong with a scheme by itself."""
    if isinstance(scheme, Mapping):
        for label, sources in scheme.items():
            if not isinstance(sources, (str, Sequence)):
                yield (
                    f"Argument `dependencies` is expected to map a label to labels, but {str(label)!r} got "
                    f"{sources!r}. Give a label or a list of labels."
                )
    elif scheme not in SCHEMES:
        yield (
            f"Argument `dependencies` is expected to be one of {SCHEMES} or a mapping from labels to labels, but "
            f"got {scheme!r}. Use for example 'sequential'."
        )


def dependency_problems(dependencies: Dependencies, plan: Plan) -> Iterable[str]:
    """Yield what is wrong with resolved dependencies in a space."""
    layers, choices = layer_labels(plan.supernet), list(plan.supernet.domain.singles)
    for label, sources in dependencies.items():
        if label not in layers:
            yield (
                f"Argument `dependencies` is expected to split layer choices, but got {label!r}. Use some of "
                f"{layers}."
            )
        unknown = [source for source in sources if source not in choices]
        if unknown:
            yield (
                f"Argument `dependencies` is expected to name choices of one among finitely many, but {label!r} "
                f"depends on {unknown}. Use some of {choices}."
            )
        if label in sources or len(set(sources)) < len(sources):
            yield (
                f"Argument `dependencies` is expected to name other choices, each once, but {label!r} depends on "
                f"{list(sources)}. Remove {label!r} itself and repetitions."
            )
    circle = dependency_cycle({label: [s for s in on if s != label] for label, on in dependencies.items()})
    if circle:
        yield (
            f"Argument `dependencies` is expected to have no circle, but got {' <- '.join(circle)}. Remove one of "
            "these dependencies."
        )


def depth_problems(milestones: Sequence[float], dependencies: Dependencies) -> Iterable[str]:
    """Yield that there are no dependencies, or fewer than milestones at which they could begin to count."""
    if milestones and not dependencies:
        yield (
            "Argument `dependencies` is expected to lead to layer choices whose weights depend on another choice, "
            "but got none in this space. Map the label of a layer choice to that of another choice, or leave "
            "WeightSplitting out; a Cell's choices cannot be split."
        )
        return
    deepest = max(map(len, dependencies.values()), default=0)
    if len(milestones) > deepest:
        yield (
            f"Argument `milestones` is expected to hold at most {deepest}, one for each dependency of the choice "
            f"with most, but got {milestones!r}. Remove some."
        )


def layer_problems(dependencies: Dependencies, plan: Plan) -> Iterable[str]:
    """Yield which layers cannot be split, or are already, in another way."""
    for layer in plan.supernet.model.modules():
        if not isinstance(layer, PathSamplingLayer):
            continue
        label = str.__str__(layer.label)
        wanted = dependencies.get(label, ())
        if isinstance(layer, SplitLayer):
            if layer.depends != wanted:
                yield (
                    f"The supernet is expected to be unsplit, or split in the same way, but the weights of "
                    f"{label!r} depend on {list(layer.depends)}, not on {list(wanted)}. Use the same "
                    "`dependencies` and number of `milestones` as before, or a new model space."
                )
                return
        elif wanted and not _owns_weights(layer, plan.supernet.model):
            yield (
                f"The layer choice {label!r} is expected to have weights of its own, but got some that it shares "
                "with the rest of the model, which copies could not share. Leave it out of `dependencies`, or give "
                "it its own."
            )
            return
        elif wanted and type(layer) is not PathSamplingLayer:
            yield (
                f"The layer choice {label!r} is expected to be NNI's own, but got {type(layer).__name__}. Leave it "
                "out of `dependencies`."
            )
            return


def _owns_weights(layer: nn.Module, model: nn.Module) -> bool:
    """Tell whether no module outside a layer uses a module or a weight inside it."""
    inside = {id(module) for module in layer.modules()}
    weights = {id(weight) for weight in layer.parameters()}
    for module in model.modules():
        if id(module) in inside:
            continue
        children = [child for child in module.children() if child is not layer]
        if any(id(child) in inside and any(True for _ in child.parameters()) for child in children):
            return False
        if any(id(weight) in weights for weight in module.parameters(recurse=False)):
            return False
    return True
