"""The latents table: one row per (episode, position), what the model held there beside what was true there."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Bool, Float, Int

from nextlat_viz.errors import LatentsError, unknown

if TYPE_CHECKING:
    from nextlat_viz.worlds import Episodes, World

FORMAT = "nextlat_viz.latents/1"
KEY = "nextlat_viz"
HIDDEN = "hidden"
# What `build` itself puts in obsm; everything else there was computed later, for one model.
_TRUTH = ("belief", "next_token_probs", "next_token_probs_exact")


def build(
    hidden: Float[np.ndarray, "N T D"],
    layers: Mapping[str, Float[np.ndarray, "N T D"]],
    episodes: Episodes,
    world: World,
    meta: Mapping[str, Any],
    next_token_probs: Float[np.ndarray, "N T V"],
) -> AnnData:
    """Lay hidden states out as a table, with the exact truth of every row beside them.

    Parameters
    ----------
    hidden : (N, T, D) array
        The final hidden state after each token of each episode. Padding (positions past ``episodes.length``)
        is dropped.
    layers : dict of (N, T, D) arrays
        The other sites, in the order the model computes them.
    episodes : Episodes
        What was read, (N, T) tokens, and the true states after each.
    world : World
        Where the exact belief and the exact next-token probabilities come from.
    meta : dict
        ``card`` (JSON text), ``weights_sha256``, ``label``, ``name`` and ``step`` of the model.
    next_token_probs : (N, T, V) array
        The model's own distribution over the next token.

    Returns
    -------
    AnnData
        ``rows = sum(episodes.length)``, ordered by episode, then position (from 1: position t has read t tokens).
    """
    n, t = episodes.tokens.shape
    for name, array in {HIDDEN: hidden, "next_token_probs": next_token_probs, **layers}.items():
        if array.ndim != 3 or array.shape[:2] != (n, t):
            raise LatentsError(f"{name} has shape {array.shape}, but the episodes need ({n}, {t}, width)")
    rows = np.arange(t) < episodes.length[:, None]
    episode, position = np.nonzero(rows)
    if episode.size == 0:
        raise LatentsError("there is nothing to lay out: every episode is empty")

    obs: dict[str, Any] = {
        "episode": episode,
        "position": position + 1,
        "token": pd.Categorical.from_codes(episodes.tokens[rows], categories=list(world.vocabulary)),
    }
    obsm = {
        "belief": _exact(world.belief, episodes),
        "next_token_probs": next_token_probs[rows].astype(np.float32),
        "next_token_probs_exact": _exact(world.next_token_probs, episodes),
    }
    for name, values in episodes.states.items():
        if name in obsm:
            continue
        if name == "state":
            obs[name] = pd.Categorical.from_codes(values[rows], categories=list(world.state_names))
        elif values.ndim == 2:
            obs[name] = values[rows]
        else:
            obsm[name] = values[rows].reshape(episode.size, -1)

    index = [f"e{e}p{p + 1}" for e, p in zip(episode, position, strict=True)]
    uns = {
        "format": FORMAT,
        "card": str(meta["card"]),
        "weights_sha256": str(meta["weights_sha256"]),
        "world": json.dumps(world.spec),
        "vocabulary": list(world.vocabulary),
        "state_names": list(world.state_names),
        "episodes_sha256": episodes.sha256,
        "sites": [*layers, HIDDEN],
        "label": str(meta["label"]),
        "name": str(meta["name"]),
        "step": int(meta["step"]),
    }
    return AnnData(
        X=hidden[rows].astype(np.float32),
        obs=pd.DataFrame(obs, index=index),
        var=pd.DataFrame(index=[f"h{i}" for i in range(hidden.shape[2])]),
        obsm=obsm,
        layers={name: values[rows].astype(np.float32) for name, values in layers.items()},
        uns={KEY: uns},
    )


def _exact(function: Any, episodes: Episodes) -> np.ndarray:
    """Evaluate a function of prefixes on every row; one call per episode length, so it never sees padding."""
    n, t = episodes.tokens.shape
    out: np.ndarray | None = None
    for length in np.unique(episodes.length[episodes.length > 0]):
        which = episodes.length == length
        values = function(episodes.tokens[which, :length])
        if out is None:
            out = np.zeros((n, t, values.shape[-1]))
        out[which, :length] = values
    assert out is not None
    return out[np.arange(t) < episodes.length[:, None]]


def metas(latents: AnnData) -> dict[str, dict[str, Any]]:
    """Return what is known about each model in the table, by its name in ``obs["model"]`` (or its label)."""
    stored = latents.uns.get(KEY)
    if not isinstance(stored, Mapping) or "format" not in stored:
        raise LatentsError(
            "this AnnData is not a latents table (it has no uns['nextlat_viz']): make one with nlv.extract"
        )
    if "models" not in stored:
        one = _plain(stored)
        return {one["label"]: one}
    every = {name: json.loads(text) for name, text in zip(stored["model_names"], stored["models"], strict=True)}
    present = latents.obs["model"].unique() if "model" in latents.obs else every
    return {name: every[name] for name in every if name in present}


def meta(latents: AnnData) -> dict[str, Any]:
    """Return what is known about the one model of the table: its card, hashes, label, world and sites.

    Raises
    ------
    LatentsError
        When the table is not one of latents, or holds several models (`metas` gives them all).
    """
    every = metas(latents)
    if len(every) != 1:
        raise LatentsError(
            f"these latents hold several models ({', '.join(every)}): take one with select(latents, model=...)"
        )
    return next(iter(every.values()))


def _plain(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Undo what a trip through HDF5 does to Python lists and numbers."""
    return {
        key: [str(item) for item in value]
        if isinstance(value, (list, tuple, np.ndarray)) and np.ndim(value) == 1
        else int(value)
        if isinstance(value, (int, np.integer))
        else value
        for key, value in stored.items()
    }


def sites(latents: AnnData) -> list[str]:
    """Name the sites in the table, in the order the model computes them; ``"hidden"`` is last."""
    named: list[str] = next(iter(metas(latents).values()))["sites"]
    return [name for name in named if name == HIDDEN or name in latents.layers]


def site(latents: AnnData, name: str = HIDDEN) -> Float[np.ndarray, "rows dim"]:
    """Return the latents at one site, ``(rows, dim)`` float32."""
    if name not in sites(latents):
        raise unknown("site", name, sites(latents))
    return np.asarray(latents.X if name == HIDDEN else latents.layers[name])


def columns(latents: AnnData) -> list[str]:
    """Name everything `column` knows: the columns of ``obs`` and the arrays of ``obsm``."""
    return [*map(str, latents.obs.columns), *map(str, latents.obsm.keys())]


def column(latents: AnnData, name: str) -> np.ndarray:
    """Return the values of a column: ``(rows,)`` for one of ``obs`` (names as str), ``(rows, k)`` for one of ``obsm``."""
    if name in latents.obs:
        values = latents.obs[name]
        return values.to_numpy() if pd.api.types.is_numeric_dtype(values) else values.to_numpy().astype(str)
    if name in latents.obsm:
        return np.asarray(latents.obsm[name])
    raise unknown("column", name, columns(latents))


def world_of(latents: AnnData) -> World:
    """Rebuild the world the episodes came from."""
    from nextlat_viz import worlds

    return worlds.from_spec(json.loads(next(iter(metas(latents).values()))["world"]))


def tokens_of(latents: AnnData) -> Int[np.ndarray, "N T"]:
    """Return the tokens read, one row per episode present (ascending), columns are positions 1 to T.

    Where the table has no row (shorter episodes, rows sliced away) the entry is -1.
    """
    every = metas(latents)
    if len({one["episodes_sha256"] for one in every.values()}) != 1:
        raise LatentsError("these models read different episodes: take one with select(latents, model=...)")
    vocabulary = next(iter(every.values()))["vocabulary"]
    # Slicing may drop unused categories, so the codes of the column are not token ids: the names are.
    ids = pd.Index(vocabulary).get_indexer(column(latents, "token"))
    episode, position = column(latents, "episode"), column(latents, "position")
    present, row = np.unique(episode, return_inverse=True)
    tokens = np.full((present.size, position.max(initial=0)), -1, dtype=np.int64)
    tokens[row, position - 1] = ids
    return tokens


def episode_rows(latents: AnnData, episode: int) -> Int[np.ndarray, " positions"]:
    """Return the row numbers of one episode, by position."""
    meta(latents)
    episodes = column(latents, "episode")
    rows = np.flatnonzero(episodes == episode)
    if rows.size == 0:
        raise LatentsError(f"no episode {episode} in these latents: they hold {_ranges(episodes)}")
    return rows[np.argsort(column(latents, "position")[rows], kind="stable")]


def _ranges(values: np.ndarray) -> str:
    distinct = np.unique(values)
    if distinct.size > 8 and np.issubdtype(distinct.dtype, np.number):
        return f"{distinct.size} values from {distinct[0]} to {distinct[-1]}"
    return ", ".join(map(str, distinct))


def select(latents: AnnData, mask: Bool[np.ndarray, " rows"] | None = None, **where: Any) -> AnnData:
    """Copy the rows of a mask and of column values, keeping every category (so colours stay what they were).

    Parameters
    ----------
    latents : AnnData
    mask : (rows,) bool array, optional
    **where
        ``column=value`` or ``column=[values]``: ``select(latents, position=range(3, 13), token="1")``.

    Raises
    ------
    UnknownNameError
        No such column, or no such value of a named column; the nearest first.
    LatentsError
        Nothing is left.
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
            raise LatentsError(f"no row has {name}={wanted!r}: there are {_ranges(values)}")
        keep = keep & found
    if not keep.any():
        raise LatentsError("no row is left after this selection")
    with anndata.settings.override(remove_unused_categories=False):
        return latents[keep].copy()


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
    """
    if not latents:
        raise LatentsError("nothing to concatenate: give at least one latents table")
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
        obsm = {key: one.obsm[key] for key in one.obsm if key in _TRUTH or not str(key).startswith("X_")}
        part = AnnData(
            X=one.X,
            obs=one.obs.drop(columns="model", errors="ignore"),
            var=one.var,
            obsm=obsm,
            layers={key: one.layers[key] for key in common if key != HIDDEN},
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
    return stacked


def summary(latents: AnnData) -> pd.DataFrame:
    """Say in one line per model what the table holds."""
    rows = []
    for name, one in metas(latents).items():
        its = latents.obs if "model" not in latents.obs else latents.obs[latents.obs["model"] == name]
        rows.append(
            {
                "model": name,
                "checkpoint": one["name"],
                "step": one["step"],
                "world": json.loads(one["world"])["name"],
                "rows": len(its),
                "episodes": its["episode"].nunique(),
                "positions": f"{its['position'].min()} to {its['position'].max()}",
                "dim": latents.n_vars,
                "sites": ", ".join(sites(latents)),
                "weights": one["weights_sha256"][:12],
            }
        )
    return pd.DataFrame(rows).set_index("model")
