"""Equivalent histories: pairs of different histories of one true state, ranked by the distance of their latents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Bool, Float, Int

from nextlat_viz.analysis._rows import episode_index, features, latents_of, prefixes
from nextlat_viz.analysis.shape import mean_distance, pairs_between_states, state_numbers
from nextlat_viz.errors import LatentsError, at_least
from nextlat_viz.latents.table import column, meta, tokens_of

LARGEST_STATE = 512
"""In a state with at most this many histories, all pairs are compared."""

_SAMPLED_PAIRS = 4096


def same_state_pairs(
    latents: Any,
    by: str | Sequence[str] = "belief",
    site: str = "hidden",
    n: int = 50,
    min_position: int = 0,
    seed: int = 0,
) -> pd.DataFrame:
    """Rank pairs of different histories of one true state by the distance between their latents.

    ``relative`` is near 0 where the model has merged the histories, and near 1 where it separates them like two
    different states.

    Parameters
    ----------
    latents : AnnData, Checkpoint or name
        Of one model. A checkpoint is extracted on its held-out episodes.
    by : str or several
        Columns that define a state: of ``obs``, or an exact array of ``obsm`` ("belief": rows equal to 8 decimals are
        one belief). Rows must agree in all of several, such as ``("node", "destination")``. Rows where a value is
        missing have no state.
    site : str
        One of `latents.sites`, or "all".
    n : int
        Most pairs to return.
    min_position : int
        Leave out rows before this position (positions count from 1).
    seed : int
        Of the sampled pairs and histories, see Notes.

    Returns
    -------
    DataFrame
        A row per pair of different prefixes, farthest first: ``state``; ``episode_a, position_a, episode_b,
        position_b``, the first rows with these prefixes; ``distance``, Euclidean, in the units of the latents;
        ``relative``, distance / mean distance between different states; ``prefix_a, prefix_b``, the tokens. It is empty
        where no state has two histories.

    Raises
    ------
    LatentsError
        No rows; only one state; latents that are all equal or hold NaN.
    UnknownNameError
        No such column or site.

    Notes
    -----
    The mean distance between different states is over all pairs of prefixes, or 4,096 sampled ones where there are
    more. In a state with more than 512 prefixes, the 256 farthest from their mean and 256 others are compared.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> checkpoint = nlv.load("rrxor/nextlat")
    >>> latents = nlv.extract(checkpoint, checkpoint.world.sample(40, 8, seed=1))
    >>> pairs = same_state_pairs(latents, n=3)
    >>> pairs.shape, bool((pairs["prefix_a"] != pairs["prefix_b"]).all())
    ((3, 9), True)
    """
    at_least("n", n)
    latents = latents_of(latents)
    meta(latents)
    names = [by] if isinstance(by, str) else list(by)
    if not names:
        raise ValueError("by is empty: name a column that defines a state, such as 'belief'")
    values = {name: column(latents, name) for name in names}
    known = np.logical_and.reduce([_known(latents, name, column_values) for name, column_values in values.items()])
    use = np.flatnonzero((column(latents, "position") >= min_position) & known)
    if use.size == 0:
        raise LatentsError(f"no row from position {min_position} on has a value of {by!r}: lower min_position")
    prefix = prefixes(latents)
    # Rows with the same tokens have the same latent: keep the first.
    rows = np.sort(use[np.unique(prefix[use], return_index=True)[1]])
    states = state_numbers(latents[rows], names)
    if states.max() == 0:
        raise LatentsError(f"all rows have one state by {by!r}: there is no distance between states to compare with")
    X = features(latents, site)[rows].astype(np.float64)
    rng = np.random.default_rng(seed)
    between = mean_distance(X, pairs_between_states(states, _SAMPLED_PAIRS, rng))
    if between == 0:
        raise LatentsError("all latents are equal: there is no distance to compare with")
    first, second, distance = _farthest(X, states, n, rng)
    a, b = rows[first], rows[second]
    episode, position = column(latents, "episode"), column(latents, "position")
    return pd.DataFrame(
        {
            "state": [
                "; ".join(_text(latents, name, by_row[row]) for name, by_row in values.items()) for row in a.tolist()
            ],
            "episode_a": episode[a],
            "position_a": position[a],
            "episode_b": episode[b],
            "position_b": position[b],
            "distance": distance,
            "relative": distance / between,
            "prefix_a": _read(latents, a),
            "prefix_b": _read(latents, b),
        }
    )


def _known(latents: AnnData, by: str, values: np.ndarray) -> Bool[np.ndarray, " rows"]:
    if by in latents.obs:
        return np.asarray(latents.obs[by].notna())
    return np.isfinite(values).reshape(len(values), -1).all(axis=1)


def _farthest(
    X: Float[np.ndarray, "rows D"], states: Int[np.ndarray, " rows"], n: int, rng: np.random.Generator
) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"], Float[np.ndarray, " pairs"]]:
    """Return the farthest pairs of rows of one state: two row numbers, the lower first, and their distance."""
    # Here, because the studio imports this module and should open soon.
    from scipy.spatial.distance import pdist

    order = np.argsort(states, kind="stable")
    parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for members in np.split(order, np.flatnonzero(np.diff(states[order])) + 1):
        if members.size > 1:
            chosen = _candidates(X, members, rng)
            i, j = np.triu_indices(chosen.size, 1)
            distance = pdist(X[chosen])
            most = np.argsort(-distance, kind="stable")[:n]
            parts.append((chosen[i[most]], chosen[j[most]], distance[most]))
    first, second, distance = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    keep = np.lexsort((second, first, -distance))[:n]
    return first[keep], second[keep], distance[keep]


def _candidates(
    X: Float[np.ndarray, "rows D"], members: Int[np.ndarray, " m"], rng: np.random.Generator
) -> Int[np.ndarray, " c"]:
    if members.size <= LARGEST_STATE:
        return members
    far = np.argsort(-np.square(X[members] - X[members].mean(0)).sum(1), kind="stable")
    half = LARGEST_STATE // 2
    others = rng.choice(far[half:], LARGEST_STATE - half, replace=False)
    return np.sort(members[np.concatenate([far[:half], others])])


def _text(latents: AnnData, by: str, value: Any) -> str:
    if np.ndim(value) == 0:
        return f"{value:.6g}" if isinstance(value, np.floating) else str(value)
    numbers = np.asarray(value)
    names = meta(latents)["state_names"] if by == "belief" else []
    if len(names) != numbers.size:
        return ", ".join(f"{number:.3g}" for number in numbers.tolist())
    # Impossible states are left out: of five states, a belief in one alone reads "T 1".
    return ", ".join(f"{name} {p:.3g}" for name, p in zip(names, numbers.tolist(), strict=True) if abs(p) > 5e-9)


def _read(latents: AnnData, rows: Int[np.ndarray, " pairs"]) -> list[str]:
    """Return the tokens up to each row; ``?`` for a token that is not in the table."""
    names = [*meta(latents)["vocabulary"], "?"]
    tokens, episode, position = tokens_of(latents), episode_index(latents), column(latents, "position")
    return [" ".join(names[token] for token in tokens[episode[row], : position[row]].tolist()) for row in rows.tolist()]
