"""Trajectories: is what comes next legal, and does what is generated arrive."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int
from tqdm.auto import tqdm

from nextlat_viz.analysis.measure import Measure, record, share
from nextlat_viz.analysis.worldmodel._episodes import (
    episode_length,
    held_out_split,
    measured,
    positive,
    prompts,
    require_end,
    require_next_token,
    within_context,
)
from nextlat_viz.decoding import generate
from nextlat_viz.worlds import Episodes, World

_AT_ONCE = 128  # episodes: what is legal next is an array of episodes x positions x vocabulary


class Verdicts(NamedTuple):
    """How each generated episode went: it arrived, took an illegal token, or could not or did not end in time."""

    valid: Bool[np.ndarray, " n"]
    illegal: Bool[np.ndarray, " n"]
    unfinished: Bool[np.ndarray, " n"]

    def counts(self) -> dict[str, int]:
        """How many failed, and how."""
        return {"illegal": int(self.illegal.sum()), "unfinished": int(self.unfinished.sum())}


def judge(world: World, tokens: Int[np.ndarray, "n t"], length: Int[np.ndarray, " n"]) -> Verdicts:
    """Say of each episode whether it is legal throughout and ends with the world's ``end``.

    Parameters
    ----------
    world : World
        With an ``end`` token, legal only at the goal.
    tokens : (n, t) int array
        What is behind an episode's length is not looked at.
    length : (n,) int array
        Tokens in each, ``end`` included.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> world = worlds.get("taxi", width=2, height=2)
    >>> rides = world.sample(2, seed=0)
    >>> judge(world, rides.tokens, rides.length).valid.tolist()
    [True, True]
    >>> judge(world, rides.tokens, rides.length - 1).unfinished.tolist()
    [True, True]
    """
    end = require_end(world, "a judgement of trajectories")
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


def next_token_test(
    models: Any,
    episodes: Episodes | None = None,
    *,
    n: int = 256,
    length: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Measure:
    """Share of positions on true prefixes where the likeliest next token is a legal one.

    Nearly every model passes: it says little about whether a world was learned (Vafa et al. 2024, arXiv:2406.03689).

    Parameters
    ----------
    models : Checkpoint, Predictor, or several of one world
    episodes : Episodes, optional
        True episodes; by default `n` of the held-out split, where the world has one.
    n : int
    length : int, optional
        Tokens of an episode in a world without a length of its own; by default as many as the models can be asked
        about.
    seed : int
    progress : bool
        Show a bar.

    Returns
    -------
    Measure
        ``trials`` are the positions that count as something to predict.

    Raises
    ------
    ValueError
        If models of the world predict targets rather than the next token, or no position is to be predicted.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> from nextlat_viz.decoding import WorldPredictor
    >>> found = next_token_test(WorldPredictor(worlds.get("taxi", width=3, height=3)), n=20, progress=False)
    >>> found.table["value"].tolist()
    [1.0]
    """
    predictors = measured(models)
    world = predictors[0].world
    require_next_token(world, "the next-token test")
    if episodes is None:
        total = episode_length(predictors, length)
        episodes = world.sample(positive("n", n), total, seed=seed, split=held_out_split(world), states=False)
    width = within_context(predictors, episodes.tokens.shape[1])
    tokens, scored = episodes.tokens[:, :width], episodes.loss_mask[:, 1:width]
    if not scored.any():
        raise ValueError(f"episodes hold no token to predict among the first {width} positions: give others")
    rows = []
    for predictor in tqdm(predictors, desc="next-token test", unit="model", disable=not progress):
        hits = 0
        for first in range(0, len(tokens), _AT_ONCE):
            rows_read = slice(first, first + _AT_ONCE)
            read = tokens[rows_read, :-1]
            choice = predictor.next_token_probs(read).argmax(axis=-1)
            legal = np.take_along_axis(world.legal_next(read), choice[..., None], axis=-1)[..., 0]
            hits += int((legal & scored[rows_read]).sum())
        rows.append(
            record(world.name, predictor.objective, predictor.seed, predictor.name, **share(hits, int(scored.sum())))
        )
    return Measure(
        "next-token test",
        pd.DataFrame(rows),
        better="higher",
        references={"true world": 1.0},
        note="Share of positions on true, held-out prefixes where the likeliest next token is legal. Positions of one "
        "episode are no independent trials: the error is a lower bound. Vafa et al. 2024.",
    )


def valid_trajectories(
    models: Any, *, n: int = 500, temperature: float = 0.0, seed: int = 0, progress: bool = True
) -> Measure:
    """Share of held-out prompts from which a model generates a legal episode that ends at its goal.

    In the taxi world a prompt is a pair of origin and destination that is not in train, every turn must follow a
    street, and ``end`` must come at the destination, in as many moves as a ride may take (Vafa et al. 2024,
    arXiv:2406.03689).

    Parameters
    ----------
    models : Checkpoint, Predictor, or several of one world
    n : int
        Prompts, all different; all there are where there are fewer.
    temperature : float
        0 is greedy; 1 samples from the model's own distribution.
    seed : int
        Of the prompts and of sampling.
    progress : bool
        Show a bar.

    Returns
    -------
    Measure
        Beside the share, how many episodes took an ``illegal`` token though there was a legal one, and how many were
        ``unfinished``: without an end, or, as a ride that has used up its moves, where nothing was legal any more.

    Raises
    ------
    ValueError
        If episodes of the world have no end, or ending legally is no success there.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> from nextlat_viz.decoding import UniformLegal, WorldPredictor
    >>> world = worlds.get("taxi", width=3, height=3)
    >>> found = valid_trajectories([WorldPredictor(world), UniformLegal(world)], n=5, progress=False)
    >>> found.table["value"].tolist()[0], int(found.table["illegal"].sum())
    (1.0, 0)
    """
    predictors = measured(models)
    world = predictors[0].world
    asked = prompts(world, n, seed, "valid trajectories")
    end, most = require_end(world, "valid trajectories"), episode_length(predictors, None) - asked.shape[1]
    rows = []
    for predictor in tqdm(predictors, desc="valid trajectories", unit="model", disable=not progress):
        made = generate(predictor, asked, most, temperature=temperature, stop=end, seed=seed)
        verdicts = judge(world, made.tokens, made.length)
        found = share(int(verdicts.valid.sum()), len(asked)) | verdicts.counts()
        rows.append(record(world.name, predictor.objective, predictor.seed, predictor.name, **found))
    how = "greedy" if temperature == 0 else f"sampled at temperature {temperature:g}"
    return Measure(
        "valid trajectories",
        pd.DataFrame(rows),
        better="higher",
        references={"true world": 1.0},
        solved=0.99,
        note=f"Held-out prompts continued to a legal end at the goal, {how}. Vafa et al. 2024.",
    )
