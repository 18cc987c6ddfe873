"""Parts of a latents table, and several tables in one."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from typing import Any

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData

from nextlat_viz.errors import LatentsError, unknown
from nextlat_viz.latents.table import FORMAT, KEY, TOKENS, column, describe, meta, sites


def select(latents: AnnData, mask: np.ndarray | pd.Series | None = None, **where: Any) -> AnnData:
    """Copy the rows of a mask and of column values, keeping every category (so colours stay what they were).

    Parameters
    ----------
    latents : AnnData
    mask : (rows,) booleans, optional
        Such as ``latents.obs["position"] > 3``.
    **where
        ``column=value`` or ``column=[values]``: ``select(latents, position=range(3, 13), token="1")``.

    Raises
    ------
    UnknownNameError
        No such column, or no such value of a named column; the nearest first.
    LatentsError
        Nothing is left.

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
    for name, wanted in where.items():
        if name not in latents.obs:
            raise unknown("column", name, map(str, latents.obs.columns))
        values = column(latents, name)
        accepted = [wanted] if isinstance(wanted, str) or np.ndim(wanted) == 0 else list(wanted)
        if isinstance(latents.obs[name].dtype, pd.CategoricalDtype):
            known = [str(category) for category in latents.obs[name].cat.categories]
            for value in accepted:
                if str(value) not in known:
                    raise unknown(name, value, known)
            accepted = [str(value) for value in accepted]
        found = np.isin(values, np.asarray(accepted))
        if not found.any():
            raise LatentsError(f"no row has {name}={wanted!r}: there are {describe(values)}")
        keep = keep & found
    if not keep.any():
        raise LatentsError("no row is left after this selection")
    with anndata.settings.override(remove_unused_categories=False):
        return latents[keep].to_memory() if latents.isbacked else latents[keep].copy()


def concatenate(latents: Sequence[AnnData], names: Sequence[str] | None = None) -> AnnData:
    """Stack the latents of several models of one world; ``obs["model"]`` says whose each row is.

    Each model keeps its own card and hashes (`metas`). Sites are those all models have. Projections (``X_pca``, ...)
    are left behind, because each was fitted to one model and their axes do not agree.

    Parameters
    ----------
    latents : sequence of AnnData
        Of equal width and from one world. Different episodes are allowed, with a warning: such rows cannot be paired.
    names : sequence of str, optional
        How to call the models; default their labels, or their checkpoint names where labels repeat.

    Raises
    ------
    LatentsError
        Nothing to stack, other worlds or widths, or two models of one name.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> episodes = nlv.worlds.get("rrxor").sample(4, 6, seed=1)
    >>> both = concatenate([nlv.extract(nlv.load(f"rrxor/{name}"), episodes) for name in ("next_token", "nextlat")])
    >>> both.obs["model"].value_counts().to_dict()
    {'next-token': 24, 'NextLat': 24}
    """
    if not latents:
        raise LatentsError("nothing to concatenate: give at least one latents table")
    latents = [one.to_memory() if one.isbacked else one for one in latents]
    every = [meta(one) for one in latents]
    if names is None:
        names = [one["label"] for one in every]
        if len(set(names)) < len(names):
            names = [f"{one['name']} step {one['step']}" for one in every]
    if len(names) != len(latents) or len(set(names)) < len(names):
        raise LatentsError(
            f"names must be {len(latents)} different names, one per table, got {', '.join(names)}: give names=[...]"
        )
    for what, values in {
        "worlds": [one["world"] for one in every],
        "widths of hidden state": [one.n_vars for one in latents],
    }.items():
        if len(set(values)) > 1:
            raise LatentsError(
                f"these latents have different {what} ({', '.join(map(str, dict.fromkeys(values)))}): "
                "keep them in separate tables"
            )
    if len({one["episodes_sha256"] for one in every}) > 1:
        warnings.warn(
            "these latents were read from different episodes: rows of different models cannot be compared one to one",
            stacklevel=2,
        )

    common = [name for name in sites(latents[0]) if all(name in sites(one) for one in latents)]
    parts = []
    for name, one, its in zip(names, latents, every, strict=True):
        own = [f"X_{name}" for name in common]
        obsm = {key: values for key, values in one.obsm.items() if key in own or not str(key).startswith("X_")}
        part = AnnData(
            X=one.X,
            obs=one.obs.drop(columns="model", errors="ignore"),
            var=one.var,
            obsm=obsm,
            layers={key: one.layers[key] for key in common if key in one.layers},
        )
        part.obs_names = [f"{name}:{row.rpartition(':')[2]}" for row in one.obs_names]
        its["sites"] = common
        parts.append(part)
    stacked = anndata.concat(parts, label="model", keys=list(names), join="inner", merge="same")
    for key, categories in {"token": every[0]["vocabulary"], "state": every[0]["state_names"]}.items():
        if key in stacked.obs:
            stacked.obs[key] = pd.Categorical(stacked.obs[key].astype(str), categories=categories)
    stacked.uns[KEY] = {
        "format": FORMAT,
        "model_names": list(names),
        "models": [json.dumps(one) for one in every],
        "same_episodes": len({one["episodes_sha256"] for one in every}) == 1,
    }
    read = [one.uns.get(TOKENS) for one in latents]
    if stacked.uns[KEY]["same_episodes"] and all(tokens is not None for tokens in read):
        stacked.uns[TOKENS] = read[0]
    return stacked
