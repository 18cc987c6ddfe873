"""Pictures of the taxi world: its streets, a ride on them, and where rides go."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int

from nextlat_viz.plotting import Figure
from nextlat_viz.worlds import checks
from nextlat_viz.worlds.base import Episodes
from nextlat_viz.worlds.taxi.follow import PROMPT, follow
from nextlat_viz.worlds.taxi.map import draw_map
from nextlat_viz.worlds.taxi.traffic import END
from nextlat_viz.worlds.taxi.world import Taxi

_RIDES_IN_USE = 2000


def draw(
    world: Taxi, kind: str = "map", episode: Episodes | None = None, position: int | None = None, **options: Any
) -> Figure:
    """Draw one kind of picture; ``Taxi.draw`` is the way in.

    Raises
    ------
    UnknownNameError
        If there is no such kind, or the kind has no such option.
    ValueError
        If ``episode`` holds more or fewer than one or is missing from a ``"ride"``, or the position is outside it.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> worlds.get("taxi", width=5, height=4).draw("use").layout.title.text
    'How often 2,000 random rides take each street'
    """
    checks.picture(world, kind, options)
    if kind == "use":
        options |= {
            "use": _use(world),
            "title": f"How often {_RIDES_IN_USE:,} {world.rides.kind} rides take each street",
        }
    if episode is not None:
        options |= _ride(world, episode, checks.one_episode(episode, position))
    elif kind == "ride":
        raise ValueError("a picture of a ride needs one: pass episode=world.sample(1)")
    return draw_map(world.streets, **options)


def _ride(world: Taxi, episode: Episodes, position: int) -> dict[str, Any]:
    """What ``draw_map`` shows of an episode: its moves up to a position, or to the first that is not legal."""
    tokens = checks.tokens(episode.tokens, world.name, world.vocabulary)
    way = follow(world.rides, tokens)
    node, destination = way.node[0], int(way.destination[0, min(1, tokens.shape[1] - 1)])
    moved = np.append(True, np.diff(way.moves_left[0, :position]) != 0)
    taken = int(moved.sum()) - 1
    # Where it goes from and to stands on the map: names of real crossings are too long for a title.
    ride = f"A ride in {world.streets.name}"
    if destination < 0:
        return {"rides": node[:1], "title": f"{ride}: the origin"}
    turns = f"{taken} turn" + "s" * (taken != 1)
    so_far = f"there after {turns}" if node[position - 1] == destination else f"{turns} so far"
    return {"rides": node[:position][moved], "goal": destination, "title": f"{ride}: {so_far}"}


def _use(world: Taxi) -> Int[np.ndarray, " edges"]:
    """How often rides of the training split take each of ``streets.edges``."""
    episodes = world.sample(_RIDES_IN_USE)
    turn = episodes.tokens[:, PROMPT:] - world.rides.n_nodes
    taken = turn < END
    number = np.cumsum(world.streets.turns >= 0).reshape(-1, END) - 1
    return np.bincount(
        number[episodes.states["node"][:, PROMPT - 1 : -1][taken], turn[taken]], minlength=world.streets.n_edges
    )
