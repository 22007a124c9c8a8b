"""Read what parts declare (claims, problems, hooks) and say where a declaration would go unheard."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from pytorch_lightning import Callback

from nni_supernet_ext.core.component import Component

if TYPE_CHECKING:
    from nni_supernet_ext.core.plan import Plan

_LIGHTNING_HOOKS = tuple(name for name in vars(Callback) if name.startswith("on_"))


def with_bases(part: Any) -> Iterator[Any]:
    """Iterate over a part and what it wraps as ``base``, from the outside in; over nothing for None."""
    while part is not None:
        yield part
        inner = getattr(part, "base", None)
        part = inner if isinstance(inner, Component) else None


def claims_of(part: Any) -> Collection[str]:
    """Return the decisions a part claims; none where the claims are malformed: see :func:`claim_problems`."""
    claims = getattr(part, "claims", ())
    return claims if _well_formed(claims) else ()


def claim_problems(part: Any) -> Iterator[str]:
    """Yield what is wrong with the form of a part's claims."""
    claims = getattr(part, "claims", ())
    if not _well_formed(claims):
        wanted = repr({claims}) if isinstance(claims, str) else "{'lr'}, or frozenset() for none"
        yield (
            f"Attribute `claims` of {type(part).__name__} is expected to be a set of names, but got {claims!r}. "
            f"Write {wanted}."
        )


def problems_of(part: Component, plan: Plan) -> list[str]:
    """Return the problems a part finds in the plan; None counts as none and a text as one.

    Args:
        part: The part.
        plan: The whole run.

    Returns:
        The messages; one about the part itself where it returns neither.
    """
    found: Any = part.problems(plan)
    if found is None:
        return []
    if isinstance(found, str):
        return [found]
    if not isinstance(found, Iterable):
        name = type(part).__name__
        return [
            f"Method `problems` of {name} is expected to return messages, but got {found!r}. Yield one text for "
            "each problem, and nothing where there is none."
        ]
    return list(found)


def hook_problems(plan: Plan) -> Iterator[str]:
    """Yield the parts in slots with hooks of Lightning, which only callbacks get: they would never be called.

    Args:
        plan: The whole run. A part that is a callback too and stands among the callbacks gets its hooks.
    """
    heard = {id(callback) for callback in (*plan.callbacks, *plan.trainer.callbacks)}
    for slot in ("paths", "data", "weights", "objective"):
        for part in takewhile(lambda one: id(one) not in heard, with_bases(getattr(plan, slot))):
            hooks = [name for name in _LIGHTNING_HOOKS if _defines(part, name)]
            if hooks:
                name = type(part).__name__
                yield (
                    f"Slot `{slot}` is expected to hold a part without hooks of Lightning, which only callbacks "
                    f"get, but got {name} with {', '.join(f'`{hook}`' for hook in hooks)}. Move what they do to a "
                    f"SupernetCallback given in `callbacks`, or to {name}'s `prepare`, `finish` or step hooks."
                )


def _well_formed(claims: Any) -> bool:
    if isinstance(claims, (str, bytes)) or not isinstance(claims, Collection):
        return False
    return all(isinstance(claim, str) for claim in claims)


def _defines(part: Component, hook: str) -> bool:
    return getattr(type(part), hook, None) not in (None, getattr(Callback, hook))
