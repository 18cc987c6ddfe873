"""The affine map from beliefs to picture coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from nextlat_viz.worlds.hmm.world import HiddenMarkovWorld

_MOST_BELIEFS = 4000


@dataclass(frozen=True, eq=False)
class BeliefPlane:
    """``coordinates = belief @ matrix + offset``; ``caption`` is a sentence about the two axes."""

    matrix: Float[np.ndarray, "states 2"]
    offset: Float[np.ndarray, " 2"]
    caption: str

    @classmethod
    def of(cls, world: HiddenMarkovWorld) -> BeliefPlane:
        """Choose the map for a world: onto a line, a polygon with a state at each corner, or principal axes."""
        size = world.n_states
        if not world.generalised and size <= 2:
            line = np.array([[0.0, 0.0], [1.0, 0.0]])[-size:]
            return cls(line, np.zeros(2), f"Left to right: the probability of state {world.state_names[-1]}.")
        if not world.generalised:
            flat = "" if size == 3 else f" ({size - 1} dimensions projected to 2)"
            caption = f"Each corner is certainty; a belief is the weighted mean of the corners{flat}."
            return cls(polygon(around(world.transitions)), np.zeros(2), caption)
        if size == 3 and np.allclose(world.readout, [1, 0, 0]):
            _, across, up = world.state_names
            return cls(np.eye(3)[:, 1:], np.zeros(2), f"Across: component {across} of the belief; up: component {up}.")
        return cls._principal(world)

    @classmethod
    def _principal(cls, world: HiddenMarkovWorld) -> BeliefPlane:
        # A generalised world has no states to place at corners.
        tree = world.reachable_beliefs(max_depth=fitting_depth(world))
        centre = tree.beliefs.mean(0)
        _, sizes, axes = np.linalg.svd(tree.beliefs - centre, full_matrices=True)
        axes = axes[:2]
        # The sign of a singular vector is arbitrary: make its largest entry positive on every machine.
        axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]
        total = float((sizes**2).sum())
        # A world with a single belief has no variance.
        share = float((sizes[:2] ** 2).sum()) / total if total > 0 else 1.0
        caption = f"The two principal axes of the {len(tree)} reachable beliefs, with {share:.0%} of their variance."
        return cls(axes.T.copy(), -centre @ axes.T, caption)


def polygon(order: tuple[int, ...]) -> Float[np.ndarray, "states 2"]:
    """Corners of a regular polygon on the unit circle, assigned to states in this order, clockwise from the top."""
    angles = np.pi / 2 - 2 * np.pi * np.arange(len(order)) / len(order)
    corners = np.empty((len(order), 2))
    corners[list(order)] = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return corners


def around(transitions: Float[np.ndarray, "tokens states states"]) -> tuple[int, ...]:
    """Order of the states around a circle that minimises crossings of the moves between them, state 0 first."""
    linked = transitions.sum(0) > 0
    size = len(linked)
    # Up to three states all orders look the same; beyond seven there are too many to try.
    if not 3 < size < 8:
        return tuple(range(size))
    pairs = [(i, j) for i in range(size) for j in range(i) if linked[i, j] or linked[j, i]]

    def cost(order: tuple[int, ...]) -> tuple[int, int]:
        at = {state: place for place, state in enumerate(order)}
        chords = [tuple(sorted((at[i], at[j]))) for i, j in pairs]
        crossings = sum(a < c < b < d for a, b in chords for c, d in chords)
        return crossings, sum(min(b - a, size - b + a) for a, b in chords)

    return min(((0, *rest) for rest in permutations(range(1, size))), key=cost)


def fitting_depth(world: HiddenMarkovWorld) -> int:
    """Depth of the deepest tree of beliefs, up to twelve tokens, that a picture can show."""
    depth = 1
    while depth < 12 and world.n_tokens ** (depth + 2) <= _MOST_BELIEFS * (world.n_tokens - 1):
        depth += 1
    return depth
