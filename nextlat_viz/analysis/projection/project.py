"""Project latents to the plane: by PCA, by UMAP, or as beliefs that a probe reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from nextlat_viz.analysis._rows import features, few_threads, latents_of, picture_world, require_model
from nextlat_viz.analysis.geometry import trustworthiness
from nextlat_viz.analysis.probes.result import ProbeResult
from nextlat_viz.analysis.projection.result import RESOLUTION, Affine, Nearest, Projection, mean_norm
from nextlat_viz.analysis.projection.umap import (
    ProjectionCache,
    Stored,
    alike,
    default_cache,
    fingerprint,
    key_of,
    umap_layout,
)
from nextlat_viz.errors import LatentsError, at_least, one_of, shown
from nextlat_viz.latents.table import column, meta
from nextlat_viz.worlds import checks

METHODS = ("pca", "umap", "belief")
# Part of the cache key: raise it when the same parameters would give another layout.
RECIPE = 1


def project(
    latents: Any,
    method: str = "pca",
    site: str = "hidden",
    rows: ArrayLike | None = None,
    probe: ProbeResult | None = None,
    seed: int = 0,
    cache: bool | ProjectionCache = True,
    n_neighbors: int = 15,
    min_dist: float | int = 0.1,
    n_epochs: int = 200,
) -> Projection:
    """Project latents to the plane.

    Parameters
    ----------
    latents : AnnData, Checkpoint or name
        Of one model. A checkpoint is extracted on its held-out episodes.
    method : str
        "pca"; "umap" (cached; the first in a process takes 20 s and more: see `project_in_process`); "belief": the
        reading of `probe` in the world's own picture coordinates, which are the same for every model of that world.
    site : str
        One of `latents.sites`, or "all". "belief" takes the site of the probe.
    rows : ints, or booleans for every row, optional
        Fit and show only these rows; default all.
    probe : ProbeResult
        For "belief": a belief probe of this model.
    seed, n_neighbors, min_dist, n_epochs
        For "umap". Rows equal to within 1e-4, such as the same prefix in two episodes, are laid out once.
    cache : bool or ProjectionCache
        Where to read and write UMAP layouts; True for `default_cache`.

    Raises
    ------
    LatentsError
        Too few different rows for UMAP (at least ``n_neighbors + 2``), rows that are not there, NaN in the latents, a
        probe of another model.
    UnknownNameError
        No such method or site.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> latents = nlv.extract(nlv.load("mess3/nextlat"), progress=False)
    >>> plane = project(latents, "pca")
    >>> bool(np.allclose(plane.transform(latents.X[:5]), plane.coordinates[:5], atol=1e-5))
    True
    """
    latents, seed = latents_of(latents), at_least("seed", seed, 0)
    if method == "umap":
        return umap_projection(latents, umap_layout, site, rows, seed, cache, n_neighbors, min_dist, n_epochs)
    one_of("projection method", method, METHODS)
    chosen, about = _chosen(latents, rows), meta(latents)
    explained, params = None, {}
    if method == "pca":
        X = _planar(features(latents, site)[chosen], site, method)
        placement, explained = fit_pca(X)
        note = f"PCA: the two directions of largest variance ({explained[0]:.0%} and {explained[1]:.0%} of it)."
    else:
        if not isinstance(probe, ProbeResult) or probe.target != "belief":
            raise ValueError(
                "method 'belief' needs probe=..., a probe of target 'belief' fitted on these latents, "
                f"got probe={shown(probe)}"
            )
        require_model(latents, probe.weights_sha256, "probe")
        site, params = probe.site, {"probe_seed": probe.seed, "probe_penalty": probe.penalty}
        X, world = _planar(features(latents, site)[chosen], site, method), picture_world(latents)
        # Picture coordinates are affine in the belief, so the origin and the corners determine the map.
        origin = world.belief_coordinates(np.zeros(len(probe.intercept)))
        corners = world.belief_coordinates(np.eye(len(probe.intercept))) - origin
        placement = Affine(probe.coef.T @ corners, probe.intercept @ corners + origin)
        note = f"The belief as a linear probe reads it (held-out R2 {probe.score:.2f}). {world.belief_axes}"
    coordinates, (first, _) = placement(X), distinct_rows(X)
    trust = trustworthiness(X[first], coordinates[first])
    return Projection(
        coordinates=coordinates,
        rows=chosen,
        method=method,
        site=site,
        params=params,
        trustworthiness=None if np.isnan(trust) else trust,
        explained_variance=explained,
        note=note,
        cached=False,
        label=about["label"],
        weights_sha256=about["weights_sha256"],
        episodes_sha256=about["episodes_sha256"],
        placement=placement,
    )


def umap_projection(
    latents: AnnData,
    lay_out: Callable[..., Float[np.ndarray, "n 2"]],
    site: str = "hidden",
    rows: ArrayLike | None = None,
    seed: int = 0,
    cache: bool | ProjectionCache = True,
    n_neighbors: int = 15,
    min_dist: float | int = 0.1,
    n_epochs: int = 200,
) -> Projection:
    """Return a UMAP from the cache, or lay out the different rows by `lay_out`, called as `umap_layout`, and store it.

    The other arguments are those of `project`.
    """
    n_neighbors = checks.integer("n_neighbors", n_neighbors, 2, 1000)
    n_epochs = checks.integer("n_epochs", n_epochs, 1, 100_000)
    min_dist = checks.number("min_dist", min_dist)
    chosen, about = _chosen(latents, rows), meta(latents)
    X = _planar(features(latents, site)[chosen], site, "umap")
    first, which = distinct_rows(X)
    if first.size < n_neighbors + 2:
        raise LatentsError(
            f"UMAP with n_neighbors={n_neighbors} needs at least {n_neighbors + 2} different rows, and these "
            f"{len(X)} rows are {first.size} different ones: take more rows, fewer neighbours, or method='pca'"
        )
    different = X[first]
    params = {"n_neighbors": n_neighbors, "min_dist": min_dist, "n_epochs": n_epochs, "seed": seed}
    where = np.stack([column(latents, "episode")[chosen], column(latents, "position")[chosen]]).astype("<i8")
    provenance = {
        "recipe": RECIPE,
        "method": "umap",
        "site": site,
        "params": params,
        "weights_sha256": about["weights_sha256"],
        "episodes_sha256": about["episodes_sha256"],
        "world": json.loads(about["world"]),
        "rows_sha256": hashlib.sha256(where.tobytes()).hexdigest(),
    }
    if not isinstance(cache, ProjectionCache):
        cache = default_cache() if cache else ProjectionCache()
    key, of_latents = key_of(provenance), fingerprint(different[which])
    stored = cache.load(key)
    cached = stored is not None and len(stored.coordinates) == len(X) and alike(stored.fingerprint, of_latents)
    if stored is None or not cached:
        layout = lay_out(different, **params)
        stored = Stored(layout[which], trustworthiness(different, layout), of_latents)
        cache.store(key, stored, {**provenance, "label": about["label"]})
    return Projection(
        coordinates=stored.coordinates,
        rows=chosen,
        method="umap",
        site=site,
        params=params,
        trustworthiness=None if np.isnan(stored.trustworthiness) else stored.trustworthiness,
        explained_variance=None,
        note=(
            f"UMAP of the {first.size:,} different rows among {len(chosen):,} ({n_neighbors} neighbours, min_dist "
            f"{min_dist}). Near points are similar. Distances between groups and their sizes mean little."
        ),
        cached=cached,
        label=about["label"],
        weights_sha256=about["weights_sha256"],
        episodes_sha256=about["episodes_sha256"],
        placement=Nearest(different, stored.coordinates[first], n_neighbors),
    )


def distinct_rows(X: Float[np.ndarray, "rows dim"]) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " rows"]]:
    """Find the different rows: ``(first, which)``, so that row i equals row ``first[which[i]]``.

    Episodes that begin alike give hundreds of copies of the same latents. Rows are compared along four random
    directions, to within `RESOLUTION` of the mean norm of a row.
    """
    X = X.astype(np.float64)
    directions = np.random.default_rng(0).normal(size=(X.shape[1], 4))
    cells = np.round(X @ directions / (RESOLUTION * mean_norm(X)))
    which = pd.DataFrame(cells).groupby(list(range(4)), sort=False).ngroup().to_numpy()
    return np.unique(which, return_index=True)[1], which


def fit_pca(X: Float[np.ndarray, "rows dim"]) -> tuple[Affine, tuple[float, float]]:
    """Fit the two directions of largest variance, and return the map and the shares of variance.

    An eigenvector has no sign. Each axis is turned so that its largest loading is positive.
    """
    X = X.astype(np.float64)
    mean = X.mean(0)
    with few_threads(X.size):
        values, vectors = np.linalg.eigh((X - mean).T @ (X - mean))
    axes = vectors[:, :-3:-1]
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), [0, 1]])
    first, second = np.maximum(values[:-3:-1], 0) / max(float(np.maximum(values, 0).sum()), 1e-300)
    return Affine(axes, -mean @ axes), (float(first), float(second))


def _chosen(latents: AnnData, rows: ArrayLike | None) -> np.ndarray:
    return np.arange(latents.n_obs) if rows is None else checks.row_numbers("rows", rows, latents.n_obs)


def _planar(X: np.ndarray, site: str, method: str) -> np.ndarray:
    if X.shape[0] < 3 or X.shape[1] < 2:
        raise LatentsError(f"{method} needs at least 3 rows of 2 numbers, got {X.shape[0]} of {X.shape[1]} at {site!r}")
    return X
