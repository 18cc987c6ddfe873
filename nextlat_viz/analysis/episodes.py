"""Held-out episodes and prompts, in batches; checks before a measurement; and verdicts on generated episodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from nextlat_viz.analysis.measure import Models, share
from nextlat_viz.decoding import Predictor, generate
from nextlat_viz.decoding.predictor import ModelPredictor
from nextlat_viz.errors import at_least, is_number
from nextlat_viz.models import Batch
from nextlat_viz.training.config import episode_length
from nextlat_viz.worlds import Episodes, World
from nextlat_viz.worlds.taxi.world import Taxi

END = "end"
"""The token that ends an episode, in worlds whose episodes end."""

# Episodes per call of `legal_next`, whose result is an array of episodes x positions x vocabulary.
AT_ONCE = 128
_DRAWS_PER_PROMPT, _BATCH = 4, 64
K = TypeVar("K")


def heldout_episodes(models: Models, n: int, length: int | None = None, *, seed: int) -> Episodes:
    """Draw held-out episodes that all models can read.

    By default they are as long as in training, where models read all but the last token. If contexts differ, the
    shortest counts.
    """
    at_least("n", n, 2, "a standard error needs two episodes")
    if length is None:
        assert models.context is not None
        length = episode_length(models.world, models.context)
    return models.world.sample(n, length, seed=seed, split=models.world.held_out_split)


def whole_length(models: Models, length: int | None) -> int:
    """Return the length of an episode: `length` if given, else the world's, else as many as every model can predict."""
    if length is not None:
        return at_least("length", length)
    if models.world.length is not None:
        return models.world.length
    if models.context is None:
        raise ValueError(f"length is needed: neither episodes of world {models.world.name!r} nor these models limit it")
    return models.context + 1


def within_context(models: Models, length: int) -> int:
    """Return how many tokens of an episode every model can predict: one more than it reads, at most `length`."""
    return length if models.context is None else min(length, models.context + 1)


def require_next_token(world: World, measure: str) -> None:
    """Raise unless models of the world predict the next token: only then is a prediction legal or not."""
    if not world.predicts_next_token:
        raise ValueError(
            f"{measure} asks whether the next token is legal, but models of world {world.name!r} predict targets, not "
            "the next token: use a world that predicts_next_token"
        )


def require_taxi(world: World, measure: str) -> Taxi:
    """Return the world, which must have streets."""
    if not isinstance(world, Taxi):
        raise ValueError(
            f"{measure} needs streets and a destination, which world {world.name!r} lacks: use models of a taxi world"
        )
    return world


def require_probability(eps: float) -> float:
    """Return `eps`, which must be a probability between 0 and 1."""
    if not is_number(eps) or not 0 < eps < 1:
        raise ValueError(f"eps={eps!r} must be above 0 and below 1: a token is accepted when it is likelier than that")
    return float(eps)


def end_token(world: World) -> int | None:
    """Return the id of ``end``; None where episodes have no end."""
    return world.vocabulary.index(END) if END in world.vocabulary else None


def require_end(world: World, measure: str) -> int:
    """Return the id of ``end``, or raise where episodes have no end."""
    end = end_token(world)
    if end is None:
        raise ValueError(
            f"{measure} needs episodes that end, and those of world {world.name!r} have no {END!r} token: use a world "
            "such as 'taxi'"
        )
    return end


def prompt_length(episodes: Episodes, world: World) -> int:
    """Return how many tokens come before the first that is predicted, the same number in every episode."""
    scored = episodes.loss_mask.copy()
    scored[:, 0] = False
    first = scored.argmax(axis=1)
    if not scored.any(axis=1).all() or np.ptp(first):
        raise ValueError(f"episodes of world {world.name!r} have no prompt of one length to continue from")
    return int(first[0])


def heldout_prompts(world: World, n: int, seed: int, measure: str) -> Int[np.ndarray, "n prompt"]:
    """Draw up to `n` different held-out prompts in random order; fewer where the world has no more."""
    require_end(world, measure)
    if world.name == "countdown":
        raise ValueError(
            f"{measure} needs a world where every legal episode that ends has reached its goal: in world 'countdown' "
            "true arithmetic may miss the target; ask Countdown.verify"
        )
    require_next_token(world, measure)
    # In a small world many draws are the same prompt: draw more than are needed, then keep each once.
    episodes = world.sample(_DRAWS_PER_PROMPT * at_least("n", n), seed=seed, split=world.held_out_split, states=False)
    opening = episodes.tokens[:, : prompt_length(episodes, world)]
    _, first = np.unique(opening, axis=0, return_index=True)
    return opening[np.sort(first)][:n]


def answers(
    model: Predictor, prompts: Int[np.ndarray, "n t"], length: int, stop: int, temperature: float, seed: int
) -> Int[np.ndarray, "n length"]:
    """Return prompts with the tokens that the model adds to them, padded with -1 after the end."""
    tokens = generate(model, prompts, length - prompts.shape[1], temperature=temperature, stop=stop, seed=seed).tokens
    return np.pad(tokens, ((0, 0), (0, length - tokens.shape[1])), constant_values=-1)


class Verdicts(NamedTuple):
    """The outcome of each generated episode: valid, with an illegal token, or without an end in time."""

    valid: Bool[np.ndarray, " n"]
    illegal: Bool[np.ndarray, " n"]
    unfinished: Bool[np.ndarray, " n"]

    def score(self) -> dict[str, float | int]:
        """Return the share of valid episodes, and the number of failures of each kind."""
        failures = {"illegal": int(self.illegal.sum()), "unfinished": int(self.unfinished.sum())}
        return share(int(self.valid.sum()), len(self.valid)) | failures


def verdicts_of(world: World, tokens: Int[np.ndarray, "n t"], length: Int[np.ndarray, " n"]) -> Verdicts:
    """Judge episodes by their first `length` tokens: a valid one is legal and ends with the world's ``end``."""
    end = require_end(world, "judging trajectories")
    past = np.arange(tokens.shape[1]) >= length[:, None]
    whole = np.where(past, end, tokens)
    parts = np.array_split(whole, max(1, -(-len(whole) // AT_ONCE)))
    wrong = ~(np.concatenate([world.legal(part) for part in parts]) | past)
    legal = ~wrong.any(axis=1)
    stuck = np.zeros(len(tokens), bool)
    for failed in np.array_split(np.flatnonzero(~legal & ~wrong[:, 0]), len(parts)):
        before = wrong[failed].argmax(axis=1) - 1
        stuck[failed] = ~world.legal_next(whole[failed])[np.arange(len(failed)), before].any(axis=1)
    valid = legal & (tokens[np.arange(len(tokens)), length - 1] == end)
    return Verdicts(valid, ~legal & ~stuck, ~valid & (legal | stuck))


@torch.no_grad()
def over_batches(
    predictor: ModelPredictor, episodes: Episodes, compute: Callable[[slice, Batch], Mapping[K, Sequence[Tensor]]]
) -> dict[K, list[np.ndarray]]:
    """Call `compute` on batches of the episodes, and join the tensors that it returns by name.

    `compute` takes the slice of episodes in a batch, and the batch on the model's device. Rows of its tensors are
    episodes.
    """
    backbone = predictor.model.backbone
    parts: dict[K, list[list[np.ndarray]]] = {}
    for first in range(0, len(episodes), _BATCH):
        rows = slice(first, first + _BATCH)
        batch = Batch.from_episodes(episodes[rows], backbone.head.weight.device, start=backbone.start)
        for name, tensors in compute(rows, batch).items():
            parts.setdefault(name, []).append([tensor.cpu().numpy() for tensor in tensors])
    return {name: [np.concatenate(arrays) for arrays in zip(*pieces, strict=True)] for name, pieces in parts.items()}


def first_position(predictor: ModelPredictor) -> int:
    """Return the first position at which a model has a state: 0 with a start token, else 1."""
    return 1 - predictor.model.backbone.offset
