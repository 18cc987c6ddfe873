"""Where a belief lies in a picture: one fixed affine map per world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from nextlat_viz.worlds.hmm import HiddenMarkovWorld

# State 0 top, 1 bottom left, 2 bottom right: the centre of the triangle is the origin, every corner at distance 1.
_TRIANGLE = np.array([[0.0, 1.0], [-np.sqrt(0.75), -0.5], [np.sqrt(0.75), -0.5]])


@dataclass(frozen=True, eq=False)
class BeliefPlane:
    """``coordinates = belief @ matrix + offset``.

    Attributes
    ----------
    matrix : float64 array (states, 2)
    offset : float64 array (2,)
    caption : str
        One sentence that says what the two axes are.
    """

    matrix: Float[np.ndarray, "states 2"]
    offset: Float[np.ndarray, " 2"]
    caption: str

    def __call__(self, beliefs: Float[np.ndarray, "*rows states"]) -> Float[np.ndarray, "*rows 2"]:
        """Picture coordinates of beliefs, one per row."""
        return beliefs @ self.matrix + self.offset

    @classmethod
    def of(cls, world: HiddenMarkovWorld) -> BeliefPlane:
        """The plane of a world: a line, a triangle, the plane of a Bloch ball, or the two principal axes."""
        size = world.n_states
        if not world.generalised and size <= 2:
            line = np.array([[0.0, 0.0], [1.0, 0.0]])[-size:]
            last = world.state_names[-1]
            return cls(line, np.zeros(2), f"Left to right: the probability of state {last}.")
        if not world.generalised and size == 3:
            return cls(_TRIANGLE, np.zeros(2), "Each corner is certainty in one state; the centre is no knowledge.")
        if size == 3 and np.allclose(world.readout, [1, 0, 0]):
            _, across, up = world.state_names
            return cls(np.eye(3)[:, 1:], np.zeros(2), f"Across: component {across} of the belief; up: component {up}.")
        return cls._principal(world)

    @classmethod
    def _principal(cls, world: HiddenMarkovWorld) -> BeliefPlane:
        tree = world.reachable_beliefs(max_depth=_depth(world))
        centre = tree.beliefs.mean(0)
        _, sizes, axes = np.linalg.svd(tree.beliefs - centre, full_matrices=True)
        axes = axes[:2]
        # An axis has no natural sign: its largest entry points up, so that every machine draws the same picture.
        axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]
        share = float((sizes[:2] ** 2).sum() / (sizes**2).sum())
        caption = (
            f"The two principal axes of the {len(tree)} reachable beliefs, which hold {share:.0%} of their variance."
        )
        return cls(axes.T.copy(), -centre @ axes.T, caption)


def _depth(world: HiddenMarkovWorld) -> int:
    """Deep enough to see the shape, and at most some thousands of beliefs."""
    return max(2, min(12, int(np.log(4000) / np.log(max(2, world.n_tokens)))))
