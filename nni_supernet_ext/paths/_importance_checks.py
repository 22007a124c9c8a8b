"""What an importance path sampler cannot work with."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from nni_supernet_ext.core.candidate_parameters import CandidateParameters
from nni_supernet_ext.core.plan import Plan
from nni_supernet_ext.errors import ConfigurationError
from nni_supernet_ext.functional.importance import resolve_schedule
from nni_supernet_ext.paths._accept import accept_problems

if TYPE_CHECKING:
    from nni_supernet_ext.paths.importance import ImportancePathSampler

_ALLOWED = {
    "granularity": ("choice", "operation"),
    "update": ("epoch", "step"),
    "accumulation": ("mean", "pairwise"),
    "gradient": ("raw", "clipped"),
    "norm": ("joint", "sum"),
    "unseen": ("keep", "zero"),
}


def argument_problems(sampler: ImportancePathSampler) -> Iterator[str]:
    """Yield what is wrong with the arguments by themselves."""
    for name, allowed in _ALLOWED.items():
        value = getattr(sampler, name)
        if value not in allowed:
            yield (
                f"Argument `{name}` is expected to be one of {allowed}, but got {value!r}. Use {allowed[0]!r}, "
                "the default."
            )
    yield from accept_problems(sampler.accept)
    try:
        resolve_schedule(sampler.delta, "delta")
    except ConfigurationError as error:
        yield from error.problems


def plan_problems(sampler: ImportancePathSampler, plan: Plan) -> Iterator[str]:
    """Yield why the sampler cannot work in this run."""
    yield from _label_problems(sampler, plan)
    if sampler.gradient == "clipped" and plan.step_every == "batch" and plan.paths.draws_per_step != 1:
        yield (
            "Argument `gradient` is expected to be 'raw' with several draws in an optimizer step, but got "
            "'clipped', and clipping sees only their sum. Use `gradient='raw'`, or `step_every='subnet'`."
        )
    if sampler.reweight and (sampler.accept is not None or plan.supernet.domain.has_constraints):
        yield (
            "Argument `reweight` is expected to be False where samples are rejected, but got True with `accept` or "
            "a constraint in the space, under which a draw's probability is not known. Use `reweight=False`, or "
            "leave the constraint out."
        )


def _label_problems(sampler: ImportancePathSampler, plan: Plan) -> Iterator[str]:
    if sampler.labels is not None and (
        isinstance(sampler.labels, str) or not isinstance(sampler.labels, Collection)
    ):
        yield (
            f"Argument `labels` is expected to be a list of choices' labels or None, but got {sampler.labels!r}. "
            "Use None for all choices whose candidates have weights."
        )
        return
    known = CandidateParameters(plan.supernet).labels
    labels = known if sampler.labels is None else tuple(sampler.labels)
    unknown = [label for label in labels if label not in known]
    if unknown:
        yield (
            f"Argument `labels` is expected to name choices whose candidates have weights, but got {unknown}. Use "
            f"some of {list(known)}, or None for all of them."
        )
    elif not labels:
        yield (
            "The space is expected to have a choice whose candidates have weights, but "
            f"{type(plan.supernet.model).__name__} has none, so no candidate has a gradient. Use "
            "UniformPathSampler."
        )
    elif sampler.granularity == "operation":
        lists = {tuple(map(repr, plan.supernet.domain.candidates[label])) for label in labels}
        if len(lists) > 1:
            yield (
                "Argument `granularity` is expected to be 'choice' where choices have different candidates, but "
                f"got 'operation' for {len(lists)} different lists of candidates. Use 'choice', or name choices "
                "with the same candidates in `labels`."
            )
