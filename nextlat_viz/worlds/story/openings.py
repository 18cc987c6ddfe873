"""Which openings a story may have, and which of them are held out."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

_HELD_OUT = 0.1


def openings(people: int, places: int) -> dict[str, Int[np.ndarray, "openings people"]]:
    """Every way for people to be in places, by split: a tenth of them, chosen by a fixed hash, is ``"test"``.

    Examples
    --------
    >>> parts = openings(people=2, places=3)
    >>> len(parts["train"]), parts["test"].tolist()
    (8, [[0, 1]])
    """
    index = np.arange(places**people)
    found = index[:, None] // places ** np.arange(people) % places
    order = np.argsort(_scrambled(index), kind="stable")
    test = max(1, round(_HELD_OUT * len(index)))
    return {"train": found[order[test:]], "test": found[order[:test]]}


def _scrambled(values: Int[np.ndarray, " values"]) -> np.ndarray:
    """A fixed bijection of 64-bit integers that leaves no pattern (SplitMix64, Steele et al. 2014)."""
    mixed = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
