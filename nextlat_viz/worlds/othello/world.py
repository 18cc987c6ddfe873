"""Random legal games of Othello: the board is the state, the moves are the tokens."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64
from numpy.typing import ArrayLike

from nextlat_viz.worlds import checks
from nextlat_viz.worlds.base import Episodes, Tokens, World
from nextlat_viz.worlds.othello.rules import count, legal_moves, nth_square, opening, play, squares

SQUARES = tuple(f"{column}{row}" for row in range(1, 9) for column in "abcdefgh")
"""Names of the 64 squares, a1 to h1, then a2 to h2 and so on."""

_CENTRE = ("d4", "e4", "d5", "e5")
_PLAYABLE = np.array([square for square, name in enumerate(SQUARES) if name not in _CENTRE])
_END = len(_PLAYABLE)
# From squares to tokens; the centre is never played.
_TOKEN = np.full(64, _END)
_TOKEN[_PLAYABLE] = np.arange(_END)
# From tokens to a bitboard with the one square set; ``end`` plays nothing.
_MOVE = np.append(np.left_shift(np.uint64(1), _PLAYABLE.astype(np.uint64)), np.uint64(0))
# Games drawn at once: few enough that their boards stay in the processor's cache.
_BLOCK = 8192
_TEST_SHARE = 0.1


class Othello(World):
    """Othello between two sides that choose uniformly among their legal moves (Li et al. 2023).

    Black opens. A token is the square played, ``"a1"`` to ``"h8"`` without the four squares occupied at the start. A
    side that cannot move passes, which has no token. When neither side can move the game is over: one scored ``"end"``
    follows, further ones are padding. A game has at most 60 moves, so an episode has 61 tokens.

    *Test* games are a tenth of all games, chosen by a fixed hash of all their moves. Rotated and mirrored games are in
    the same split, so no test game occurs in training in any orientation. Only whole games belong to a split; openings
    occur in both.

    Picture: ``"board"``, the discs, with dots on the legal moves; the opening, or the position in an episode with the
    last move and the discs it turned over marked.

    References
    ----------
    Li, K. et al. (2023). Emergent World Representations: Exploring a Sequence Model Trained on a Synthetic Task. ICLR.

    Nanda, N., Lee, A., Wattenberg, M. (2023). Emergent Linear Representations in World Models of Self-Supervised
    Sequence Models. BlackboxNLP. (Why the board is encoded as mine and theirs.)

    Examples
    --------
    >>> world = Othello()
    >>> game = world.sample(1, seed=0)
    >>> game.tokens.shape, game.states["board"].shape
    ((1, 61), (1, 61, 64))
    >>> [name for name, legal in zip(world.vocabulary, world.legal_first()) if legal]
    ['d3', 'c4', 'f5', 'e6']
    """

    name = "othello"
    vocabulary = (*(SQUARES[square] for square in _PLAYABLE), "end")
    length = _END + 1
    splits = ("train", "test")
    pictures = ("board",)

    def __init__(self) -> None:
        self.spec = {"name": self.name}

    @property
    def state_values(self) -> dict[str, tuple[str, ...]]:
        """Names of the values of ``"board"`` and ``"turn"``."""
        return {"board": ("empty", "mine", "theirs"), "turn": ("black", "white")}

    def sample(
        self, n: int, length: int | None = None, seed: int = 0, *, split: str = "train", states: bool = True
    ) -> Episodes:
        """Draw games; padding is not scored.

        Games of the other split are drawn and dropped, so test games take ten times as long.

        Examples
        --------
        >>> game = Othello().sample(1, seed=0)
        >>> int(game.length[0]), int(game.states["score"][0, -1])
        (61, 8)
        """
        n, length, rng = checks.sampling(self, n, length, seed, split)
        test = split == "test"
        share = _TEST_SHARE if test else 1 - _TEST_SHARE
        total, blocks = 0, []
        while total < n:
            games = _games(rng, min(_BLOCK, math.ceil(1.1 * (n - total) / share) + 16))
            blocks.append(games[self.held_out(games) == test])
            total += len(blocks[-1])
        tokens = np.full((n, length), _END)
        tokens[:, : self.length] = np.concatenate(blocks)[:n]
        ends = (tokens != _END).sum(1) + 1
        return Episodes(
            tokens, self.replay(tokens) if states else {}, loss_mask=np.arange(length) < ends[:, None], length=ends
        )

    def held_out(self, tokens: Tokens) -> Bool[np.ndarray, " episodes"]:
        """Whether each whole game belongs to the test split, in any orientation of the board.

        Examples
        --------
        >>> world = Othello()
        >>> world.held_out(world.sample(5, split="test").tokens).tolist()
        [True, True, True, True, True]
        """
        tokens = checks.tokens(self, tokens)
        digest = np.zeros(len(tokens), np.uint64)
        turned = _upright(tokens)[:, : self.length]
        for played in turned.T.astype(np.uint64):
            digest = (digest + played + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
            digest ^= digest >> np.uint64(29)
        return digest % np.uint64(round(1 / _TEST_SHARE)) == 0

    def replay(self, tokens: Tokens, length: ArrayLike | None = None) -> dict[str, np.ndarray]:
        """Compute the states after each token. They do not change in padding, which starts at ``length`` (episodes,).

        Returns
        -------
        dict of arrays
            ``"board"``, int8 (episodes, positions, 64): squares a1, b1, ... h8, each 0 empty, 1 a disc of the side to
            move, 2 a disc of the other side. ``"turn"``, int64 (episodes, positions): the side to move after passes,
            0 Black or 1 White; after the end of the game, the side that did not move last. ``"score"``, int64
            (episodes, positions): Black's discs minus White's.

        Examples
        --------
        >>> world = Othello()
        >>> d3 = world.replay(np.array([[world.vocabulary.index("d3")]]))
        >>> int(d3["score"][0, 0]), int(d3["turn"][0, 0]), d3["board"][0, 0, 16:32].tolist()
        (3, 1, [0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2, 2, 0, 0, 0])
        """
        tokens = checks.tokens(self, tokens)
        record = _record(tokens, length)

        def reason(episode: int, t: int) -> str:
            moves = legal_moves(record.mine[episode, t, None], record.theirs[episode, t, None])
            return f" is not legal; legal there: {_names(moves) or 'end'}"

        checks.require_legal(self, tokens, record.legal, reason)
        board = squares(record.theirs)
        board *= 2
        board += squares(record.mine)
        lead = count(record.mine.ravel()).reshape(tokens.shape) - count(record.theirs.ravel()).reshape(tokens.shape)
        return {
            "board": board.view(np.int8),
            "turn": record.white.astype(np.int64),
            "score": np.where(record.white, -lead, lead),
        }

    def legal(self, tokens: Tokens, length: ArrayLike | None = None) -> Bool[np.ndarray, "episodes positions"]:
        """Whether each token is legal after the tokens before it; padding, from ``length`` (episodes,) on, is legal."""
        return _record(checks.tokens(self, tokens), length).legal

    def start_states(self) -> dict[str, np.ndarray]:
        """The opening: Black is to move, with two discs each."""
        start = opening(1)
        board = (squares(start.mine) + 2 * squares(start.theirs))[0].astype(np.int8)
        return {"board": board, "turn": np.array(0), "score": np.array(0)}

    def start_probs(self) -> Float[np.ndarray, " tokens"]:
        """Distribution of the first move: uniform over the four squares that Black may open on."""
        return _as_tokens(opening(1).moves)[0] / 4

    def future(self, tokens: Tokens) -> Int[np.ndarray, "episodes positions 65"]:
        """The board and the side to move."""
        states = self.replay(tokens)
        return np.concatenate([states["board"].astype(np.int64), states["turn"][..., None]], axis=-1)

    def legal_next(self, tokens: Tokens) -> Bool[np.ndarray, "episodes positions tokens"]:
        """Squares where the side to move may play, ``end`` if neither side can move; none after an illegal token."""
        record = _record(checks.tokens(self, tokens))
        return _as_tokens(record.moves) & np.logical_and.accumulate(record.legal, axis=1)[..., None]

    def next_token_probs(self, tokens: Tokens) -> Float[np.ndarray, "episodes positions tokens"]:
        """Distribution of the next token: uniform over the legal moves.

        This is the law of both splits together. The law of one split differs only in the last few moves, when few
        games begin with the prefix.

        Raises
        ------
        ValueError
            If a move is not legal; the first is named.

        Examples
        --------
        >>> float(Othello().next_token_probs(Othello().sample(1).tokens)[0, 0].max().round(3))
        0.333
        """
        self.replay(tokens)
        legal = self.legal_next(tokens)
        return legal / legal.sum(-1, keepdims=True)

    def decode(self, tokens: ArrayLike) -> str:
        """Write the moves of one game, without padding."""
        tokens = np.asarray(tokens)
        return super().decode(tokens[: (tokens != _END).sum() + 1])


class _Record(NamedTuple):
    """Positions of all games after each token; after an illegal token, the position before it."""

    mine: UInt64[np.ndarray, "episodes positions"]
    theirs: UInt64[np.ndarray, "episodes positions"]
    moves: UInt64[np.ndarray, "episodes positions"]
    white: Bool[np.ndarray, "episodes positions"]
    legal: Bool[np.ndarray, "episodes positions"]


def _record(tokens: Int[np.ndarray, "episodes positions"], length: ArrayLike | None = None) -> _Record:
    episodes, positions = tokens.shape
    ends = np.full(episodes, positions) if length is None else np.asarray(length)
    if ends.shape != (episodes,) or ends.dtype.kind not in "iu":
        raise ValueError(f"length must be integers of shape ({episodes},), got {ends.dtype} of shape {ends.shape}")
    mine, theirs, moves = np.empty((3, positions, episodes), np.uint64)
    white, legal = np.empty((2, positions, episodes), bool)
    position = opening(episodes)
    legal_so_far = np.ones(episodes, bool)
    for t, token in enumerate(tokens.T):
        move, padding = _MOVE[token], t >= ends
        legal_so_far &= padding | np.where(token == _END, position.moves == 0, (move & position.moves) != 0)
        position = play(position, np.where(legal_so_far & ~padding, move, np.uint64(0)))
        mine[t], theirs[t], moves[t], white[t] = position
        legal[t] = legal_so_far
    return _Record(mine.T, theirs.T, moves.T, white.T, legal.T)


def _games(rng: np.random.Generator, games: int) -> Int[np.ndarray, "games positions"]:
    """Draw whole games, padded with ``end``."""
    tokens = np.full((_END + 1, games), _END)
    position = opening(games)
    for ply in tokens[:-1]:
        choice = (rng.random(games) * count(position.moves)).astype(np.uint64)
        ply[:] = np.where(position.moves == 0, _END, _TOKEN[nth_square(position.moves, choice)])
        position = play(position, _MOVE[ply])
    return tokens.T


def _upright(tokens: Int[np.ndarray, "games positions"]) -> Int[np.ndarray, "games positions"]:
    """Rotate and mirror games so that the first move is d3.

    Four rotations and reflections keep the opening position, and they permute the four possible first moves.
    """
    row, column = np.divmod(np.arange(64), 8)
    images = [8 * r + c for r, c in ((row, column), (column, row), (7 - column, 7 - row), (7 - row, 7 - column))]
    to = np.stack([np.append(_TOKEN[image[_PLAYABLE]], _END) for image in images])
    image = (to[:, tokens[:, 0]] == _TOKEN[SQUARES.index("d3")]).argmax(0)
    return to[image[:, None], tokens]


def _as_tokens(moves: UInt64[np.ndarray, "*games"]) -> Bool[np.ndarray, "*games tokens"]:
    return np.concatenate([squares(moves)[..., _PLAYABLE].view(bool), (moves == 0)[..., None]], axis=-1)


def _names(moves: UInt64[np.ndarray, " one"]) -> str:
    return ", ".join(SQUARES[square] for square in np.flatnonzero(squares(moves)[0]))
