"""Lesson 6, linear probes: a split of the rows that cannot carry an answer from one side to the other."""

import numpy as np

from nextlat_viz.course.exercise import Exercise, RightOption
from nextlat_viz.display import counted


def honest_split(tokens, episode, share, seed):
    """Return whether each row is held out, for about this share of the different strings."""
    strings, number = np.unique(tokens, axis=0, return_inverse=True)
    held_out = np.random.default_rng(seed).permutation(len(strings))[: round(share * len(strings))]
    return np.isin(number.reshape(-1), held_out)[episode]


def _cases(rng):
    # All strings differ; then short strings, many of them twice; then rows in any order, and another share.
    tokens = np.array([[a, b, c, d] for a in (0, 1) for b in (0, 1) for c in (0, 1) for d in (0, 1)])
    yield rng.permutation(tokens), np.repeat(np.arange(16), 4), 0.3, 0
    for share, seed in [(0.3, 1), (0.2, 2), (0.5, 3)]:
        tokens = rng.integers(2, size=(60, 5))
        yield tokens, rng.permutation(np.repeat(np.arange(60), 5)), share, seed


def _describe(tokens, episode, share, seed):
    strings = len(np.unique(tokens, axis=0))
    return (
        f"{len(tokens)} episodes of {tokens.shape[1]} tokens, {strings} different strings among them; {len(episode)} "
        f"rows; share {share:g}, seed {seed}"
    )


def _judge(held_out, tokens, episode, share, seed):
    """Say what is wrong with a split, or "": many are right."""
    rows = np.asarray(held_out)
    if rows.shape != episode.shape or rows.dtype != bool:
        return (
            f"It returned {rows.dtype} of shape {rows.shape}, expected a bool for each of {len(episode)} rows: "
            "np.isin(what the rows have, what is held out) gives one."
        )
    if rows.all() or not rows.any():
        return f"All {len(rows)} rows are on one side."
    parts = np.array([rows[episode == number].mean() for number in range(len(tokens))])
    torn = np.flatnonzero((parts > 0) & (parts < 1))
    if torn.size:
        return (
            f"Of episode {torn[0]}, {counted(int(rows[episode == torn[0]].sum()), 'row')} of {tokens.shape[1]} are "
            "held out, and the probe is fitted on the others. Draw whole episodes, not rows."
        )
    strings, number = np.unique(tokens, axis=0, return_inverse=True)
    number, side = number.reshape(-1), parts > 0
    for string in range(len(strings)):
        same = np.flatnonzero(number == string)
        if side[same].any() and not side[same].all():
            first, second = same[side[same]][0], same[~side[same]][0]
            return (
                f"Episodes {first} and {second} are on different sides and have the same tokens, so the same hidden "
                "states. np.unique(tokens, axis=0, return_inverse=True) numbers the different strings: draw those."
            )
    chosen = np.unique(number[side])
    target = round(share * len(strings))
    if abs(len(chosen) - target) > 1:
        text = f"It holds out {len(chosen)} of {len(strings)} different strings; share = {share:g} asks for {target}."
        return f"{text} True means held out." if abs(len(strings) - len(chosen) - target) <= 1 else text
    if chosen[-1] - chosen[0] == len(chosen) - 1 and chosen[0] in (0, len(strings) - len(chosen)):
        return (
            f"The strings it holds out all come {'first' if chosen[0] == 0 else 'last'} in order, so they begin alike. "
            "Draw them: np.random.default_rng(seed).permutation(n)."
        )
    return ""


def _split_by_episode(tokens, episode, share, seed):
    held_out = np.random.default_rng(seed).permutation(len(tokens))[: round(share * len(tokens))]
    return np.isin(episode, held_out)


def _first_strings(tokens, episode, share, seed):
    strings, number = np.unique(tokens, axis=0, return_inverse=True)
    return (number.reshape(-1) < round(share * len(strings)))[episode]


exercise = Exercise(
    honest_split,
    _cases,
    describe=_describe,
    judge=_judge,
    mistakes=(
        (
            lambda tokens, episode, share, seed: np.random.default_rng(seed).random(len(episode)) < share,
            "Hidden states of one episode resemble each other, so this score is partly memory.",
        ),
        (_split_by_episode, "In a small world the same string is drawn again and again."),
        (
            lambda tokens, episode, share, seed: ~honest_split(tokens, episode, share, seed),
            "The probe would be fitted on the small part and scored on the large one.",
        ),
        (_first_strings, "The seed is not used."),
        (
            lambda tokens, episode, share, seed: np.flatnonzero(honest_split(tokens, episode, share, seed)),
            "These are the numbers of the rows. Leave out np.flatnonzero: the answer is a bool for each row.",
        ),
    ),
    hints=(
        "Two rows may be on different sides only if their episodes have different tokens. So number the different "
        "strings first.",
        "strings, number = np.unique(tokens, axis=0, return_inverse=True) gives every episode the number of its "
        "string.",
        "Draw round(share * len(strings)) of these numbers with np.random.default_rng(seed). A row is held out if "
        "the number of its episode's string was drawn: np.isin, then [episode].",
    ),
)

prediction = RightOption(
    "untrained_mess3",
    "0.97",
    "Attention with random weights still mixes the last few tokens into the state, and in Mess3 these nearly "
    "settle the belief.",
)
