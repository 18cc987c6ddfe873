"""The latents table: one row per (episode, position), with the model's states and the true states."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float, Int

from nextlat_viz import worlds
from nextlat_viz.errors import LatentsError, shown, unknown
from nextlat_viz.latents.facts import Reading, index_of, row_facts, valid
from nextlat_viz.worlds import Episodes, World

FORMAT = "nextlat_viz.latents/1"
KEY = "nextlat_viz"
TOKENS = "nextlat_viz_tokens"
HIDDEN = "hidden"
PROBS = "next_token_probs"
# The world's spec in tables whose tokens are of no known world.
NO_WORLD = '{"name": "no world"}'


def build(
    hidden: Float[np.ndarray, "N T D"],
    layers: Mapping[str, Float[np.ndarray, "N T D"]],
    episodes: Episodes,
    world: World,
    meta: Mapping[str, Any],
    next_token_probs: Float[np.ndarray, "N T V"] | None,
) -> AnnData:
    """Build a table of hidden states, with the true states of every row.

    Parameters
    ----------
    hidden : (N, T, D) array
        The final hidden state after each token of each episode. Padding (positions past ``episodes.length``)
        is dropped.
    layers : dict of (N, T, D) arrays
        The other sites, in the order the model computes them.
    episodes : Episodes
        The (N, T) tokens that were read, and the true states after each.
    world : World
        Gives the exact belief and the exact next-token probabilities, where it knows them.
    meta : dict
        ``card`` (JSON text), ``weights_sha256``, ``label``, ``name`` and ``step`` of the model.
    next_token_probs : (N, T, V) array or None
        The model's own distribution over the next token; with None neither it nor the exact one is kept.

    Returns
    -------
    AnnData
        ``rows = sum(episodes.length)``, ordered by episode, then position:

        - ``X`` the hidden state and ``layers[site]`` the other sites, (rows, D) float32;
        - ``obs``: ``episode``, ``position`` (at position t, t tokens have been read), ``token``, and every
          state of one value, by the names in the world's ``state_values``;
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
    rows = valid(episodes)
    if not rows.any():
        raise LatentsError("there are no rows: every episode is empty")
    read = Reading(episodes, rows, world, world.vocabulary)
    arrays = {name: values[rows].astype(np.float32) for name, values in {**layers, HIDDEN: hidden}.items()}
    if next_token_probs is not None:
        arrays[PROBS] = next_token_probs[rows].astype(np.float32)
    return assemble(arrays, read, origin(read, meta, list(layers)))


def assemble(arrays: Mapping[str, Float[np.ndarray, "rows dim"]], read: Reading, uns: Mapping[str, Any]) -> AnnData:
    """Build a table from the arrays of all sites and of ``"next_token_probs"``, and the columns of their rows."""
    obs, obsm = row_facts(read, probs=PROBS in arrays)
    hidden = arrays[HIDDEN]
    table = AnnData(
        X=hidden,
        obs=pd.DataFrame(obs, index=index_of(obs)),
        var=pd.DataFrame(index=features_of(hidden.shape[1])),
        uns=dict(uns),
    )
    for name, values in arrays.items():
        group, key = place(name, values.shape[1], hidden.shape[1])
        if name == PROBS:
            obsm = {name: values, **obsm}
        elif group == "layers":
            table.layers[key] = values
        elif group == "obsm":
            obsm[key] = values
    for name, values in obsm.items():
        table.obsm[name] = values
    return table


def place(name: str, width: int, dim: int) -> tuple[str, str]:
    """Return group and key of a site in a table: sites as wide as ``X`` are layers, others are in ``obsm``."""
    if name == HIDDEN:
        return "X", "X"
    if name == PROBS:
        return "obsm", PROBS
    return ("layers", name) if width == dim else ("obsm", f"X_{name}")


def features_of(dim: int) -> list[str]:
    """Name the dimensions of the hidden state."""
    return [f"h{i}" for i in range(dim)]


def origin(read: Reading, meta: Mapping[str, Any], sites: Sequence[str]) -> dict[str, Any]:
    """Return ``uns`` of a table: the model and the tokens of its latents.

    ``meta`` is as `build` takes it, and may have ``hidden_site``: the model's own name of ``X``.
    """
    uns = {
        "format": FORMAT,
        "card": str(meta["card"]),
        "weights_sha256": str(meta["weights_sha256"]),
        "vocabulary": list(read.names),
        "state_names": [] if read.world is None else list(read.world.state_names),
        "episodes_sha256": read.episodes.sha256,
        "sites": [*sites, HIDDEN],
        "label": str(meta["label"]),
        "name": str(meta["name"]),
        "step": int(meta["step"]),
    }
    if read.world is not None:
        uns["world"] = json.dumps(read.world.spec)
    if "hidden_site" in meta:
        uns["hidden_site"] = str(meta["hidden_site"])
    if not read.partial:
        return {KEY: uns}
    # The rows alone do not have the tokens before them.
    ids = read.episodes.tokens if read.ids is None else np.searchsorted(read.ids, read.episodes.tokens)
    return {KEY: uns, TOKENS: np.where(valid(read.episodes), ids, -1).astype(np.int32)}


def metas(latents: AnnData) -> dict[str, dict[str, Any]]:
    """Return the description of each model in the table, by its name in ``obs["model"]`` (or its label)."""
    if not isinstance(latents, AnnData):
        raise TypeError(f"latents must be a table of latents, as nlv.extract makes it, got {shown(latents)}")
    stored = latents.uns.get(KEY)
    if not isinstance(stored, Mapping) or "format" not in stored:
        raise LatentsError(
            "this AnnData is not a latents table (it has no uns['nextlat_viz']): make one with nlv.extract"
        )
    if "models" not in stored:
        model = {"world": NO_WORLD, **_plain(stored)}
        return {model["label"]: model}
    models = {name: json.loads(text) for name, text in zip(stored["model_names"], stored["models"], strict=True)}
    present = latents.obs["model"].unique() if "model" in latents.obs else models
    return {name: model for name, model in models.items() if name in present}


def meta(latents: AnnData) -> dict[str, Any]:
    """Return the description of the table's one model: its card, hashes, label, world and sites.

    Raises
    ------
    LatentsError
        When it is not a table of latents, or has several models (`metas` returns all).
    """
    models = metas(latents)
    if len(models) != 1:
        raise LatentsError(
            f"these latents hold several models ({', '.join(models)}): take one with select(latents, model=...)"
        )
    return next(iter(models.values()))


def _plain(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Convert arrays and numpy numbers, which HDF5 returns, back to Python lists and numbers."""
    # Called dozens of times at every step of a cursor, with vocabularies of thousands of names: it must be fast.
    return {
        key: value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value for key, value in stored.items()
    }


def sites(latents: AnnData) -> list[str]:
    """List the sites in the table, in the order the model computes them; ``"hidden"`` is last."""
    named: list[str] = next(iter(metas(latents).values()))["sites"]
    return [name for name in named if name == HIDDEN or name in latents.layers or f"X_{name}" in latents.obsm]


def site(latents: AnnData, name: str = HIDDEN) -> Float[np.ndarray, "rows dim"]:
    """Return the latents at one site, ``(rows, dim)`` float32. The model's own name of ``X`` works too."""
    if name == HIDDEN or name in (model.get("hidden_site") for model in metas(latents).values()):
        values = latents.X
    elif name in sites(latents):
        values = latents.layers[name] if name in latents.layers else latents.obsm[f"X_{name}"]
    else:
        raise unknown("site", name, sites(latents))
    return np.asarray(values).astype(np.float32, copy=False)


def columns(latents: AnnData) -> list[str]:
    """List the names that `column` accepts: the columns of ``obs`` and the arrays of ``obsm``."""
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
    """Rebuild the world the episodes came from.

    Raises
    ------
    LatentsError
        The tokens are of no known world, or it cannot be built without files or servers that you did not ask for.
    """
    spec = next(iter(metas(latents).values()))["world"]
    if spec == NO_WORLD:
        raise LatentsError(
            "these latents are of tokens of no known world, so there is no exact truth to draw or to compare with: "
            "extract with world=... if the tokens come from one"
        )
    try:
        return _built(spec)
    except ImportError:
        raise
    # Anyone may have written the table, so its parameters may make a factory fail with any error.
    except Exception as error:
        raise LatentsError(f"the world of these latents cannot be built here: {error}") from error


@lru_cache(maxsize=8)
def _built(spec: str) -> World:
    """Build a world once: a panel needs it at every step of the cursor, and a large map takes seconds."""
    return worlds.from_spec(json.loads(spec), trusted=False)


def tokens_of(latents: AnnData) -> Int[np.ndarray, "N T"]:
    """Return the tokens read, one row per episode present (ascending), columns are positions 1 to T.

    Numbers are places in the table's vocabulary, -1 where the table has no row (shorter episodes, rows sliced away). A
    table extracted at only some positions has the tokens between them too.
    """
    models = metas(latents)
    if len({model["episodes_sha256"] for model in models.values()}) != 1:
        raise LatentsError("these models read different episodes: take one with select(latents, model=...)")
    vocabulary = next(iter(models.values()))["vocabulary"]
    if TOKENS in latents.uns:
        read = np.asarray(latents.uns[TOKENS])[np.unique(column(latents, "episode"))]
        return read.astype(np.int64)
    # Slicing may drop unused categories, so the codes of the column are not token ids: the names are.
    ids = pd.Index(vocabulary).get_indexer(column(latents, "token"))
    episode, position = column(latents, "episode"), column(latents, "position")
    present, row = np.unique(episode, return_inverse=True)
    tokens = np.full((present.size, position.max(initial=0)), -1, dtype=np.int64)
    # At position 0 no token has been read.
    read = position > 0
    tokens[row[read], position[read] - 1] = ids[read]
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
    """List the distinct values, for an error message."""
    distinct = np.unique(values)
    if distinct.size > 8 and np.issubdtype(distinct.dtype, np.number):
        return f"{distinct.size} values from {distinct[0]} to {distinct[-1]}"
    return ", ".join(map(str, distinct))


def summary(latents: AnnData) -> pd.DataFrame:
    """Summarise the table: a row for each model."""
    rows = []
    for name, model in metas(latents).items():
        obs = latents.obs if "model" not in latents.obs else latents.obs[latents.obs["model"] == name]
        rows.append(
            {
                "model": name,
                "checkpoint": model["name"],
                "step": model["step"],
                "world": json.loads(model["world"])["name"],
                "rows": len(obs),
                "episodes": obs["episode"].nunique(),
                "positions": f"{obs['position'].min()} to {obs['position'].max()}",
                "dim": latents.n_vars,
                "sites": ", ".join(sites(latents)),
                "weights": model["weights_sha256"][:12],
            }
        )
    return pd.DataFrame(rows).set_index("model")
