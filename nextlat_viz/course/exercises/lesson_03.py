"""Lesson 3, the shape of all beliefs: count the beliefs that a reader can come to hold."""

from __future__ import annotations

from typing import Any

import numpy as np

from nextlat_viz.course.exercise import Exercise, RightOption
from nextlat_viz.worlds import get


def count_beliefs(prior, T, depth):
    """Return how many different beliefs a reader can hold after 0, 1, ... or depth tokens."""
    level = seen = {tuple(prior.round(9)): prior}
    for _ in range(depth):
        joints = [belief @ matrix for belief in level.values() for matrix in T]
        beliefs = [joint / joint.sum() for joint in joints if joint.sum() > 0]
        level = {tuple(belief.round(9)): belief for belief in beliefs}
        seen = seen | level
    return len(seen)


def _cases(rng):
    for name, depth in [("z1r", 0), ("z1r", 1), ("golden_mean", 2), ("even", 3), ("z1r", 4), ("sns", 5), ("rrxor", 6)]:
        world: Any = get(name)
        yield world.stationary, world.transitions, depth
    world = get("mess3", x=round(rng.uniform(0.1, 0.3), 2), alpha=round(rng.uniform(0.5, 0.8), 2))
    yield world.stationary, world.transitions, 4


def _tree(prior, T, depth):
    """Return the beliefs of all texts that can occur, level by level."""
    levels = [[prior]]
    for _ in range(depth):
        joints = [belief @ matrix for belief in levels[-1] for matrix in T]
        levels.append([joint / joint.sum() for joint in joints if joint.sum() > 0])
    return levels


def _prior_left_out(prior, T, depth):
    return len({tuple(belief.round(9)) for level in _tree(prior, T, depth)[1:] for belief in level})


def _rounded_on_the_way(prior, T, depth):
    level = seen = {tuple(prior.round(9))}
    for _ in range(depth):
        joints = [np.array(belief) @ matrix for belief in level for matrix in T]
        level = {tuple((joint / joint.sum()).round(9)) for joint in joints if joint.sum() > 0}
        seen = seen | level
    return len(seen)


def _levels_added(prior, T, depth):
    return sum(len({tuple(belief.round(9)) for belief in level}) for level in _tree(prior, T, depth))


def _impossible_too(prior, T, depth):
    level, seen = [prior], {str(prior.round(9))}
    for _ in range(depth):
        joints = [belief @ matrix for belief in level for matrix in T]
        level = [joint / joint.sum() for joint in joints]
        seen |= {str(belief.round(9)) for belief in level}
    return len(seen)


exercise = Exercise(
    count_beliefs,
    _cases,
    describe=lambda prior, T, depth: f"a machine of {len(prior)} states and {len(T)} tokens, {depth} tokens deep",
    mistakes=(
        (
            lambda prior, T, depth: sum(map(len, _tree(prior, T, depth))),
            "This is the number of texts. Different texts can leave a reader with the same belief.",
        ),
        (_prior_left_out, "The belief before the first token is a belief too: the prior."),
        (
            lambda prior, T, depth: len({tuple(belief.round(9)) for belief in _tree(prior, T, depth)[-1]}),
            "These are the beliefs after exactly depth tokens. Those after fewer tokens count as well.",
        ),
        (
            lambda prior, T, depth: count_beliefs(prior, T, depth + 1),
            "You went one token too deep: at depth 0 there is the prior alone.",
        ),
        (
            lambda prior, T, depth: count_beliefs(prior, T, max(depth - 1, 0)),
            "You stopped one token too early: at depth 1 every first token has been read.",
        ),
        (
            lambda prior, T, depth: len({tuple(belief) for level in _tree(prior, T, depth) for belief in level}),
            "Some of these differ only in the sixteenth digit. Round before you compare.",
        ),
        (_rounded_on_the_way, "You continue from rounded beliefs, and the errors add up. Round only to compare."),
        (_levels_added, "A belief that occurs after two tokens and again after four is counted twice here."),
        (_impossible_too, "A token of probability 0 is never read, and dividing by 0 gives no belief: skip it."),
    ),
    hints=(
        "Keep the beliefs of one level, at first only the prior, and make the next level from it with every token.",
        "An array cannot be a key, a tuple can: {tuple(belief.round(9)): belief} holds each belief once.",
        "Collect all levels in one dictionary. Skip a token whose joint probabilities sum to 0.",
    ),
)

prediction = RightOption(
    "more_beliefs",
    "In Mess3: every longer text can bring a new belief",
    "In RRXOR a reader only has to find out where the triples begin, and there are 36 ways to be unsure of it. "
    "In Mess3 every text leaves its own trace, however faint.",
)
