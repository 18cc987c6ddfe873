"""Models whose answers are known by construction, for measures that read models."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nextlat_viz.decoding import Predictor
from nextlat_viz.models import LatentDynamics, NextLat
from nextlat_viz.training import Checkpoint, load
from nextlat_viz.training.checkpoint import build_model
from nextlat_viz.worlds import World


class Given(LatentDynamics):
    """Dynamics that are a known function of state and embedding."""

    def __init__(self, function) -> None:
        nn.Module.__init__(self)
        self.function = function

    def forward(self, hidden: Float[Tensor, "*b dim"], embedding: Float[Tensor, "*b dim"]) -> Float[Tensor, "*b dim"]:
        return self.function(hidden, embedding)


def changed(checkpoint: Checkpoint, psi=None) -> Checkpoint:
    """Return a copy that can be altered, with other dynamics if given."""
    model = copy.deepcopy(checkpoint.model)
    if psi is not None:
        assert isinstance(model, NextLat)
        model.psi = Given(psi)
    return replace(checkpoint, model=model)


@torch.no_grad()
def last_token_only(name: str = "mess3/nextlat") -> Checkpoint:
    """A transformer whose blocks write nothing, so that h_t = norm(embed(x_t)), and a psi that is exactly right."""
    checkpoint = changed(load(name))
    backbone = checkpoint.model.backbone
    for block in backbone.blocks:
        block.attention.out.weight.zero_()
        block.mlp.down.weight.zero_()
    if isinstance(checkpoint.model, NextLat):
        checkpoint.model.psi = Given(lambda hidden, embedding: backbone.norm(embedding))
    return checkpoint


def fresh(world: World, objective: str = "nextlat", **changes) -> Checkpoint:
    """An untrained tiny model of any world, as a checkpoint."""
    shipped = load("mess3/nextlat")
    config = shipped.card.config.model_copy(update=changes)
    name = f"{world.name}/{objective}/seed0"
    card = shipped.card.model_copy(
        update={"world": world.spec, "name": name, "objective": objective, "config": config, "seed": 0}
    )
    return replace(shipped, card=card, model=build_model(objective, config, world, seed=0).eval())


class Scripted(Predictor):
    """Answers by a script, certain of every token; unknown prompts get the first answer."""

    objective = "scripted"

    def __init__(self, world: World, script: np.ndarray, prompt: int) -> None:
        self.world, self.name, self.script, self.prompt = world, f"{world.name}/scripted", script, prompt
        self.rows = {tuple(item[:prompt].tolist()): item for item in script}

    def next_token_probs(self, tokens: Int[np.ndarray, "n t"]) -> Float[np.ndarray, "n t v"]:
        written = np.stack([self.rows.get(tuple(item[: self.prompt].tolist()), self.script[0]) for item in tokens])
        # After the last token any prediction will do.
        following = np.concatenate([written[:, 1:], written[:, -1:]], axis=1)[:, : tokens.shape[1]]
        return np.eye(len(self.world.vocabulary))[following]
