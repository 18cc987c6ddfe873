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
    "train": "training.train",
    "sweep": "training.sweep",
    "finetune": "training.finetune.finetune",
    "load_finetuned": "training.finetuned.load_finetuned",
    "load": "training.load",
    "list_checkpoints": "training.list_checkpoints",
    "Checkpoint": "training.Checkpoint",
    "extract": "latents.extract",
    "save_latents": "latents.save_latents",
    "load_latents": "latents.load_latents",
    "concatenate": "latents.concatenate",
    "probe": "analysis.probe",
    "project": "analysis.project",
    "evaluate": "evaluation.evaluate",
    "results": "evaluation.results",
    "ViewState": "widgets.ViewState",
    "LatentExplorer": "widgets.LatentExplorer",
    "ProbeLab": "widgets.ProbeLab",
    "TrajectoryCompare": "widgets.TrajectoryCompare",
    "LossMonitor": "widgets.LossMonitor",
    "EpisodeStepper": "widgets.EpisodeStepper",
    "Cloud": "widgets.cloud.Cloud",
    "studio": "widgets.studio.studio",
    "serve": "serving.serve",
}
_SUBPACKAGES = ("worlds", "models", "training", "decoding", "latents", "analysis", "evaluation", "figures", "widgets")

if TYPE_CHECKING:
    from nextlat_viz import analysis, decoding, evaluation, figures, latents, models, training, widgets, worlds
    from nextlat_viz.analysis import probe, project
    from nextlat_viz.evaluation import evaluate, results
    from nextlat_viz.latents import concatenate, extract, load_latents, save_latents
    from nextlat_viz.serving import serve
    from nextlat_viz.training import Checkpoint, list_checkpoints, load, sweep, train
    from nextlat_viz.training.finetune import finetune
    from nextlat_viz.training.finetuned import load_finetuned
    from nextlat_viz.widgets import EpisodeStepper, LatentExplorer, LossMonitor, ProbeLab, TrajectoryCompare, ViewState
    from nextlat_viz.widgets.cloud import Cloud
    from nextlat_viz.widgets.studio import studio

__all__ = [
    "Checkpoint",
    "Cloud",
    "EpisodeStepper",
    "LatentExplorer",
    "LossMonitor",
    "ProbeLab",
    "TrajectoryCompare",
    "ViewState",
    "__version__",
    "analysis",
    "concatenate",
    "decoding",
    "evaluate",
    "evaluation",
    "extract",
    "figures",
    "finetune",
    "latents",
    "list_checkpoints",
    "load",
    "load_finetuned",
    "load_latents",
    "models",
    "probe",
    "project",
    "results",
    "save_latents",
    "serve",
    "studio",
    "sweep",
    "train",
    "training",
    "widgets",
    "worlds",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        module, _, attribute = _PUBLIC[name].rpartition(".")
        return getattr(importlib.import_module(f"nextlat_viz.{module}"), attribute)
    if name in _SUBPACKAGES:
        return importlib.import_module(f"nextlat_viz.{name}")
    raise AttributeError(f"module 'nextlat_viz' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
