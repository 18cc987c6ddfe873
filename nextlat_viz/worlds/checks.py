"""Checks on what a caller hands in, and the two vectors that transition matrices fix."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from nextlat_viz.errors import unknown

if TYPE_CHECKING:
    from nextlat_viz.worlds.base import Episodes, World

_TOLERANCE = 1e-9


def transitions(values: ArrayLike, generalised: bool) -> Float[np.ndarray, "tokens states states"]:
    """The matrices as float64, or a ValueError that says where they are not a world."""
    matrices = _numbers("transitions", values)
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


def belief(
    argument: str, values: ArrayLike, readout: Float[np.ndarray, " states"]
) -> Float[np.ndarray, "*rows states"]:
    """One or more beliefs as float64, or a ValueError that says why they are none.

    With ``readout`` all ones a belief is a distribution; else a vector with ``b w = 1``.
    """
    beliefs = _numbers(argument, values)
    if beliefs.shape[-1:] != readout.shape:
        raise ValueError(f"{argument} must have {len(readout)} entries, one per state, got shape {beliefs.shape}")
    if not np.isfinite(beliefs).all():
        raise ValueError(f"{argument} must be finite, got {_worst(beliefs, ~np.isfinite(beliefs))}")
    if (readout == 1).all() and (beliefs < -_TOLERANCE).any():
        raise ValueError(f"{argument} must not be negative, got {_worst(beliefs, beliefs < -_TOLERANCE)}")
    totals = beliefs @ readout
    off = np.abs(totals - 1) > 1e-6
    if off.any():
        raise ValueError(
            f"{argument} must sum to 1, got {_worst(np.asarray(totals), np.asarray(off))}; divide by the sum"
        )
    return beliefs


def tokens(values: ArrayLike, world: str, vocabulary: tuple[str, ...]) -> Int[np.ndarray, "episodes positions"]:
    """Token ids as int64, or a ValueError that names the first that is none."""
    ids = np.asarray(values)
    if ids.ndim != 2 or ids.dtype.kind not in "iu":
        raise ValueError(
            f"tokens must be integers of shape (episodes, positions), got {ids.dtype} of shape {ids.shape}; "
            "for one sequence pass tokens[None, :]"
        )
    outside = (ids < 0) | (ids >= len(vocabulary))
    if outside.any():
        episode, position = np.argwhere(outside)[0]
        raise ValueError(
            f"token {ids[episode, position]} of episode {episode} at position {position + 1} is outside the vocabulary "
            f"of world {world!r}: ids 0..{len(vocabulary) - 1} for {', '.join(vocabulary[:24])}"
            + (", ..." if len(vocabulary) > 24 else "")
        )
    return ids.astype(np.int64)


def names(argument: str, given: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """The names given, or numbers; a ValueError if they are too few, too many or not all different."""
    if given is None:
        return tuple(str(index) for index in range(count))
    result = tuple(str(name) for name in given)
    if isinstance(given, str) or len(result) != count or len(set(result)) != count:
        raise ValueError(f"{argument} must be {count} different names, got {given!r}")
    return result


def positive(argument: str, value: int) -> int:
    """The value as an int of at least 1."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{argument} must be an integer of at least 1, got {value!r}")
    return int(value)


def seed(value: int) -> int:
    """The value as an int of at least 0."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        raise ValueError(f"seed must be an integer of at least 0, got {value!r}")
    return int(value)


def split(world: World, value: str) -> str:
    """The value, if the world has such a split."""
    if value not in world.splits:
        raise unknown(f"split of world {world.name!r}:", value, world.splits)
    return value


def episode_length(world: World, value: int | None) -> int:
    """Tokens per episode: as asked for, and no fewer than the world's own length where it has one."""
    if value is None:
        if world.length is None:
            raise ValueError(f"length is needed: an episode of world {world.name!r} is as long as asked for")
        return world.length
    if world.length is not None and positive("length", value) < world.length:
        raise ValueError(
            f"length={value} is too short: an episode of world {world.name!r} has {world.length} tokens; "
            "leave length out, or build the world with other parameters"
        )
    return positive("length", value)


def picture(world: World, kind: str, options: Iterable[str], known: Sequence[str] = ("width", "height")) -> None:
    """Refuse a kind of picture that the world does not draw, and options that the kind does not have."""
    if kind not in world.pictures:
        raise unknown("kind of picture", kind, world.pictures)
    for option in options:
        if option not in known:
            raise unknown(f"option of picture {kind!r}:", option, known)


def one_episode(episode: Episodes, position: int | None) -> int:
    """The position to draw, from 1; by default the episode's last."""
    if len(episode) != 1:
        raise ValueError(f"episode must hold one episode, got {len(episode)}: pass episodes[i]")
    last = int(episode.length[0])
    if position is None:
        return last
    if isinstance(position, bool) or not isinstance(position, (int, np.integer)) or not 1 <= position <= last:
        raise ValueError(f"position must be an integer from 1 to {last}, got {position!r}")
    return int(position)


def _numbers(argument: str, values: ArrayLike) -> np.ndarray:
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{argument} must be an array of numbers with rows of equal length: {error}") from None


def _worst(values: np.ndarray, wrong: np.ndarray) -> str:
    place = tuple(int(index) for index in np.argwhere(wrong)[0])
    return f"{values[place]:.6g}" + (f" at {place}" if place else "")
