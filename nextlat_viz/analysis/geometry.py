"""Geometry of rows of numbers: effective rank, alignment, similarity, curvature of paths, trust in projections."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from nextlat_viz.analysis._rows import few_threads, finite
from nextlat_viz.errors import LatentsError


def effective_rank(X: Float[np.ndarray, "rows dim"], centered: bool = False) -> float:
    """Return the effective number of directions: the exponential of the entropy of the singular values.

    With ``p_i = s_i / sum(s)`` over the singular values of `X` above 1e-12, this is ``exp(-sum p_i ln p_i)`` (Roy &
    Vetterli 2007): 1 for a line, n for n directions of equal size.

    Parameters
    ----------
    X : (rows, dim) array
    centered : bool
        Subtract the mean of the rows first. Without it, as in the NextLat paper (arXiv:2511.05963, section 5), a large
        common offset counts as a direction.

    Raises
    ------
    LatentsError
        Rows with NaN or infinity; no rows; rows that are all zero, or, centred, all equal.

    Notes
    -----
    Rows may span fewer than `dim` directions. The singular values of the others are 0, or about 1e-7 of the largest
    after rounding to float32, too little to count.

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
        raise LatentsError("effective rank needs rows that are not all zero (or, centered, not all equal)")
    p = values / values.sum()
    return float(np.exp(-np.sum(p * np.log(p))))


class Procrustes(NamedTuple):
    """`B` aligned with `A`: ``aligned = scale * (B @ rotation) + shift``."""

    aligned: Float[np.ndarray, "rows dim"]
    disparity: float
    rotation: Float[np.ndarray, "dim dim"]
    scale: float
    shift: Float[np.ndarray, " dim"]


def procrustes(A: Float[np.ndarray, "rows dim"], B: Float[np.ndarray, "rows_b dim_b"]) -> Procrustes:
    """Align `B` with `A` by shift, uniform scale and rotation or reflection (orthogonal Procrustes).

    Row i of `A` and row i of `B` must be two views of the same item. Distances within `B` keep their ratios, so the
    alignment cannot create agreement.

    Returns
    -------
    Procrustes
        ``aligned`` (rows, dim) in `A`'s units, and ``disparity`` in [0, 1]: the share of the variance of one
        cloud that the other, aligned with it, leaves unexplained (0: same shape; symmetric).

    Examples
    --------
    >>> A = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    >>> turned = 3 * A @ np.array([[0.0, 1.0], [-1.0, 0.0]]) + 5
    >>> fit = procrustes(A, turned)
    >>> np.allclose(fit.aligned, A), round(fit.disparity, 9)
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
    """Return the similarity in [0, 1] of two views of the same rows (linear CKA; Kornblith et al. 2019).

    ``|B' A|^2 / (|A' A| |B' B|)`` in Frobenius norms, columns centred: invariant to rotation and scale. The widths may
    differ.

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


def path_length(path: Float[np.ndarray, "positions dim"]) -> float:
    """Return the length of a path: the sum of the lengths of its steps, in the units of the latents.

    Examples
    --------
    >>> path_length(np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 5.0]]))
    6.0
    """
    return float(np.linalg.norm(np.diff(finite(path).astype(np.float64), axis=0), axis=1).sum())


def curvature(path: Float[np.ndarray, "positions dim"]) -> Float[np.ndarray, " turns"]:
    """Return the angles between successive steps, in radians: 0 is straight, pi is a reversal.

    Parameters
    ----------
    path : (positions, dim) array

    Returns
    -------
    (max(positions - 2, 0),) array
        NaN where one of the two steps has length 0 and so no direction.

    Notes
    -----
    Their mean is the curvature of Hénaff, Goris and Simoncelli (2019), "Perceptual straightening of natural videos".

    Examples
    --------
    >>> np.degrees(curvature(np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [2.0, 3.0], [2.0, 1.0]]))).round(6).tolist()
    [0.0, 90.0, 180.0]
    """
    steps = np.diff(finite(path).astype(np.float64), axis=0)
    lengths = np.linalg.norm(steps, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        directions = np.where(lengths > 0, steps / lengths, np.nan)
    before, after = directions[:-1], directions[1:]
    # By half the angle: the arc cosine loses half of the digits near 0 and pi (Kahan 2006).
    return 2 * np.arctan2(np.linalg.norm(after - before, axis=1), np.linalg.norm(after + before, axis=1))


def trustworthiness(
    X: Float[np.ndarray, "rows dim"],
    Y: Float[np.ndarray, "rows_y dim_y"],
    k: int = 10,
    max_rows: int = 2000,
    seed: int = 0,
) -> float:
    """Return how far neighbours in a projection are neighbours in the data: 1 if all are, about 0.5 by chance.

    Each of the `k` nearest rows in `Y` that is not among the `k` nearest in `X` costs its rank in `X` beyond `k` (Venna
    & Kaski 2001; the same number as ``sklearn.manifold.trustworthiness``). Of more than `max_rows` rows, a seeded
    sample is used, and neighbours are neighbours within it.

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
        in_data, in_plane = _squared_distances(X), _squared_distances(Y)
    cost = 0
    for neighbour in np.argpartition(in_plane, k, axis=1)[:, :k].T:
        rank = (in_data < in_data[np.arange(n), neighbour][:, None]).sum(1) + 1
        cost += int(np.maximum(rank - k, 0).sum())
    return 1 - 2 * cost / (n * k * (2 * n - 3 * k - 1))


def _squared_distances(X: np.ndarray) -> np.ndarray:
    X = X.astype(np.float64)
    size = np.square(X).sum(1)
    distances = size[:, None] + size[None, :] - 2 * X @ X.T
    np.fill_diagonal(distances, np.inf)
    return distances
