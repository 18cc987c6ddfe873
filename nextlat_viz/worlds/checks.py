"""Checks of arguments. Errors name the argument, its value and what was expected."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from nextlat_viz.errors import LatentsError, unknown

if TYPE_CHECKING:
    from nextlat_viz.worlds.base import Episodes, World

_TOLERANCE = 1e-9


def transitions(values: ArrayLike, generalised: bool) -> Float[np.ndarray, "tokens states states"]:
    """Transition matrices as float64; a ValueError if they do not define a process."""
    matrices = _numbers("transitions", values)
    if matrices.ndim != 3 or matrices.shape[1] != matrices.shape[2] or 0 in matrices.shape:
        raise ValueError(
            f"transitions must have shape (tokens, states, states), one square matrix per token, got {matrices.shape}"
        )
    if not np.isfinite(matrices).all():
        raise ValueError(f"transitions must be finite, got {_first(matrices, ~np.isfinite(matrices))}")
    if generalised:
        return matrices
    if (matrices < 0).any():
        raise ValueError(
            f"transitions must not be negative, got {_first(matrices, matrices < 0)}; pass "
            "generalised=True for a world whose entries may be negative"
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

    A ValueError if eigenvalue 1 is missing or not simple, so that there is no unique stationary distribution.
    """
    total = transitions.sum(0)
    size = len(total)
    left, gaps, right = np.linalg.svd(total - np.eye(size))
    fixed = int((gaps < _TOLERANCE).sum())
    if fixed == 0:
        raise ValueError(
            "transitions summed over tokens must have eigenvalue 1, as probabilities do; the nearest differs by "
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


def beliefs(
    argument: str, values: ArrayLike, readout: Float[np.ndarray, " states"]
) -> Float[np.ndarray, "*rows states"]:
    """One or more beliefs as float64; a ValueError if they are not beliefs.

    A belief ``b`` has ``b @ readout == 1``: with a readout of ones it is a distribution.
    """
    vectors = _numbers(argument, values)
    if vectors.shape[-1:] != readout.shape:
        raise ValueError(f"{argument} must have {len(readout)} entries, one per state, got shape {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise ValueError(f"{argument} must be finite, got {_first(vectors, ~np.isfinite(vectors))}")
    if (readout == 1).all() and (vectors < -_TOLERANCE).any():
        raise ValueError(f"{argument} must not be negative, got {_first(vectors, vectors < -_TOLERANCE)}")
    totals = vectors @ readout
    off = np.abs(totals - 1) > 1e-6
    if off.any():
        raise ValueError(
            f"{argument} must sum to 1, got {_first(np.asarray(totals), np.asarray(off))}; divide by the sum"
        )
    return vectors


def token_array(values: ArrayLike) -> Int[np.ndarray, "episodes positions"]:
    """Token ids as int64; a ValueError if they have another shape or type."""
    ids = array(values)
    if ids.ndim != 2 or ids.dtype.kind not in "iu":
        raise ValueError(
            f"tokens must be integers of shape (episodes, positions), got {ids.dtype} of shape {ids.shape}; "
            "for one sequence pass tokens[None, :]"
        )
    return ids.astype(np.int64, copy=False)


def tokens(world: World, values: ArrayLike) -> Int[np.ndarray, "episodes positions"]:
    """Token ids of a world as int64; a ValueError for the first that is outside the vocabulary."""
    ids = token_array(values)
    vocabulary = world.vocabulary
    outside = (ids < 0) | (ids >= len(vocabulary))
    if outside.any():
        episode, position = np.argwhere(outside)[0]
        raise ValueError(
            f"token {ids[episode, position]} of episode {episode} at position {position + 1} is outside the vocabulary "
            f"of world {world.name!r}: ids 0..{len(vocabulary) - 1} for {', '.join(vocabulary[:24])}"
            + (", ..." if len(vocabulary) > 24 else "")
        )
    return ids


def require_legal(
    world: World,
    tokens: Int[np.ndarray, "episodes positions"],
    legal: Bool[np.ndarray, "episodes positions"],
    reason: str | Callable[[int, int], str] = " is not legal after the tokens before it",
) -> None:
    """Raise a ValueError that names the first token that is not legal.

    ``reason`` is the rest of the message, or a function that returns it for an episode and a position, both from 0.
    """
    if legal.all():
        return
    episode, place = np.argwhere(~legal)[0].tolist()
    raise ValueError(
        f"episode {episode} cannot happen in world {world.name!r}: token "
        f"{world.vocabulary[tokens[episode, place]]!r} at position {place + 1}"
        f"{reason if isinstance(reason, str) else reason(episode, place)}"
    )


def legal_tokens(world: World, values: ArrayLike) -> Int[np.ndarray, "episodes positions"]:
    """Token ids as ``tokens`` returns them; a ValueError that names the first token that is not legal."""
    ids = tokens(world, values)
    require_legal(world, ids, world.legal(ids))
    return ids


def name(value: object) -> str:
    """The name of a world as text; a ValueError if it is empty."""
    if not str(value).strip():
        raise ValueError(f"name must not be empty, got {value!r}: figures, cards and folders are named after the world")
    return str(value)


def distinct_names(argument: str, names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """The names, by default "0", "1", ...; a ValueError if they are too few, too many or not all different."""
    if names is None:
        return tuple(str(index) for index in range(count))
    result = tuple(str(name) for name in names)
    if isinstance(names, str) or len(result) != count or len(set(result)) != count:
        raise ValueError(f"{argument} must be {count} different names, got {names!r}")
    return result


def integer(argument: str, value: Any, low: int = 1, high: int | None = None) -> int:
    """The value as an int; a ValueError that names the argument unless it is from ``low`` to ``high``, both included.

    Examples
    --------
    >>> integer("seed", np.int64(3), 0)
    3
    """
    is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_integer or value < low or (high is not None and value > high):
        span = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{argument} must be an integer {span}, got {value!r}")
    return int(value)


def number(argument: str, value: Any, span: str = "[0, 1]") -> float:
    """The value as a float; a ValueError that names the argument unless it is in the interval ``span``.

    Examples
    --------
    >>> number("held_out", 1, "[0, 1)")
    Traceback (most recent call last):
    ValueError: held_out must be in [0, 1), got 1
    """
    low, high = (float(end) for end in span[1:-1].split(","))
    try:
        result = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        result = math.nan
    above = result > low if span[0] == "(" else result >= low
    below = result < high if span[-1] == ")" else result <= high
    if not (above and below):
        raise ValueError(f"{argument} must be {'a finite number' if math.isinf(high) else f'in {span}'}, got {value!r}")
    return result


def array(values: Any) -> np.ndarray:
    """Convert values to an array. Tensors may be on any device and require gradients; bfloat16 becomes float32.

    Examples
    --------
    >>> import torch
    >>> array([torch.ones(2, requires_grad=True), torch.zeros(2, dtype=torch.bfloat16)]).tolist()
    [[1.0, 1.0], [0.0, 0.0]]
    """
    if isinstance(values, (list, tuple)) and any(hasattr(value, "detach") for value in values):
        values = [array(value) for value in values]
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        try:
            return np.asarray(values)
        except TypeError:  # numpy has no bfloat16
            values = values.float()
    return np.asarray(values)


def padded(rows: Sequence[ArrayLike]) -> tuple[Int[np.ndarray, "rows longest"], Int[np.ndarray, " rows"]]:
    """Stack token ids of rows of any lengths, with 0 after their ends; return them and the lengths.

    Examples
    --------
    >>> tokens, lengths = padded([[5, 2, 3], [7]])
    >>> tokens.tolist(), lengths.tolist()
    ([[5, 2, 3], [7, 0, 0]], [3, 1])
    """
    lengths = np.array([np.size(row) for row in rows], np.int64)
    tokens = np.zeros((len(rows), int(lengths.max(initial=0))), np.int64)
    for row, ids in zip(tokens, rows, strict=True):
        row[: np.size(ids)] = ids
    return tokens, lengths


def row_numbers(argument: str, rows: Any, count: int) -> Int[np.ndarray, " rows"]:
    """Row numbers of a table of ``count`` rows, from numbers or from a mask with one boolean per row.

    Raises
    ------
    LatentsError
        For numbers out of range, such as -1, for floats, and for a mask of another length.

    Examples
    --------
    >>> row_numbers("rows", [2, 0], 3).tolist(), row_numbers("rows", np.array([False, True, True]), 3).tolist()
    ([2, 0], [1, 2])
    """
    iterable = isinstance(rows, Iterable) and not isinstance(rows, str)
    try:
        index = array(rows if hasattr(rows, "__array__") or not iterable else list(rows))
        if index.dtype == object:
            # A nullable column of booleans arrives as objects.
            index = np.asarray(index.tolist())
    except ValueError as error:
        raise LatentsError(f"{argument} must be row numbers or a mask of booleans, got {rows!r:.60}: {error}") from None
    if index.dtype.kind == "b":
        if index.shape != (count,):
            raise LatentsError(f"{argument} as a mask must have one entry per row, shape ({count},), got {index.shape}")
        return np.flatnonzero(index)
    if index.ndim != 1 or (index.size and index.dtype.kind not in "iu"):
        raise LatentsError(
            f"{argument} must be row numbers or a mask of booleans, got {index.dtype} of shape {index.shape}: "
            f"{index.tolist()!r:.60}"
        )
    numbers = index.astype(np.int64)
    outside = numbers[(numbers < 0) | (numbers >= count)]
    if len(outside):
        raise LatentsError(f"{argument} must be row numbers in 0..{count - 1}, got {outside[0]}")
    return numbers


def sampling(world: World, n: int, length: int | None, seed: int, split: str) -> tuple[int, int, np.random.Generator]:
    """Check the arguments of ``World.sample``; return ``n``, the length of an episode and the random generator."""
    n, length = integer("n", n), tokens_per_episode(world, length)
    if split not in world.splits:
        raise unknown(f"split of world {world.name!r}:", split, world.splits)
    return n, length, np.random.default_rng(integer("seed", seed, 0))


def tokens_per_episode(world: World, length: int | None) -> int:
    """The length of an episode, by default the world's own; a ValueError if it is shorter than that."""
    if length is None:
        if world.length is None:
            raise ValueError(f"length is needed: episodes of world {world.name!r} can have any length")
        return world.length
    if world.length is not None and integer("length", length) < world.length:
        raise ValueError(
            f"length={length} is too short: an episode of world {world.name!r} has {world.length} tokens; "
            "leave length out, or build the world with other parameters"
        )
    return integer("length", length)


def one_episode(episode: Episodes, position: int | None) -> int:
    """The position to draw, from 0; by default the episode's last. A ValueError unless there is exactly one episode."""
    if not hasattr(episode, "tokens"):
        raise TypeError(f"episode must be Episodes, got {type(episode).__name__}: wrap tokens as Episodes([tokens])")
    if len(episode) != 1:
        raise ValueError(f"episode must hold one episode, got {len(episode)}: pass episodes[i]")
    last = int(episode.length[0])
    return last if position is None else integer("position", position, 0, last)


def _numbers(argument: str, values: ArrayLike) -> np.ndarray:
    try:
        return np.array(array(values), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{argument} must be an array of numbers with rows of equal length: {error}") from None


def _first(values: np.ndarray, wrong: np.ndarray) -> str:
    place = tuple(int(index) for index in np.argwhere(wrong)[0])
    return f"{values[place]:.6g}" + (f" at {place}" if place else "")
