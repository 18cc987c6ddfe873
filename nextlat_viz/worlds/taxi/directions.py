"""Which compass direction each street of an intersection goes by."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache

import numpy as np
from jaxtyping import Float, Int

from nextlat_viz.worlds.taxi.streets import COMPASS

FARTHEST = 90.0
"""No street goes by a direction further than this from its own, in degrees."""

_OCTANT = 360 / len(COMPASS)


def directions(
    nodes: Sequence[str],
    x: Float[np.ndarray, " nodes"],
    y: Float[np.ndarray, " nodes"],
    edges: Int[np.ndarray, "edges 2"],
) -> tuple[Int[np.ndarray, "nodes 8"], int]:
    """The table of turns, and how many streets in it go by a direction that is not the nearest to their own."""
    source, target = edges.T
    east, north = x[target] - x[source], y[target] - y[source]
    nowhere = (east == 0) & (north == 0)
    if nowhere.any():
        a, b = edges[np.argmax(nowhere)]
        raise ValueError(
            f"the street from {nodes[a]!r} to {nodes[b]!r} has no direction, both being at one place; move one of them "
            "or make them one intersection"
        )
    # Rounded, so that the last bit of a processor's arctan never decides a tie.
    bearing = np.round(np.rad2deg(np.arctan2(east, north)) % 360, 6)
    nearest = np.floor(bearing / _OCTANT + 0.5).astype(np.int64) % len(COMPASS)
    turns = np.full((len(nodes), len(COMPASS)), -1, np.int64)
    turns[source, nearest] = target
    crowded = np.flatnonzero(np.bincount(source, minlength=len(nodes)) > (turns >= 0).sum(1))
    by_source = np.argsort(source, kind="stable")
    bounds = np.searchsorted(source[by_source], [crowded, crowded + 1])
    moved = 0
    for node, first, last in zip(crowded.tolist(), *bounds.tolist(), strict=True):
        leaving = by_source[first:last]
        leaving = leaving[np.lexsort((target[leaving], bearing[leaving]))]
        octants = _spread(bearing[leaving])
        if octants is None:
            raise ValueError(_ambiguous(nodes[node], [nodes[place] for place in target[leaving]], bearing[leaving]))
        turns[node] = -1
        turns[node, octants] = target[leaving]
        moved += int((octants != nearest[leaving]).sum())
    return turns, moved


def _spread(bearing: Float[np.ndarray, " streets"]) -> Int[np.ndarray, " streets"] | None:
    """One octant for each of a node's streets, given in clockwise order; None where there is no way."""
    if len(bearing) > len(COMPASS):
        return None
    choices = _cyclic_choices(len(bearing))
    turned = np.abs((choices * _OCTANT - bearing + 180) % 360 - 180)
    cost = np.where(turned.max(1) <= FARTHEST, np.round((turned**2).sum(1), 3), np.inf)
    best = int(np.argmin(cost))
    return choices[best] if np.isfinite(cost[best]) else None


@cache
def _cyclic_choices(streets: int) -> Int[np.ndarray, "choices streets"]:
    """Every way to give so many streets different octants in clockwise order, wherever the first one starts."""
    chosen = itertools.combinations(range(len(COMPASS)), streets)
    return np.array([one[start:] + one[:start] for one in chosen for start in range(streets)])


def _ambiguous(node: str, targets: Sequence[str], bearing: Float[np.ndarray, " streets"]) -> str:
    streets = ", ".join(f"{name!r} at {angle:.0f}°" for name, angle in zip(targets, bearing.tolist(), strict=True))
    why = (
        f"only {len(COMPASS)} have a direction"
        if len(targets) > len(COMPASS)
        else f"no eight directions tell them apart with none turned by more than {FARTHEST:.0f}°"
    )
    return (
        f"{len(targets)} streets leave intersection {node!r}, and {why}: {streets}; take some out, or split the "
        "intersection in two"
    )
