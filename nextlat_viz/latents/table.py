"""The latents table: one row per (episode, position), what the model held there beside what was true there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float, Int

from nextlat_viz import worlds
from nextlat_viz.errors import LatentsError, unknown
from nextlat_viz.worlds import Episodes, World

FORMAT = "nextlat_viz.latents/1"
KEY = "nextlat_viz"
HIDDEN = "hidden"


def build(
    hidden: Float[np.ndarray, "N T D"],
    layers: Mapping[str, Float[np.ndarray, "N T D"]],
    episodes: Episodes,
    world: World,
    meta: Mapping[str, Any],
    next_token_probs: Float[np.ndarray, "N T V"] | None,
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
        Where the exact belief and the exact next-token probabilities come from, as far as it knows them.
    meta : dict
        ``card`` (JSON text), ``weights_sha256``, ``label``, ``name`` and ``step`` of the model.
    next_token_probs : (N, T, V) array or None
        The model's own distribution over the next token; with None neither it nor the exact one is kept.

    Returns
    -------
    AnnData
        ``rows = sum(episodes.length)``, ordered by episode, then position:

        - ``X`` the hidden state and ``layers[site]`` the other sites, (rows, D) float32;
        - ``obs``: ``episode``, ``position`` (from 1: position t has read t tokens), ``token``, and every state of one
          value, by the names in the world's ``state_values``;
        - ``obsm``: states of several values, ``belief`` where there are hidden states, ``next_token_probs`` (the
          model's) and, where the world knows it, ``next_token_probs_exact``;
        - ``uns["nextlat_viz"]``: what `meta` returns.

    Raises
    ------
    LatentsError
        When every episode is empty.

    Examples
    --------
    >>> world = worlds.get("z1r")
    >>> episodes = world.sample(3, 4, seed=0)
    >>> belief, probs = world.belief(episodes.tokens), world.next_token_probs(episodes.tokens)
    >>> origin = {"card": "{}", "weights_sha256": "none", "label": "oracle", "name": "oracle", "step": 0}
    >>> latents = build(belief, {}, episodes, world, origin, probs)
    >>> latents.shape, latents.obs_names[5], column(latents, "belief").shape, sites(latents)
    ((12, 3), 'e1p2', (12, 3), ['hidden'])
    >>> bool((tokens_of(latents) == episodes.tokens).all())
    True
    """
    rows = np.arange(episodes.tokens.shape[1]) < episodes.length[:, None]
    episode, position = np.nonzero(rows)
    if episode.size == 0:
        raise LatentsError("there is nothing to lay out: every episode is empty")

    obs: dict[str, Any] = {
        "episode": episode,
        "position": position + 1,
        "token": pd.Categorical.from_codes(episodes.tokens[rows], categories=list(world.vocabulary)),
    }
    obsm = {"belief": _exact(world.belief, episodes)}
    if next_token_probs is not None:
        obsm["next_token_probs"] = next_token_probs[rows].astype(np.float32)
        obsm["next_token_probs_exact"] = _exact(world.next_token_probs, episodes)
    obsm = {name: values for name, values in obsm.items() if values is not None}
    for name, values in episodes.states.items():
        if name in obsm:
            continue
        if name in world.state_values and values.ndim == 2:
            # A value under 0 is one that is not known yet: it has no name.
            obs[name] = pd.Categorical.from_codes(
                np.maximum(values[rows], -1), categories=list(world.state_values[name])
            )
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


def _exact(function: Any, episodes: Episodes) -> np.ndarray | None:
    """Evaluate a function of prefixes on every row; one call per episode length, so it never sees padding.

    None where the world does not know it.
    """
    n, t = episodes.tokens.shape
    out: np.ndarray | None = None
    for length in np.unique(episodes.length[episodes.length > 0]):
        which = episodes.length == length
        values = function(episodes.tokens[which, :length])
        if values is None:
            return None
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
    return [*map(str, latents.obs.columns), *sorted(map(str, latents.obsm.keys()))]


def column(latents: AnnData, name: str) -> np.ndarray:
    """Return a column's values: ``(rows,)`` for one of ``obs``, names as str; ``(rows, k)`` for one of ``obsm``."""
    if name in latents.obs:
        values = latents.obs[name]
        return values.to_numpy() if pd.api.types.is_numeric_dtype(values) else values.to_numpy().astype(str)
    if name in latents.obsm:
        return np.asarray(latents.obsm[name])
    raise unknown("column", name, columns(latents))


def world_of(latents: AnnData) -> World:
    """Rebuild the world the episodes came from."""
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
        raise LatentsError(f"no episode {episode} in these latents: they hold {describe(episodes)}")
    return rows[np.argsort(column(latents, "position")[rows], kind="stable")]


def describe(values: np.ndarray) -> str:
    """Say which values there are, for an error message."""
    distinct = np.unique(values)
    if distinct.size > 8 and np.issubdtype(distinct.dtype, np.number):
        return f"{distinct.size} values from {distinct[0]} to {distinct[-1]}"
    return ", ".join(map(str, distinct))


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
