"""The taxi world: rides through a city as origin, destination, turns and `end`."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from nextlat_viz.errors import unknown
from nextlat_viz.worlds import checks
from nextlat_viz.worlds.base import Episodes, Tokens, World
from nextlat_viz.worlds.taxi.follow import PROMPT, Followed, follow, refusal
from nextlat_viz.worlds.taxi.rides import KINDS, Rides
from nextlat_viz.worlds.taxi.sources import streets as find_streets
from nextlat_viz.worlds.taxi.streets import COMPASS
from nextlat_viz.worlds.taxi.traffic import END

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_MOST_TURNS = 97


def taxi(
    city: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = "grid",
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

    An episode names an intersection to start from and one to reach, then a compass direction for every turn, then
    ``end``: 100 tokens at most by default, as in Vafa et al. 2024, "Evaluating the world model implicit in a
    generative model", arXiv:2406.03689, whose city is Manhattan.

    Parameters
    ----------
    city : str, path, or a pair of paths
        What ``taxi.streets`` takes: ``"grid"``, ``"helsinki"``, one file or two, or the name of a place.
    rides : str
        How turns are chosen: ``"random"``, ``"noisy"`` or ``"shortest"``; ``Rides`` has the exact law of each.
    max_turns : int, optional
        The most turns in a ride; pairs of intersections further apart are never drawn. By default the longest
        shortest path for ``"shortest"``, so that every pair is, else one and a half times that and at most 97.
    noise : float
        Chance that a turn of a ``"noisy"`` ride is a random one, 0 to 1.
    held_out : float
        Share of pairs of origin and destination that only the test split draws from, from 0 to less than 1. With 0
        there is no test split.
    city_name : str, optional
        What to call a city read from files.
    expected : dict, optional
        What the streets must be, ``{"sha256": ...}``. A spec says so for every city but the grid, so that a file that
        has changed since is noticed.
    **city_options
        What ``taxi.streets`` takes for that city, such as ``width`` and ``height`` of the grid.

    Raises
    ------
    UnknownNameError
        If there is no such kind of rides, city or option of it.
    ValueError
        If a number is out of range, a split would have no pair, or the streets are not those expected.

    Examples
    --------
    >>> world = taxi(width=6, height=6, rides="shortest")
    >>> print(world.decode(world.sample(1, seed=4).tokens[0]))
    from 1,4 to 5,3: N E SE SE E end
    """
    if rides not in KINDS:
        raise unknown("kind of rides", rides, KINDS)
    noise = _share("noise", noise, below_one=False)
    held_out = _share("held_out", held_out, below_one=True)
    if "name" in city_options:
        raise ValueError(f"name={city_options['name']!r} would be the world's: call the city by city_name")
    streets = find_streets(city, **city_options, **({} if city_name is None else {"name": city_name}))
    if "nodes" in city_options:
        city = (city_options.pop("nodes"), city_options.pop("edges"))
    city = os.fspath(city) if isinstance(city, (str, os.PathLike)) else [os.fspath(file) for file in city]
    if expected is not None and expected != {"sha256": streets.sha256}:
        raise ValueError(
            f"the streets of city={city!r} are not those expected: their sha256 is {streets.sha256}, not "
            f"{expected.get('sha256')}; restore the files this world was made from, or leave out expected to make "
            "another world"
        )
    if max_turns is None:
        longest = int(streets.distance.max())
        max_turns = longest if rides == "shortest" else min(math.ceil(1.5 * longest), _MOST_TURNS)
    law = Rides(streets, rides, checks.positive("max_turns", max_turns), noise, held_out)
    spec: dict[str, Any] = {"name": "taxi", "city": city, "rides": rides, "max_turns": law.max_turns, "noise": noise}
    spec |= {"held_out": held_out, **city_options}
    if city_name is not None:
        spec["city_name"] = city_name
    if city != "grid":
        spec["expected"] = {"sha256": streets.sha256}
    return Taxi(law, spec)


class Taxi(World):
    """Rides through streets; ``taxi`` builds one.

    The vocabulary is the intersections, written ``@`` and their name so that none can be taken for a turn, then the
    eight compass directions, then ``end``. States, after each token:

    ``node``, ``x``, ``y``
        The intersection the taxi is at, by index and by place; on the two tokens of the prompt, the origin.
    ``destination``
        By index; -1 after the first token, when it is not yet known.
    ``distance``
        Moves to the destination by the shortest way; -1 while that is not known.
    ``moves_left``
        ``max_turns`` minus the turns taken.

    Train and test are disjoint by content, which is the pair of origin and destination.

    Attributes
    ----------
    streets : Streets
        The map.
    rides : Rides
        The law.
    """

    name = "taxi"
    pictures = ("map", "ride", "use")

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
        """Draw rides, padded with ``end``.

        Parameters
        ----------
        n : int
        length : int, optional
            ``max_turns`` + 3 by default; more is padding.
        seed : int
            The same seed gives the same bytes; the first rides of many are not those of few.
        split : str
            ``"train"`` or ``"test"``, whose pairs of origin and destination are others.
        states : bool
            False leaves the states out, which is several times as fast.

        Returns
        -------
        Episodes
            Nothing on the prompt or the padding counts as something to predict. States as ``Taxi`` lists them.

        Examples
        --------
        >>> episodes = taxi(width=4, height=4).sample(2, seed=1)
        >>> episodes.tokens.shape, list(episodes.states)
        ((2, 11), ['node', 'x', 'y', 'destination', 'distance', 'moves_left'])
        """
        n, length = checks.positive("n", n), checks.episode_length(self, length)
        split, rng = checks.split(self, split), np.random.default_rng(checks.seed(seed))
        origin, destination, turns = self.rides.sample(n, rng, split)
        tokens = np.empty((n, length), np.int64)
        tokens[:, 0], tokens[:, 1] = origin, destination
        np.add(turns, np.int64(self._turn), out=tokens[:, PROMPT : self.length])
        tokens[:, self.length :] = self._end
        # Whatever follows a turn is predicted: a turn or the one `end`, which alone follows the last.
        mask = np.zeros((n, length), bool)
        mask[:, PROMPT] = True
        np.not_equal(turns[:, :-1], END, out=mask[:, PROMPT + 1 : self.length])
        used = PROMPT + 1 + turns.argmax(1)
        return Episodes(tokens, self.replay(tokens) if states else {}, mask, used)

    def replay(self, tokens: Tokens) -> dict[str, np.ndarray]:
        """The state after each token, by following the turns.

        Raises
        ------
        ValueError
            If a token is not legal; the first such place is named.
        """
        ride = self._legal_rides(tokens)
        known = ride.destination >= 0
        distance = np.where(known, self.rides.to_goal[ride.destination, ride.node].astype(np.int32), -1)
        place = {"node": ride.node, "x": self.streets.x[ride.node], "y": self.streets.y[ride.node]}
        return place | {"destination": ride.destination, "distance": distance, "moves_left": ride.moves_left}

    def legal(self, tokens: Tokens) -> Bool[np.ndarray, "episodes positions"]:
        """Whether each token was legal after those before it."""
        return self._follow(tokens).legal

    def legal_first(self) -> Bool[np.ndarray, " tokens"]:
        """Any intersection: from each of them some other is one move away."""
        return np.arange(len(self.vocabulary)) < self._turn

    def legal_next(self, tokens: Tokens) -> Bool[np.ndarray, "episodes positions tokens"]:
        """Which tokens may come next: what the streets allow, which is more than rides do.

        After the origin, any other intersection at most ``max_turns`` away. Then any direction that has a street,
        be it away from the destination, as long as there are moves left. At the destination ``end`` and nothing but
        ``end``. A ride that has used up its moves elsewhere cannot go on.

        In a large city this is a large array: pass few episodes, or use ``legal_turns``.
        """
        ride = self._follow(tokens)
        result = np.zeros((*ride.legal.shape, len(self.vocabulary)), bool)
        result[:, :1, : self._turn] = self._destinations(ride.node[:, :1]) & ride.legal[:, :1, None]
        result[..., self._turn : self._end] = self._turns(ride)
        result[..., self._end] = ride.legal & (ride.node == ride.destination)
        return result

    def legal_turns(self, tokens: Tokens, *, in_time: bool = False) -> Bool[np.ndarray, "episodes positions 8"]:
        """Which of the eight directions may come next: that part of ``legal_next``, for a fraction of the memory.

        Parameters
        ----------
        tokens : integer array (episodes, positions)
        in_time : bool
            Only directions from which the destination can still be reached in the moves left.
        """
        ride = self._follow(tokens)
        turns = self._turns(ride)
        return turns & self.rides.in_time(ride.node, ride.destination, ride.moves_left) if in_time else turns

    def turn_probs(self, tokens: Tokens) -> Float[np.ndarray, "episodes positions 9"]:
        """Exact distribution of the next token over the eight directions and ``end``; zeros after the origin.

        That part of ``next_token_probs``, for a fraction of the memory; raises as it does.
        """
        ride = self._legal_rides(tokens)
        known = ride.destination >= 0
        distance = self.rides.to_goal[ride.destination, ride.node]
        lost = known & (distance > ride.moves_left)
        if lost.any():
            episode, t = np.argwhere(lost)[0].tolist()
            raise ValueError(
                f"episode {episode} cannot happen in world {self.name!r}: after position {t + 1} the destination is "
                f"{distance[episode, t]} moves away with {ride.moves_left[episode, t]} left, and every ride reaches "
                "it; ask legal_turns what the streets allow"
            )
        probs = np.zeros((*known.shape, END + 1))
        driving = known & (ride.node != ride.destination)
        probs[driving, :END] = self.rides.law(ride.node[driving], ride.destination[driving], ride.moves_left[driving])
        probs[..., END] = ride.node == ride.destination
        return probs

    def next_token_probs(self, tokens: Tokens) -> Float[np.ndarray, "episodes positions tokens"]:
        """Exact distribution of the next token after each token, by the law of ``Rides``.

        After the origin it is that of the destination over both splits together: all within ``max_turns`` alike. A
        ride of a kind that would not have come this way goes on by the same law from where it is. In a large city
        this is a large array: pass few episodes, or use ``turn_probs``.

        Raises
        ------
        ValueError
            If a token is not legal, or has put the destination out of reach in the moves left.
        """
        turns = self.turn_probs(tokens)
        result = np.zeros((*turns.shape[:2], len(self.vocabulary)))
        result[..., self._turn :] = turns
        destinations = self._destinations(np.asarray(tokens)[:, :1])
        result[:, :1, : self._turn] = destinations / destinations.sum(-1, keepdims=True)
        return result

    def decode(self, tokens: ArrayLike) -> str:
        """One ride as a person would read it, without its padding.

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
        """The intersections' names, for ``node`` and, but for -1, ``destination``."""
        return {"node": self.streets.nodes, "destination": self.streets.nodes}

    def facts(self) -> dict[str, str]:
        """What a notebook shows of the world, line by line."""
        count = f"{len(self.streets.nodes):,} intersections, {self.streets.n_edges:,} directed edges"
        return super().facts() | {"streets": f"{self.streets.name}: {count}"}

    def draw(
        self, kind: str = "map", *, episode: Episodes | None = None, position: int | None = None, **options: Any
    ) -> Figure:
        """A plotly picture: ``"map"``, the streets; ``"ride"``, an episode's ride on them; ``"use"``, where rides go.

        With an ``episode`` all of them show its ride up to ``position``, or to the first turn that is not legal, and
        where it is bound for. ``"use"`` colours each street by how many of 2,000 rides of the training split take it.
        Options: ``width`` and ``height``, in pixels.

        Raises
        ------
        UnknownNameError
            If there is no such kind or option.
        ValueError
            If ``episode`` holds more or fewer than one or is missing from a ``"ride"``, or the position is outside it.
        """
        from nextlat_viz.worlds.taxi import draw

        return draw.draw(self, kind, episode, position, **options)

    def _follow(self, tokens: Tokens) -> Followed:
        return follow(self.rides, checks.tokens(tokens, self.name, self.vocabulary))

    def _legal_rides(self, tokens: Tokens) -> Followed:
        ride = self._follow(tokens)
        if not ride.legal.all():
            episode, t = np.argwhere(~ride.legal)[0].tolist()
            token = int(np.asarray(tokens)[episode, t])
            before = [int(values[episode, max(t - 1, 0)]) for values in ride[:3]]
            raise ValueError(
                f"episode {episode} cannot happen in world {self.name!r}: token {self.vocabulary[token]!r} at position "
                f"{t + 1}: {refusal(self.rides, token, t + 1, (before[0], before[1], before[2]))}"
            )
        return ride

    def _turns(self, ride: Followed) -> Bool[np.ndarray, "episodes positions 8"]:
        """Directions that have a street, where one may be taken."""
        driving = ride.legal & (ride.destination >= 0) & (ride.node != ride.destination) & (ride.moves_left > 0)
        return (self.streets.turns[ride.node] >= 0) & driving[..., None]

    def _destinations(self, origin: Int[np.ndarray, "*origins"]) -> Bool[np.ndarray, "*origins nodes"]:
        """Which intersections a ride from each origin may be bound for."""
        return self.rides.connects(origin[..., None], np.arange(self.rides.n_nodes))


def _share(argument: str, value: float, *, below_one: bool) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not 0 <= value <= 1
        or (below_one and value == 1)
    ):
        raise ValueError(f"{argument} must be a number from 0 to {'less than ' * below_one}1, got {value!r}")
    return float(value)
