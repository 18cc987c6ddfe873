"""Select rows of a latents table, and concatenate tables."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from typing import Any

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData

from nextlat_viz.errors import LatentsError, listed, one_of, unknown
from nextlat_viz.latents.table import FORMAT, KEY, TOKENS, column, describe, meta, sites


def select(latents: AnnData, mask: np.ndarray | pd.Series | None = None, **where: Any) -> AnnData:
    """Copy the rows that match a mask and column values. Categories without rows are kept, so colours do not change.

    Parameters
    ----------
    mask : (rows,) booleans, optional
        Such as ``latents.obs["position"] > 3``.
    **where
        ``column=value`` or ``column=[values]``: ``select(latents, position=range(3, 13), token="1")``.

    Raises
    ------
    UnknownNameError
        No such column, or no such value of a categorical column; the nearest first.
    LatentsError
        No row matches.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> checkpoint = nlv.load("rrxor/nextlat")
    >>> latents = nlv.extract(checkpoint, checkpoint.world.sample(4, 6, seed=1))
    >>> select(latents, latents.obs["episode"] < 2, position=[5, 6]).obs_names.tolist()
    ['e0p5', 'e0p6', 'e1p5', 'e1p6']
    """
    keep = np.ones(latents.n_obs, dtype=bool) if mask is None else np.asarray(mask)
    if keep.shape != (latents.n_obs,) or keep.dtype != bool:
        raise LatentsError(f"mask must be {latents.n_obs} booleans, got {keep.dtype} of shape {keep.shape}")
    for name, choice in where.items():
        one_of("column", name, latents.obs.columns)
        values = column(latents, name)
        accepted = [choice] if isinstance(choice, str) or np.ndim(choice) == 0 else list(choice)
        if isinstance(latents.obs[name].dtype, pd.CategoricalDtype):
            known = [str(category) for category in latents.obs[name].cat.categories]
            for value in accepted:
                if str(value) not in known:
                    raise unknown(name, value, known)
            accepted = [str(value) for value in accepted]
        matches = np.isin(values, np.asarray(accepted))
        if not matches.any():
            raise LatentsError(f"no row has {name}={choice!r}: there are {describe(values)}")
        keep = keep & matches
    if not keep.any():
        raise LatentsError("no row is left after this selection")
    with anndata.settings.override(remove_unused_categories=False):
        return latents[keep].to_memory() if latents.isbacked else latents[keep].copy()


def concatenate(latents: Sequence[AnnData], names: Sequence[str] | None = None) -> AnnData:
    """Stack the latents of several models of one world; ``obs["model"]`` names the model of each row.

    Each model keeps its card and hashes (`metas`). Only sites that all models have are kept. Projections (``X_pca``,
    ...) are dropped, because each was fitted to one model and their axes do not agree.

    Parameters
    ----------
    latents : sequence of AnnData
        Of equal width and from one world. Different episodes are allowed, with a warning: rows cannot be paired then.
    names : sequence of str, optional
        Names of the models; default their labels, or their checkpoint names where labels repeat.

    Raises
    ------
    LatentsError
        No tables, different worlds or widths, or two models of one name.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> episodes = nlv.worlds.get("rrxor").sample(4, 6, seed=1)
    >>> both = concatenate([nlv.extract(nlv.load(f"rrxor/{name}"), episodes) for name in ("next_token", "nextlat")])
    >>> both.obs["model"].value_counts().to_dict()
    {'next-token': 24, 'NextLat': 24}
    """
    latents = [latents] if isinstance(latents, AnnData) else listed("latents", latents, "[one, other]")
    if not latents:
        raise LatentsError("nothing to concatenate: give at least one latents table")
    about = [meta(table) for table in latents]
    latents = [table.to_memory() if table.isbacked else table for table in latents]
    if names is None:
        names = [model["label"] for model in about]
        if len(set(names)) < len(names):
            names = [f"{model['name']} step {model['step']}" for model in about]
    names = listed("names", names, "['first', 'second']")
    if len(names) != len(latents) or len(set(names)) < len(names):
        raise LatentsError(
            f"names must be {len(latents)} different names, one per table, got {', '.join(names)}: give names=[...]"
        )
    for quantity, values in {
        "worlds": [model["world"] for model in about],
        "widths of hidden state": [table.n_vars for table in latents],
    }.items():
        if len(set(values)) > 1:
            raise LatentsError(
                f"these latents have different {quantity} ({', '.join(map(str, dict.fromkeys(values)))}): "
                "keep them in separate tables"
            )
    same_episodes = len({model["episodes_sha256"] for model in about}) == 1
    if not same_episodes:
        warnings.warn(
            "these latents were read from different episodes: rows of different models cannot be compared one to one",
            stacklevel=2,
        )

    for table in latents:
        if "model" in table.obs and "models" not in table.uns[KEY]:
            raise LatentsError(
                "obs['model'] is a column of your own, and names the model of each row after concatenating: rename it, "
                "for example latents.obs = latents.obs.rename(columns={'model': 'kind'})"
            )

    common = [name for name in sites(latents[0]) if all(name in sites(table) for table in latents)]
    parts = []
    for name, table, model in zip(names, latents, about, strict=True):
        wide = [f"X_{name}" for name in common]
        obsm = {key: values for key, values in table.obsm.items() if key in wide or not str(key).startswith("X_")}
        part = AnnData(
            X=table.X,
            obs=table.obs.drop(columns="model", errors="ignore"),
            var=table.var,
            obsm=obsm,
            layers={key: table.layers[key] for key in common if key in table.layers},
        )
        part.obs_names = [f"{name}:{row.rpartition(':')[2]}" for row in table.obs_names]
        model["sites"] = common
        parts.append(part)
    stacked = anndata.concat(parts, label="model", keys=list(names), join="inner", merge="same")
    for key, categories in {"token": about[0]["vocabulary"], "state": about[0]["state_names"]}.items():
        # In a table of a recursive model the column "token" names the step.
        if key in stacked.obs and set(stacked.obs[key].dropna().astype(str)) <= set(categories):
            stacked.obs[key] = pd.Categorical(stacked.obs[key].astype(str), categories=categories)
    stacked.uns[KEY] = {
        "format": FORMAT,
        "model_names": list(names),
        "models": [json.dumps(model) for model in about],
        "same_episodes": same_episodes,
    }
    stored = [table.uns.get(TOKENS) for table in latents]
    if same_episodes and all(tokens is not None for tokens in stored):
        stacked.uns[TOKENS] = stored[0]
    return stacked
