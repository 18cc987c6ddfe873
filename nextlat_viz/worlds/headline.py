"""A world's headline measure: what a model knows of it, logged in training."""

from __future__ import annotations

from collections.abc import Iterable

# Measures of what a model knows of its world. A world's headline measure is the first of these that its runs log.
HEADLINES = {
    "accuracy": "share of right decisive predictions",
    "belief_r2": "R² of the belief, read by a linear map",
    "legal": "probability on legal tokens",
}


def headline(row: Iterable[str]) -> str:
    """Name of the world's headline measure in a row of metrics; empty if it has none.

    Examples
    --------
    >>> headline({"step": 100.0, "loss": 0.6, "belief_r2": 0.9})
    'belief_r2'
    """
    logged = set(row)
    return next((name for name in HEADLINES if name in logged), "")
