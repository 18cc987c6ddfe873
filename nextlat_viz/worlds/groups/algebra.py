"""Finite groups of permutations: lists of elements, cycle notation, multiplication tables."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from numpy.typing import ArrayLike

from nextlat_viz.worlds import checks


def arrangements(things: int, even: bool = False) -> Int[np.ndarray, "elements things"]:
    """List all permutations, or the even ones, in lexical order; row g holds the place that each thing moves to.

    Examples
    --------
    >>> arrangements(3, even=True).tolist()
    [[0, 1, 2], [1, 2, 0], [2, 0, 1]]
    """
    elements = np.array(list(itertools.permutations(range(things))))
    if not even:
        return elements
    pairs = np.triu_indices(things, 1)
    swapped = (elements[:, pairs[0]] > elements[:, pairs[1]]).sum(1)
    return elements[swapped % 2 == 0]


def cycles(element: Int[np.ndarray, " places"]) -> str:
    """Write a permutation as cycles of places counted from 1; the identity is ``"e"``.

    Examples
    --------
    >>> cycles(np.array([1, 0, 3, 2, 4]))
    '(12)(34)'
    """
    seen: set[int] = set()
    text = ""
    for first in range(len(element)):
        cycle = [first]
        while (after := int(element[cycle[-1]])) != first:
            cycle.append(after)
        if len(cycle) > 1 and first not in seen:
            text += f"({''.join(str(place + 1) for place in cycle)})"
        seen |= set(cycle)
    return text or "e"


def permutations(values: ArrayLike) -> Int[np.ndarray, "elements places"]:
    """Elements as int64; a ValueError that names the first that is not a permutation."""
    elements = np.asarray(values)
    if elements.ndim != 2 or elements.dtype.kind not in "iu" or not elements.size:
        raise ValueError(
            f"elements must be integers of shape (elements, places), got {elements.dtype} of shape {elements.shape}"
        )
    wrong = np.flatnonzero((np.sort(elements, axis=1) != np.arange(elements.shape[1])).any(1))
    if wrong.size:
        raise ValueError(
            f"each element must be a permutation of 0..{elements.shape[1] - 1}, got {elements[wrong[0]].tolist()} as "
            f"element {wrong[0]}"
        )
    return elements.astype(np.int64)


def multiplication(elements: Int[np.ndarray, "elements places"]) -> Int[np.ndarray, "elements elements"]:
    """Multiplication table: entry (x, y) applies x, then y; a ValueError if elements repeat or a product is missing."""
    index = {element.tobytes(): k for k, element in enumerate(elements)}
    if len(index) < len(elements):
        raise ValueError(f"elements must all differ, got {len(elements)} of which {len(index)} differ")
    table = [[index.get(second[first].tobytes(), -1) for second in elements] for first in elements]
    missing = np.argwhere(np.array(table) < 0)
    if missing.size:
        first, second = missing[0]
        product = elements[second][elements[first]].tolist()
        raise ValueError(
            f"elements must be a group: element {first}, then element {second}, makes {product}, which is not in "
            "elements; add it"
        )
    return np.array(table)


def generating(
    table: Int[np.ndarray, "elements elements"], generators: Sequence[int], names: Sequence[str]
) -> tuple[int, ...]:
    """The generators of a group as integers; a ValueError if one repeats or they do not generate the group.

    Examples
    --------
    >>> table = multiplication(arrangements(3))
    >>> generating(table, [3, 2], ["e", "(23)", "(12)", "(123)", "(132)", "(13)"])
    (3, 2)
    """
    indices = tuple(checks.integer("generators", generator, 0, len(table) - 1) for generator in generators)
    listed = ", ".join(names[generator] for generator in indices) or "none"
    if len(set(indices)) < len(indices):
        raise ValueError(f"generators must all differ, got {listed}")
    # Every element of a finite group is a product of one or more generators.
    reached = np.isin(np.arange(len(table)), indices)
    for _ in table:
        reached[table[np.ix_(reached, np.array(indices, dtype=int))]] = True
    if not reached.all():
        missing = names[int(np.argmin(reached))]
        raise ValueError(
            f"generators {listed} generate {int(reached.sum())} of the {len(table)} elements of the group, but not "
            f"{missing!r}: add a generator"
        )
    return indices
