"""Copies and their origins, by hand."""

from __future__ import annotations

from nni_supernet_ext.functional import copy_pairs, dependency_cycle, weight_keys


def test_keys_by_hand():
    assert weight_keys([], 0) == [()]
    assert weight_keys([3], 0) == [(0,)]
    assert weight_keys([2, 2], 2) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert len(weight_keys([5, 5], 1)) == 5 and len(weight_keys([5, 5], 2)) == 25


def test_every_copy_in_use_comes_from_the_one_used_before():
    sizes = [3, 1, 4]
    origin = {(0, 0, 0): (0, 0, 0)}
    for depth in (1, 2, 3):
        for source, target in copy_pairs(sizes, depth):
            assert source in origin and target not in origin
            origin[target] = source
        assert set(origin) == set(weight_keys(sizes, depth))
    for target, source in origin.items():
        assert sum(a != b for a, b in zip(target, source, strict=True)) == (target != source)


def test_long_chains_and_diamonds_have_no_cycle():
    assert dependency_cycle({str(i): [str(i - 1)] for i in range(1, 3000)}) == []
    assert dependency_cycle({"d": ["b", "c"], "b": ["a"], "c": ["a"]}) == []
    assert dependency_cycle({"d": ["b", "c"], "b": ["a"], "c": ["a"], "a": ["d"]}) in (
        ["d", "b", "a", "d"],
        ["d", "c", "a", "d"],
    )
