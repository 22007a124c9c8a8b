"""The shipped methods, described to the laws."""

from __future__ import annotations

from typing import Any

from nni_supernet_ext.callbacks import (
    ComplexityAwareLR,
    CosineLR,
    GradientVariance,
    LargestSubnetRegularization,
    LossByComplexity,
    MomentumSeparation,
    PathTrainability,
    RankingConsistency,
    TrainingHistory,
)
from nni_supernet_ext.data import ImportanceDataSampler
from nni_supernet_ext.objectives import InplaceDistillation, TaskLoss
from nni_supernet_ext.paths import (
    AttentivePathSampler,
    ComplexityPathSampler,
    FairPathSampler,
    GradualPathSampler,
    ImportancePathSampler,
    SandwichSampler,
    UniformPathSampler,
)
from nni_supernet_ext.testing.case import MethodCase
from nni_supernet_ext.testing.damping import DampedToySpace, Damping
from nni_supernet_ext.weights import SharedWeights, WeightSplitting

_BATCHES = 4


def linear_decay(step: int, epochs: int = 2) -> float:
    """Return the factor of linear decay to zero over the toy training."""
    total = _BATCHES * epochs
    return (total - step) / total


_FIXED = "Nothing in it is drawn at random."
_WATCHES = "It only watches the training."


def _one_cluster(sample: Any) -> int:
    return 0


def _uniform() -> dict[str, Any]:
    return {"paths": UniformPathSampler()}


def _fair() -> dict[str, Any]:
    return {"paths": FairPathSampler(fixed="op")}


def _proportional() -> dict[str, Any]:
    return {"paths": ComplexityPathSampler(power=2.0)}


def _proportional_neutral() -> dict[str, Any]:
    return {"paths": ComplexityPathSampler(power=0.0)}


def _gradual() -> dict[str, Any]:
    return {"paths": GradualPathSampler()}


def _shared() -> dict[str, Any]:
    return {"weights": SharedWeights()}


def _splitting() -> dict[str, Any]:
    return {"weights": WeightSplitting({"op": ["width"]}, milestones=[0.5])}


def _splitting_neutral() -> dict[str, Any]:
    return {"weights": WeightSplitting({}, milestones=[])}


def _task() -> dict[str, Any]:
    return {"objective": TaskLoss()}


def _calr() -> dict[str, Any]:
    return {"callbacks": [ComplexityAwareLR(gamma_max=4.0)]}


def _calr_neutral() -> dict[str, Any]:
    return {"callbacks": [ComplexityAwareLR(gamma_max=1.0)]}


def _ms() -> dict[str, Any]:
    return {"callbacks": [MomentumSeparation(by="op")]}


def _ms_neutral() -> dict[str, Any]:
    return {"callbacks": [MomentumSeparation(by=_one_cluster)]}


def _sandwich() -> dict[str, Any]:
    return {"paths": SandwichSampler()}


def _sandwich_neutral() -> dict[str, Any]:
    return {"paths": SandwichSampler(n_random=1, order=("random",))}


def _distilled() -> dict[str, Any]:
    return {"paths": SandwichSampler(), "objective": InplaceDistillation("adaptive_alpha")}


def _distilled_neutral() -> dict[str, Any]:
    return {"paths": SandwichSampler(), "objective": InplaceDistillation(beta=0.0)}


def _attentive() -> dict[str, Any]:
    return {"paths": AttentivePathSampler(n_candidates=2, n_bins=3, n_prior=50)}


def _attentive_neutral() -> dict[str, Any]:
    return {"paths": AttentivePathSampler(n_candidates=1, n_bins=1)}


def _largest_only() -> dict[str, Any]:
    callback = LargestSubnetRegularization(modules={Damping: "rate"})
    return {"paths": SandwichSampler(), "callbacks": [callback]}


def _largest_only_neutral() -> dict[str, Any]:
    roles = ("largest", "subnet", "smallest")
    callback = LargestSubnetRegularization(roles, modules={Damping: "rate"})
    return {"paths": SandwichSampler(), "callbacks": [callback]}


def _importance() -> dict[str, Any]:
    return {"paths": ImportancePathSampler(delta=0.9)}


def _importance_neutral() -> dict[str, Any]:
    return {"paths": ImportancePathSampler(delta=0.0)}


def _important_data() -> dict[str, Any]:
    return {"data": ImportanceDataSampler(tau=0.9)}


def _important_data_neutral() -> dict[str, Any]:
    return {"data": ImportanceDataSampler(tau=0.0)}


def _variance() -> dict[str, Any]:
    return {"callbacks": [GradientVariance()]}


def _trainability() -> dict[str, Any]:
    return {"callbacks": [PathTrainability(n_paths=2, n_examples=4)]}


def _losses() -> dict[str, Any]:
    return {"callbacks": [LossByComplexity(n_ranges=3, n_prior=50)]}


def _toy_truth(sample: Any) -> float:
    return float(sample["width"]) + ("conv", "linear", "skip").index(sample["op"])


def _ranking() -> dict[str, Any]:
    samples = [{"op": op, "width": width} for op in ("conv", "linear", "skip") for width in (4, 8)]
    return {"callbacks": [RankingConsistency(samples, _toy_truth, recalibrate_batches=2)]}


def _cosine() -> dict[str, Any]:
    return {"callbacks": [CosineLR()]}


def _cosine_neutral() -> dict[str, Any]:
    # The toy evaluator's base rate: the cosine runs from it to itself.
    return {"callbacks": [CosineLR(min_lr=0.05)]}


def _history() -> dict[str, Any]:
    return {"callbacks": [TrainingHistory()]}


CASES: list[MethodCase] = [
    MethodCase("UniformPathSampler", _uniform, _uniform),
    MethodCase(
        "FairPathSampler",
        _fair,
        no_neutral="Training every candidate in each step is the method; a single subnet has no candidates.",
    ),
    MethodCase("ComplexityPathSampler", _proportional, _proportional_neutral),
    MethodCase(
        "GradualPathSampler",
        _gradual,
        no_neutral="Every step but the first depends on the step before, which no argument switches off.",
    ),
    MethodCase("SharedWeights", _shared, _shared, no_randomness=_FIXED),
    MethodCase("WeightSplitting", _splitting, _splitting_neutral, no_randomness=_FIXED),
    MethodCase("TaskLoss", _task, _task, no_randomness=_FIXED),
    MethodCase(
        "ComplexityAwareLR",
        _calr,
        _calr_neutral,
        reference_evaluator={"schedule": linear_decay},
        no_randomness=_FIXED,
    ),
    MethodCase("MomentumSeparation", _ms, _ms_neutral, no_randomness=_FIXED),
    MethodCase("CosineLR", _cosine, _cosine_neutral, no_randomness=_FIXED),
    MethodCase("TrainingHistory", _history, _history, no_randomness=_WATCHES),
    MethodCase("SandwichSampler", _sandwich, _sandwich_neutral),
    MethodCase(
        "AttentivePathSampler",
        _attentive,
        _attentive_neutral,
        reads_by_design="The next subnet is chosen by the losses of candidates.",
    ),
    MethodCase("InplaceDistillation", _distilled, _distilled_neutral, reference=_sandwich),
    MethodCase(
        "LargestSubnetRegularization",
        _largest_only,
        _largest_only_neutral,
        reference=_sandwich,
        space=DampedToySpace,
    ),
    MethodCase("ImportancePathSampler", _importance, _importance_neutral),
    MethodCase("ImportanceDataSampler", _important_data, _important_data_neutral),
    MethodCase("GradientVariance", _variance, _variance, no_randomness=_WATCHES),
    MethodCase("PathTrainability", _trainability, _trainability, no_randomness=_WATCHES),
    MethodCase("LossByComplexity", _losses, _losses, no_randomness=_WATCHES),
    MethodCase("RankingConsistency", _ranking, _ranking, no_randomness=_WATCHES),
]
"""One case per public method; the law of the surface fails for a method without one."""
