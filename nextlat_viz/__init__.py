"""See what a transformer believes.

World -> model -> checkpoint -> latents -> analysis -> figure -> widget. Everything public is here; what is heavy
loads when it is first used.

Examples
--------
>>> import nextlat_viz as nlv
>>> nlv.worlds.get("rrxor").vocabulary
('0', '1')
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "train": "training",
    "load": "training",
    "list_checkpoints": "training",
    "Checkpoint": "training",
    "extract": "latents",
    "save_latents": "latents",
    "load_latents": "latents",
    "concatenate": "latents",
    "probe": "analysis",
    "project": "analysis",
    "ViewState": "widgets",
    "LatentExplorer": "widgets",
    "ProbeLab": "widgets",
    "TrajectoryCompare": "widgets",
}
_SUBPACKAGES = ("worlds", "models", "training", "latents", "analysis", "figures", "widgets")

__all__ = ["__version__", *_PUBLIC, *_SUBPACKAGES]

if TYPE_CHECKING:
    from nextlat_viz import analysis, figures, latents, models, training, widgets, worlds
    from nextlat_viz.analysis import probe, project
    from nextlat_viz.latents import concatenate, extract, load_latents, save_latents
    from nextlat_viz.training import Checkpoint, list_checkpoints, load, train
    from nextlat_viz.widgets import LatentExplorer, ProbeLab, TrajectoryCompare, ViewState


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"nextlat_viz.{_PUBLIC[name]}"), name)
    if name in _SUBPACKAGES:
        return importlib.import_module(f"nextlat_viz.{name}")
    raise AttributeError(f"module 'nextlat_viz' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
