"""Presets, the loop, sweeps, and checkpoints with their cards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nextlat_viz.training.card import Card
from nextlat_viz.training.checkpoint import Checkpoint, list_checkpoints, load
from nextlat_viz.training.presets import TrainConfig, preset_names, preset_table

if TYPE_CHECKING:
    from nextlat_viz.training.loop import train
    from nextlat_viz.training.sweeps import sweep

__all__ = [
    "Card",
    "Checkpoint",
    "TrainConfig",
    "list_checkpoints",
    "load",
    "preset_names",
    "preset_table",
    "sweep",
    "train",
]


def __getattr__(name: str) -> Any:
    # Lightning Fabric takes over a second to import, and only training needs it.
    if name == "train":
        from nextlat_viz.training.loop import train

        return train
    if name == "sweep":
        from nextlat_viz.training.sweeps import sweep

        return sweep
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
