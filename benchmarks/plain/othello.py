"""Random games of Othello on a list of lists, one game and one square at a time."""

from __future__ import annotations

import random
from collections.abc import Iterator

Board = list[list[int]]

BLACK, WHITE = 1, -1
DIRECTIONS = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if row or column]
TAKEN = (27, 28, 35, 36)
TOKENS = {square: token for token, square in enumerate(s for s in range(64) if s not in TAKEN)}
END = len(TOKENS)


def episodes(n: int, seed: int) -> Iterator[list[int]]:
    """Games of 61 tokens: 60 squares, a1 to h1, a2 to h2 and so on without the centre, then ``end`` to the last."""
    rng = random.Random(seed)
    for _ in range(n):
        moves = game(rng)
        yield moves + [END] * (END + 1 - len(moves))


def game(rng: random.Random) -> list[int]:
    board = [[0] * 8 for _ in range(8)]
    board[3][3], board[3][4], board[4][3], board[4][4] = WHITE, BLACK, BLACK, WHITE
    side, passes, tokens = BLACK, 0, []
    while passes < 2:
        legal = [(row, column) for row in range(8) for column in range(8) if captured(board, side, row, column)]
        if legal:
            row, column = rng.choice(legal)
            for r, c in captured(board, side, row, column):
                board[r][c] = side
            board[row][column] = side
            tokens.append(TOKENS[8 * row + column])
            passes = 0
        else:
            passes += 1
        side = -side
    return tokens


def captured(board: Board, side: int, row: int, column: int) -> list[tuple[int, int]]:
    """Discs that ``side`` would turn over by playing there; none where it may not play."""
    if board[row][column]:
        return []
    discs = []
    for down, right in DIRECTIONS:
        run, r, c = [], row + down, column + right
        while 0 <= r < 8 and 0 <= c < 8 and board[r][c] == -side:
            run.append((r, c))
            r, c = r + down, c + right
        if run and 0 <= r < 8 and 0 <= c < 8 and board[r][c] == side:
            discs += run
    return discs
