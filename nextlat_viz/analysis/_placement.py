"""Where a row goes in a fitted projection: the part that out-of-sample rows need."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from nextlat_viz.analysis._threads import few_threads
from nextlat_viz.analysis.geometry import Procrustes
from nextlat_viz.analysis.umap_layout import neighbours

# Rows closer than this share of the typical row are one point: the same prefix, read in two episodes.
RESOLUTION = 1e-4


@dataclass(frozen=True, eq=False)
class Affine:
    """``X @ matrix + offset``: exact for PCA and for beliefs read by a probe."""

    matrix: Float[np.ndarray, "dim 2"]
    offset: Float[np.ndarray, " 2"]

    def __call__(self, X: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, "rows 2"]:
        return (X.astype(np.float64) @ self.matrix + self.offset).astype(np.float32)

    def moved(self, by: Procrustes) -> Affine:
        return Affine(by.scale * self.matrix @ by.rotation, by.scale * self.offset @ by.rotation + by.shift)


@dataclass(frozen=True, eq=False)
class Nearest:
    """The mean of the k nearest fitted rows' places, weighted by 1 / distance; a fitted row keeps its place."""

    fitted: Float[np.ndarray, "n dim"]
    places: Float[np.ndarray, "n 2"]
    k: int

    def __call__(self, X: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, "rows 2"]:
        indices, distances = neighbours(self.fitted, X, min(self.k, len(self.fitted)))
        same = RESOLUTION * max(float(np.linalg.norm(self.fitted, axis=1).mean()), 1e-30)
        weights = 1 / np.maximum(distances, same)
        weights[distances[:, 0] <= same, 1:] = 0
        weights /= weights.sum(axis=1, keepdims=True)
        return np.einsum("rk,rkc->rc", weights, self.places[indices]).astype(np.float32)

    def moved(self, by: Procrustes) -> Nearest:
        return replace(self, places=(by.scale * self.places @ by.rotation + by.shift).astype(np.float32))


def distinct(X: Float[np.ndarray, "rows dim"]) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " rows"]]:
    """Find the rows that differ: ``(first, which)``, so that row i is like row ``first[which[i]]``.

    Every episode that begins alike has the same latents there, hundreds of copies of them. Compared are four random
    directions, to within `RESOLUTION` of the typical row.
    """
    X = X.astype(np.float64)
    directions = np.random.default_rng(0).normal(size=(X.shape[1], 4))
    cell = RESOLUTION * max(float(np.linalg.norm(X, axis=1).mean()), 1e-30)
    _, first, which = np.unique(np.round(X @ directions / cell), axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)
    return first[order], rank[which.reshape(-1)]


def fit_pca(X: Float[np.ndarray, "rows dim"]) -> tuple[Affine, tuple[float, float]]:
    """Fit the two directions of largest variance; each points where its largest loading is positive.

    Returns the map and the shares of variance.
    """
    X = X.astype(np.float64)
    mean = X.mean(0)
    with few_threads(X.size):
        values, vectors = np.linalg.eigh((X - mean).T @ (X - mean))
    axes = vectors[:, :-3:-1]
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), [0, 1]])
    first, second = np.maximum(values[:-3:-1], 0) / max(float(np.maximum(values, 0).sum()), 1e-300)
    return Affine(axes, -mean @ axes), (float(first), float(second))
