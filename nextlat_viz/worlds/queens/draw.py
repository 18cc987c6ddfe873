"""The picture of a board of queens, and the shapes it is drawn with."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from nextlat_viz.display import counted, escape
from nextlat_viz.plotting import CURSOR
from nextlat_viz.worlds import drawing
from nextlat_viz.worlds.base import Episodes
from nextlat_viz.worlds.drawing import picture
from nextlat_viz.worlds.queens import boards
from nextlat_viz.worlds.queens.world import Queens

# The same on light and dark pages, so that queens are visible on both.
SQUARES = ("#F2EFE8", "#DCD6C8")
GIVEN, ANSWER, SHADE = "#22262B", "#0072B2", "#E69F00"
_ATTACKED = "#A39B89"
# The outline of a queen's crown within a cell, from its top left corner.
_CROWN = np.array(
    [[0.22, 0.8], [0.14, 0.3], [0.33, 0.52], [0.5, 0.18], [0.67, 0.52], [0.86, 0.3], [0.78, 0.8], [0.22, 0.8]]
)


@picture(Queens, "board")
def draw_queens(
    world: Queens,
    episode: Episodes | None,
    position: int | None,
    *,
    answer: ArrayLike | None = None,
    width: int = 560,
    height: int = 600,
) -> go.Figure:
    """Draw a board: the given queens, the cells they attack, an answer and the cell at `position`.

    `answer` is an int array (cells,), 1 where it has a queen; by default the target of the episode. Without an episode,
    the first of the world's solutions.

    Examples
    --------
    >>> Queens(size=4).draw().layout.title.text
    'queens: the first of 2 solutions'
    """
    size, empty = world.size, np.zeros(world.length, np.int64)
    figure = drawing.canvas(width, height, [-0.7, size + 0.7], [size + 0.35, -0.65], fixed=True)
    figure.update_layout(shapes=board_squares(size))
    for k in range(size):
        drawing.add_text(figure, (k + 0.5, -0.32), "abcdefgh"[k], 14)
        drawing.add_text(figure, (-0.32, k + 0.5), str(k + 1), 14)
    if episode is None:
        figure.add_scatter(**crowns(np.flatnonzero(world.solutions[0]), size), fillcolor=ANSWER)
        drawing.add_caption(figure, f"{world.name}: the first of {len(world.solutions)} solutions", "")
        return figure
    tokens = episode.tokens[:, : world.length]
    facts = {name: values[0] for name, values in world.replay(tokens).items()}
    given = np.flatnonzero(facts["given"])
    if answer is None:
        answer = empty if episode.targets is None else episode.targets[0, : world.length]
    answers = np.asarray(answer)[None]
    conflicts, solved = int(world.conflicts(answers)[0]), bool(world.solved(answers, tokens)[0])
    several = int(facts["solutions"][0]) > 1
    if several:
        figure.layout.shapes += tuple(shades(facts["posterior"], size))
    # Marker sizes are in pixels: the width of a square depends on the size of the picture.
    pixels = min((width - 32) / (size + 1.4), (height - 84) / (size + 1))
    attacked = centres(np.flatnonzero(facts["attacked"]), size)
    drawing.add_dots(figure, attacked, size=0.12 * pixels, color=_ATTACKED, line={"width": 0})
    figure.add_scatter(**crowns(np.setdiff1d(np.flatnonzero(answers[0]), given), size), fillcolor=ANSWER)
    figure.add_scatter(**crowns(given, size), fillcolor=GIVEN)
    first, second = np.nonzero(np.triu(boards.attacks(size)) & (answers[0] > 0) & (answers[0] > 0)[:, None])
    lines = drawing.segments(centres(first, size), centres(second, size))
    drawing.add_lines(figure, lines, {"color": CURSOR, "width": 3})
    hover = [escape(text) for text in _cells(world, facts)]
    drawing.add_dots(figure, centres(np.arange(world.length), size), hover, size=0.9 * pixels, opacity=0)
    if position:
        drawing.add_ring(figure, centres(np.array([position - 1]), size)[0], 0.92 * pixels, 3)
    title = f"{world.name}: {len(given)} given, {counted(int(facts['solutions'][0]), 'completion')}"
    if answers.any():
        title += ", solved" if solved else f", not solved, {counted(conflicts, 'conflict')}"
    below = "Dark: given. Blue: the answer. Dots: attacked by a given queen."
    below += " Orange: share of the completions with a queen there." if several else ""
    drawing.add_caption(figure, title, below)
    return figure


def board_squares(size: int) -> list[dict[str, Any]]:
    """The shapes of an empty board: its light ground, and all dark squares as one path."""
    dark = [divmod(cell, size) for cell in range(size * size) if sum(divmod(cell, size)) % 2]
    # plotly reads absolute commands only.
    path = "".join(f"M{column},{row}H{column + 1}V{row + 1}H{column}Z" for row, column in dark)
    common: dict[str, Any] = {"line": {"width": 0}, "layer": "below"}
    ground = {"type": "rect", "x0": 0, "x1": size, "y0": 0, "y1": size, "fillcolor": SQUARES[0]}
    return [ground | common, {"type": "path", "path": path, "fillcolor": SQUARES[1]} | common]


def shades(shares: Float[np.ndarray, " cells"], size: int) -> list[dict[str, Any]]:
    """Shapes that colour the cells by a share from 0 to 1."""
    return [
        {"type": "rect", "x0": cell % size, "x1": cell % size + 1, "y0": cell // size, "y1": cell // size + 1}
        | {"fillcolor": SHADE, "opacity": 0.75 * float(shares[cell]), "line": {"width": 0}, "layer": "below"}
        for cell in np.flatnonzero(shares > 0).tolist()
    ]


def crowns(cells: Int[np.ndarray, " queens"], size: int) -> dict[str, Any]:
    """A trace of filled crowns on some cells; the caller adds ``fillcolor``."""
    corners = np.stack([cells % size, cells // size], axis=1)[:, None] + _CROWN
    points = np.concatenate([corners, np.full((len(cells), 1, 2), np.nan)], axis=1).reshape(-1, 2)
    line = {"width": 1, "color": "#FFFFFF"}
    return {"x": points[:, 0], "y": points[:, 1], "mode": "lines", "fill": "toself", "line": line, **drawing.QUIET}


def centres(cells: Int[np.ndarray, " cells"], size: int) -> Float[np.ndarray, "cells 2"]:
    """Places of the centres of cells."""
    return np.stack([cells % size + 0.5, cells // size + 0.5], axis=1)


def _cells(world: Queens, facts: dict[str, np.ndarray]) -> list[str]:
    """Hover text of every cell."""
    texts = []
    for name, given, attacked, share in zip(
        world.cells, facts["given"], facts["attacked"], facts["posterior"], strict=True
    ):
        fact = "attacked by a given queen" if attacked else f"a queen in {share:.0%} of the completions"
        texts.append(f"{name}: {'queen given' if given else fact}")
    return texts
