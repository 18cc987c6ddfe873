"""Detours: whether a ride of the model still arrives when some of its turns are replaced."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from nextlat_viz.analysis.behaviour.language import walk
from nextlat_viz.analysis.behaviour.trajectories import verdicts_of
from nextlat_viz.analysis.episodes import heldout_prompts, require_end, require_taxi, whole_length
from nextlat_viz.analysis.measure import Models, Rows, measure, several, share
from nextlat_viz.decoding import Predictor
from nextlat_viz.errors import is_number, one_of
from nextlat_viz.worlds.taxi.world import Taxi

KINDS = ("random", "second", "adversarial")
"""How the turn of a detour is chosen; see ``detour_robustness``."""


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

    Without such a turn the choice of the model stands. Whether a step is a detour is drawn once for each prompt and
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
        If the world has no streets, or a value of `p` is no probability.
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
        verdicts = verdicts_of(world, tokens, length)
        arrived = share(int(verdicts.valid.sum()), len(prompts))
        yield model, {"p": chance, "kind": kind, **arrived, "detours": float(detours.mean()), **verdicts.counts()}


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
