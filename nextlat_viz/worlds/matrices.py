"""Checks on what a caller hands in as matrices and beliefs, and the two vectors that matrices fix."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

_TOLERANCE = 1e-9


def check_transitions(transitions: ArrayLike, generalised: bool) -> Float[np.ndarray, "tokens states states"]:
    """The matrices as float64, or a ValueError that says where they are not a world."""
    matrices = np.array(transitions, dtype=np.float64)
    if matrices.ndim != 3 or matrices.shape[1] != matrices.shape[2] or 0 in matrices.shape:
        raise ValueError(
            f"transitions must have shape (tokens, states, states), one square matrix per token, got {matrices.shape}"
        )
    if not np.isfinite(matrices).all():
        raise ValueError(f"transitions must be finite, got {_worst(matrices, ~np.isfinite(matrices))}")
    if generalised:
        return matrices
    if (matrices < 0).any():
        raise ValueError(
            f"transitions must not be negative, got {_worst(matrices, matrices < 0)}; a generalised world, where they "
            "may be, needs generalised=True"
        )
    totals = matrices.sum((0, 2))
    off = np.abs(totals - 1) > _TOLERANCE
    if off.any():
        state = int(np.argmax(off))
        raise ValueError(
            f"from state {state} the transitions of all tokens must sum to 1, got {totals[state]:.6g}; "
            "rescale transitions[:, state, :]"
        )
    return matrices


def fixed_vectors(
    transitions: Float[np.ndarray, "tokens states states"], generalised: bool
) -> tuple[Float[np.ndarray, " states"], Float[np.ndarray, " states"]]:
    """Stationary row vector ``p`` and readout column ``w`` of ``M = sum_x T[x]``: p M = p, M w = w, p w = 1.

    Raises
    ------
    ValueError
        If eigenvalue 1 is missing or not simple, so that there is no one place to start from.
    """
    total = transitions.sum(0)
    size = len(total)
    left, gaps, right = np.linalg.svd(total - np.eye(size))
    fixed = int((gaps < _TOLERANCE).sum())
    if fixed == 0:
        raise ValueError(
            "transitions summed over tokens must have eigenvalue 1, as probabilities do; the nearest is off by "
            f"{gaps[-1]:.3g}"
        )
    if fixed > 1:
        raise ValueError(
            f"the world must have one stationary distribution to start from, got {fixed}: some states never reach the "
            "others; make one world of each part"
        )
    readout = np.ones(size) if not generalised else right[-1] / right[-1][np.argmax(np.abs(right[-1]))]
    stationary = left[:, -1]
    if abs(stationary @ readout) < _TOLERANCE:
        raise ValueError("eigenvalue 1 of transitions summed over tokens must be simple, got a repeated one")
    stationary = stationary / (stationary @ readout)
    if not generalised:
        stationary = np.clip(stationary, 0.0, None)
        stationary[stationary < np.finfo(float).eps] = 0.0
        stationary /= stationary.sum()
    return stationary, readout


def check_belief(
    argument: str, belief: ArrayLike, n_states: int, readout: Float[np.ndarray, " states"] | None
) -> Float[np.ndarray, "*rows states"]:
    """The belief as float64, or a ValueError that says why it is none.

    With ``readout`` all ones (or None) a belief is a distribution; else a vector with ``b w = 1``.
    """
    values = np.asarray(belief, dtype=np.float64)
    if values.shape[-1:] != (n_states,):
        raise ValueError(f"{argument} must have {n_states} entries, one per state, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{argument} must be finite, got {_worst(values, ~np.isfinite(values))}")
    classical = readout is None or bool((readout == 1).all())
    if classical and (values < -_TOLERANCE).any():
        raise ValueError(f"{argument} must not be negative, got {_worst(values, values < -_TOLERANCE)}")
    totals = values.sum(-1) if readout is None else values @ readout
    off = np.abs(totals - 1) > 1e-6
    if off.any():
        raise ValueError(f"{argument} must sum to 1, got {_worst(totals, off)}; divide it by its sum")
    return values


def _worst(values: np.ndarray, wrong: np.ndarray) -> str:
    place = tuple(int(index) for index in np.argwhere(wrong)[0])
    return f"{values[place]:.6g}" + (f" at {place}" if place else "")
