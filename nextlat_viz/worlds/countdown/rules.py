"""The rules of Countdown: arithmetic, solved problems, legal tokens with their exact law, the check of solutions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

if TYPE_CHECKING:
    from nextlat_viz.worlds.countdown.world import Countdown

OPERATIONS = ("+", "-", "*", "/")
# For each set of operations, as the bits of a number: its members, their count, and the n-th member.
_SETS = [[k for k in range(4) if number >> k & 1] for number in range(16)]
_HOW_MANY = np.array([len(members) for members in _SETS], np.float32)
_NTH = np.array([(members + [0] * 4)[:4] for members in _SETS])
_MOST_AT_ONCE = 2**15
_PATIENCE = 2**22
MOST_NUMBERS = 4
_CHUNK = 64


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


def candidates(
    world: Countdown, tokens: Int[np.ndarray, "episodes positions"], *, weighted: bool = False
) -> Iterator[tuple[Int[np.ndarray, "episodes candidates"], Shaped[np.ndarray, "episodes candidates"]]]:
    """Yield candidate token ids and their weights at each position, from the first to one past the last.

    A candidate of weight 0 is not legal; a token listed twice has the sum of its weights. Nothing is legal after an
    illegal token. With ``weighted``, weights in solutions are proportional to the exact law, and the tokens must be
    legal; otherwise a positive weight only means that the token is legal.
    """
    rows, alive = np.arange(len(tokens)), np.ones((len(tokens), 1), bool)
    pool = tokens[:, : world.numbers]
    for place in range(tokens.shape[1] + 1):
        equation, part = divmod(place - world.prompt, 5)
        weights: np.ndarray = np.ones((len(tokens), 1), bool)
        if place < world.numbers:
            ids = np.arange(1, world.largest + 1)
        elif place == world.numbers:
            ids = np.arange(world.targets[0], world.targets[1] + 1)
        elif place < world.prompt:
            ids = np.array([world.pause])
        elif equation >= world.equations:
            ids = np.array([world.end])
        elif part == 0:
            if equation:
                pool = _joined(pool, tokens[:, place - 5 : place])
            ways = pairs(pool, world.limit) >= 0
            if weighted:
                ways = _calculation_probabilities(pool, tokens[:, world.numbers], world.limit)
            ids, weights = pool, ways.sum((2, 3))
        elif part == 1:
            ways = ways[rows, (pool == tokens[:, place - 1, None]).argmax(1)]
            ids, weights = world.plus + np.arange(len(OPERATIONS)), ways.sum(1)
        elif part == 2:
            operation = np.clip(tokens[:, place - 1] - world.plus, 0, len(OPERATIONS) - 1)
            ids, weights = pool, ways[rows, :, operation]
        elif part == 3:
            ids = np.array([world.equals])
        else:
            ids = outcomes(tokens[:, place - 4], tokens[:, place - 2], world.limit)[rows, operation][:, None]
        ids = np.broadcast_to(ids, (len(tokens), ids.shape[-1]))
        weights = np.broadcast_to(weights * alive, ids.shape)
        yield ids, weights
        if place < tokens.shape[1]:
            alive = ((ids == tokens[:, place, None]) & (weights > 0)).any(1, keepdims=True)


def states(world: Countdown, tokens: Int[np.ndarray, "episodes positions"]) -> dict[str, np.ndarray]:
    """Compute the states described in ``Countdown`` from legal tokens."""
    episodes, positions = tokens.shape
    remaining = np.full((episodes, positions, world.numbers), -1)
    target, left, value = np.full((3, episodes, positions), -1)
    for place in range(positions):
        equation, part = divmod(place - world.prompt, 5)
        if place < world.numbers:
            pool = tokens[:, : place + 1]
        elif 0 <= equation < world.equations and part == 4:
            pool = _joined(pool, tokens[:, place - 4 : place + 1])
        remaining[:, place, : pool.shape[1]] = np.sort(pool, axis=1)
    target[:, world.numbers :] = tokens[:, world.numbers : world.numbers + 1]
    for start in range(world.prompt, min(positions, world.length - 1), 5):
        left[:, start : start + 5] = tokens[:, start, None]
        if start + 2 < positions:
            possible = outcomes(tokens[:, start], tokens[:, start + 2], world.limit)
            operation = tokens[:, start + 1, None] - world.plus
            value[:, start + 2 : start + 5] = np.take_along_axis(possible, operation, axis=1)
    equation_number = np.clip((np.arange(positions) - world.prompt) // 5 + 1, 0, world.equations)
    return {
        "remaining": remaining,
        "target": target,
        "equation": np.tile(equation_number, (episodes, 1)),
        "left": left,
        "value": value,
    }


def _joined(
    pool: Int[np.ndarray, "episodes numbers"], equation: Int[np.ndarray, "episodes 5"]
) -> Int[np.ndarray, "episodes fewer"]:
    """The available numbers after an equation: without its operands, with its result."""
    rest = take(take(pool, equation[:, 0])[0], equation[:, 2])[0]
    return -np.sort(-np.concatenate([rest, equation[:, 4:]], axis=1), axis=1)[:, : pool.shape[1] - 1]


def _calculation_probabilities(
    pool: Int[np.ndarray, "episodes numbers"], target: Int[np.ndarray, " episodes"], limit: int
) -> Float[np.ndarray, "episodes numbers numbers operations"]:
    """Probability that a random calculation takes this left number, right number and operation, and ends in the target.

    The pool has no gaps. Entries sum to the probability of ending in the target.
    """
    parts = [
        _step_probabilities(pool[k : k + _CHUNK], target[k : k + _CHUNK], limit)
        for k in range(0, max(len(pool), 1), _CHUNK)
    ]
    return np.concatenate(parts)


def _step_probabilities(
    pool: Int[np.ndarray, "episodes numbers"], target: Int[np.ndarray, " episodes"], limit: int
) -> Float[np.ndarray, "episodes numbers numbers operations"]:
    size = pool.shape[1]
    values = pairs(pool, limit)
    possible = values >= 0
    chance = possible / np.maximum(possible.sum(-1, keepdims=True), 1) / (size * (size - 1))
    if size == 2:
        return chance * (values == target[:, None, None, None])
    where = np.nonzero(possible)
    episode, left, right, _ = where
    # The rest of the pool, followed by the result.
    spots = range(size)
    others = np.array([[[k for k in spots if k not in (i, j)][: size - 2] for j in spots] for i in spots])
    rest = np.concatenate([pool[episode[:, None], others[left, right]], values[where][:, None]], axis=1)
    after = _step_probabilities(rest, target[episode], limit).sum((1, 2, 3))
    chance[where] *= after
    return chance


@dataclass(frozen=True, eq=False)
class SolutionCheck:
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
) -> SolutionCheck:
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
    return SolutionCheck(well_formed, available, true, solved)


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
    present, left = same.any(1), pool.copy()
    rows = np.flatnonzero(present)
    left[rows, same[rows].argmax(1)] = -1
    return left, present


def _number(tokens: Int[np.ndarray, "*rows"], limit: int) -> Bool[np.ndarray, "*rows"]:
    return (tokens >= 0) & (tokens <= limit)
