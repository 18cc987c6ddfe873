"""Trajectories: whether predictions are legal and generated episodes reach their goal."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from nextlat_viz.analysis.episodes import (
    held_out_split,
    heldout_prompts,
    require_end,
    require_next_token,
    whole_length,
    within_context,
)
from nextlat_viz.analysis.measure import Models, Rows, measure, share
from nextlat_viz.decoding import generate
from nextlat_viz.errors import at_least
from nextlat_viz.worlds import Episodes, World
from nextlat_viz.worlds.taxi.world import Taxi

# Episodes per call of `legal_next`, whose result is an array of episodes x positions x vocabulary.
_AT_ONCE = 128


class Verdicts(NamedTuple):
    """The outcome of each generated episode: valid, with an illegal token, or without an end in time."""

    valid: Bool[np.ndarray, " n"]
    illegal: Bool[np.ndarray, " n"]
    unfinished: Bool[np.ndarray, " n"]

    def counts(self) -> dict[str, int]:
        """Count the failures of each kind."""
        return {"illegal": int(self.illegal.sum()), "unfinished": int(self.unfinished.sum())}


def verdicts_of(world: World, tokens: Int[np.ndarray, "n t"], length: Int[np.ndarray, " n"]) -> Verdicts:
    """Judge episodes by their first `length` tokens: a valid one is legal and ends with the world's ``end``."""
    end = require_end(world, "judging trajectories")
    past = np.arange(tokens.shape[1]) >= length[:, None]
    whole = np.where(past, end, tokens)
    parts = np.array_split(whole, max(1, -(-len(whole) // _AT_ONCE)))
    wrong = ~(np.concatenate([world.legal(part) for part in parts]) | past)
    legal = ~wrong.any(axis=1)
    stuck = np.zeros(len(tokens), bool)
    for failed in np.array_split(np.flatnonzero(~legal & ~wrong[:, 0]), len(parts)):
        before = wrong[failed].argmax(axis=1) - 1
        stuck[failed] = ~world.legal_next(whole[failed])[np.arange(len(failed)), before].any(axis=1)
    valid = legal & (tokens[np.arange(len(tokens)), length - 1] == end)
    return Verdicts(valid, ~legal & ~stuck, ~valid & (legal | stuck))


@measure(
    "next-token test",
    better="higher",
    references={"true world": 1.0},
    note="Share of positions on true, held-out prefixes where the likeliest next token is legal. Positions of one "
    "episode are no independent trials: the error is a lower bound. Vafa et al. 2024.",
    fits=lambda checkpoint: checkpoint.world.predicts_next_token,
)
def next_token_test(
    models: Models,
    episodes: Episodes | None = None,
    *,
    n: int = 256,
    length: int | None = None,
    seed: int = 0,
) -> Rows:
    """Share of positions on true prefixes where the likeliest next token is a legal one.

    Nearly every model passes this test, so it says little about whether the model has learned the world (Vafa et al.
    2024, arXiv:2406.03689).

    Parameters
    ----------
    episodes : Episodes, optional
        True episodes; by default `n` of the held-out split, where the world has one.

    Returns
    -------
    Measure
        ``trials`` are the positions whose next token is predicted.

    Raises
    ------
    ValueError
        If models of the world predict targets rather than the next token, or no position is predicted.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> legal = next_token_test(worlds.get("taxi", width=3, height=3), n=20, progress=False)
    >>> legal.table["value"].tolist()
    [1.0]
    """
    world = models.world
    require_next_token(world, "the next-token test")
    if episodes is None:
        total = whole_length(models, length)
        episodes = world.sample(at_least("n", n), total, seed=seed, split=held_out_split(world), states=False)
    if not isinstance(episodes, Episodes):
        raise TypeError(f"episodes must be Episodes, such as world.sample gives, got {type(episodes).__name__}")
    width = within_context(models, episodes.tokens.shape[1])
    tokens, scored = episodes.tokens[:, :width], episodes.loss_mask[:, 1:width]
    if not scored.any():
        raise ValueError(f"episodes hold no token to predict among the first {width} positions: give others")
    for model in models:
        hits = 0
        for first in range(0, len(tokens), _AT_ONCE):
            rows = slice(first, first + _AT_ONCE)
            read = tokens[rows, :-1]
            choice = model.next_token_probs(read).argmax(axis=-1)
            legal = np.take_along_axis(world.legal_next(read), choice[..., None], axis=-1)[..., 0]
            hits += int((legal & scored[rows]).sum())
        yield model, share(hits, int(scored.sum()))


@measure(
    "valid trajectories",
    better="higher",
    references={"true world": 1.0},
    solved=0.99,
    fits=lambda checkpoint: isinstance(checkpoint.world, Taxi),
)
def valid_trajectories(models: Models, *, n: int = 500, temperature: float = 0.0, seed: int = 0) -> Rows:
    """Share of held-out prompts from which a model generates a legal episode that ends at its goal.

    In the taxi world a prompt is a pair of origin and destination that is not in train, every turn must follow a
    street, and ``end`` must come at the destination, in as many moves as a ride may take (Vafa et al. 2024,
    arXiv:2406.03689).

    Parameters
    ----------
    n : int
        Prompts, all different; fewer where the world has fewer.

    Returns
    -------
    Measure
        The share of prompts. Columns ``illegal``, episodes with an illegal token where a legal one existed, and
        ``unfinished``, episodes without an end, or that reached a point where no token is legal, such as a ride that
        has used all its moves.

    Raises
    ------
    ValueError
        If episodes of the world have no end, or a legal end is not a success there.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> from nextlat_viz.decoding import UniformLegal
    >>> world = worlds.get("taxi", width=3, height=3)
    >>> valid = valid_trajectories([world, UniformLegal(world)], n=5, progress=False)
    >>> valid.table["value"].tolist()[0], int(valid.table["illegal"].sum())
    (1.0, 0)
    """
    world = models.world
    prompts = heldout_prompts(world, n, seed, models.measure)
    end, most = require_end(world, models.measure), whole_length(models, None) - prompts.shape[1]
    for model in models:
        generated = generate(model, prompts, most, temperature=temperature, stop=end, seed=seed)
        verdicts = verdicts_of(world, generated.tokens, generated.length)
        yield model, share(int(verdicts.valid.sum()), len(prompts)) | verdicts.counts()
    decoding = "greedy" if temperature == 0 else f"sampled at temperature {temperature:g}"
    return {"note": f"Held-out prompts continued to a legal end at the goal, {decoding}. Vafa et al. 2024."}
