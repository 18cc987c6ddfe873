"""Pictures of the taxi world: the streets, a ride, and the use of each street."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int

from nextlat_viz.display import counted
from nextlat_viz.plotting import Figure
from nextlat_viz.worlds import checks
from nextlat_viz.worlds.base import Episodes
from nextlat_viz.worlds.drawing import picture
from nextlat_viz.worlds.taxi.map import draw_map
from nextlat_viz.worlds.taxi.rides import PROMPT, follow
from nextlat_viz.worlds.taxi.traffic import END
from nextlat_viz.worlds.taxi.world import Taxi

_RIDES_IN_USE = 2000


@picture(Taxi, "map")
def draw_city(
    world: Taxi, episode: Episodes | None, position: int | None, *, width: int = 720, height: int | None = None
) -> Figure:
    """Draw the streets, and the ride of an episode on them."""
    return draw_map(world.streets, **_ride(world, episode, position), width=width, height=height)


@picture(Taxi, "ride")
def draw_ride(
    world: Taxi, episode: Episodes | None, position: int | None, *, width: int = 720, height: int | None = None
) -> Figure:
    """Draw the ride of an episode, which is required."""
    if episode is None:
        raise ValueError("the picture 'ride' needs an episode: pass episode=world.sample(1)")
    return draw_city(world, episode, position, width=width, height=height)


@picture(Taxi, "use")
def draw_use(
    world: Taxi, episode: Episodes | None, position: int | None, *, width: int = 720, height: int | None = None
) -> Figure:
    """Draw the streets coloured by how many random rides take them.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> worlds.get("taxi", width=5, height=4).draw("use").layout.title.text
    'How often 2,000 random rides take each street'
    """
    title = f"How often {_RIDES_IN_USE:,} {world.rides.kind} rides take each street"
    options = {"title": title} | _ride(world, episode, position)
    return draw_map(world.streets, use=_use(world), **options, width=width, height=height)


def _ride(world: Taxi, episode: Episodes | None, position: int | None) -> dict[str, Any]:
    """Options of ``draw_map`` for an episode: its moves up to a position, or to the first illegal one."""
    if episode is None or position is None:
        return {}
    # Origin and destination are named on the map: names of real intersections are too long for a title.
    ride = f"A ride in {world.streets.name}"
    if position == 0:
        return {"title": f"{ride}: nothing read yet"}
    tokens = checks.tokens(world, episode.tokens)
    states = follow(world.rides, tokens)
    node, destination = states.node[0], int(states.destination[0, min(1, tokens.shape[1] - 1)])
    moved = np.append(True, np.diff(states.moves_left[0, :position]) != 0)
    turns_taken = int(moved.sum()) - 1
    if destination < 0:
        return {"rides": node[:1], "title": f"{ride}: the origin"}
    turns = counted(turns_taken, "turn")
    so_far = f"there after {turns}" if node[position - 1] == destination else f"{turns} so far"
    return {"rides": node[:position][moved], "goal": destination, "title": f"{ride}: {so_far}"}


def _use(world: Taxi) -> Int[np.ndarray, " edges"]:
    """Number of training rides that take each of ``streets.edges``."""
    episodes = world.sample(_RIDES_IN_USE)
    turn = episodes.tokens[:, PROMPT:] - world.rides.n_nodes
    is_turn = turn < END
    number = np.cumsum(world.streets.turns >= 0).reshape(-1, END) - 1
    return np.bincount(
        number[episodes.states["node"][:, PROMPT - 1 : -1][is_turn], turn[is_turn]], minlength=world.streets.n_edges
    )
