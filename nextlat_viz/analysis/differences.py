"""Differences between two models: row by row in their predictions, layer by layer in the geometry of their latents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float, Int
from scipy.special import rel_entr

from nextlat_viz.analysis._rows import features, latents_of, prefixes, require_same_rows
from nextlat_viz.analysis.prediction import following, model_probs, require_row
from nextlat_viz.errors import LatentsError, at_least
from nextlat_viz.latents.table import column, sites
from nextlat_viz.worlds import checks

# Probabilities are read in blocks of this many rows, because a vocabulary may have 50,000 tokens.
_BLOCK = 4096


def jensen_shannon(p: Float[np.ndarray, "*rows V"], q: Float[np.ndarray, "*rows V"]) -> Float[np.ndarray, "*rows"]:
    """Return the Jensen-Shannon divergence in bits along the last axis: 0 for equal distributions, 1 for disjoint ones.

    Half of KL(p || m) plus half of KL(q || m), with m the mean of the two (Lin 1991). It is symmetric, and finite even
    where one of the two gives a token probability 0.

    Examples
    --------
    >>> jensen_shannon(np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([[0.5, 0.5], [0.0, 1.0]])).tolist()
    [0.0, 1.0]
    """
    p, q = (np.asarray(law, dtype=np.float64) for law in (p, q))
    middle = (p + q) / 2
    bits = (rel_entr(p, middle) + rel_entr(q, middle)).sum(axis=-1) / (2 * np.log(2))
    # Rounding can make the sum slightly negative.
    return np.asarray(np.maximum(bits, 0.0))


def prediction_differences(
    a: Any,
    b: Any,
    rows: Any = None,
    heads: tuple[Float[np.ndarray, "V D"] | None, Float[np.ndarray, "V E"] | None] = (None, None),
) -> Float[np.ndarray, " rows"]:
    """Return how far the next-token distributions of two models differ at every row, in bits.

    Parameters
    ----------
    a, b : AnnData, Checkpoint or name
        Latents of the same rows.
    rows : ints, or booleans for every row, optional
        Default all.
    heads : pair of (V, D) arrays or None
        As `head` in `prediction`, for latents without probabilities.

    Returns
    -------
    (rows,) array
        `jensen_shannon`, between 0 and 1.

    Raises
    ------
    LatentsError
        Tables of different rows; no probabilities and no head; vocabularies of two sizes.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> latents = nlv.extract(nlv.load("mess3/nextlat"), progress=False)
    >>> prediction_differences(latents, latents, rows=[0, 1, 2]).tolist()
    [0.0, 0.0, 0.0]
    """
    a, b = latents_of(a, "a"), latents_of(b, "b")
    require_same_rows(a, b, "a and b")
    chosen = np.arange(a.n_obs) if rows is None else checks.row_numbers("rows", rows, a.n_obs)
    parts = [np.zeros(0)]
    for block in _blocks(chosen):
        laws = [model_probs(latents, block, head) for latents, head in zip((a, b), heads, strict=True)]
        if laws[0].shape != laws[1].shape:
            raise LatentsError(
                f"a predicts {laws[0].shape[1]} tokens and b {laws[1].shape[1]}: compare models of one vocabulary"
            )
        parts.append(jensen_shannon(*laws))
    return np.concatenate(parts)


def next_token_scores(latents: Any) -> pd.DataFrame:
    """Return the model's surprise at the token that came next, and the entropy of its prediction, at every row.

    Parameters
    ----------
    latents : AnnData, Checkpoint or name

    Returns
    -------
    DataFrame
        For each row of the table, in bits: ``surprise``, -log2 of the probability of the token that came next (the loss
        at this row; NaN at the end of an episode), and ``entropy``, that of the predicted distribution.

    Raises
    ------
    LatentsError
        When the table holds no next-token probabilities.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> scores = next_token_scores(nlv.extract(nlv.load("mess3/nextlat"), progress=False))
    >>> bool(abs(scores["surprise"].mean() - scores["entropy"].mean()) < 0.05)
    True
    """
    latents = latents_of(latents)
    rows = np.arange(latents.n_obs)
    next_ids = following(latents, rows, model_probs(latents, rows[:1], None).shape[1])
    surprise, entropy = np.full(latents.n_obs, np.nan), np.full(latents.n_obs, np.nan)
    for block in _blocks(rows):
        law = model_probs(latents, block, None)
        entropy[block] = -np.where(law > 0, law * np.log2(np.maximum(law, 1e-300)), 0.0).sum(axis=1)
        known = block[next_ids[block] >= 0]
        chance = law[known - block[0], next_ids[known]]
        surprise[known] = -np.log2(np.maximum(chance, np.finfo(np.float32).tiny))
    return pd.DataFrame({"surprise": surprise, "entropy": entropy}, index=latents.obs_names)


def _blocks(rows: Int[np.ndarray, " rows"]) -> list[Int[np.ndarray, " block"]]:
    return [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]


def largest(
    latents: AnnData, rows: Int[np.ndarray, " rows"], values: Float[np.ndarray, " rows"], most: int
) -> Int[np.ndarray, " ranked"]:
    """Return the places in `rows` of the largest values above zero, largest first, one for each history.

    Rows that read the same tokens have the same latent, and would fill a list with copies; NaN is left out.
    """
    order = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")
    order = order[np.nan_to_num(values[order], nan=0.0) > 0]
    _, first = np.unique(prefixes(latents)[rows[order]], return_index=True)
    return np.asarray(order[np.sort(first)[:most]])


def layer_similarity(
    a: Any,
    b: Any,
    *,
    max_rows: int = 2000,
    seed: int = 0,
    report: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Return the similarity of every layer of one model with every layer of another (`linear_cka`).

    Parameters
    ----------
    a, b : AnnData, Checkpoint or name
        Latents of the same rows. The models may have other layers and widths.
    max_rows, seed : int
        Where there are more rows than `max_rows`, a seeded sample of them is compared.
    report : callable, optional
        Called as ``report(done, total)`` for each layer of `a`. An exception that it raises ends the computation.

    Returns
    -------
    DataFrame
        Layers of `a` down, of `b` across: linear CKA in [0, 1] (Kornblith et al. 2019); 1 for clouds that are equal up
        to rotation and scale. NaN for a layer whose rows are all equal.

    Raises
    ------
    LatentsError
        Tables of different rows, or with NaN; no more rows than dimensions, where any two clouds look similar.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> latents = nlv.extract(nlv.load("mess3/nextlat"), progress=False)
    >>> layer_similarity(latents, latents, max_rows=200).loc["block0", "block0"].round(6)
    np.float64(1.0)
    """
    a, b = latents_of(a, "a"), latents_of(b, "b")
    require_same_rows(a, b, "a and b")
    rows, at_most = np.arange(a.n_obs), at_least("max_rows", max_rows, 2)
    if len(rows) > at_most:
        rows = np.sort(np.random.default_rng(seed).choice(len(rows), at_most, replace=False))
    clouds = [{name: features(latents, name)[rows].astype(np.float64) for name in sites(latents)} for latents in (a, b)]
    widest = max(X.shape[1] for layers in clouds for X in layers.values())
    if len(rows) <= widest:
        raise LatentsError(
            f"{len(rows)} rows of {widest} dimensions make any two layers look similar: extract more episodes"
        )
    centred = [{name: X - X.mean(axis=0) for name, X in layers.items()} for layers in clouds]
    sizes = [{name: float(np.linalg.norm(X.T @ X)) for name, X in layers.items()} for layers in centred]
    values = np.full((len(centred[0]), len(centred[1])), np.nan)
    for i, (down, A) in enumerate(centred[0].items()):
        if report is not None:
            report(i, len(values))
        for j, (across, B) in enumerate(centred[1].items()):
            size = sizes[0][down] * sizes[1][across]
            if size > 0:
                values[i, j] = np.linalg.norm(B.T @ A) ** 2 / size
    return pd.DataFrame(values, index=list(centred[0]), columns=list(centred[1]))


def nearest_rows(latents: Any, row: Any, site: str = "hidden", k: int = 5) -> pd.DataFrame:
    """Return the nearest rows in the full latent space, one per history, leaving out the row's own history.

    Parameters
    ----------
    latents : AnnData, Checkpoint or name
    row : int
        Row number, from 0.
    site : str
        Layer of the latents.
    k : int
        Most rows to return.

    Returns
    -------
    DataFrame
        Nearest first: ``row``, ``episode``, ``position`` and ``distance``, Euclidean, in the units of the latents.

    Raises
    ------
    LatentsError
        No such row; latents that hold NaN.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> latents = nlv.extract(nlv.load("mess3/nextlat"), progress=False)
    >>> near = nearest_rows(latents, 20, k=3)
    >>> len(near), bool(near["distance"].is_monotonic_increasing)
    (3, True)
    """
    latents, k = latents_of(latents), at_least("k", k)
    row, X = require_row(latents, row), features(latents, site)
    distance = np.sqrt(np.square(X.astype(np.float64) - X[row].astype(np.float64)).sum(axis=1))
    history = prefixes(latents)
    order = np.argsort(distance, kind="stable")
    order = order[history[order] != history[row]]
    _, first = np.unique(history[order], return_index=True)
    chosen = order[np.sort(first)[:k]]
    places = {name: column(latents, name)[chosen] for name in ("episode", "position")}
    return pd.DataFrame({"row": chosen, **places, "distance": distance[chosen]})
