"""Latents: what a model held at every position, beside what was true there.

An `anndata.AnnData` with one row per (episode, position); `build` says what is where. Use the functions here to read
one: they work on any slice of it, after a reload, and know the names that exist.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nextlat_viz.latents.combine import concatenate, select
from nextlat_viz.latents.store import check_same_model, load, save
from nextlat_viz.latents.table import (
    build,
    column,
    columns,
    episode_rows,
    meta,
    metas,
    site,
    sites,
    summary,
    tokens_of,
    world_of,
)

if TYPE_CHECKING:
    from nextlat_viz.latents.extraction import HELDOUT_SEED, extract, heldout
    from nextlat_viz.latents.hf import load_hf, tokens_from

# What the two are called at the top of the package, where "load" means a checkpoint.
load_latents, save_latents = load, save

__all__ = [
    "HELDOUT_SEED",
    "build",
    "check_same_model",
    "column",
    "columns",
    "concatenate",
    "episode_rows",
    "extract",
    "heldout",
    "load",
    "load_hf",
    "load_latents",
    "meta",
    "metas",
    "save",
    "save_latents",
    "select",
    "site",
    "sites",
    "summary",
    "tokens_from",
    "tokens_of",
    "world_of",
]


def __getattr__(name: str) -> Any:
    # Saved latents are read without torch; only extraction needs it.
    if name in ("HELDOUT_SEED", "extract", "heldout"):
        from nextlat_viz.latents import extraction

        return getattr(extraction, name)
    if name in ("load_hf", "tokens_from"):
        from nextlat_viz.latents import hf

        return getattr(hf, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
