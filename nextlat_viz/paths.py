"""Folders on disk: the shipped checkpoints and the user's cache."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def checkpoints_dir() -> Path:
    """Folder of the shipped checkpoints: inside an installed package, beside the package in a clone."""
    installed = PACKAGE / "_checkpoints"
    return installed if installed.is_dir() else PACKAGE.parent / "checkpoints"


def cache_dir() -> Path:
    """Per-user folder of results that can be recomputed, such as UMAP projections. It may not exist yet."""
    from platformdirs import user_cache_path

    return user_cache_path("nextlat_viz", appauthor=False)


def shipped_projections() -> Path:
    """Folder of the projections that come with the shipped checkpoints."""
    return checkpoints_dir() / "projections"
