"""Presets, the loop, and checkpoints with their cards."""

from nextlat_viz.training.card import Card
from nextlat_viz.training.checkpoint import Checkpoint, list_checkpoints, load
from nextlat_viz.training.loop import train
from nextlat_viz.training.presets import TrainConfig, preset_names

__all__ = ["Card", "Checkpoint", "TrainConfig", "list_checkpoints", "load", "preset_names", "train"]
