"""The taxi world: rides through a city, written as origin, destination, turns and ``end``."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from nextlat_viz.display import shorten
from nextlat_viz.errors import unknown
from nextlat_viz.worlds import checks
from nextlat_viz.worlds.base import Episodes, Tokens, World
from nextlat_viz.worlds.taxi.rides import KINDS, PROMPT, Followed, Rides, follow, refusal
from nextlat_viz.worlds.taxi.sources import City
from nextlat_viz.worlds.taxi.sources import streets as find_streets
from nextlat_viz.worlds.taxi.streets import COMPASS
from nextlat_viz.worlds.taxi.traffic import END

_MOST_TURNS = 97


def taxi(
    city: City = "grid",
    *,
    rides: str = "random",
    max_turns: int | None = None,
    noise: float = 0.3,
    held_out: float = 0.1,
    city_name: str | None = None,
    expected: Mapping[str, str] | None = None,
    **city_options: Any,
) -> Taxi:
    """Taxi rides through a city, turn by turn.

    An episode is the origin and the destination, then a compass direction for every turn, then ``end``: at most 100
    tokens by default, as in Vafa et al. 2024, "Evaluating the world model implicit in a
    generative model", arXiv:2406.03689, whose city is Manhattan.

    Parameters
    ----------
    city : str, path, Streets, networkx graph, DataFrame, or a pair of paths or DataFrames
        As for ``taxi.streets``: ``"grid"``, ``"helsinki"``, one file or two, the name of a place, or streets of your
        own. The spec holds streets that are not from a name or a file in full.
    rides : str
        How turns are chosen: ``"random"``, ``"noisy"`` or ``"shortest"``; see ``Rides`` for their laws.
    max_turns : int, optional
        Greatest number of turns in a ride; pairs of intersections further apart are not drawn. By default the longest
        shortest path for ``"shortest"``, which allows all pairs, otherwise 1.5 times that and at most 97.
    noise : float
        Probability that a turn of a ``"noisy"`` ride is random, in [0, 1].
    held_out : float
        Fraction of pairs of origin and destination that occur in the test split only, in [0, 1). With 0 there is no
        test split.
    city_name : str, optional
        Name of a city that is not given by name.
    expected : dict, optional
        Expected hash of the streets, ``{"sha256": ...}``. The spec of a city from a file or a server contains it, so
        that a changed file is an error.
    **city_options
        Options of ``taxi.streets`` for that city, such as ``width`` and ``height`` of the grid.

    Raises
    ------
    UnknownNameError
        If there is no such kind of rides, city or option of the city.
    ValueError
        If a number is out of range, a split would have no pair, or the hash of the streets differs.

    Examples
    --------
    >>> world = taxi(width=6, height=6, rides="shortest")
    >>> print(world.decode(world.sample(1, seed=4).tokens[0]))
    from 1,4 to 5,3: N E SE SE E end
    """
    if rides not in KINDS:
        raise unknown("kind of rides", rides, KINDS)
    noise = checks.number("noise", noise)
    held_out = checks.number("held_out", held_out, "[0, 1)")
    if "name" in city_options:
        raise ValueError(f"name={city_options['name']!r} is not an option: pass city_name to name the city")
    streets = find_streets(city, **city_options, **({} if city_name is None else {"name": city_name}))
    if "nodes" in city_options:
        city = (city_options.pop("nodes"), city_options.pop("edges"))
    parts = list(city) if isinstance(city, (list, tuple)) else [city]
    paths = [os.fspath(part) for part in parts if isinstance(part, (str, os.PathLike))]
    by_name = len(paths) == len(parts)
    if by_name:
        city = paths if isinstance(city, (list, tuple)) else paths[0]
    else:
        city, city_options, city_name = streets.record, {}, None
    if expected is not None and expected != {"sha256": streets.sha256}:
        raise ValueError(
            f"the streets of city={shorten(repr(city), 80)} are not those expected: their sha256 is {streets.sha256}, "
            f"not {expected.get('sha256')}; restore the files this world was made from, or build a new world without "
            "expected"
        )
    if max_turns is None:
        longest = int(streets.distance.max())
        max_turns = longest if rides == "shortest" else min(math.ceil(1.5 * longest), _MOST_TURNS)
    law = Rides(streets, rides, checks.integer("max_turns", max_turns), noise, held_out)
    spec: dict[str, Any] = {"name": "taxi", "city": city, "rides": rides, "max_turns": law.max_turns, "noise": noise}
    spec |= {"held_out": held_out, **city_options}
    if city_name is not None:
        spec["city_name"] = city_name
    if by_name and city != "grid":
        spec["expected"] = {"sha256": streets.sha256}
    return Taxi(law, spec)


class Taxi(World):
    """Rides through streets; built by ``taxi``.

    The vocabulary is the intersections, written as ``@`` and their name to distinguish them from turns, then the eight
    compass directions, then ``end``. States, after each token:

    ``node``, ``x``, ``y``
        Index and position of the current intersection; on the two tokens of the prompt, the origin.
    ``destination``
        Its index; -1 after the first token.
    ``distance``
        Length of the shortest path to the destination; -1 after the first token.
    ``moves_left``
        ``max_turns`` minus the turns taken.

    The *content* of a ride is the pair of origin and destination: no pair occurs in both splits.

    Pictures: ``"map"``, the streets; ``"ride"``, the ride of an episode, which is required; ``"use"``, the streets
    coloured by how many of 2,000 training rides take them. With an episode all of them show its ride up to
    ``position``, or up to the first illegal turn.
    """

    name = "taxi"
    pictures = ("map", "ride", "use")
    optional_states = ("distance",)

    def __init__(self, rides: Rides, spec: dict[str, Any]) -> None:
        self.rides, self.streets, self.spec = rides, rides.streets, spec
        self.vocabulary = (*(f"@{node}" for node in self.streets.nodes), *COMPASS, "end")
        self.length = rides.max_turns + PROMPT + 1
        self.splits = ("train", "test") if rides.held_out else ("train",)
        self._turn, self._end = rides.n_nodes, rides.n_nodes + END
        for split in self.splits:
            rides.pairs(1, np.random.default_rng(0), split)

    def sample(
        self, n: int, length: int | None = None, seed: int = 0, *, split: str = "train", states: bool = True
    ) -> Episodes:
        """Draw rides, padded with ``end``. Prompt and padding are not scored.

        Examples
        --------
        >>> episodes = taxi(width=4, height=4).sample(2, seed=1)
        >>> episodes.tokens.shape, list(episodes.states)
        ((2, 11), ['node', 'x', 'y', 'destination', 'distance', 'moves_left'])
        """
        n, length, rng = checks.sampling(self, n, length, seed, split)
        origin, destination, turns = self.rides.sample(n, rng, split)
        tokens = np.empty((n, length), np.int64)
        tokens[:, 0], tokens[:, 1] = origin, destination
        np.add(turns, np.int64(self._turn), out=tokens[:, PROMPT : self.length])
        tokens[:, self.length :] = self._end
        # Scored are the turns and the one `end` after the last turn.
        mask = np.zeros((n, length), bool)
        mask[:, PROMPT] = True
        np.not_equal(turns[:, :-1], END, out=mask[:, PROMPT + 1 : self.length])
        used = PROMPT + 1 + turns.argmax(1)
        return Episodes(tokens, self.replay(tokens) if states else {}, mask, used)

    def replay(self, tokens: Tokens) -> dict[str, np.ndarray]:
        """Compute the states after each token by following the turns."""
        ride = self._legal_rides(tokens)
        has_goal = ride.destination >= 0
        distance = np.where(has_goal, self.rides.to_goal[ride.destination, ride.node].astype(np.int32), -1)
        place = {"node": ride.node, "x": self.streets.x[ride.node], "y": self.streets.y[ride.node]}
        return place | {"destination": ride.destination, "distance": distance, "moves_left": ride.moves_left}

    def future(self, tokens: Tokens) -> Int[np.ndarray, "episodes positions 3"]:
        """Intersection, destination and moves left."""
        ride = self._legal_rides(tokens)
        return np.stack([ride.node, ride.destination, ride.moves_left], axis=-1).astype(np.int64)

    def legal(self, tokens: Tokens) -> Bool[np.ndarray, "episodes positions"]:
        return self._follow(tokens).legal

    def start_probs(self) -> Float[np.ndarray, " tokens"]:
        """Uniform over all intersections: the origin is given and not scored."""
        return (np.arange(len(self.vocabulary)) < self._turn) / self._turn

    def legal_next(self, tokens: Tokens) -> Bool[np.ndarray, "episodes positions tokens"]:
        """Which tokens the streets allow next; rides use only some of these.

        After the origin, any other intersection at most ``max_turns`` away. Then any direction with a street, also away
        from the destination, as long as there are moves left. At the destination only ``end``. Without moves left
        before the destination, nothing.

        The array is large for a large city: pass few episodes, or use ``legal_turns``.
        """
        ride = self._follow(tokens)
        result = np.zeros((*ride.legal.shape, len(self.vocabulary)), bool)
        result[:, :1, : self._turn] = self._destinations(ride.node[:, :1]) & ride.legal[:, :1, None]
        result[..., self._turn : self._end] = self._turns(ride)
        result[..., self._end] = ride.legal & (ride.node == ride.destination)
        return result

    def legal_turns(self, tokens: Tokens, *, in_time: bool = False) -> Bool[np.ndarray, "episodes positions 8"]:
        """Which of the eight directions may come next: a part of ``legal_next`` that needs less memory.

        Parameters
        ----------
        tokens : integer array (episodes, positions)
        in_time : bool
            Only directions after which the destination can be reached in the moves left.
        """
        ride = self._follow(tokens)
        turns = self._turns(ride)
        return turns & self.rides.in_time(ride.node, ride.destination, ride.moves_left) if in_time else turns

    def turn_probs(self, tokens: Tokens) -> Float[np.ndarray, "episodes positions 9"]:
        """Exact distribution of the next token over the eight directions and ``end``; zeros after the origin.

        A part of ``next_token_probs`` that needs less memory; raises the same errors.
        """
        ride = self._legal_rides(tokens)
        has_goal = ride.destination >= 0
        distance = self.rides.to_goal[ride.destination, ride.node]
        lost = has_goal & (distance > ride.moves_left)
        if lost.any():
            episode, t = np.argwhere(lost)[0].tolist()
            raise ValueError(
                f"episode {episode} cannot happen in world {self.name!r}: after position {t + 1} the destination is "
                f"{distance[episode, t]} moves away with {ride.moves_left[episode, t]} left, and every ride reaches "
                "it; use legal_turns for what the streets allow"
            )
        probs = np.zeros((*has_goal.shape, END + 1))
        driving = has_goal & (ride.node != ride.destination)
        probs[driving, :END] = self.rides.law(ride.node[driving], ride.destination[driving], ride.moves_left[driving])
        probs[..., END] = ride.node == ride.destination
        return probs

    def next_token_probs(self, tokens: Tokens) -> Float[np.ndarray, "episodes positions tokens"]:
        """Exact distribution of the next token after each token, by the law of ``Rides``.

        After the origin it is the law of the destination over both splits together, uniform within ``max_turns``. After
        turns that this kind of rides never takes, the same law applies from the current intersection. The array is
        large for a large city: pass few episodes, or use ``turn_probs``.

        Raises
        ------
        ValueError
            If a token is not legal, or the destination cannot be reached any more in the moves left.
        """
        turns = self.turn_probs(tokens)
        result = np.zeros((*turns.shape[:2], len(self.vocabulary)))
        result[..., self._turn :] = turns
        destinations = self._destinations(np.asarray(tokens)[:, :1])
        result[:, :1, : self._turn] = destinations / destinations.sum(-1, keepdims=True)
        return result

    def decode(self, tokens: ArrayLike) -> str:
        """Write one ride as text, without padding.

        Examples
        --------
        >>> world = taxi(width=4, height=4)
        >>> world.decode([0, 5, world.vocabulary.index("N"), world.vocabulary.index("E")])
        'from 1,1 to 2,2: N E'
        """
        names = [self.vocabulary[token] for token in np.asarray(tokens).tolist()]
        if "end" in names:
            names = names[: names.index("end") + 1]
        places = [name.removeprefix("@") for name in names[:PROMPT]]
        opening = "".join(f"{word} {place}" for word, place in zip(("from", " to"), places, strict=False))
        return opening + (": " + " ".join(names[PROMPT:]) if names[PROMPT:] else "")

    @property
    def state_values(self) -> dict[str, tuple[str, ...]]:
        """Names of the intersections, for ``node`` and ``destination``."""
        return {"node": self.streets.nodes, "destination": self.streets.nodes}

    def facts(self) -> dict[str, str]:
        count = f"{len(self.streets.nodes):,} intersections, {self.streets.n_edges:,} directed edges"
        return super().facts() | {"streets": f"{self.streets.name}: {count}"}

    def _follow(self, tokens: Tokens) -> Followed:
        return follow(self.rides, checks.tokens(self, tokens))

    def _legal_rides(self, tokens: Tokens) -> Followed:
        ride = self._follow(tokens)

        def reason(episode: int, t: int) -> str:
            node, destination, left = (int(values[episode, max(t - 1, 0)]) for values in ride[:3])
            return f": {refusal(self.rides, int(np.asarray(tokens)[episode, t]), t + 1, (node, destination, left))}"

        checks.require_legal(self, np.asarray(tokens), ride.legal, reason)
        return ride

    def _turns(self, ride: Followed) -> Bool[np.ndarray, "episodes positions 8"]:
        """Directions with a street, where the ride is not over."""
        driving = ride.legal & (ride.destination >= 0) & (ride.node != ride.destination) & (ride.moves_left > 0)
        return (self.streets.turns[ride.node] >= 0) & driving[..., None]

    def _destinations(self, origin: Int[np.ndarray, "*origins"]) -> Bool[np.ndarray, "*origins nodes"]:
        """Possible destinations of a ride from each origin."""
        return self.rides.connects(origin[..., None], np.arange(self.rides.n_nodes))
