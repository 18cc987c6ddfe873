"""How a cloud of latents is shaped, and how alike two clouds are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from anndata import AnnData
from jaxtyping import Float, Int

from nextlat_viz.analysis._rows import features, finite
from nextlat_viz.analysis._threads import few_threads
from nextlat_viz.errors import LatentsError
from nextlat_viz.latents.table import column, columns


def effective_rank(X: Float[np.ndarray, "rows dim"], centered: bool = False) -> float:
    """Count the directions that matter: the exponential of the entropy of the singular values.

    With ``p_i = s_i / sum(s)`` over the singular values of `X`, those under 1e-12 dropped, this is
    ``exp(-sum p_i ln p_i)`` (Roy & Vetterli 2007): 1 for a line, n for n directions of equal size.

    Parameters
    ----------
    X : (rows, dim) array
    centered : bool
        Subtract the mean of the rows first. Without it, as in the NextLat paper (arXiv:2511.05963, section 5), a large
        common offset counts as a direction.

    Raises
    ------
    LatentsError
        Rows that hold NaN or infinity; none at all; all zero, or, centred, all alike.

    Notes
    -----
    Rows that span fewer than `dim` directions are no error: what is missing has a singular value of 0, or, after
    rounding to float32, of some 1e-7 of the largest, too little to count.

    Examples
    --------
    >>> round(effective_rank(np.eye(5)), 6)
    5.0
    >>> round(effective_rank(np.outer([1.0, 2.0, 3.0], [1.0, 1.0])), 6)
    1.0
    """
    X = finite(X).astype(np.float64)
    if X.size == 0:
        raise LatentsError(f"effective rank needs rows, got an array of shape {X.shape}")
    values = np.linalg.svd(X - X.mean(0) if centered else X, compute_uv=False)
    values = values[values > 1e-12]
    if values.size == 0:
        raise LatentsError("effective rank needs rows that are not all zero (or, centered, not all alike)")
    p = values / values.sum()
    return float(np.exp(-np.sum(p * np.log(p))))


class Procrustes(NamedTuple):
    """`B` laid over `A`: ``aligned = scale * (B @ rotation) + shift``."""

    aligned: Float[np.ndarray, "rows dim"]
    disparity: float
    rotation: Float[np.ndarray, "dim dim"]
    scale: float
    shift: Float[np.ndarray, " dim"]


def procrustes(A: Float[np.ndarray, "rows dim"], B: Float[np.ndarray, "rows_b dim_b"]) -> Procrustes:
    """Lay `B` over `A` by shift, uniform scale and rotation or reflection (orthogonal Procrustes).

    Row i of `A` and row i of `B` must be the same thing seen twice. Distances within `B` keep their ratios, so the
    alignment cannot invent agreement.

    Returns
    -------
    Procrustes
        ``aligned`` (rows, dim) in `A`'s units, and ``disparity`` in [0, 1]: the share of the variance of one cloud
        that the other, laid over it, leaves unexplained (0: same shape; the same number in both directions).

    Examples
    --------
    >>> A = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    >>> turned = 3 * A @ np.array([[0.0, 1.0], [-1.0, 0.0]]) + 5
    >>> found = procrustes(A, turned)
    >>> np.allclose(found.aligned, A), round(found.disparity, 9)
    (True, 0.0)
    """
    if A.shape != B.shape or A.ndim != 2:
        raise ValueError(f"A and B must have one shape (rows, dim), got {A.shape} and {B.shape}")
    A, B = finite(A).astype(np.float64), finite(B).astype(np.float64)
    centre_a, centre_b = A.mean(0), B.mean(0)
    size_a, size_b = np.linalg.norm(A - centre_a), np.linalg.norm(B - centre_b)
    if min(size_a, size_b) == 0:
        raise ValueError("A and B must each have rows that differ: a single point has no orientation")
    U, s, Vt = np.linalg.svd((B - centre_b).T @ (A - centre_a) / (size_a * size_b))
    rotation = U @ Vt
    scale = float(s.sum() * size_a / size_b)
    shift = centre_a - scale * centre_b @ rotation
    return Procrustes(scale * B @ rotation + shift, float(max(0.0, 1 - s.sum() ** 2)), rotation, scale, shift)


def linear_cka(A: Float[np.ndarray, "rows dim"], B: Float[np.ndarray, "rows_b dim_b"]) -> float:
    """Similarity in [0, 1] of two views of the same rows, blind to rotation and scale (Kornblith et al. 2019).

    ``|B' A|^2 / (|A' A| |B' B|)`` in Frobenius norms, columns centred. The widths may differ.

    Examples
    --------
    >>> A = np.random.default_rng(0).normal(size=(50, 4))
    >>> round(linear_cka(A, 2 * A[:, ::-1] + 1), 6)
    1.0
    """
    if A.ndim != 2 or B.ndim != 2 or len(A) != len(B):
        raise ValueError(f"A and B must be (rows, dim) with the same rows, got {A.shape} and {B.shape}")
    A, B = finite(A).astype(np.float64), finite(B).astype(np.float64)
    A, B = A - A.mean(0), B - B.mean(0)
    size = np.linalg.norm(A.T @ A) * np.linalg.norm(B.T @ B)
    if size == 0:
        raise ValueError("A and B must each have rows that differ")
    return float(np.linalg.norm(B.T @ A) ** 2 / size)


def state_numbers(latents: AnnData, by: str | Sequence[str] | None = None) -> Int[np.ndarray, " rows"]:
    """Number the true states: two rows have one number exactly when they agree in every column of `by`.

    Parameters
    ----------
    latents : AnnData
    by : str or several, optional
        What makes a state: columns of ``obs`` ("state"), or exact arrays of ``obsm`` ("belief": rows equal to 8
        decimals are one belief). Default "belief" where there is one, else every state the world has; where those are
        not the whole truth, as on Path-Star, whose graph is no state, name what is.

    Raises
    ------
    LatentsError
        No `by`, and no state in the table to take for it.
    UnknownNameError
        No such column.
    """
    if by is None:
        own = ("episode", "position", "token", "model", "next_token_probs", "next_token_probs_exact")
        by = [name for name in columns(latents) if name not in own and not name.startswith("X_")]
        by = ["belief"] if "belief" in by else by
        if not by:
            raise LatentsError("these latents hold no state of their world: say by=... what makes a state")
    numbers = np.zeros(latents.n_obs, dtype=np.int64)
    for name in [by] if isinstance(by, str) else by:
        values = column(latents, name)
        if values.dtype.kind == "f":
            values = np.round(values, 8) + 0.0
        _, which = np.unique(values, axis=0, return_inverse=True)
        both = numbers * (int(which.max(initial=0)) + 1) + which.reshape(-1)
        _, numbers = np.unique(both, return_inverse=True)
    return numbers


def same_state_spread(
    latents: AnnData, by: str | Sequence[str] | None = "belief", site: str = "hidden", min_position: int = 1
) -> float:
    """How far latents of one true state lie apart: 0 when histories of one state are merged, about 1 when unrelated.

    The mean squared distance of a latent to the mean of its state, over the total variance.

    Parameters
    ----------
    latents : AnnData
    by : str, several or None
        What makes a state; see `state_numbers`.
    site : str
    min_position : int
        Leave out positions before this one.

    Notes
    -----
    Episodes that begin alike have the very same latents there, which count as spread 0, and so does a state that
    occurs once: raise `min_position`, or take :func:`different_histories`, to see different histories of one state.
    Of unrelated latents the spread is ``(rows - states) / (rows - 1)``, near 1 only where states occur often.
    """
    use = column(latents, "position") >= min_position
    X = features(latents, site)[use].astype(np.float64)
    which = state_numbers(latents, by)[use]
    if len(X) < 2:
        raise LatentsError(f"spread needs at least two rows, found {len(X)} from position {min_position} on")
    sums = np.zeros((which.max() + 1, X.shape[1]))
    np.add.at(sums, which, X)
    means = sums / np.bincount(which)[:, None]
    total = np.square(X - X.mean(0)).sum()
    if total == 0:
        raise LatentsError(f"all latents at site {site!r} are alike: there is no variance to compare with")
    return float(np.square(X - means[which]).sum() / total)


def trustworthiness(
    X: Float[np.ndarray, "rows dim"],
    Y: Float[np.ndarray, "rows_y dim_y"],
    k: int = 10,
    max_rows: int = 2000,
    seed: int = 0,
) -> float:
    """Say how far the neighbours seen in a picture are neighbours in truth: 1 always, about 0.5 by chance.

    For each row, every one of its `k` nearest rows in `Y` that is not among its `k` nearest in `X` costs its rank in
    `X` beyond `k` (Venna & Kaski 2001; the same number as ``sklearn.manifold.trustworthiness``). Over `max_rows` rows
    a seeded subsample of `max_rows` is used: a neighbour is then one within the subsample.

    Returns
    -------
    float
        NaN for fewer than ``2 k + 2`` rows, where the measure is not defined.
    """
    if len(X) != len(Y):
        raise ValueError(f"X and Y must have the same rows, got {len(X)} and {len(Y)}")
    if len(X) > max_rows:
        chosen = np.random.default_rng(seed).choice(len(X), max_rows, replace=False)
        X, Y = X[chosen], Y[chosen]
    n = len(X)
    if n < 2 * k + 2:
        return float("nan")
    with few_threads(X.size):
        far, near = _squared_distances(X), _squared_distances(Y)
    cost = 0
    for neighbour in np.argpartition(near, k, axis=1)[:, :k].T:
        rank = (far < far[np.arange(n), neighbour][:, None]).sum(1) + 1
        cost += int(np.maximum(rank - k, 0).sum())
    return 1 - 2 * cost / (n * k * (2 * n - 3 * k - 1))


def _squared_distances(X: np.ndarray) -> np.ndarray:
    X = X.astype(np.float64)
    size = np.square(X).sum(1)
    distances = size[:, None] + size[None, :] - 2 * X @ X.T
    np.fill_diagonal(distances, np.inf)
    return distances
