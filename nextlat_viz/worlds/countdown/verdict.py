"""Check solutions written as arbitrary tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from nextlat_viz.worlds.countdown.arithmetic import OPERATIONS, outcomes


@dataclass(frozen=True, eq=False)
class Verdict:
    """Which equations of each episode are correct.

    Attributes
    ----------
    well_formed : bool array (episodes, equations)
        Consists of number, operation, number, ``=`` and number.
    available : bool array (episodes, equations)
        Well formed, and both operands are available: inputs or results not used yet.
    true : bool array (episodes, equations)
        Well formed, and the result is correct.
    solved : bool array (episodes,)
        All equations are valid and the last result is the target; the end token is not checked.
    """

    well_formed: Bool[np.ndarray, "episodes equations"]
    available: Bool[np.ndarray, "episodes equations"]
    true: Bool[np.ndarray, "episodes equations"]
    solved: Bool[np.ndarray, " episodes"]

    @property
    def valid(self) -> Bool[np.ndarray, "episodes equations"]:
        """Available and true."""
        return self.available & self.true


def verdict_on(
    inputs: Int[np.ndarray, "episodes numbers"],
    target: Int[np.ndarray, " episodes"],
    solution: Int[np.ndarray, "episodes equations 5"],
    limit: int,
) -> Verdict:
    """Check each equation; token ids outside the vocabulary are neither numbers nor operations."""
    rows = np.arange(len(inputs))
    pool = np.where(_number(inputs, limit), inputs, -1)
    well_formed, available, true = np.zeros((3, *solution.shape[:2]), bool)
    for k in range(solution.shape[1]):
        left, sign, right, equals, result = solution[:, k].T
        operation = sign - (limit + 1)
        numbers = _number(left, limit) & _number(right, limit) & _number(result, limit)
        formed = numbers & (operation >= 0) & (operation < len(OPERATIONS)) & (equals == limit + 1 + len(OPERATIONS))
        safe = [np.where(formed, part, 0) for part in (left, operation, right)]
        true[:, k] = formed & (outcomes(safe[0], safe[2], limit)[rows, safe[1]] == result)
        without_left, has_left = take(pool, left)
        rest, has_right = take(without_left, right)
        usable = formed & has_left & has_right
        rest[rows, (rest < 0).argmax(1)] = result
        pool = np.where(usable[:, None], rest, pool)
        well_formed[:, k], available[:, k] = formed, usable
    solved = (available & true).all(1) & (solution[:, -1, 4] == target)
    return Verdict(well_formed, available, true, solved)


def take(
    pool: Int[np.ndarray, "episodes numbers"], number: Int[np.ndarray, " episodes"]
) -> tuple[Int[np.ndarray, "episodes numbers"], Bool[np.ndarray, " episodes"]]:
    """Remove one copy of a number from the pool, leaving -1; return the pool and whether the number was in it.

    Examples
    --------
    >>> take(np.array([[4, 4, 3], [2, 1, -1]]), np.array([4, 5]))[0].tolist()
    [[-1, 4, 3], [2, 1, -1]]
    """
    same = (pool == number[:, None]) & (pool >= 0)
    there, left = same.any(1), pool.copy()
    rows = np.flatnonzero(there)
    left[rows, same[rows].argmax(1)] = -1
    return left, there


def _number(tokens: Int[np.ndarray, "*rows"], limit: int) -> Bool[np.ndarray, "*rows"]:
    return (tokens >= 0) & (tokens <= limit)
