"""Geometry of the latents of several runs, over layers and snapshots, and their similarity."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from tqdm.auto import tqdm

from nextlat_viz.analysis._rows import features
from nextlat_viz.analysis.geometry import effective_rank, linear_cka, procrustes
from nextlat_viz.analysis.measure import Models, Rows, clustered, measure, several
from nextlat_viz.analysis.shape import different_histories, merge_distance, same_state_spread, trajectory_shapes
from nextlat_viz.decoding.predictor import ModelPredictor
from nextlat_viz.errors import at_least, one_of
from nextlat_viz.latents.extraction import HELDOUT_SEED, extract, heldout
from nextlat_viz.latents.table import sites as sites_of
from nextlat_viz.latents.thinking import is_recursive
from nextlat_viz.worlds import Episodes

By = str | Sequence[str] | None

_UNITS = {
    "effective_rank": "directions",
    "same_state_spread": "of the variance",
    "merge_distance": "of different states",
    "curvature": "radians",
    "path_length": "radii of the cloud",
}


@measure(
    "latent geometry",
    by=("site", "quantity"),
    unit=_UNITS,
    note="Of held-out episodes. Effective rank, in directions, is not centred; spread and merge distance are near 0 "
    "where histories of one state have one latent; curvature is in radians, path length in root mean square radii of "
    "the cloud. NextLat (arXiv:2511.05963), section 5; Roy & Vetterli 2007; Hénaff et al. 2019.",
    of=ModelPredictor,
    fits=lambda checkpoint: checkpoint.world.rules_known and not is_recursive(checkpoint),
)
def latent_geometry(
    models: Models[ModelPredictor],
    quantities: str | Sequence[str] = tuple(_UNITS),
    sites: str | Sequence[str] = ("hidden",),
    snapshots: int | Sequence[int] | Literal["all"] | None = None,
    *,
    by: By = None,
    min_position: int = 1,
    n: int = 256,
    seed: int = HELDOUT_SEED,
) -> Rows:
    """Measure the shape of latents: their directions, how far they merge states, how straight their trajectories are.

    Parameters
    ----------
    quantities : names
        - ``"effective_rank"``: `effective_rank` of the latents, not centred, in directions;
        - ``"same_state_spread"``: `same_state_spread` over `different_histories`, a share of the variance;
        - ``"merge_distance"``: `merge_distance`, of the distance between different states;
        - ``"curvature"``: mean angle between successive steps in radians, and ``"path_length"``: the path length over
          the root mean square distance of latents to their mean, both of `trajectory_shapes`, means over episodes.
    sites : "all", or names
        Layers, as in ``nlv.extract``.
    snapshots : step, several or "all", optional
        Earlier steps of the same runs, by ``checkpoint.at``; 0 is before training, "all" is 0 and every kept step.
    by : str or several, optional
        Columns that define the state; see `state_numbers`.
    min_position : int
        Leave out positions before this one.

    Returns
    -------
    Measure
        By site and quantity, and by step with `snapshots`. ``trials`` are rows, histories or episodes; means over
        episodes have a standard error over episodes. Where no state has two histories, spread and merge distance are
        NaN with 0 trials.

    Raises
    ------
    ValueError
        No trained model; a snapshot that was not kept; fewer than two episodes.
    UnknownNameError
        No such quantity, site or column.
    LatentsError
        Latents that hold NaN or infinity or are all equal.

    Examples
    --------
    >>> ranks = latent_geometry("mess3/nextlat", ["effective_rank"], "all", n=16, progress=False)
    >>> ranks.table["site"].tolist()
    ['embed', 'block0', 'block1', 'hidden']
    """
    quantities = several(quantities)
    for quantity in quantities:
        one_of("quantity", quantity, _UNITS)
    episodes = _episodes(models, n, seed)
    jobs = [(model, step) for model in models.all for step in _steps(model, snapshots)]
    for model, step in models.track(jobs):
        checkpoint = model.checkpoint if snapshots is None else model.checkpoint.at(step)
        latents = extract(checkpoint, episodes, sites, progress=False, positions=_from(min_position))
        for site in sites_of(latents) if sites == "all" else several(sites):
            for quantity in quantities:
                score = _score(quantity, latents, site, by)
                yield model, {"step": step, "site": site, "quantity": quantity, **score}
    return {} if snapshots is None else {"by": ("step", "site", "quantity")}


def similarity(
    models: Any,
    sites: str | Sequence[str] = ("hidden",),
    *,
    min_position: int = 1,
    n: int = 256,
    seed: int = HELDOUT_SEED,
    progress: bool = True,
) -> pd.DataFrame:
    """Compare the latents of every two runs and layers on the same episodes, row by row.

    Parameters
    ----------
    models : Checkpoint or several
    sites : "all", or names
        Layers, as in ``nlv.extract``. Several layers are compared within runs and between them.
    min_position, n, seed, progress
        As in `latent_geometry`.

    Returns
    -------
    DataFrame
        A row for every ordered pair, including each with itself: ``model, objective, seed, site`` and
        ``other, other_objective, other_seed, other_site``; ``cka``, linear CKA (Kornblith et al. 2019; 1: equal up to
        rotation and scale), and ``disparity``, the share of variance an orthogonal Procrustes alignment leaves
        unexplained (0: same shape). Narrower latents are padded with zeros for the alignment, which keeps distances.

    Raises
    ------
    ValueError
        No trained model; fewer than two episodes; as many dimensions as rows, where CKA is always high.
    LatentsError
        Latents that hold NaN or infinity.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> pairs = similarity([nlv.load("mess3/nextlat"), nlv.load("mess3/next_token")], n=32, progress=False)
    >>> pairs.pivot(index="objective", columns="other_objective", values="cka").round(3).iloc[0, 0]
    np.float64(1.0)
    """
    chosen: Models[ModelPredictor] = Models("similarity", models, ModelPredictor, progress)
    episodes = _episodes(chosen, n, seed)
    clouds: list[tuple[dict[str, Any], np.ndarray]] = []
    for predictor in chosen:
        latents = extract(predictor.checkpoint, episodes, sites, progress=False, positions=_from(min_position))
        for site in sites_of(latents) if sites == "all" else several(sites):
            X = features(latents, site)
            if len(X) <= X.shape[1]:
                raise ValueError(
                    f"n={n} episodes give {len(X)} rows of {X.shape[1]} dimensions, where any two clouds look "
                    "similar: raise n"
                )
            run = {"model": predictor.name, "objective": predictor.objective, "seed": predictor.seed, "site": site}
            clouds.append((run, X))
    scores = {}
    pairs = list(itertools.combinations_with_replacement(range(len(clouds)), 2))
    for i, j in tqdm(pairs, desc="similarity", unit="pair", disable=not progress):
        A, B = clouds[i][1], clouds[j][1]
        width = max(A.shape[1], B.shape[1])
        A, B = (np.pad(X, ((0, 0), (0, width - X.shape[1]))) for X in (A, B))
        scores[i, j] = scores[j, i] = (linear_cka(A, B), procrustes(A, B).disparity)
    rows = []
    for i, j in itertools.product(range(len(clouds)), repeat=2):
        other = {"other" if key == "model" else f"other_{key}": value for key, value in clouds[j][0].items()}
        rows.append(clouds[i][0] | other | dict(zip(("cka", "disparity"), scores[i, j], strict=True)))
    return pd.DataFrame(rows)


def _episodes(models: Models[ModelPredictor], n: int, seed: int) -> Episodes:
    """Sample the episodes that all models read, as long as the shortest context."""
    at_least("n", n, 2, "geometry needs two episodes")
    return heldout(min(models.all, key=lambda model: model.context or 0).checkpoint, n, seed)


def _from(min_position: int) -> slice:
    return slice(at_least("min_position", min_position, why="positions count from 1"), None)


def _steps(predictor: ModelPredictor, snapshots: int | Sequence[int] | Literal["all"] | None) -> list[int]:
    if snapshots is None:
        return [predictor.checkpoint.step]
    return [0, *predictor.checkpoint.snapshots] if snapshots == "all" else [int(step) for step in several(snapshots)]


def _score(quantity: str, latents: AnnData, site: str, by: By) -> dict[str, float | int]:
    if quantity == "effective_rank":
        return {"value": effective_rank(features(latents, site)), "trials": latents.n_obs}
    if quantity in ("curvature", "path_length"):
        column = "curvature" if quantity == "curvature" else "relative_length"
        values = trajectory_shapes(latents, site)[column].dropna().to_numpy()
        return clustered(values, np.ones(len(values)))
    rows = different_histories(latents, by)
    if rows.size == 0:
        return {"value": np.nan, "trials": 0}
    merging = quantity == "merge_distance"
    value = merge_distance(latents, by, site) if merging else same_state_spread(latents[rows], by, site)
    return {"value": value, "trials": rows.size}
