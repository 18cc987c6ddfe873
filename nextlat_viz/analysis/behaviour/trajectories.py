"""Trajectories: whether predictions are legal, and generated episodes reach their goal, even after detours."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from nextlat_viz.analysis.behaviour.prefixes import walk
from nextlat_viz.analysis.episodes import (
    AT_ONCE,
    heldout_prompts,
    require_end,
    require_next_token,
    require_taxi,
    verdicts_of,
    whole_length,
    within_context,
)
from nextlat_viz.analysis.measure import Models, Rows, measure, several, share
from nextlat_viz.decoding import Predictor, generate
from nextlat_viz.errors import at_least, is_number, one_of
from nextlat_viz.worlds import Episodes
from nextlat_viz.worlds.taxi.world import Taxi

KINDS = ("random", "second", "adversarial")
"""How the turn of a detour is chosen; see ``detour_robustness``."""


@measure(
    "next-token test",
    better="higher",
    references={"true world": 1.0},
    note="Share of positions on true, held-out prefixes where the likeliest next token is legal. Positions of one "
    "episode are not independent trials: the error is a lower bound. Vafa et al. 2024.",
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
        episodes = world.sample(at_least("n", n), total, seed=seed, split=world.held_out_split, states=False)
    if not isinstance(episodes, Episodes):
        raise TypeError(f"episodes must be Episodes, such as world.sample gives, got {type(episodes).__name__}")
    width = within_context(models, episodes.tokens.shape[1])
    tokens, scored = episodes.tokens[:, :width], episodes.loss_mask[:, 1:width]
    if not scored.any():
        raise ValueError(f"episodes hold no token to predict among the first {width} positions: give others")
    for model in models:
        hits = 0
        for first in range(0, len(tokens), AT_ONCE):
            rows = slice(first, first + AT_ONCE)
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
        yield model, verdicts_of(world, generated.tokens, generated.length).score()
    decoding = "greedy" if temperature == 0 else f"sampled at temperature {temperature:g}"
    return {"note": f"Held-out prompts continued to a legal end at the goal, {decoding}. Vafa et al. 2024."}


@measure(
    "detour robustness",
    by=("p", "kind"),
    better="higher",
    references={"true world": 1.0},
    note="Held-out rides that arrive although, with probability p at every turn, the model's choice is replaced by "
    "another turn from which the destination can still be reached in time. Vafa et al. 2024.",
    fits=lambda checkpoint: isinstance(checkpoint.world, Taxi),
)
def detour_robustness(
    models: Models,
    p: float | Sequence[float | int] = (0, 0.01, 0.1, 0.25, 0.5, 0.75),
    kinds: str | Sequence[str] = KINDS,
    *,
    n: int = 200,
    seed: int = 0,
) -> Rows:
    """Share of held-out rides that arrive although some turns of the model are replaced.

    The model drives greedily. Before each turn until the destination, with probability `p`, its choice is replaced by
    a turn after which the destination can still be reached in the moves left, so that a model that knows the streets
    always arrives (Vafa et al. 2024, arXiv:2406.03689):

    ``"random"``
        any of those turns except the model's own choice, uniformly;
    ``"second"``
        the one that the model finds likeliest, except its own choice;
    ``"adversarial"``
        the one that it finds least likely.

    Without such a turn the model's choice is kept. Whether a step is a detour is drawn once for each prompt and
    step: all models, kinds and `p` share the draws, and a larger `p` only adds detours. A detour is always a turn that
    can be taken, so a model that often gets lost arrives more often with detours: compare each value with that at `p`
    0.

    Parameters
    ----------
    p : number or several
        Probabilities of a detour.
    kinds : name or several
    n : int
        Prompts, all different; fewer where the world has fewer.

    Returns
    -------
    Measure
        By p and kind: the share of rides. Columns ``detours``, their mean number in a ride, and ``illegal`` and
        ``unfinished``, as in ``valid_trajectories``.

    Raises
    ------
    ValueError
        If the world has no streets, or a value of `p` is not between 0 and 1.
    UnknownNameError
        If a kind does not exist.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> world = worlds.get("taxi", width=3, height=3)
    >>> arrived = detour_robustness(world, p=[0, 0.5], kinds=["random"], n=4, progress=False)
    >>> arrived.table[["p", "value"]].values.tolist()
    [[0.0, 1.0], [0.5, 1.0]]
    """
    world = require_taxi(models.world, models.measure)
    p, kinds = several(p), several(kinds)
    for kind in kinds:
        one_of("kind of detour", kind, KINDS)
    if not p or not kinds:
        raise ValueError("p and kinds must each name at least one setting")
    for chance in p:
        if not is_number(chance) or not 0 <= chance <= 1:
            raise ValueError(f"p={chance!r} must be a probability, from 0 to 1")
    prompts = heldout_prompts(world, n, seed, models.measure)
    steps = whole_length(models, None) - prompts.shape[1]
    when, which = np.random.default_rng(seed).random((2, len(prompts), steps))
    for model, kind, chance in models.track(list(itertools.product(models.all, kinds, map(float, p))), "setting"):
        tokens, length, detours = drive(model, world, prompts, kind, when < chance, which)
        score = verdicts_of(world, tokens, length).score()
        yield model, {"p": chance, "kind": kind, "detours": float(detours.mean()), **score}


def drive(
    predictor: Predictor,
    world: Taxi,
    prompts: Int[np.ndarray, "n prompt"],
    kind: str,
    when: Bool[np.ndarray, "n steps"],
    which: Float[np.ndarray, "n steps"],
) -> tuple[Int[np.ndarray, "n t"], Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Drive greedily from prompts, with a detour at the steps of `when` where one is possible.

    `which`, from 0 to 1, picks the turn of a random detour. Returns tokens (n, prompt + steps), -1 after the end; the
    length of each ride; and its number of detours.
    """
    end, first, width = require_end(world, "a drive"), len(world.streets.nodes), prompts.shape[1]
    detours = np.zeros(len(prompts), np.int64)

    def turn_or_detour(rides: np.ndarray, so_far: np.ndarray, probs: np.ndarray) -> np.ndarray:
        step, choice = so_far.shape[1] - width, probs.argmax(axis=1)
        replaced = np.flatnonzero(when[rides, step])
        if len(replaced):
            open_turns = world.legal_turns(so_far[replaced], in_time=True)[:, -1]
            chances = which[rides[replaced], step]
            turn = detour(probs[replaced, first:end], choice[replaced] - first, open_turns, kind, chances)
            moved = turn >= 0
            detours[rides[replaced[moved]]] += 1
            choice[replaced[moved]] = first + turn[moved]
        return choice

    tokens = walk(predictor, prompts, when.shape[1], turn_or_detour, end)
    return tokens, (tokens >= 0).sum(axis=1), detours


def detour(
    probs: Float[np.ndarray, "n turns"],
    choice: Int[np.ndarray, " n"],
    open_turns: Bool[np.ndarray, "n turns"],
    kind: str,
    which: Float[np.ndarray, " n"],
) -> Int[np.ndarray, " n"]:
    """Choose a detour for each ride, -1 where there is none.

    `choice` is the turn that the model chose, outside ``0..turns - 1`` where it chose no turn. From a turn in
    `open_turns` the destination can still be reached in the moves left. `which`, from 0 to 1, picks a random turn.
    """
    among = open_turns & (np.arange(open_turns.shape[1]) != choice[:, None])
    if kind == "random":
        count = among.sum(axis=1)
        nth = np.minimum((which * count).astype(np.int64), np.maximum(count - 1, 0))
        chosen = (among.cumsum(axis=1) > nth[:, None]).argmax(axis=1)
    elif kind == "second":
        chosen = np.where(among, probs, -1.0).argmax(axis=1)
    else:
        # The model's own choice may be the least likely of the turns that still arrive: then there is no detour.
        worst = np.where(open_turns, probs, np.inf).argmin(axis=1)
        return np.where(open_turns.any(axis=1) & (worst != choice), worst, -1)
    return np.where(among.any(axis=1), chosen, -1)
