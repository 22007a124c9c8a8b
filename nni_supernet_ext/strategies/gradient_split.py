"""Split a supernet where its candidates' gradients disagree most (GM-NAS)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from nni_supernet_ext._integers import integer_problems
from nni_supernet_ext._values import truth_value_problems
from nni_supernet_ext.core.batches import to_device
from nni_supernet_ext.core.domain import Domain
from nni_supernet_ext.core.draw import Sample
from nni_supernet_ext.core.loaders import detached_batches
from nni_supernet_ext.core.redirected_log import muted_log
from nni_supernet_ext.errors import ConfigurationError, ConstraintError
from nni_supernet_ext.functional._module_modes import preserved_modes
from nni_supernet_ext.functional.batch_norm import preserved_batch_norm
from nni_supernet_ext.functional.graph_split import Cut, gradient_similarity, min_cut
from nni_supernet_ext.strategies.splits import Division, SplitContext, SplitRule


class GradientSplit(SplitRule):
    """Split in two the choice whose candidates agree least on how to update the weights they share.

    For each candidate of a choice, the gradient of the shared weights is summed over some random subnets that
    contain it, the same remaining choices (where constraints allow) and batches for every candidate. The
    candidates are the nodes of a graph weighted with the cosine similarity of these gradients; the min-cut into
    two groups of balanced size costs little where two groups disagree. The choice with the smallest mean weight of
    cut edges is split.

    Args:
        choices: Labels to compare. Default: all with at least two candidates.
        batches: Training batches per gradient. Default 4.
        subnets: Random subnets per candidate and batch. Default 4.
        balanced: Whether both groups have the same size, up to one. Default True.

    Raises:
        ConfigurationError: Where it divides: none of ``choices`` can be split any more, or one has too many
            candidates to compare all splits. What can be known before training is raised with all other problems
            of the run.
        DataError: The gradient of a candidate is zero everywhere or not finite.

    Example:
        >>> GradientSplit(batches=8).needs_warmup
        True

    Reference:
        Hu et al., "Generalizing Few-Shot NAS with Gradient Matching", ICLR 2022, the sections on the gradient
        matching score, on the partition as graph min-cut, and on the selection of the edge.

    Deviations:
        Choices with different numbers of candidates are compared by the mean, not the sum, of the cut edges.
    """

    needs_warmup = True

    def __init__(
        self,
        choices: Sequence[str] | None = None,
        batches: int = 4,
        subnets: int = 4,
        balanced: bool = True,
    ) -> None:
        self.choices = None if choices is None else tuple(choices)
        self.batches = batches
        self.subnets = subnets
        self.balanced = balanced

    def problems(self, domain: Domain) -> Iterable[str]:
        """Refuse unknown choices and counts below one."""
        unknown = [label for label in self.choices or () if label not in domain.candidates]
        if unknown:
            yield (
                f"Argument `choices` is expected to hold labels of choices, but got {unknown}. Use some of "
                f"{list(domain.candidates)}."
            )
        yield from integer_problems("Use 4.", batches=self.batches, subnets=self.subnets)
        yield from truth_value_problems("Use True, the default.", balanced=self.balanced)

    def divide(self, context: SplitContext) -> Division:
        """Compare all choices and return the cheapest cut."""
        cuts = self.cuts(context)
        label = min(cuts, key=lambda name: cuts[name].mean)
        candidates = context.supernet.domain.candidates[label]
        groups = tuple(tuple(candidates[i] for i in group) for group in cuts[label].groups)
        return Division(label, groups)

    def cuts(self, context: SplitContext) -> dict[str, Cut]:
        """Return the best cut of every choice that is compared.

        Args:
            context: The supernet, its data and the generator.

        Returns:
            Label -> cut. Weights, BN statistics and random states are afterwards as before.
        """
        eligible = context.eligible()
        labels = [label for label in eligible if self.choices is None or label in self.choices]
        if not labels:
            raise ConfigurationError(
                f"Argument `choices` is expected to hold a choice that can still be split, but got {self.choices}. "
                f"Use some of {eligible}."
            )
        domain, device = context.supernet.domain, next(context.supernet.model.parameters()).device
        others: list[Sample] = [domain.random(context.rng) for _ in range(self.subnets)]
        batches = [
            to_device(context.training_module, batch, device)
            for batch in detached_batches(context.train_loader, self.batches, context.seed)
        ]
        found = {}
        for label in labels:
            subnets = _with_each_candidate(context, label, others)
            gradients = [_gradient(context, samples, batches) for samples in subnets]
            shared = [name for name in gradients[0] if all(name in gradient for gradient in gradients)]
            if shared:  # else its candidates have nothing to disagree about
                vectors = [torch.cat([gradient[name].reshape(-1) for name in shared]) for gradient in gradients]
                found[label] = min_cut(gradient_similarity(vectors), self.balanced)
        if not found:
            raise ConfigurationError(
                "Argument `choices` is expected to hold a choice whose candidates are trained with weights "
                f"that they share, but got {labels}, where there are none. Use ChoiceSplit, which looks at none."
            )
        return found


def _with_each_candidate(context: SplitContext, label: str, others: list[Sample]) -> list[list[Sample]]:
    """Return subnets with each candidate of a choice.

    Args:
        context: The supernet and the generator.
        label: The choice.
        others: Random subnets, whose remaining choices serve all candidates. Where the space has constraints, as
            many are drawn that satisfy them with every candidate, or, where none does, for each candidate anew.
    """
    domain = context.supernet.domain
    candidates = domain.candidates[label]
    if domain.has_constraints:

        def admits_all(sample: Sample) -> bool:
            return all(domain.satisfies_constraints({**sample, label: value}) for value in candidates)

        try:
            others = [domain.random(context.rng, admits_all) for _ in others]
        except ConstraintError:
            parts = [domain.restricted({label: [value]}) for value in candidates]
            return [[part.random(context.rng) for _ in others] for part in parts]
    return [[{**sample, label: value} for sample in others] for value in candidates]


def _gradient(context: SplitContext, samples: list[Sample], batches: list[Any]) -> dict[str, Tensor]:
    """Sum the gradients of the training loss over subnets and batches, by name; nothing else changes."""
    module, model = context.training_module, context.supernet.model
    parameters = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    sums: dict[str, Tensor] = {}
    devices = [p.device for _, p in parameters[:1] if p.device.type == "cuda"]
    with (
        preserved_modes(module),
        preserved_batch_norm(model),
        muted_log(module),
        torch.random.fork_rng(devices=devices),
    ):
        if not module.training:
            module.train()
        torch.manual_seed(context.seed)
        for index, batch in enumerate(batches):
            for sample in samples:
                context.supernet.activate(sample)
                output = module.training_step(batch, index)
                loss = output["loss"] if isinstance(output, dict) else output
                found = torch.autograd.grad(loss, [p for _, p in parameters], allow_unused=True)
                for (name, _), gradient in zip(parameters, found, strict=True):
                    if gradient is not None:
                        sums[name] = sums[name] + gradient if name in sums else gradient
    return sums
