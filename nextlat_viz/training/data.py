"""Training batches of every step, and validation on fixed episodes with the Bayes floor."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float64, Int
from torch import Tensor

from nextlat_viz import worlds
from nextlat_viz.models import Batch, Objective
from nextlat_viz.training.config import TrainConfig, episode_length
from nextlat_viz.worlds import Episodes, World

VALIDATION_SEED = 10_260_000
# Most logits that exist at once during validation: 64 MB in double precision.
MOST_LOGITS = 8_000_000


@dataclass(frozen=True)
class Piece:
    """Some rows of a step's batch.

    `share` is each loss term's share of the whole batch; None where the piece is the whole batch.
    """

    batch: Batch
    share: dict[str, float] | None = None


@dataclass(frozen=True)
class Feed:
    """The batches of a run. They depend on the step alone, not on when or how often they are asked for.

    The episodes of a step are dealt out in turn to all pieces of all devices, so that any number of devices or pieces
    trains on the same episodes. Every device draws all of them: that needs no communication, and each device can
    count the scored predictions of the whole batch.

    Every term of a loss is a mean over scored predictions. Their number differs from row to row, so the mean of the
    pieces' means is not the mean of the batch. Each piece's term is therefore weighted by its share of the batch's
    scored predictions in that term.

    Attributes
    ----------
    draw : returns the episodes of a step.
    model : counts the scored predictions of a batch in each term.
    accumulate : pieces on each device.
    rank, devices : index of this device, and how many there are.
    device : where the batches are put.
    """

    draw: Callable[[int], Episodes]
    model: Objective
    accumulate: int = 1
    rank: int = 0
    devices: int = 1
    device: torch.device | str = "cpu"

    def pieces(self, step: int) -> list[Piece]:
        """Return what this device computes in one step."""
        episodes = self.draw(step)
        parts = self.devices * self.accumulate
        if parts == 1:
            return [Piece(Batch.from_episodes(episodes, self.device, seed=step))]
        whole = self.model.counts(Batch.from_episodes(episodes, seed=step))
        pieces = []
        for i in range(self.rank, parts, self.devices):
            counts = self.model.counts(Batch.from_episodes(episodes[i::parts], seed=step))
            share = {name: count / max(whole[name], 1) for name, count in counts.items()}
            pieces.append(Piece(Batch.from_episodes(episodes[i::parts], self.device, seed=step), share))
        return pieces

    def ahead(self, first: int, end: int) -> Generator[list[Piece], None, None]:
        """Yield the pieces of the steps from `first` up to `end`; a thread draws the next ones in the meantime."""
        with ThreadPoolExecutor(1, thread_name_prefix="nextlat_viz-feed") as thread:
            coming: Future[list[Piece]] | None = thread.submit(self.pieces, first) if first < end else None
            for step in range(first, end):
                assert coming is not None
                pieces = coming.result()
                coming = thread.submit(self.pieces, step + 1) if step + 1 < end else None
                yield pieces


def training_episodes(world: World, config: TrainConfig, seed: int, step: int, *, states: bool = False) -> Episodes:
    """Draw the episodes of one step of a run, from a seed hashed from the run's seed and the step."""
    drawn = int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0])
    return world.sample(config.batch_size, episode_length(world, config.context), seed=drawn, states=states)


class Validation:
    """Loss of a model on fixed episodes, in nats per token, with the world's floor.

    Where the world knows the exact next-token distribution p, the loss is the floor plus the mean of KL(p || q)
    over the validation prefixes: the same expectation as the cross-entropy of sampled tokens, without the noise
    of sampling them, and never under the floor. The floor is the world's own, or else the mean entropy of p over
    those prefixes. Where the law is not known, the loss is the cross-entropy of the tokens and there is no floor.

    ``unigram`` is the loss of always predicting the targets' own frequencies.

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
        per_part = max(1, MOST_LOGITS // (positions * vocabulary))
        parts = [self.episodes[start : start + per_part] for start in range(0, len(self.episodes), per_part)]
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
    """Some of the episodes, with the exact next-token law at scored positions, where the world knows it."""

    batch: Batch
    law: tuple[Int[Tensor, " n"], Int[Tensor, " n"], Float64[Tensor, " n"]] | None

    @property
    def entropy(self) -> float:
        """Sum of the law's entropies over scored positions."""
        assert self.law is not None
        _, _, p = self.law
        return -float(torch.xlogy(p, p).sum())

    def cost(self, model: Objective, device: torch.device) -> float:
        """Sum over scored positions of KL(p || q), or of -log q(token) where the law p is not known."""
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
    """Return the law at scored positions as (place, token, probability) of every possible token.

    Sparse, because most tokens of most vocabularies are impossible. None where the world does not know it.
    """
    batch = Batch.from_episodes(episodes)
    exact = world.next_token_probs(episodes.tokens[:, : batch.targets.shape[1]])
    if exact is None:
        return None
    p = torch.from_numpy(np.asarray(exact, dtype=np.float64))[batch.target_mask]
    place, token = torch.nonzero(p, as_tuple=True)
    return place, token, p[place, token]


def _entropy(probabilities: Tensor) -> Tensor:
    return -torch.xlogy(probabilities, probabilities).sum(dim=-1)
