"""Exact next-token distributions of a world at the state that a probe is made to read."""

from __future__ import annotations

import numpy as np
from anndata import AnnData
from jaxtyping import Float, Int

from nextlat_viz.latents.table import NO_WORLD, column, meta, world_of
from nextlat_viz.worlds import HiddenMarkovWorld
from nextlat_viz.worlds.taxi.traffic import END
from nextlat_viz.worlds.taxi.world import Taxi

# Places closer than this share of the map count as equal.
_SAME = 1e-6


def exact_after(
    latents: AnnData,
    row: int,
    target: str,
    names: tuple[str, ...],
    goal: Float[np.ndarray, " k"],
    tokens: Int[np.ndarray, " s"],
) -> Float[np.ndarray, "s1 V"] | None:
    """Return the exact next-token distributions at a target reading, and after each of some tokens from there.

    In a hidden Markov world the reading is a belief or a state. In the taxi world it is a crossing, from where the
    ride keeps the destination and the moves left that it has at the row.

    Parameters
    ----------
    row : int
        The row of the edit.
    target : str
        Target of the probe, ``"x, y"`` for a place.
    names : tuple of str
        Names of the k.
    goal : (k,) array
        The reading.
    tokens : (s,) int array
        Tokens read after the edit.

    Returns
    -------
    (s + 1, V) array or None
        NaN from the first token on that has probability 0; None where the distributions are not known.
    """
    if meta(latents)["world"] == NO_WORLD:
        return None
    world = world_of(latents)
    known: list[np.ndarray] = []
    if isinstance(world, HiddenMarkovWorld) and target in ("belief", "state"):
        known = _from_belief(world, target, names, goal, tokens)
    elif isinstance(world, Taxi) and names == ("x", "y"):
        known = _from_crossing(world, latents, row, goal, tokens)
    if not known:
        return None
    unknown = np.full((tokens.size + 1 - len(known), known[0].size), np.nan)
    return np.concatenate([np.stack(known), unknown])


def _from_belief(
    world: HiddenMarkovWorld,
    target: str,
    names: tuple[str, ...],
    goal: Float[np.ndarray, " k"],
    tokens: Int[np.ndarray, " s"],
) -> list[np.ndarray]:
    belief = goal
    if target == "state":
        belief = np.array([goal[names.index(s)] if s in names else 0.0 for s in world.state_names])
    known: list[np.ndarray] = []
    for t in range(tokens.size + 1):
        try:
            # The target may be no belief, such as a point outside the simplex; then `predict` raises.
            now = belief if t == 0 else world.belief(tokens[None, :t], start=belief)[0, -1]
            known.append(world.predict(now))
        except ValueError:
            break
    return known


def _from_crossing(
    world: Taxi, latents: AnnData, row: int, place: Float[np.ndarray, " 2"], tokens: Int[np.ndarray, " s"]
) -> list[np.ndarray]:
    streets, rides = world.streets, world.rides
    apart = np.hypot(streets.x - place[0], streets.y - place[1])
    node, goal = int(apart.argmin()), str(column(latents, "destination")[row])
    if apart[node] > _SAME * max(np.ptp(streets.x), np.ptp(streets.y)) or goal not in streets.nodes:
        return []
    to, left = streets.nodes.index(goal), int(column(latents, "moves_left")[row])
    known: list[np.ndarray] = []
    for t in range(tokens.size + 1):
        if t:
            turn = int(tokens[t - 1]) - rides.n_nodes
            if node == to or not 0 <= turn < END or streets.turns[node, turn] < 0:
                break
            node, left = int(streets.turns[node, turn]), left - 1
        if rides.to_goal[to, node] > left:
            break
        probs = np.zeros(len(world.vocabulary))
        if node == to:
            probs[rides.n_nodes + END] = 1
        else:
            probs[rides.n_nodes : rides.n_nodes + END] = rides.law(*(np.array([value]) for value in (node, to, left)))[
                0
            ]
        known.append(probs)
    return known
