"""Validation against the Bayes floor."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from nextlat_viz import worlds
from nextlat_viz.models import Batch, Objective
from nextlat_viz.training.presets import TrainConfig

VALIDATION_SEED = 10_260_000


class Validation:
    """Loss of a model on fixed episodes, in nats per token, beside the world's floor.

    The world knows the exact next-token distribution p, so the loss is the floor plus the mean of KL(p || q)
    over the validation prefixes: the same expectation as the cross-entropy of sampled tokens, without the noise
    of sampling them, and never under the floor.

    Examples
    --------
    >>> from nextlat_viz.training.checkpoint import build_model
    >>> config, world = TrainConfig(layers=1, validation_episodes=16), worlds.get("z1r")
    >>> row = Validation(world, config)(build_model("next_token", config, world, seed=0))
    >>> sorted(row)
    ['excess', 'floor', 'loss']
    """

    def __init__(self, world: worlds.World, config: TrainConfig) -> None:
        self.episodes = world.sample(config.validation_episodes, config.context + 1, seed=VALIDATION_SEED)
        self.floor = float(world.loss_floor(config.context))
        exact = world.next_token_probs(self.episodes.tokens[:, :-1])
        self.exact = torch.from_numpy(np.asarray(exact, dtype=np.float64))

    def __call__(self, model: Objective) -> dict[str, float]:
        device = next(model.parameters()).device
        batch = Batch.from_episodes(self.episodes, device)
        was_training = model.training
        model.eval()
        with torch.no_grad():
            logits = model.backbone.logits(model.backbone(batch.inputs, batch.documents))
        model.train(was_training)
        log_q = F.log_softmax(logits.double().cpu(), dim=-1)
        divergence = (torch.xlogy(self.exact, self.exact) - self.exact * log_q).sum(dim=-1)
        mask = batch.target_mask.cpu()
        excess = float((divergence * mask).sum() / mask.sum())
        return {"loss": self.floor + excess, "floor": self.floor, "excess": excess}
