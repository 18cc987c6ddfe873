"""Untrained models with weights so large that their drafts differ from their predictions."""

from __future__ import annotations

from dataclasses import replace

import torch

from nextlat_viz import worlds
from nextlat_viz.training import Checkpoint, TrainConfig, load
from nextlat_viz.training.checkpoint import build_model

DRAFTING = ("nextlat", "mtp", "jtp")


def random_model(
    objective: str = "nextlat", world: str = "mess3", *, seed: int = 0, std: float = 0.4, **sizes
) -> Checkpoint:
    """A checkpoint of an objective in double precision, whose drafts are sometimes right."""
    its = worlds.get(world)
    shape = {"context": 12, "layers": 2, "heads": 2, "dim": 16, "mlp_dim": 24, "psi_width": 16, "horizon": 3} | sizes
    model = build_model(objective, TrainConfig(**shape), its, seed).double().eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data.normal_(std=std, generator=generator)
    checkpoint = load("mess3/nextlat")
    card = checkpoint.card.model_copy(update={"objective": objective, "world": its.spec, "name": f"random/{objective}"})
    return replace(checkpoint, card=card, model=model)
