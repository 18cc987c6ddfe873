"""Whether written solutions hold, whatever the tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from nextlat_viz.worlds.countdown.arithmetic import OPERATIONS, results


@dataclass(frozen=True, eq=False)
class Verdict:
    """What is right about each equation of each episode.

    Attributes
    ----------
    well_formed : bool array (episodes, equations)
        A number, an operation, a number, ``=`` and a number.
    available : bool array (episodes, equations)
        Well formed, and both operands are there when it is their turn: inputs or results not used yet.
    true : bool array (episodes, equations)
        Well formed, and the result is what the operation makes of the operands.
    solved : bool array (episodes,)
        All equations are valid and the last comes to the target; whether the end follows is not asked.
    """

    well_formed: Bool[np.ndarray, "episodes equations"]
    available: Bool[np.ndarray, "episodes equations"]
    true: Bool[np.ndarray, "episodes equations"]
    solved: Bool[np.ndarray, " episodes"]

    @property
    def valid(self) -> Bool[np.ndarray, "episodes equations"]:
        """Available and true."""
        return self.available & self.true


def judge(
    inputs: Int[np.ndarray, "episodes numbers"],
    target: Int[np.ndarray, " episodes"],
    solution: Int[np.ndarray, "episodes equations 5"],
    limit: int,
) -> Verdict:
    """Judge each equation by itself; token ids outside the vocabulary are no numbers and no operations."""
    rows = np.arange(len(inputs))
    pool = np.where(_number(inputs, limit), inputs, -1)
    well_formed, available, true = np.zeros((3, *solution.shape[:2]), bool)
    for k in range(solution.shape[1]):
        left, sign, right, equals, result = solution[:, k].T
        operation = sign - (limit + 1)
        numbers = _number(left, limit) & _number(right, limit) & _number(result, limit)
        formed = numbers & (operation >= 0) & (operation < len(OPERATIONS)) & (equals == limit + 1 + len(OPERATIONS))
        safe = [np.where(formed, part, 0) for part in (left, operation, right)]
        true[:, k] = formed & (results(safe[0], safe[2], limit)[rows, safe[1]] == result)
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
    """The pool without one copy of a number, -1 in its place, and whether it was there.

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
