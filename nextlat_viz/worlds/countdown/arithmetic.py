"""Integer arithmetic on arrays, and random solved Countdown problems."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Int

OPERATIONS = ("+", "-", "*", "/")
# For each set of operations, as the bits of a number: its members, their count, and the n-th member.
_SETS = [[k for k in range(4) if number >> k & 1] for number in range(16)]
_HOW_MANY = np.array([len(members) for members in _SETS], np.float32)
_NTH = np.array([(members + [0] * 4)[:4] for members in _SETS])
_MOST_AT_ONCE = 2**15
_PATIENCE = 2**22


def outcomes(
    left: Int[np.ndarray, "*rows"], right: Int[np.ndarray, "*rows"], limit: int
) -> Int[np.ndarray, "*rows operations"]:
    """Results of ``+ - * /`` for two numbers; -1 where negative, not an integer, or more than ``limit``.

    Examples
    --------
    >>> outcomes(np.array([12, 3]), np.array([4, 12]), limit=40).tolist()
    [[16, 8, -1, 3], [15, -1, 36, -1]]
    """
    return np.moveaxis(_outcomes(left, right, limit), 0, -1)


def pairs(pool: Int[np.ndarray, "rows numbers"], limit: int) -> Int[np.ndarray, "rows numbers numbers operations"]:
    """``outcomes`` of every left with every right number of a pool; -1 for a number with itself."""
    left, right = np.broadcast_arrays(pool[:, :, None], pool[:, None, :])
    values = outcomes(left, right, limit)
    values[:, np.eye(pool.shape[1], dtype=bool)] = -1
    return values


def solved_problems(
    rng: np.random.Generator,
    targets: Int[np.ndarray, " problems"],
    numbers: int,
    largest: int,
    limit: int,
    hands: Callable[[np.ndarray], np.ndarray] | None = None,
) -> tuple[Int[np.ndarray, "problems numbers"], Int[np.ndarray, "problems equations 4"]]:
    """Draw one solved problem for each target: its inputs, and its equations as left, operation, right, result.

    By rejection: random calculations are drawn until enough of them end in each target. ``hands`` tells which of the
    inputs (rows, numbers) may be used; default all. A ValueError if four million calculations in a row end in none of
    the targets still needed.
    """
    need = np.bincount(targets, minlength=limit + 1)
    drawn: list[tuple[np.ndarray, np.ndarray]] = []
    hits, tried, misses = np.zeros(limit + 1), 0, 0
    while need.any():
        # Expected number for the rarest target still needed, from the frequencies so far.
        expected = (need * (tried + 250) / (hits + 1)).max()
        count = int(np.clip(1.1 * expected, 256, _MOST_AT_ONCE))
        inputs, equations, usable = _calculations(rng, count, numbers, largest, limit)
        if hands is not None:
            usable &= hands(inputs)
        ends = equations[:, -1, 3]
        hits += np.bincount(ends[usable], minlength=limit + 1)
        tried += count
        useful = np.flatnonzero(usable & (need[ends] > 0))
        useful = useful[ends[useful].argsort(kind="stable")]
        sorted_ends = ends[useful]
        earlier = np.arange(len(useful)) - np.searchsorted(sorted_ends, sorted_ends)
        used = useful[earlier < need[sorted_ends]]
        need -= np.bincount(ends[used], minlength=limit + 1)
        drawn.append((inputs[used], equations[used]))
        misses = 0 if len(used) else misses + count
        if misses >= _PATIENCE:
            raise ValueError(
                f"target {np.flatnonzero(need)[0]} is unreachable or very rare: none of {misses} random calculations "
                f"with numbers={numbers}, largest={largest} ended in it; choose other targets, or more numbers"
            )
    all_inputs, all_equations = (np.concatenate(parts).astype(np.int64) for parts in zip(*drawn, strict=True))
    place = np.empty(len(targets), np.int64)
    place[targets.argsort(kind="stable")] = all_equations[:, -1, 3].argsort(kind="stable")
    return all_inputs[place], all_equations[place]


def _calculations(
    rng: np.random.Generator, count: int, numbers: int, largest: int, limit: int
) -> tuple[Int[np.ndarray, "count numbers"], Int[np.ndarray, "count equations 4"], Bool[np.ndarray, " count"]]:
    """Draw inputs and equations that use all of them, and return whether each calculation is complete.

    Each equation takes an ordered pair of the available numbers and a possible operation; a calculation without a
    possible operation is incomplete.
    """
    rows = np.arange(count)
    inputs = rng.integers(1, largest + 1, size=(count, numbers), dtype=np.int32)
    pool, equations, complete = inputs.copy(), np.empty((count, numbers - 1, 4), np.int32), np.ones(count, bool)
    for step, size in enumerate(range(numbers, 1, -1)):
        first = rng.integers(size, size=count)
        second = first + rng.integers(1, size, size=count)
        second[second >= size] -= size
        left, right = pool[rows, first], pool[rows, second]
        values = _outcomes(left, right, limit)
        add, subtract, multiply, divide = (values >= 0).view(np.uint8)
        possible = add | subtract << 1 | multiply << 2 | divide << 3
        complete &= possible > 0
        nth = (rng.random(count, np.float32) * _HOW_MANY[possible]).astype(np.int64)
        operation = _NTH[possible, nth]
        value = values[operation, rows]
        equations[:, step, 0], equations[:, step, 1] = left, operation
        equations[:, step, 2], equations[:, step, 3] = right, value
        # The result replaces the first operand; the last number of the pool replaces the second.
        pool[rows, first] = value
        pool[rows, second] = pool[:, size - 1]
    return inputs, equations, complete


def _outcomes(
    left: Int[np.ndarray, "*rows"], right: Int[np.ndarray, "*rows"], limit: int
) -> Int[np.ndarray, " operations *rows"]:
    """``outcomes`` with operations first, where each is contiguous in memory."""
    divisor = np.maximum(right, 1)
    # Exact in double precision for numbers up to 10^8, and faster than integer division.
    quotient = (left / divisor).astype(left.dtype)
    divisible = (right > 0) & (quotient * divisor == left)
    values = np.stack([left + right, left - right, left * right, np.where(divisible, quotient, -1)])
    np.copyto(values, -1, where=(values < 0) | (values > limit))
    return values
