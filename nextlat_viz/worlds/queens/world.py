"""The N-queens puzzle: complete a board on which some queens are given."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from nextlat_viz.errors import one_of
from nextlat_viz.worlds import checks
from nextlat_viz.worlds.base import Episodes, Tokens, World
from nextlat_viz.worlds.queens import boards

_EMPTY, _QUEEN = 0, 1
_YES_NO = ("no", "yes")


class Queens(World):
    """Some queens of a solution are given; the model predicts for every cell whether a queen stands there.

    A solution puts a queen in every row and column of a board, and no two on a diagonal. An episode is one board, its
    cells along the rows from a1: a token is "queen" where a queen is given and "empty" elsewhere, and a target is
    "queen" or "empty" in a solution that has all given queens. A solution is drawn uniformly, then the number of given
    queens, then which of its queens are given. So every completion of a board is its answer equally often.

    The world is not causal: a cell's answer depends on the whole board, so the states and the exact law of a target
    are known of whole boards only, and there is no state before the first token.

    *Test* boards are a fixed tenth of the boards with each number of given queens. Rotated and mirrored boards are in
    the same split, so no test board occurs in training in any orientation; most of its solutions do, on other boards.
    With ``hold_out="solutions"`` a sixth of the solutions is held out, rotations and reflections included. Test boards
    have only held-out completions, training boards have none, and other boards are in neither split. The 2, 10, 4, 40
    and 92 solutions of size 4 to 8 are 1, 2, 1, 6 and 12 up to symmetry, so sizes 4 and 6 have no solutions to hold
    out, and few boards: prefer 7 or 8.

    Picture: ``"board"``, the given queens, the cells they attack, and an answer with its conflicts.

    Parameters
    ----------
    size : int
        Rows, columns and queens, 4 to 8.
    given : int or pair of int, optional
        The number of given queens, or its least and greatest value, 2 and ``size - 2`` by default; every value is
        equally frequent.
    unique : bool
        Draw only boards with one completion. Of size 8, these are 12 % of the boards with two given queens and 99 % of
        those with six.
    hold_out : "boards" or "solutions"
        What test boards do not share with training boards.

    Raises
    ------
    ValueError
        If there is no such board, or nothing to hold out.

    References
    ----------
    Asadulaev, A. et al. (2025). Your Latent Reasoning is Secretly Policy Improvement Operator. arXiv:2511.16886. (The
    task, on boards of size 8.)

    Examples
    --------
    >>> world = Queens(size=4, given=1)
    >>> board = world.sample(1, seed=0)
    >>> print(world.decode(board.tokens[0]), "of", world.decode(board.targets[0]))
    a2 of c1 a2 d3 b4
    >>> world.solved(board.targets, board.tokens).tolist(), world.solved(board.tokens, board.tokens).tolist()
    ([True], [False])
    """

    name = "queens"
    vocabulary = ("empty", "queen")
    pictures = ("board",)
    predicts_next_token = False
    causal = False

    def __init__(
        self,
        size: int = 8,
        given: int | Sequence[int] | None = None,
        unique: bool = True,
        hold_out: Literal["boards", "solutions"] = "boards",
    ) -> None:
        self.size = _size(size)
        self.given = (2, self.size - 2) if given is None else _span(given, self.size)
        self.unique = bool(unique)
        self.hold_out = one_of("hold_out", hold_out, ("boards", "solutions"))
        self.length: int = self.size**2
        self.spec = {
            **{"name": self.name, "size": self.size, "given": list(self.given)},
            **{"unique": self.unique, "hold_out": self.hold_out},
        }
        self.solutions = boards.solutions(self.size)
        letters = "abcdefgh"[: self.size]
        self.cells = tuple(f"{column}{row}" for row in range(1, self.size + 1) for column in letters)
        if not len(self._pairs["train"]):
            kind = " with one completion" if self.unique else ""
            where = "outside the test split" if hold_out == "boards" else "without a completion that is held out"
            raise ValueError(
                f"given={list(self.given)}: no board of size {self.size} with so many given queens{kind} is {where}; "
                "give more queens, or set unique=False"
            )
        self.splits = ("train", "test") if len(self._pairs["test"]) else ("train",)

    @property
    def state_values(self) -> dict[str, tuple[str, ...]]:
        """Names of rows and columns, and of the states that are no or yes."""
        rows = tuple(str(row + 1) for row in range(self.size))
        lines = {"row": rows, "column": tuple("abcdefgh"[: self.size])}
        return {"queen": _YES_NO, "given": _YES_NO, "attacked": _YES_NO, **lines}

    def sample(
        self, n: int, length: int | None = None, seed: int = 0, *, split: str = "train", states: bool = True
    ) -> Episodes:
        """Draw boards and a completion of each; positions after the last cell are padding.

        Returns
        -------
        Episodes
            The targets are the completion, 1 where a queen stands, and all cells are scored. The states are those of
            `replay`, and ``"queen"``, int8 (episodes, positions): the target, 0 or 1.
        """
        n, length, rng = checks.sampling(self, n, length, seed, split)
        pairs, in_split = boards.every_board(self.size), self._pairs[split]
        # The pairs of a split are sorted by their number of given queens; each number is equally likely.
        _, start, count = np.unique(pairs.given[in_split], return_index=True, return_counts=True)
        number = rng.integers(len(start), size=n)
        pair = in_split[start[number] + (rng.random(n) * count[number]).astype(np.int64)]
        tokens, targets = pairs.board[pair], self.solutions[pairs.solution[pair]]
        truth = self.replay(tokens) | {"queen": targets.astype(np.int8)} if states else {}
        tokens, targets, *values = (_padded(array, length) for array in (tokens, targets, *truth.values()))
        return Episodes(
            tokens.astype(np.int64),
            dict(zip(truth, values, strict=True)),
            loss_mask=np.tile(np.arange(length) < self.length, (n, 1)),
            length=np.full(n, self.length),
            targets=targets.astype(np.int64),
        )

    def held_out(self, tokens: Tokens) -> Bool[np.ndarray, " episodes"]:
        """Whether each board belongs to the test split, in any orientation.

        Examples
        --------
        >>> world = Queens()
        >>> world.held_out(world.sample(3, split="test").tokens).tolist()
        [True, True, True]
        """
        if self.hold_out == "boards":
            return np.isin(boards.orbit(self._whole(tokens), self.size), boards.held_out_boards(self.size))
        return ~(self.completions(tokens) & ~boards.held_out_solutions(self.size)).any(axis=1)

    def completions(self, tokens: Tokens) -> Bool[np.ndarray, "episodes solutions"]:
        """Which of ``solutions`` have all given queens of each board.

        Raises
        ------
        ValueError
            If a board has no completion, or more queens than rows.

        Examples
        --------
        >>> world = Queens(size=5)
        >>> world.completions(np.eye(25, dtype=int)[:2]).sum(axis=1).tolist()
        [2, 2]
        """
        board = self._whole(tokens)
        given = board.sum(axis=1)
        consistent: Bool[np.ndarray, "episodes solutions"] = board @ self.solutions.T == given[:, None]
        if not consistent.any(axis=1).all():
            wrong = int((~consistent.any(axis=1)).argmax())
            queens = self.decode(board[wrong])
            if given[wrong] > self.size:
                reason = f"has {given[wrong]} given queens, and {self.size} fit at most"
            elif self.conflicts(board[[wrong]])[0]:
                reason = f"cannot be solved: of the given queens {queens} some attack each other"
            else:
                reason = f"cannot be solved: none of the {len(self.solutions)} solutions has queens on {queens}"
            raise ValueError(f"board {wrong} of world {self.name!r} {reason}")
        return consistent

    def replay(self, tokens: Tokens) -> dict[str, np.ndarray]:
        """Compute what is true of each cell of whole boards.

        Returns
        -------
        dict of arrays (episodes, positions)
            ``"posterior"``, float64: the share of the board's completions with a queen on the cell. ``"given"`` and
            ``"attacked"``, int8: 1 if a queen is given on the cell, and if a given queen attacks it. ``"row"`` and
            ``"column"``, int8, from 0. The same for all cells of a board, int64: ``"givens"``, the number of given
            queens, and ``"solutions"``, the number of completions.

        Raises
        ------
        ValueError
            If a board has no completion.

        Examples
        --------
        >>> corner = np.eye(25, dtype=int)[:1]
        >>> Queens(size=5).replay(corner)["posterior"].reshape(5, 5)[:2].tolist()
        [[1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5, 0.0]]
        """
        consistent = self.completions(tokens)
        board = self._whole(tokens)
        count = consistent.sum(axis=1, keepdims=True)
        row, column = np.divmod(np.arange(self.length, dtype=np.int8), np.int8(self.size))
        facts = {
            "posterior": consistent.astype(np.float64) @ self.solutions / count,
            "given": board.astype(np.int8),
            "attacked": self._attacked(board).astype(np.int8),
            "row": np.broadcast_to(row, board.shape),
            "column": np.broadcast_to(column, board.shape),
            "givens": np.broadcast_to(board.sum(axis=1, keepdims=True), board.shape),
            "solutions": np.broadcast_to(count, board.shape),
        }
        return {name: _padded(values, np.shape(tokens)[1]) for name, values in facts.items()}

    def next_token_probs(self, tokens: Tokens) -> Float[np.ndarray, "episodes positions 2"]:
        """Exact distribution of each cell's target given the whole board: its posterior.

        Raises
        ------
        ValueError
            If a board is not whole, or has no completion.
        """
        queen = self.replay(tokens)["posterior"]
        return np.stack([1 - queen, queen], axis=-1)

    def legal_next(self, tokens: Tokens) -> Bool[np.ndarray, "episodes positions 2"]:
        """Legal next cells of boards read cell by cell: a given queen wherever the board can still be completed."""
        tokens = checks.tokens(self, tokens)
        queens = np.pad(self.solutions, ((0, 0), (0, max(0, tokens.shape[1] + 1 - self.length))))
        possible = np.ones((len(tokens), len(self.solutions)), bool)
        legal = np.zeros((*tokens.shape, 2), bool)
        for t, token in enumerate(tokens.T):
            possible &= (token != _QUEEN)[:, None] | queens[:, t]
            alive = possible.any(axis=1)
            legal[:, t, _EMPTY] = alive & (t + 1 < self.length)
            legal[:, t, _QUEEN] = (possible & queens[:, t + 1]).any(axis=1)
        return legal

    def legal_first(self) -> Bool[np.ndarray, " tokens"]:
        """A given queen may stand on a1 if some solution has a queen there."""
        return np.array([True, self.solutions[:, 0].any()])

    def decisive(self, episodes: Episodes) -> Bool[np.ndarray, "episodes positions"]:
        """The open cells that no given queen attacks; the answer on all other cells is obvious."""
        board = self._whole(episodes.tokens)
        return _padded(~self._attacked(board) & (board == _EMPTY), episodes.tokens.shape[1])

    def solved(self, answers: Tokens, tokens: Tokens) -> Bool[np.ndarray, " episodes"]:
        """Whether each answer is a completion of its board; any completion counts.

        Parameters
        ----------
        answers : int array (episodes, positions)
            1 where the answer has a queen.
        tokens : int array (episodes, positions)
            The boards.

        Raises
        ------
        ValueError
            If a board has no completion, or the arrays differ in shape.
        """
        return self.distance(answers, tokens) == 0

    def distance(self, answers: Tokens, tokens: Tokens) -> Int[np.ndarray, " episodes"]:
        """Number of cells in which each answer differs from the nearest completion of its board.

        Arguments and errors are those of `solved`.

        Examples
        --------
        >>> world = Queens(size=4)
        >>> world.distance(np.zeros((1, 16), int), np.zeros((1, 16), int)).tolist()
        [4]
        """
        answer, board = self._whole(answers, "answers"), self._whole(tokens)
        if answer.shape != board.shape:
            raise ValueError(f"answers must have a row for each of {len(board)} boards, got {len(answer)}")
        distances = answer.sum(axis=1, keepdims=True) + self.size - 2 * (answer @ self.solutions.T)
        return np.where(self.completions(board), distances, self.length + 1).min(axis=1)

    def conflicts(self, answers: Tokens) -> Int[np.ndarray, " episodes"]:
        """Number of pairs of queens in each answer that attack each other.

        Examples
        --------
        >>> Queens(size=4).conflicts(np.eye(4, dtype=int).reshape(1, 16)).tolist()
        [6]
        """
        answer = self._whole(answers, "answers")
        return ((answer @ boards.attacks(self.size)) * answer).sum(axis=1) // 2

    def answer_facts(
        self, answers: Int[np.ndarray, "episodes positions"], episodes: Episodes
    ) -> dict[str, Int[np.ndarray, " episodes"]]:
        """`distance` and `conflicts` of answers to boards; any completion counts, so no targets are needed."""
        return {"distance": self.distance(answers, episodes.tokens), "conflicts": self.conflicts(answers)}

    def decode(self, tokens: ArrayLike) -> str:
        """Name the cells with a queen, such as "b1 d2"."""
        cells = np.flatnonzero(np.asarray(tokens)[: self.length] == _QUEEN)
        return " ".join(self.cells[cell] for cell in cells) or "no queens"

    def facts(self) -> dict[str, str]:
        """Rows of the world's table in a notebook."""
        least, most = self.given
        rows = super().facts() | {"given queens": str(least) if least == most else f"{least} to {most}"}
        return rows | {"solutions": str(len(self.solutions))}

    @cached_property
    def _pairs(self) -> dict[str, Int[np.ndarray, " pairs"]]:
        """Indices of the pairs of a board and a completion in each split, sorted by their number of given queens."""
        pairs = boards.every_board(self.size)
        low, high = self.given
        eligible = (pairs.given >= low) & (pairs.given <= high)
        if self.unique:
            eligible &= pairs.completions == 1
        if self.hold_out == "boards":
            test = np.isin(pairs.orbit, boards.held_out_boards(self.size))
            parts = {"train": ~test, "test": test}
        else:
            held_out = boards.held_out_solutions(self.size)
            if not held_out.any():
                raise ValueError(
                    f"hold_out='solutions' needs solutions that are not rotated or mirrored images of each other, and "
                    f"the {len(held_out)} of size={self.size} all are: choose size 5, 7 or 8, or hold_out='boards'"
                )
            held_completions = np.bincount(pairs.number, held_out[pairs.solution])[pairs.number]
            parts = {"train": held_completions == 0, "test": held_completions == pairs.completions}
        order = np.argsort(pairs.given, kind="stable")
        return {split: order[(eligible & part)[order]] for split, part in parts.items()}

    def _attacked(self, board: Int[np.ndarray, "episodes cells"]) -> Bool[np.ndarray, "episodes cells"]:
        return (board @ boards.attacks(self.size) > 0) & (board == _EMPTY)

    def _whole(self, tokens: Tokens, argument: str = "tokens") -> Int[np.ndarray, "episodes cells"]:
        """The cells of whole boards, without padding."""
        board = checks.tokens(self, tokens)
        if board.shape[1] < self.length:
            raise ValueError(
                f"{argument} must be whole boards of {self.length} cells, got {board.shape[1]}: in world "
                f"{self.name!r} the states of a cell depend on all others"
            )
        return board[:, : self.length]


def _size(value: int) -> int:
    if value in (2, 3):
        raise ValueError(f"size={value} has no solution: choose 4 to 8 rows")
    return checks.integer("size", value, 4, 8)


def _span(given: int | Sequence[int], size: int) -> tuple[int, int]:
    """Least and greatest number of given queens."""
    pair = given if isinstance(given, Sequence) and len(given) == 2 else (given, given)
    low, high = (checks.integer("given", number, 0, size - 1) for number in pair)
    if low > high:
        raise ValueError(f"given={given!r} must be a number of queens, or the least and the greatest number")
    return low, high


def _padded(values: np.ndarray, positions: int) -> np.ndarray:
    """Add zeros after the cells, up to the number of positions."""
    return np.pad(values, ((0, 0), (0, positions - values.shape[1])))
