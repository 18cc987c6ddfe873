"""The picture of an Othello board."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Int

from nextlat_viz.plotting import Figure
from nextlat_viz.worlds import checks, drawing
from nextlat_viz.worlds.base import Episodes
from nextlat_viz.worlds.othello.world import SQUARES, Othello

# The board brings its own background, so that black and white discs show on any page.
_FELT, _GROOVE = "#4C9A78", "#2F6E54"
_SIDES = ("black", "white")
_DISCS = {"black": ("#14171B", "#14171B"), "white": ("#FAFAF5", "#C9CFC9")}
_START = {"d5": 1, "e4": 1, "d4": 2, "e5": 2}


def draw(
    world: Othello, kind: str = "board", episode: Episodes | None = None, position: int | None = None, **options: int
) -> go.Figure:
    """Draw the board; ``Othello.draw`` is the way in.

    Raises
    ------
    UnknownNameError
        If there is no such kind, or the kind has no such option.
    ValueError
        If ``episode`` holds more or fewer than one, or the position is outside it.

    Examples
    --------
    >>> from nextlat_viz.worlds.othello import othello
    >>> othello().draw().layout.title.text
    'othello: the opening, black to move (2 black, 2 white)'
    """
    checks.picture(world, kind, options)
    start = np.array([_START.get(name, 0) for name in SQUARES])
    if episode is None:
        can = [world.vocabulary[token] for token in np.flatnonzero(world.legal_first())]
        return _board(world, start, "the opening, black to move", "black", can, **options)
    at = checks.one_episode(episode, position)
    tokens = episode.tokens[:, :at]
    truth = world.replay(tokens)
    boards = np.concatenate([start[None], _colours(truth["board"][0], truth["turn"][0])])
    side = _SIDES[truth["turn"][0, -1]]
    can = [world.vocabulary[token] for token in np.flatnonzero(world.legal_next(tokens)[0, -1])]
    played = world.vocabulary[tokens[0, -1]]
    if can == ["end"]:
        figure = _board(world, boards[-1], "the game is over", side, [], **options)
    else:
        figure = _board(world, boards[-1], f"move {at} was {played}, {side} to move", side, can, **options)
    if played != "end":
        _mark(figure, SQUARES.index(played), np.flatnonzero((boards[-2] != 0) & (boards[-2] != boards[-1])))
    return figure


def _colours(
    board: Int[np.ndarray, "positions squares"], turn: Int[np.ndarray, " positions"]
) -> Int[np.ndarray, "positions squares"]:
    """From 1 mine and 2 theirs to 1 black and 2 white."""
    swapped = (turn[:, None] == _SIDES.index("white")) & (board != 0)
    return np.where(swapped, 3 - board, board)


def _board(
    world: Othello,
    discs: Int[np.ndarray, " squares"],
    situation: str,
    side: str,
    can: list[str],
    width: int = 560,
    height: int = 600,
) -> go.Figure:
    figure = Figure(layout=drawing.layout(width, height))
    figure.add_shape(type="rect", x0=0, x1=8, y0=0, y1=8, fillcolor=_FELT, line={"width": 0}, layer="below")
    for k in range(9):
        groove = {"width": 3 if k in (0, 8) else 1.2, "color": _GROOVE}
        figure.add_shape(type="line", x0=k, x1=k, y0=0, y1=8, line=groove, layer="below")
        figure.add_shape(type="line", x0=0, x1=8, y0=k, y1=k, line=groove, layer="below")
    for k in range(8):
        for x, y, text in ((k + 0.5, 8.32, "abcdefgh"[k]), (-0.32, 7.5 - k, str(k + 1))):
            figure.add_annotation(x=x, y=y, text=text, showarrow=False, font={"size": 14})
    figure.update_xaxes(range=[-0.7, 8.7], fixedrange=True)
    figure.update_yaxes(range=[-0.35, 8.65], fixedrange=True)
    # Sizes of markers are in pixels: a square is as wide as the picture leaves it.
    square = min((width - 32) / 9.4, (height - 84) / 9)
    for value, name in enumerate(_SIDES, start=1):
        _dots(
            figure, np.flatnonzero(discs == value), name, 0.78 * square, line={"width": 1.5, "color": _DISCS[name][1]}
        )
    _dots(figure, [SQUARES.index(one) for one in can], side, 0.2 * square, note="legal move", opacity=0.75)
    counts = ", ".join(f"{(discs == value).sum()} {name}" for value, name in enumerate(_SIDES, start=1))
    drawing.caption(
        figure,
        f"{world.name}: {situation} ({counts})",
        f"Small dots: where {side} may play." if can else "Neither side can move.",
    )
    return figure


def _dots(
    figure: go.Figure,
    places: list[int] | Int[np.ndarray, " dots"],
    side: str,
    size: float,
    note: str = "",
    opacity: float = 1.0,
    line: dict[str, object] | None = None,
) -> None:
    names = [SQUARES[place] for place in places]
    figure.add_scatter(
        **_centres(places),
        mode="markers",
        marker={"size": size, "color": _DISCS[side][0], "opacity": opacity, "line": line or {"width": 0}},
        hovertext=[f"{name}: {note or side}" for name in names],
        hoverinfo="text",
    )


def _mark(figure: go.Figure, played: int, flipped: Int[np.ndarray, " discs"]) -> None:
    """A ring around the disc just played, a dot on each that it turned over."""
    discs = figure.data[0].marker.size
    look = {"mode": "markers", "hoverinfo": "skip"}
    ring = {"size": discs, "symbol": "circle-open", "color": drawing.MARK, "line": {"width": 4}}
    figure.add_scatter(**_centres([played]), marker=ring, **look)
    figure.add_scatter(**_centres(flipped), marker={"size": discs / 5, "color": drawing.MARK}, **look)
    note = figure.layout.annotations[-1]
    note.text = f"Ring: the last move; red dots: the discs it turned over. {note.text}"


def _centres(places: list[int] | Int[np.ndarray, " squares"]) -> dict[str, list[float]]:
    return {"x": [place % 8 + 0.5 for place in places], "y": [7.5 - place // 8 for place in places]}
