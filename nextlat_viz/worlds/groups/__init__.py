"""Word problems of finite groups: track the product of all elements read so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Int

from nextlat_viz.errors import one_of, shown
from nextlat_viz.worlds.base import Spec
from nextlat_viz.worlds.groups import algebra
from nextlat_viz.worlds.groups.world import GroupWorld as GroupWorld

# Names of elements; True for those of the Cayley graph; None for all elements as tokens.
Generators: TypeAlias = Sequence[str] | bool | None


def a5(generators: Generators = None) -> GroupWorld:
    """The alternating group A5: the 60 even permutations of five things, whose word problem is NC1-complete.

    Parameters
    ----------
    generators : sequence of str, or True, optional
        Names of elements that generate the group: only these are tokens. True takes those of the Cayley graph, here
        ``(12345)`` and ``(12)(34)``. By default all elements are tokens. All groups have this parameter.

    Raises
    ------
    UnknownNameError
        If a generator is not an element.
    ValueError
        If the generators do not generate the group.

    Examples
    --------
    >>> a5().vocabulary[:4]
    ('e', '(345)', '(354)', '(23)(45)')
    >>> world = a5(generators=["(12345)", "(12)(34)"])
    >>> world.decode(world.sample(1, 3, seed=1).tokens[0])
    '(12345) (12)(34) (12)(34)'
    """
    return _permutations("a5", algebra.arrangements(5, even=True), ("(12345)", "(12)(34)"), generators)


def s5(generators: Generators = None) -> GroupWorld:
    """The symmetric group S5: all 120 permutations of five things.

    Examples
    --------
    >>> s5().decode([0, 1, 119])
    'e (45) (15)(24)'
    """
    return _permutations("s5", algebra.arrangements(5), ("(12)", "(23)", "(34)", "(45)"), generators)


def a4(generators: Generators = None) -> GroupWorld:
    """The alternating group A4: the 12 even permutations of four things, the rotations of a tetrahedron.

    Examples
    --------
    >>> a4(generators=True).legal_first().sum()
    np.int64(2)
    """
    return _permutations("a4", algebra.arrangements(4, even=True), ("(123)", "(12)(34)"), generators)


def s4(generators: Generators = None) -> GroupWorld:
    """The symmetric group S4: all 24 permutations of four things, the rotations of a cube.

    Examples
    --------
    >>> len(s4().vocabulary)
    24
    """
    return _permutations("s4", algebra.arrangements(4), ("(12)", "(234)"), generators)


def s3(generators: Generators = None) -> GroupWorld:
    """The symmetric group S3: all six permutations of three things, the smallest group that does not commute.

    Examples
    --------
    >>> s3().vocabulary
    ('e', '(23)', '(12)', '(123)', '(132)', '(13)')
    """
    return _permutations("s3", algebra.arrangements(3), ("(123)", "(12)"), generators)


def a4xz5(generators: Generators = None) -> GroupWorld:
    """A4 x Z5: even permutations of four things, and turns of a dial with five places; 60 elements, solvable.

    Examples
    --------
    >>> a4xz5().vocabulary[:6]
    ('e', '+1', '+2', '+3', '+4', '(234)')
    """
    even = algebra.arrangements(4, even=True)
    index, turn = np.divmod(np.arange(60), 5)
    names = [algebra.cycles(even[k]) + (f"+{steps}" if steps else "") for k, steps in zip(index, turn, strict=True)]
    dial = (turn[:, None] + np.arange(5)) % 5
    return _group(
        "a4xz5",
        np.concatenate([even[index], 4 + dial], axis=1),
        [name.removeprefix("e") or "e" for name in names],
        ("(123)", "(12)(34)", "+1"),
        generators,
        {"permutation": even[index].astype(np.int8), "dial": turn.astype(np.int8)},
    )


def z60(generators: Generators = None) -> GroupWorld:
    """Z60: addition modulo 60, turns of a dial with 60 places; all elements commute.

    Examples
    --------
    >>> int(z60().replay(np.array([[50, 20]]))["state"][0, 1])
    10
    """
    places = np.arange(60)
    return _group("z60", (places[:, None] + places) % 60, [str(turn) for turn in range(60)], ("1",), generators)


def _permutations(
    name: str, elements: Int[np.ndarray, "elements places"], default: tuple[str, ...], generators: Generators
) -> GroupWorld:
    names = [algebra.cycles(element) for element in elements]
    return _group(name, elements, names, default, generators, {"permutation": elements.astype(np.int8)})


def _group(
    name: str,
    elements: Int[np.ndarray, "elements places"],
    vocabulary: list[str],
    default: tuple[str, ...],
    generators: Generators,
    readings: dict[str, np.ndarray] | None = None,
) -> GroupWorld:
    """Build a world. Its Cayley graph shows the generators if they are named, otherwise the usual ones."""
    if isinstance(generators, str):
        generators = generators.split()
    only_generators = generators is not None and generators is not False
    if generators is None or isinstance(generators, bool):
        selected = default
    elif isinstance(generators, Sequence):
        selected = tuple(one_of(f"generator of {name!r}:", element, vocabulary) for element in generators)
    else:
        raise TypeError(
            f"generators must be names of elements, such as {list(default)}, or True, got {shown(generators)}"
        )
    spec: Spec = {"name": name}
    if only_generators:
        spec["generators"] = True if selected == default else list(selected)
    indices = [vocabulary.index(element) for element in selected]
    return GroupWorld(name, elements, vocabulary, indices, readings, spec, only_generators=only_generators)
