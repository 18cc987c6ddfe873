"""Training batches of every step, and validation on fixed episodes with the Bayes floor."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from nextlat_viz import worlds
from nextlat_viz.models import Batch, Objective
from nextlat_viz.training.config import TrainConfig, episode_length
from nextlat_viz.worlds import Episodes, World
from nextlat_viz.worlds.headline import HEADLINES

VALIDATION_SEED = 10_260_000
# Maximum number of logits at once during validation: 64 MB in double precision.
MOST_LOGITS = 8_000_000


@dataclass(frozen=True)
class Piece:
    """Some rows of a step's batch.

    `share` is each loss term's share of the whole batch; None if the piece is the whole batch.
    """

    batch: Batch
    share: dict[str, float] | None = None


@dataclass(frozen=True)
class Feed:
    """The batches of a run. They depend only on the step, not on when or how often they are drawn.

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
            return [Piece(self._batch(episodes, step, self.device))]
        totals = self.model.counts(self._batch(episodes, step))
        pieces = []
        for i in range(self.rank, parts, self.devices):
            counts = self.model.counts(self._batch(episodes[i::parts], step))
            share = {name: count / max(totals[name], 1) for name, count in counts.items()}
            pieces.append(Piece(self._batch(episodes[i::parts], step, self.device), share))
        return pieces

    def _batch(self, episodes: Episodes, step: int, device: torch.device | str = "cpu") -> Batch:
        return Batch.from_episodes(episodes, device, seed=step, start=self.model.backbone.start)

    def ahead(self, first: int, end: int) -> Generator[list[Piece], None, None]:
        """Yield the pieces of the steps from `first` up to `end`; a thread draws the next ones in the meantime."""
        if first >= end:
            return
        with ThreadPoolExecutor(1, thread_name_prefix="nextlat_viz-feed") as thread:
            next_pieces = thread.submit(self.pieces, first)
            for step in range(first + 1, end):
                pieces = next_pieces.result()
                next_pieces = thread.submit(self.pieces, step)
                yield pieces
            yield next_pieces.result()


def training_episodes(world: World, config: TrainConfig, seed: int, step: int, *, states: bool = False) -> Episodes:
    """Draw the episodes of one step of a run, from a seed hashed from the run's seed and the step."""
    step_seed = int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0])
    return world.sample(config.batch_size, episode_length(world, config.context), seed=step_seed, states=states)


class Validation:
    """Loss of a model on fixed episodes, in nats per token, with the world's floor.

    If the world knows the exact next-token distribution p, the loss is the floor plus the mean of KL(p || q) over the
    validation prefixes: the same expectation as the cross-entropy of sampled tokens, without the noise of sampling
    them, and never under the floor. The floor is the world's own, or else the mean entropy of p over those prefixes.
    If the law is not known, the loss is the cross-entropy of the tokens and there is no floor.

    With a start token, the first token is predicted and scored too, in the loss and in the floor, unless the world
    knows the law of every token but the first.

    ``unigram`` is the loss of always predicting the targets' own frequencies. The world's headline measure is one of:

    - ``accuracy``, in worlds that have `decisive` positions: the share of right predictions there, taking the
      likeliest token;
    - ``belief_r2``, in worlds that have beliefs: R2 of the exact belief after each token, read from the final hidden
      state by a linear map that is fitted on the other half of the episodes;
    - ``legal``, in worlds whose rules are known: the mean probability on legal tokens.

    Examples
    --------
    >>> from nextlat_viz.training.checkpoint import build_model
    >>> config, world = TrainConfig(layers=1, validation_episodes=16), worlds.get("z1r")
    >>> row = Validation(world, config)(build_model("next_token", config, world, seed=0))
    >>> sorted(row)
    ['belief_r2', 'excess', 'floor', 'loss', 'unigram']
    """

    def __init__(self, world: worlds.World, config: TrainConfig) -> None:
        start = len(world.vocabulary) if config.start_token else None
        length = episode_length(world, config.context)
        self.episodes = world.sample(
            config.validation_episodes, length, seed=VALIDATION_SEED, split=world.held_out_split
        )
        positions, vocabulary = self.episodes.tokens.shape[1], len(world.vocabulary)
        per_part = max(1, MOST_LOGITS // (positions * vocabulary))
        parts = [self.episodes[start : start + per_part] for start in range(0, len(self.episodes), per_part)]
        self.parts = [_part(world, part, start) for part in parts]
        targets = torch.cat([part.batch.targets[part.batch.target_mask] for part in self.parts])
        self.scored = targets.numel()
        share = torch.bincount(targets).double() / targets.numel()
        self.unigram = -torch.xlogy(share, share).sum().item()
        self.decisive = sum(0 if part.decisive is None else int(part.decisive.sum()) for part in self.parts)
        beliefs = [part.beliefs for part in self.parts if part.beliefs is not None]
        self.beliefs = torch.cat(beliefs) if beliefs else None
        half = len(self.episodes) // 2
        if self.beliefs is not None and (half == 0 or _variation(self.beliefs[half:]) == 0):
            # R2 needs two halves, and a variance in the second.
            self.beliefs = None
        self.rules = all(part.legal is not None for part in self.parts)
        self.floor: float | None = None
        if all(part.law is not None for part in self.parts):
            floor = world.loss_floor(config.context, start_token=config.start_token)
            self.floor = sum(part.entropy for part in self.parts) / self.scored if floor is None else floor

    def require_headline(self, stop_at: float | None) -> None:
        """Raise a ValueError if training should stop at a value of the headline measure and the world has none."""
        if stop_at is not None and not (self.decisive or self.beliefs is not None or self.rules):
            raise ValueError(
                f"stop_at={stop_at} needs a headline measure, one of {', '.join(HEADLINES)}, and this world has none: "
                "leave it out, or set minutes"
            )

    def __call__(self, model: Objective) -> dict[str, float]:
        device = next(model.parameters()).device
        was_training = model.training
        model.eval()
        with torch.no_grad():
            costs = [part.cost(model, device) for part in self.parts]
        model.train(was_training)
        total = sum(cost.loss for cost in costs) / self.scored
        row = {"loss": total, "unigram": self.unigram}
        if self.floor is not None:
            row = {"loss": self.floor + total, "floor": self.floor, "excess": total, "unigram": self.unigram}
        if self.decisive:
            row["accuracy"] = sum(cost.right for cost in costs) / self.decisive
        elif self.beliefs is not None:
            hidden = [cost.hidden for cost in costs if cost.hidden is not None]
            row["belief_r2"] = _held_out_r2(torch.cat(hidden), self.beliefs)
        elif self.rules:
            row["legal"] = sum(cost.legal for cost in costs) / self.scored
        return row


@dataclass(frozen=True)
class Part:
    """Some of the episodes, with the exact next-token law at scored positions, if the world knows it.

    `decisive` marks the scored positions whose accuracy counts; `beliefs` are the exact beliefs after each token, and
    `legal` is a (place, token) of every legal token at scored positions. Each is None if it is not needed.
    """

    batch: Batch
    law: tuple[Int[Tensor, " n"], Int[Tensor, " n"], Float64[Tensor, " n"]] | None
    decisive: Bool[Tensor, " n"] | None
    beliefs: Float64[Tensor, "episodes positions states"] | None
    legal: tuple[Int[Tensor, " m"], Int[Tensor, " m"]] | None

    @property
    def entropy(self) -> float:
        """Sum of the law's entropies over scored positions."""
        assert self.law is not None
        _, _, p = self.law
        return -float(torch.xlogy(p, p).sum())

    def cost(self, model: Objective, device: torch.device) -> Cost:
        """Contribution of a model's predictions of these episodes to the metrics."""
        batch = self.batch
        documents = None if batch.documents is None else batch.documents.to(device)
        hidden = model.backbone(batch.inputs.to(device), documents)
        logits = model.logits(hidden)
        log_q = F.log_softmax(logits[batch.target_mask.to(device)].double().cpu(), dim=-1)
        targets = batch.targets[batch.target_mask]
        right = 0 if self.decisive is None else int((log_q.argmax(dim=-1) == targets)[self.decisive].sum())
        legal = 0.0 if self.legal is None else float(log_q[self.legal].exp().sum())
        read = None if self.beliefs is None else hidden[:, -self.beliefs.shape[1] :].double().cpu()
        if self.law is None:
            return Cost(F.nll_loss(log_q, targets, reduction="sum").item(), right, legal, read)
        place, token, p = self.law
        return Cost(float((torch.xlogy(p, p) - p * log_q[place, token]).sum()), right, legal, read)


class Cost(NamedTuple):
    """Sums over the scored positions of a part, and its hidden states if beliefs are known.

    `loss` sums KL(p || q), or -log q(token) if the law p is not known; `right` counts the decisive positions where the
    likeliest token is right; `legal` sums the probability on legal tokens.
    """

    loss: float
    right: int
    legal: float
    hidden: Float64[Tensor, "episodes positions dim"] | None


def _held_out_r2(
    hidden: Float64[Tensor, "episodes positions dim"], beliefs: Float64[Tensor, "episodes positions states"]
) -> float:
    """R2 of beliefs, read from hidden states by a linear map fitted on the first half of the episodes."""
    half = len(hidden) // 2
    inputs = F.pad(hidden, (0, 1), value=1.0)
    x, y = inputs[:half].flatten(0, 1), beliefs[:half].flatten(0, 1)
    weights = torch.linalg.lstsq(x, y, driver="gelsd").solution
    errors = (inputs[half:].flatten(0, 1) @ weights - beliefs[half:].flatten(0, 1)).square().sum()
    return float(1 - errors / _variation(beliefs[half:]))


def _variation(beliefs: Float64[Tensor, "episodes positions states"]) -> Float64[Tensor, ""]:
    """Sum of squared distances to the mean; 0 for beliefs that differ by rounding errors alone."""
    squares = (beliefs - beliefs.mean(dim=(0, 1))).square().sum()
    return torch.where(squares > 1e-18 * beliefs.numel(), squares, 0.0)


def _part(world: worlds.World, episodes: worlds.Episodes, start: int | None) -> Part:
    """Return the batch of some episodes, with what the world knows of its scored positions.

    The law is a (place, token, probability) of every possible token: sparse, because most tokens of most vocabularies
    are impossible.
    """
    batch = Batch.from_episodes(episodes, start=start)
    first = 0 if start is None else 1
    read = episodes.tokens[:, : batch.targets.shape[1] - first]
    exact = world.next_token_probs(read)
    if exact is not None and first:
        law = world.start_probs()
        if law is None:
            batch.target_mask[:, 0] = False
            law = np.zeros(exact.shape[-1])
        exact = np.concatenate([np.broadcast_to(law, (len(exact), 1, len(law))), exact], axis=1)
    places, decisive = world.decisive(episodes), None
    if places is not None:
        # From positions, which count from 1, to columns of the batch.
        columns = np.pad(places, ((0, 0), (first, 0)))[:, : batch.targets.shape[1]]
        decisive = torch.from_numpy(columns)[batch.target_mask]
    beliefs = legal = None
    if places is None:
        belief = world.belief(read)
        if belief is not None:
            beliefs = torch.from_numpy(np.asarray(belief, dtype=np.float64))
        elif world.rules_known:
            allowed = world.legal_next(read)
            if first:
                opening = np.broadcast_to(world.legal_first(), (len(allowed), 1, allowed.shape[-1]))
                allowed = np.concatenate([opening, allowed], axis=1)
            row, token = torch.nonzero(torch.from_numpy(allowed)[batch.target_mask], as_tuple=True)
            legal = (row, token)
    if exact is None:
        return Part(batch, None, decisive, beliefs, legal)
    p = torch.from_numpy(np.asarray(exact, dtype=np.float64))[batch.target_mask]
    place, token = torch.nonzero(p, as_tuple=True)
    return Part(batch, (place, token, p[place, token]), decisive, beliefs, legal)
