"""Validation against the Bayes floor."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nextlat_viz import worlds
from nextlat_viz.models import Batch, Objective
from nextlat_viz.training.presets import TrainConfig, episode_length

VALIDATION_SEED = 10_260_000


class Validation:
    """Loss of a model on fixed episodes, in nats per token, beside the world's floor.

    Where the world knows the exact next-token distribution p, the loss is the floor plus the mean of KL(p || q)
    over the validation prefixes: the same expectation as the cross-entropy of sampled tokens, without the noise
    of sampling them, and never under the floor. The floor is the world's own, or else the mean entropy of p over
    those prefixes. Where the law is not known, the loss is the cross-entropy of the tokens and there is no floor.

    ``unigram`` is what always guessing by the targets' own frequencies would cost.

    Examples
    --------
    >>> from nextlat_viz.training.checkpoint import build_model
    >>> config, world = TrainConfig(layers=1, validation_episodes=16), worlds.get("z1r")
    >>> row = Validation(world, config)(build_model("next_token", config, world, seed=0))
    >>> sorted(row)
    ['excess', 'floor', 'loss', 'unigram']
    """

    def __init__(self, world: worlds.World, config: TrainConfig) -> None:
        split = "test" if "test" in world.splits else "train"
        self.episodes = world.sample(
            config.validation_episodes, episode_length(world, config.context), seed=VALIDATION_SEED, split=split
        )
        batch = Batch.from_episodes(self.episodes)
        self.scored = batch.target_mask
        targets = batch.targets[self.scored]
        self.unigram = _entropy(torch.bincount(targets).double() / targets.numel()).item()
        self.exact: Tensor | None = None
        self.floor: float | None = None
        exact = world.next_token_probs(self.episodes.tokens[:, : batch.targets.shape[1]])
        if exact is not None:
            self.exact = torch.from_numpy(np.asarray(exact, dtype=np.float64))[self.scored]
            known = world.loss_floor(config.context)
            self.floor = _entropy(self.exact).mean().item() if known is None else known

    def __call__(self, model: Objective) -> dict[str, float]:
        device = next(model.parameters()).device
        batch = Batch.from_episodes(self.episodes, device)
        was_training = model.training
        model.eval()
        with torch.no_grad():
            logits = model.logits(model.backbone(batch.inputs, batch.documents))
        model.train(was_training)
        log_q = F.log_softmax(logits[batch.target_mask].double().cpu(), dim=-1)
        if self.exact is None or self.floor is None:
            loss = F.nll_loss(log_q, batch.targets[batch.target_mask].cpu())
            return {"loss": loss.item(), "unigram": self.unigram}
        divergence = (torch.xlogy(self.exact, self.exact) - self.exact * log_q).sum(dim=-1)
        excess = divergence.mean().item()
        return {"loss": self.floor + excess, "floor": self.floor, "excess": excess, "unigram": self.unigram}


def _entropy(probabilities: Tensor) -> Tensor:
    return -torch.xlogy(probabilities, probabilities).sum(dim=-1)
