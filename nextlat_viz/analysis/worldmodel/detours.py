"""Detours: does a model find its way when it is led astray."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from tqdm.auto import tqdm

from nextlat_viz.analysis.measure import Measure, record, share
from nextlat_viz.analysis.worldmodel._episodes import episode_length, measured, prompts, require_end, require_taxi
from nextlat_viz.analysis.worldmodel.trajectories import judge
from nextlat_viz.decoding import Predictor
from nextlat_viz.errors import unknown
from nextlat_viz.worlds.taxi.world import Taxi

KINDS = ("random", "second", "adversarial")
"""Which turn a detour is; ``detour_robustness`` says how each is chosen."""


def detour_robustness(
    models: Any,
    p: Sequence[float | int] = (0, 0.01, 0.1, 0.25, 0.5, 0.75),
    kinds: Sequence[str] = KINDS,
    *,
    n: int = 200,
    seed: int = 0,
    progress: bool = True,
) -> Measure:
    """Share of held-out rides that arrive although turns are taken out of the model's hands.

    The model drives greedily. Before each turn until the destination, with probability `p`, its choice is replaced by
    a turn after which the destination can still be reached in the moves left, so that whoever knows the streets
    always arrives (Vafa et al. 2024, arXiv:2406.03689):

    ``"random"``
        any of those turns but the model's own, uniformly;
    ``"second"``
        the one of them that the model finds likeliest, its own choice apart;
    ``"adversarial"``
        the one of them that it finds least likely.

    Where there is no such turn the model's choice stands. Whether a step is a detour is drawn once for each prompt and
    step: all models, kinds and `p` meet the same draws, and a larger `p` only adds detours. A detour is always a turn
    that can be taken, so that a model which mostly loses its way by itself arrives more often with detours: see each
    value beside the one at `p` 0.

    Parameters
    ----------
    models : Checkpoint, Predictor, or several of one taxi world
    p : sequence of numbers
        Probabilities of a detour.
    kinds : sequence of str
    n : int
        Prompts, all different; all there are where there are fewer.
    seed : int
        Of prompts and detours.
    progress : bool
        Show a bar.

    Returns
    -------
    Measure
        By ``("p", "kind")``; beside the share, the mean number of ``detours`` in a ride, and how many rides took an
        ``illegal`` turn or were ``unfinished``, as in ``valid_trajectories``.

    Raises
    ------
    ValueError
        If the world has no streets, or a `p` is no probability.
    UnknownNameError
        If a kind is none of the above.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> from nextlat_viz.decoding import WorldPredictor
    >>> world = worlds.get("taxi", width=3, height=3)
    >>> found = detour_robustness(WorldPredictor(world), p=[0, 0.5], kinds=["random"], n=4, progress=False)
    >>> found.table[["p", "value"]].values.tolist()
    [[0.0, 1.0], [0.5, 1.0]]
    """
    predictors = measured(models)
    world = require_taxi(predictors[0].world, "detour robustness")
    for kind in kinds:
        if kind not in KINDS:
            raise unknown("kind of detour", kind, KINDS)
    if not len(p) or not len(kinds):
        raise ValueError("p and kinds must each name at least one setting")
    for chance in p:
        if not 0 <= chance <= 1:
            raise ValueError(f"p={chance!r} must be a probability, from 0 to 1")
    asked = prompts(world, n, seed, "detour robustness")
    rng = np.random.default_rng(seed)
    steps = episode_length(predictors, None) - asked.shape[1]
    when, which = rng.random((2, len(asked), steps))
    rows = []
    settings = [(predictor, kind, float(chance)) for predictor in predictors for kind in kinds for chance in p]
    for predictor, kind, chance in tqdm(settings, desc="detours", unit="setting", disable=not progress):
        tokens, length, detours = drive(predictor, world, asked, kind, when < chance, which)
        verdicts = judge(world, tokens, length)
        found = share(int(verdicts.valid.sum()), len(asked)) | {"detours": float(detours.mean())} | verdicts.counts()
        who = record(world.name, predictor.objective, predictor.seed, predictor.name)
        rows.append(who | {"p": chance, "kind": kind} | found)
    return Measure(
        "detour robustness",
        pd.DataFrame(rows),
        by=("p", "kind"),
        better="higher",
        references={"true world": 1.0},
        note="Held-out rides that arrive although, with probability p at every turn, another turn is taken from which "
        "the destination can still be reached in time. Vafa et al. 2024.",
    )


def drive(
    predictor: Predictor,
    world: Taxi,
    prompts: Int[np.ndarray, "n prompt"],
    kind: str,
    when: Bool[np.ndarray, "n steps"],
    which: Float[np.ndarray, "n steps"],
) -> tuple[Int[np.ndarray, "n t"], Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Drive greedily from prompts, with detours.

    Parameters
    ----------
    predictor : Predictor
    world : Taxi
    prompts : (n, prompt) int array
    kind : str
        One of ``KINDS``.
    when : (n, steps) bool array
        Where a detour is to be, if there is one.
    which : (n, steps) array
        From 0 to 1: which of the turns a random detour takes.

    Returns
    -------
    tuple of arrays
        Tokens (n, prompt + steps), -1 after the end; the length of each ride; the detours in each.
    """
    end, first = require_end(world, "a drive"), len(world.streets.nodes)
    n, width = prompts.shape
    tokens = np.full((n, width + when.shape[1]), -1, np.int64)
    tokens[:, :width] = prompts
    length, detours, going = np.full(n, width), np.zeros(n, np.int64), np.arange(n)
    reader = predictor.reader(prompts)
    for step in range(when.shape[1]):
        at = width + step
        choice = reader.probs.argmax(axis=1)
        led = np.flatnonzero(when[going, step])
        if len(led):
            rides = going[led]
            open_turns = world.legal_turns(tokens[rides, :at], in_time=True)[:, -1]
            turn = detour(reader.probs[led, first:end], choice[led] - first, open_turns, kind, which[rides, step])
            moved = turn >= 0
            detours[rides[moved]] += 1
            choice[led[moved]] = first + turn[moved]
        tokens[going, at] = choice
        length[going] += 1
        on = choice != end
        going, choice = going[on], choice[on]
        if not going.size or step + 1 == when.shape[1]:
            break
        if not on.all():
            reader.keep(on)
        reader.read(choice)
    return tokens, length, detours


def detour(
    probs: Float[np.ndarray, "n turns"],
    choice: Int[np.ndarray, " n"],
    open_turns: Bool[np.ndarray, "n turns"],
    kind: str,
    which: Float[np.ndarray, " n"],
) -> Int[np.ndarray, " n"]:
    """Choose a detour for each ride, -1 where there is none.

    Parameters
    ----------
    probs : (n, turns) array
        What the model thinks of each turn.
    choice : (n,) int array
        Its own turn; whatever is no turn is outside 0..turns - 1.
    open_turns : (n, turns) bool array
        Turns from which the destination can still be reached in the moves left.
    kind : str
        One of ``KINDS``.
    which : (n,) array
        From 0 to 1: which one, where it is random.

    Examples
    --------
    >>> probs, open_turns = np.array([[0.5, 0.3, 0.2]]), np.array([[True, True, True]])
    >>> [detour(probs, np.array([0]), open_turns, kind, np.array([0.9])).tolist() for kind in KINDS]
    [[2], [1], [2]]
    >>> detour(probs, np.array([1]), np.array([[False, True, False]]), "second", np.array([0.9])).tolist()
    [-1]
    """
    among = open_turns & (np.arange(open_turns.shape[1]) != choice[:, None])
    if kind == "random":
        count = among.sum(axis=1)
        nth = np.minimum((which * count).astype(np.int64), np.maximum(count - 1, 0))
        chosen = (among.cumsum(axis=1) > nth[:, None]).argmax(axis=1)
    elif kind == "second":
        chosen = np.where(among, probs, -1.0).argmax(axis=1)
    else:
        # Its own choice may be the least likely of those that still lead there, and is then no detour.
        worst = np.where(open_turns, probs, np.inf).argmin(axis=1)
        return np.where(open_turns.any(axis=1) & (worst != choice), worst, -1)
    return np.where(among.any(axis=1), chosen, -1)
