"""Validation against the Bayes floor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float64, Int
from torch import Tensor

from nextlat_viz import worlds
from nextlat_viz.models import Batch, Objective
from nextlat_viz.training.presets import TrainConfig, episode_length

VALIDATION_SEED = 10_260_000
# How many logits there may be at once: 64 MB in double precision.
MOST_NUMBERS = 8_000_000


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
        positions, vocabulary = self.episodes.tokens.shape[1], len(world.vocabulary)
        several = max(1, MOST_NUMBERS // (positions * vocabulary))
        parts = [self.episodes[start : start + several] for start in range(0, len(self.episodes), several)]
        self.parts = [Part(Batch.from_episodes(part), _law(world, part)) for part in parts]
        targets = torch.cat([part.batch.targets[part.batch.target_mask] for part in self.parts])
        self.scored = targets.numel()
        self.unigram = _entropy(torch.bincount(targets).double() / targets.numel()).item()
        self.floor: float | None = None
        if all(part.law is not None for part in self.parts):
            known = world.loss_floor(config.context)
            self.floor = sum(part.entropy for part in self.parts) / self.scored if known is None else known

    def __call__(self, model: Objective) -> dict[str, float]:
        device = next(model.parameters()).device
        was_training = model.training
        model.eval()
        with torch.no_grad():
            total = sum(part.cost(model, device) for part in self.parts) / self.scored
        model.train(was_training)
        if self.floor is None:
            return {"loss": total, "unigram": self.unigram}
        return {"loss": self.floor + total, "floor": self.floor, "excess": total, "unigram": self.unigram}


@dataclass(frozen=True)
class Part:
    """Some of the episodes, with the exact law of what is scored in them, where it is known."""

    batch: Batch
    law: tuple[Int[Tensor, " n"], Int[Tensor, " n"], Float64[Tensor, " n"]] | None

    @property
    def entropy(self) -> float:
        """Sum of the law's entropies over scored places."""
        assert self.law is not None
        _, _, p = self.law
        return -float(torch.xlogy(p, p).sum())

    def cost(self, model: Objective, device: torch.device) -> float:
        """Sum over scored places of KL(p || q), or of -log q(token) where the law p is not known."""
        batch = self.batch
        documents = None if batch.documents is None else batch.documents.to(device)
        logits = model.logits(model.backbone(batch.inputs.to(device), documents))
        log_q = F.log_softmax(logits[batch.target_mask.to(device)].double().cpu(), dim=-1)
        if self.law is None:
            return F.nll_loss(log_q, batch.targets[batch.target_mask], reduction="sum").item()
        place, token, p = self.law
        return float((torch.xlogy(p, p) - p * log_q[place, token]).sum())


def _law(
    world: worlds.World, episodes: worlds.Episodes
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], Float64[Tensor, " n"]] | None:
    """What can happen at scored places: (place, token, probability); most vocabularies are mostly impossible."""
    batch = Batch.from_episodes(episodes)
    exact = world.next_token_probs(episodes.tokens[:, : batch.targets.shape[1]])
    if exact is None:
        return None
    p = torch.from_numpy(np.asarray(exact, dtype=np.float64))[batch.target_mask]
    place, token = torch.nonzero(p, as_tuple=True)
    return place, token, p[place, token]


def _entropy(probabilities: Tensor) -> Tensor:
    return -torch.xlogy(probabilities, probabilities).sum(dim=-1)
