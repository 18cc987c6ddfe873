"""Worlds and models small enough to compute by hand."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import numpy as np

from nextlat_viz import worlds
from nextlat_viz.decoding import Predictor, WorldPredictor
from nextlat_viz.worlds import Episodes, World
from nextlat_viz.worlds.taxi.world import Taxi

STEP, BELL = 0, 1


class Ring(World):
    """Four rooms in a ring: a step goes to the next room, and the bell can be rung only in room 0."""

    name, vocabulary, pictures = "ring", ("step", "bell"), ("none",)

    def __init__(self) -> None:
        self.spec = {"name": "ring"}

    def replay(self, tokens: Any) -> dict[str, np.ndarray]:
        return {"room": (np.asarray(tokens) == STEP).cumsum(axis=1) % 4}

    def legal_next(self, tokens: Any) -> np.ndarray:
        legal = np.ones((*np.asarray(tokens).shape, 2), bool)
        legal[..., BELL] = self.replay(tokens)["room"] == 0
        return legal

    def next_token_probs(self, tokens: Any) -> np.ndarray:
        legal = self.legal_next(tokens)
        return legal / legal.sum(axis=-1, keepdims=True)

    def sample(
        self, n: int, length: int | None = None, seed: int = 0, *, split: str = "train", states: bool = True
    ) -> Episodes:
        rng = np.random.default_rng(seed)
        tokens = rng.integers(2, size=(n, 1))
        for _ in range((length or 0) - 1):
            bell = self.legal_next(tokens)[:, -1, BELL] & (rng.random(n) < 0.5)
            tokens = np.concatenate([tokens, bell[:, None].astype(np.int64)], axis=1)
        return Episodes(tokens, self.replay(tokens) if states else {})

    def draw(self, kind: str = "none", **options: Any) -> Any:
        raise NotImplementedError


class Merged(Predictor):
    """Confuses room 1 of the ring with room 0."""

    objective = "merged"

    def __init__(self, world: Ring) -> None:
        self.world, self.name = world, "merged"

    def next_token_probs(self, tokens: np.ndarray) -> np.ndarray:
        bell = self.world.replay(tokens)["room"] <= 1
        probs = np.where(bell, 0.5, 0.0)
        return np.stack([1 - probs, probs], axis=-1)


class Forgetful(Predictor):
    """Predicts the same after every prefix."""

    objective = "forgetful"

    def __init__(self, world: World, probs: np.ndarray) -> None:
        self.world, self.name, self.probs = world, "forgetful", probs

    def next_token_probs(self, tokens: np.ndarray) -> np.ndarray:
        return np.broadcast_to(self.probs, (*tokens.shape, len(self.probs))).copy()


class Doubled(Predictor):
    """Believes that the ring has eight rooms and one bell."""

    objective = "doubled"

    def __init__(self, world: Ring) -> None:
        self.world, self.name = world, "doubled"

    def next_token_probs(self, tokens: np.ndarray) -> np.ndarray:
        bell = (tokens == STEP).cumsum(axis=1) % 8 == 0
        probs = np.where(bell, 0.5, 0.0)
        return np.stack([1 - probs, probs], axis=-1)


class WrongWay(Predictor):
    """Knows the streets, but confuses one destination with another."""

    objective = "wrong way"

    def __init__(self, world: Taxi, taken: int, for_it: int) -> None:
        self.world, self.name, self.taken, self.for_it = world, "wrong way", taken, for_it

    def next_token_probs(self, tokens: np.ndarray) -> np.ndarray:
        tokens = tokens.copy()
        tokens[self.confused(tokens), 1] = self.taken
        return WorldPredictor(self.world).next_token_probs(tokens)

    def confused(self, tokens: np.ndarray) -> np.ndarray:
        return (tokens[:, 1] == self.for_it) & (tokens[:, 0] != self.taken)


def tiny_taxi(width: int = 3, height: int = 3, **options: Any) -> Any:
    return worlds.get("taxi", width=width, height=height, **options)


def fingerprint(world: World) -> str:
    """Hash everything that a measure could change in a world."""
    tokens = world.sample(8, 8 if world.length is None else None, seed=3).tokens
    parts = [repr(world.spec).encode(), tokens.tobytes(), world.legal_next(tokens).tobytes()]
    if isinstance(world, Taxi):
        parts += [world.streets.turns.tobytes(), world.rides.to_goal.tobytes()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def sequences(vocabulary: int, most: int) -> list[tuple[int, ...]]:
    return [item for size in range(1, most + 1) for item in itertools.product(range(vocabulary), repeat=size)]


def one_row(found: Any, **setting: Any) -> Any:
    table = found.table
    for name, value in setting.items():
        table = table[table[name] == value]
    (row,) = [row for _, row in table.iterrows()]
    return row
