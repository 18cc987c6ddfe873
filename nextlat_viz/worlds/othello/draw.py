"""The picture of an Othello board."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int

from nextlat_viz.plotting import CURSOR, INK
from nextlat_viz.worlds import drawing
from nextlat_viz.worlds.base import Episodes
from nextlat_viz.worlds.drawing import picture
from nextlat_viz.worlds.othello.world import SQUARES, Othello

# The board has a green background, so that black and white discs are visible on any page.
_FELT, _GROOVE = "#4C9A78", "#2F6E54"
_SIDES = ("black", "white")
_DISCS = {"black": ("#14171B", "#14171B"), "white": ("#FAFAF5", "#C9CFC9")}


@picture(Othello, "board")
def draw_board(
    world: Othello, episode: Episodes | None, position: int | None, *, width: int = 560, height: int = 600
) -> go.Figure:
    """Draw the opening, or the board after `position` tokens of an episode.

    Examples
    --------
    >>> Othello().draw().layout.title.text
    'othello: the opening, black to move (2 black, 2 white)'
    """
    start = world.start_states()["board"]
    if episode is None or position == 0:
        moves = [world.vocabulary[token] for token in np.flatnonzero(world.legal_first())]
        return _board(world, start, "the opening, black to move", "black", moves, width, height)
    tokens = episode.tokens[:, :position]
    truth = world.replay(tokens)
    # From 1 mine and 2 theirs to 1 black and 2 white.
    board, white = truth["board"][0], truth["turn"][0] == _SIDES.index("white")
    boards = np.concatenate([start[None], np.where(white[:, None] & (board != 0), 3 - board, board)])
    side = _SIDES[truth["turn"][0, -1]]
    moves = [world.vocabulary[token] for token in np.flatnonzero(world.legal_next(tokens)[0, -1])]
    played = world.vocabulary[tokens[0, -1]]
    situation = f"move {position} was {played}, {side} to move"
    if moves == ["end"]:
        situation, moves = "the game is over", []
    figure = _board(world, boards[-1], situation, side, moves, width, height)
    if played != "end":
        _mark(figure, SQUARES.index(played), np.flatnonzero((boards[-2] != 0) & (boards[-2] != boards[-1])))
    return figure


def _board(
    world: Othello,
    discs: Int[np.ndarray, " squares"],
    situation: str,
    side: str,
    moves: list[str],
    width: int,
    height: int,
) -> go.Figure:
    shapes = [{"type": "rect", "x0": 0, "x1": 8, "y0": 0, "y1": 8, "fillcolor": _FELT, "line": {"width": 0}}]
    for k in range(9):
        groove = {"type": "line", "line": {"width": 3 if k in (0, 8) else 1.2, "color": _GROOVE}}
        shapes += [{"x0": k, "x1": k, "y0": 0, "y1": 8, **groove}, {"x0": 0, "x1": 8, "y0": k, "y1": k, **groove}]
    names = [(k + 0.5, 8.32, "abcdefgh"[k]) for k in range(8)] + [(-0.32, 7.5 - k, str(k + 1)) for k in range(8)]
    # All at once: at each shape or text that is added, plotly checks all others again.
    figure = drawing.canvas(width, height, [-0.7, 8.7], [-0.35, 8.65], fixed=True).update_layout(
        shapes=[shape | {"layer": "below"} for shape in shapes],
        annotations=[
            {"x": x, "y": y, "text": text, "showarrow": False, "font": {"size": 14, "color": INK}}
            for x, y, text in names
        ],
    )
    # Marker sizes are in pixels: the width of a square depends on the size of the picture.
    pixels = min((width - 32) / 9.4, (height - 84) / 9)
    for value, name in enumerate(_SIDES, start=1):
        _dots(figure, np.flatnonzero(discs == value), name, name, size=0.78 * pixels, line_color=_DISCS[name][1])
    places = np.array([SQUARES.index(square) for square in moves], int)
    _dots(figure, places, side, "legal move", size=0.2 * pixels, opacity=0.75, line_width=0)
    counts = ", ".join(f"{(discs == value).sum()} {name}" for value, name in enumerate(_SIDES, start=1))
    below = f"Small dots: legal moves of {side}." if moves else "Neither side can move."
    drawing.add_caption(figure, f"{world.name}: {situation} ({counts})", below)
    return figure


def _dots(figure: go.Figure, places: Int[np.ndarray, " dots"], side: str, note: str, **marker: Any) -> None:
    hover = [f"{SQUARES[place]}: {note}" for place in places]
    line = {"width": marker.pop("line_width", 1.5), "color": marker.pop("line_color", None)}
    drawing.add_dots(figure, _centres(places), hover, color=_DISCS[side][0], line=line, **marker)


def _mark(figure: go.Figure, played: int, flipped: Int[np.ndarray, " discs"]) -> None:
    """Add a ring around the last disc played, and dots on the discs it turned over."""
    discs = figure.data[0].marker.size
    drawing.add_ring(figure, _centres(np.array([played]))[0], discs)
    drawing.add_dots(figure, _centres(flipped), size=discs / 5, color=CURSOR, line={"width": 0})
    note = figure.layout.annotations[-1]
    note.text = f"Ring: last move. Magenta dots: discs it turned over. {note.text}"


def _centres(places: Int[np.ndarray, " squares"]) -> Float[np.ndarray, "squares 2"]:
    return np.stack([places % 8 + 0.5, 7.5 - places // 8], axis=1)
