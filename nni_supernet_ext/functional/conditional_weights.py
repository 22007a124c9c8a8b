"""Which copies of its weights a candidate has when they depend on other choices, and where each comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

__all__ = ["copy_pairs", "dependency_cycle", "weight_keys"]

Key = tuple[int, ...]
"""One copy: for each choice the weights depend on, the position of its candidate."""


def weight_keys(sizes: Sequence[int], depth: int) -> list[Key]:
    """List the copies that are in use once the first ``depth`` dependencies count.

    What a deeper dependency chooses does not matter yet, so its first candidate stands for all.

    Args:
        sizes: Number of candidates of each choice that the weights depend on, in order.
        depth: How many of them count, from 0 to ``len(sizes)``.

    Returns:
        Keys of length ``len(sizes)``, the original weights' (all zeros) first.

    Example:
        >>> weight_keys([2, 3], 1)
        [(0, 0), (1, 0)]
        >>> len(weight_keys([2, 3], 2))
        6

    Reference:
        Laube and Zell, "Conditional super-network weights", 2021, the section on weight splitting: weights for
        each combination of an operation and the operations it depends on.
    """
    rest = (0,) * (len(sizes) - depth)
    return [(*front, *rest) for front in product(*(range(size) for size in sizes[:depth]))]


def copy_pairs(sizes: Sequence[int], depth: int) -> Iterator[tuple[Key, Key]]:
    """Yield which copy each copy that comes into use at a depth starts from.

    Args:
        sizes: Number of candidates of each choice that the weights depend on, in order.
        depth: The new depth, from 1 to ``len(sizes)``.

    Yields:
        Key of the copy in use before, key of the new one.

    Example:
        >>> list(copy_pairs([2, 3], 2))
        [((0, 0), (0, 1)), ((0, 0), (0, 2)), ((1, 0), (1, 1)), ((1, 0), (1, 2))]

    Reference:
        Laube and Zell, "Conditional super-network weights", 2021, the section on weight splitting: split weights
        start from the weights they were split from.
    """
    for source in weight_keys(sizes, depth - 1):
        for position in range(1, sizes[depth - 1]):
            yield source, (*source[: depth - 1], position, *source[depth:])


def dependency_cycle(dependencies: Mapping[str, Sequence[str]]) -> list[str]:
    """Return choices that depend on each other in a circle, or an empty list.

    Args:
        dependencies: Choice -> choices its weights depend on.

    Returns:
        The circle, its first choice again at the end.

    Example:
        >>> dependency_cycle({'b': ['a'], 'c': ['b']})
        []
        >>> dependency_cycle({'a': ['c'], 'b': ['a'], 'c': ['b']})
        ['a', 'c', 'b', 'a']
    """
    done: set[str] = set()
    for start in dependencies:
        path: list[str] = [start]
        open_branches = [iter(dependencies[start])]
        while open_branches:
            following = next(open_branches[-1], None)
            if following is None:
                open_branches.pop()
                done.add(path.pop())
            elif following in path:
                return [*path[path.index(following) :], following]
            elif following in dependencies and following not in done:
                path.append(following)
                open_branches.append(iter(dependencies[following]))
    return []
