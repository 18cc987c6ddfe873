"""A projection of latents to the plane: what it shows, how far to trust it, and where further rows go."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from anndata import AnnData
from jaxtyping import Float, Int

from nextlat_viz.analysis._placement import Affine, Nearest
from nextlat_viz.analysis._rows import require_model
from nextlat_viz.analysis.geometry import procrustes
from nextlat_viz.display import table
from nextlat_viz.errors import LatentsError
from nextlat_viz.latents.table import meta

STORED_UNDER = "nextlat_viz_projections"


@dataclass(frozen=True, eq=False)
class Projection:
    """Rows of latents in the plane.

    Attributes
    ----------
    coordinates : (rows, 2) float32 array
        One point for each of `rows`, the row numbers in the latents.
    method, site : str
    params : dict
        Everything that shaped the picture.
    trustworthiness : float or None
        How far neighbours in the picture are neighbours in the latents (10 neighbours, at most 2,000 distinct rows):
        1 always. None for too few rows.
    explained_variance : (float, float) or None
        PCA's shares of the variance.
    note : str
        A caption: what is shown and how far to trust it.
    cached : bool
        Whether it came from a cache.
    label, weights_sha256, episodes_sha256 : str
        Whose latents these are.
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

        Exact for "pca" and "belief". For "umap" a row lands at the mean of its `n_neighbors` nearest fitted rows'
        places, weighted by 1 / distance in latent space: it can lie between known groups, but never form a new one.
        """
        return self.placement(X)

    @property
    def key(self) -> str:
        """Name of this projection in ``obsm``: "X_pca", or "X_pca_block0" for another site than the hidden state."""
        return f"X_{self.method}" + ("" if self.site == "hidden" else f"_{self.site}")

    def _repr_html_(self) -> str:
        rows = {"rows": str(len(self.rows)), **{key: str(value) for key, value in self.params.items()}}
        if self.trustworthiness is not None:
            rows["trustworthiness"] = f"{self.trustworthiness:.3f}"
        return table(f"{self.label}: {self.method} of {self.site}", rows, self.note)


def with_projection(latents: AnnData, projection: Projection) -> AnnData:
    """Return a copy of the latents with the coordinates in ``obsm`` (under ``projection.key``).

    Rows that were not projected hold NaN. How it was made goes to ``uns["nextlat_viz_projections"]``.
    """
    require_model(latents, projection.weights_sha256, "projection")
    if meta(latents)["episodes_sha256"] != projection.episodes_sha256 or projection.rows.max() >= latents.n_obs:
        raise LatentsError("a projection goes back to the very latents it was made from")
    coordinates = np.full((latents.n_obs, 2), np.nan, dtype=np.float32)
    coordinates[projection.rows] = projection.coordinates
    copy = latents.copy()
    copy.obsm[projection.key] = coordinates
    about = {
        "method": projection.method,
        "site": projection.site,
        "params": projection.params,
        "trustworthiness": projection.trustworthiness,
    }
    copy.uns[STORED_UNDER] = {**copy.uns.get(STORED_UNDER, {}), projection.key: json.dumps(about)}
    return copy


def aligned(projections: Sequence[Projection]) -> list[Projection]:
    """Lay projections of the same rows over the first, by shift, scale, rotation and reflection.

    Axes of two models' PCA or UMAP have nothing to do with each other; after this, what still differs is the shape.

    Returns
    -------
    list of Projection
        The first as it is; the others moved, with the disparity (share of variance unexplained) in their note.
    """
    if not projections:
        raise ValueError("nothing to align: give at least one projection")
    fixed = projections[0]
    moved = [fixed]
    for one in projections[1:]:
        if one.episodes_sha256 != fixed.episodes_sha256 or not np.array_equal(one.rows, fixed.rows):
            raise LatentsError(f"{one.label} and {fixed.label} show different rows: project the same episodes and rows")
        by = procrustes(fixed.coordinates, one.coordinates)
        note = f"{one.note} Laid over {fixed.label} by Procrustes; {by.disparity:.0%} of the shape differs."
        placement = one.placement.moved(by)
        moved.append(replace(one, coordinates=by.aligned.astype(np.float32), placement=placement, note=note))
    return moved
