"""A projection of latents to the plane, the map that places further rows in it, and the alignment of several."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from anndata import AnnData
from jaxtyping import Float, Int

from nextlat_viz.analysis._rows import require_model
from nextlat_viz.analysis.geometry import Procrustes, procrustes
from nextlat_viz.analysis.projection.umap import neighbours
from nextlat_viz.display import table
from nextlat_viz.errors import LatentsError
from nextlat_viz.latents.table import meta

STORED_UNDER = "nextlat_viz_projections"
# Rows closer than this share of the mean norm of a row count as equal: the same prefix, read in two episodes.
RESOLUTION = 1e-4


@dataclass(frozen=True, eq=False)
class Affine:
    """The map ``X @ matrix + offset``, which is exact for PCA and for beliefs read by a probe."""

    matrix: Float[np.ndarray, "dim 2"]
    offset: Float[np.ndarray, " 2"]

    def __call__(self, X: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, "rows 2"]:
        return (X.astype(np.float64) @ self.matrix + self.offset).astype(np.float32)

    def moved(self, by: Procrustes) -> Affine:
        """Follow the map by an alignment."""
        return Affine(by.scale * self.matrix @ by.rotation, by.scale * self.offset @ by.rotation + by.shift)


@dataclass(frozen=True, eq=False)
class Nearest:
    """The mean place of the k nearest fitted rows, weighted by 1 / distance. Fitted rows keep their place."""

    fitted: Float[np.ndarray, "n dim"]
    places: Float[np.ndarray, "n 2"]
    k: int

    def __call__(self, X: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, "rows 2"]:
        indices, distances = neighbours(self.fitted, X, min(self.k, len(self.fitted)))
        same = RESOLUTION * mean_norm(self.fitted)
        weights = 1 / np.maximum(distances, same)
        weights[distances[:, 0] <= same, 1:] = 0
        weights /= weights.sum(axis=1, keepdims=True)
        return np.einsum("rk,rkc->rc", weights, self.places[indices]).astype(np.float32)

    def moved(self, by: Procrustes) -> Nearest:
        """Follow the map by an alignment."""
        return replace(self, places=(by.scale * self.places @ by.rotation + by.shift).astype(np.float32))


def mean_norm(X: Float[np.ndarray, "rows dim"]) -> float:
    """Return the mean Euclidean norm of the rows, above 0 also where all are 0."""
    return max(float(np.linalg.norm(X, axis=1).mean()), 1e-30)


@dataclass(frozen=True, eq=False)
class Projection:
    """Rows of latents in the plane.

    Attributes
    ----------
    coordinates : (rows, 2) float32 array
        One point for each of `rows`, the row numbers in the latents.
    method, site : str
    params : dict
        All parameters of the projection.
    trustworthiness : float or None
        How far neighbours in the plane are neighbours among the latents (10 neighbours, at most 2,000 distinct rows):
        1 if all are. None for too few rows.
    explained_variance : (float, float) or None
        Shares of the variance, for PCA.
    note : str
        A caption: what is shown and how far to trust it.
    cached : bool
        Whether it came from a cache.
    label, weights_sha256, episodes_sha256 : str
        The model and the episodes.
    """

    coordinates: Float[np.ndarray, "rows 2"] = field(repr=False)
    rows: Int[np.ndarray, " rows"] = field(repr=False)
    method: str
    site: str
    params: dict[str, Any]
    trustworthiness: float | None
    explained_variance: tuple[float, float] | None
    note: str
    cached: bool
    label: str
    weights_sha256: str = field(repr=False)
    episodes_sha256: str = field(repr=False)
    placement: Affine | Nearest = field(repr=False)

    def transform(self, X: Float[np.ndarray, "new dim"]) -> Float[np.ndarray, "new 2"]:
        """Place further latents of the same model and site, ``(new, D)``, without moving the others.

        Exact for "pca" and "belief". For "umap" a row lands at the mean of the places of its `n_neighbors` nearest
        fitted rows, weighted by 1 / distance in latent space: between known groups, but never in a new one.
        """
        return self.placement(X)

    @property
    def key(self) -> str:
        """Name of this projection in ``obsm``: "X_pca", or "X_pca_block0" for another site than the hidden state."""
        return f"X_{self.method}" + ("" if self.site == "hidden" else f"_{self.site}")

    def _repr_html_(self) -> str:
        rows = {"rows": len(self.rows), **self.params}
        if self.trustworthiness is not None:
            rows["trustworthiness"] = f"{self.trustworthiness:.3f}"
        return table(f"{self.label}: {self.method} of {self.site}", rows, self.note)


def with_projection(latents: AnnData, projection: Projection) -> AnnData:
    """Return a copy of the latents with the coordinates in ``obsm``, under ``projection.key``.

    Rows that were not projected hold NaN. Method and parameters go to ``uns["nextlat_viz_projections"]``.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> latents = nlv.extract(nlv.load("mess3/nextlat"), progress=False)
    >>> with_projection(latents, nlv.project(latents)).obsm["X_pca"].shape[1]
    2
    """
    require_model(latents, projection.weights_sha256, "projection")
    if meta(latents)["episodes_sha256"] != projection.episodes_sha256 or projection.rows.max() >= latents.n_obs:
        raise LatentsError("a projection can only be stored in the very latents it was made from, with all their rows")
    coordinates = np.full((latents.n_obs, 2), np.nan, dtype=np.float32)
    coordinates[projection.rows] = projection.coordinates
    copy = latents.copy()
    copy.obsm[projection.key] = coordinates
    about = {name: getattr(projection, name) for name in ("method", "site", "params", "trustworthiness")}
    copy.uns[STORED_UNDER] = {**copy.uns.get(STORED_UNDER, {}), projection.key: json.dumps(about)}
    return copy


def aligned(projections: Sequence[Projection]) -> list[Projection]:
    """Align projections of the same rows with the first, by shift, scale, rotation and reflection.

    The axes of two PCAs or UMAPs are unrelated. After the alignment, what differs is the shape.

    Returns
    -------
    list of Projection
        The first unchanged; the others moved, with the disparity (share of variance unexplained) in their note.
    """
    if not projections:
        raise ValueError("nothing to align: give at least one projection")
    fixed, *others = projections
    moved = [fixed]
    for other in others:
        if other.episodes_sha256 != fixed.episodes_sha256 or not np.array_equal(other.rows, fixed.rows):
            raise LatentsError(
                f"{other.label} and {fixed.label} show different rows: project the same episodes and rows"
            )
        by = procrustes(fixed.coordinates, other.coordinates)
        note = f"{other.note} Aligned with {fixed.label} by Procrustes; {by.disparity:.0%} of the shape differs."
        placement = other.placement.moved(by)
        moved.append(replace(other, coordinates=by.aligned.astype(np.float32), placement=placement, note=note))
    return moved
