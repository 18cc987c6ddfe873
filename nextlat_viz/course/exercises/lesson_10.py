"""Lesson 10, intervening: the smallest edit of a hidden state after which a probe reads another belief."""

import numpy as np

from nextlat_viz.course.exercise import Exercise, RightOption


def smallest_edit(hidden, W, c, target, C):
    """Return the smallest edit e, by C, after which W (hidden + e) + c is the target."""
    missing = target - (W @ hidden + c)
    return C @ W.T @ np.linalg.solve(W @ C @ W.T, missing)


def _cases(rng):
    # By hand: one number is read, 2 h1 + 1, and 5 is wanted. Then any probe, first with all directions alike.
    yield np.array([1.0, 1.0]), np.array([[2.0, 0.0]]), np.array([1.0]), np.array([5.0]), np.eye(2)
    for width, read, even in [(3, 1, True), (4, 2, True), (4, 2, False), (6, 3, False)]:
        spread = rng.normal(size=(width, 2 * width))
        C = np.eye(width) if even else spread @ spread.T / (2 * width)
        yield rng.normal(size=width), rng.normal(size=(read, width)), rng.normal(size=read), rng.normal(size=read), C


def _describe(hidden, W, c, target, C):
    shape = "C = 1, all directions alike" if np.array_equal(C, np.eye(len(C))) else "states spread unevenly by C"
    numbers = "one number" if len(W) == 1 else f"{len(W)} numbers"
    return f"a hidden state of {len(hidden)} numbers; the probe reads {numbers}; {shape}"


exercise = Exercise(
    smallest_edit,
    _cases,
    describe=_describe,
    mistakes=(
        (
            lambda hidden, W, c, target, C: hidden + smallest_edit(hidden, W, c, target, C),
            "This is the state after the edit. The edit is what is added to it.",
        ),
        (
            lambda hidden, W, c, target, C: smallest_edit(hidden, W, np.zeros_like(c), target, C),
            "The probe reads W h + c: you left out c.",
        ),
        (
            lambda hidden, W, c, target, C: C @ W.T @ np.linalg.solve(W @ C @ W.T, target),
            "This edit adds the target to what is read. Add only what is missing: target - (W h + c).",
        ),
        (
            lambda hidden, W, c, target, C: -smallest_edit(hidden, W, c, target, C),
            "The edit goes the other way: what is missing is the target minus what is read now.",
        ),
        (
            lambda hidden, W, c, target, C: C @ W.T @ (target - W @ hidden - c),
            "The direction is right and the length is not: what is read changes by W C W' times what is missing. "
            "Solve with W C W' first.",
        ),
        (
            lambda hidden, W, c, target, C: smallest_edit(hidden, W, c, target, np.eye(len(C))),
            "This is the shortest edit by Euclidean distance, which is right only if C = 1. If states spread unevenly, "
            "it goes where they never are. Use C.",
        ),
        (
            lambda hidden, W, c, target, C: smallest_edit(hidden, W, c, target, np.linalg.inv(C)),
            "C is inverted. The edit should be long where states differ much: multiply by C.",
        ),
    ),
    hints=(
        "The probe reads W h + c. Begin with what is missing: target - (W @ hidden + c), as many numbers as the probe "
        "reads.",
        "Look for an edit of the form e = C W' a. Then W e = (W C W') a must be what is missing.",
        "a = np.linalg.solve(W @ C @ W.T, missing), and e = C @ W.T @ a.",
    ),
)

prediction = RightOption(
    "euclidean_edit",
    "The probe reads the new belief, and the prediction hardly moves",
    "The shortest edit goes along directions in which the states hardly differ. The probe weighs these heavily, "
    "and the model does not use them.",
)
