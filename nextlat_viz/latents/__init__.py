"""Latents: what a model held at every position, beside what was true there.

An `anndata.AnnData` with one row per (episode, position); see `build` for what is where.
"""

from nextlat_viz.latents.table import (
    build,
    column,
    columns,
    concatenate,
    episode_rows,
    meta,
    metas,
    select,
    site,
    sites,
    summary,
    tokens_of,
    world_of,
)

__all__ = [
    "build",
    "column",
    "columns",
    "concatenate",
    "episode_rows",
    "meta",
    "metas",
    "select",
    "site",
    "sites",
    "summary",
    "tokens_of",
    "world_of",
]
