"""Where views are on the page: rows of equal height, columns of equal width, room for titles in pixels."""

from __future__ import annotations

import textwrap
from typing import Any

from nextlat_viz.display import escape

ROW_HEIGHT, TITLE, FOOT = 270, 62, 40
LEFT, RIGHT = 34, 100
_GAP = 0.02


class Grid:
    """A grid of square-scaled views without ticks, because a plane of a projection has no units."""

    def __init__(self, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        self.height = rows * (ROW_HEIGHT + TITLE) + FOOT

    def axes(self, row: int, column: int) -> dict[str, str]:
        """Name the axes of a view, as a trace refers to them."""
        name = self._name(row, column)
        return {"xaxis": f"x{name}", "yaxis": f"y{name}"}

    def layout(self) -> dict[str, Any]:
        """Every axis of the grid, and the page around it."""
        axes: dict[str, Any] = {"height": self.height, "margin": {"l": LEFT, "r": RIGHT, "t": 0, "b": 0}}
        plain = {"showticklabels": False, "showgrid": False, "showline": True, "mirror": True, "title": {"text": ""}}
        for row in range(self.rows):
            for column in range(self.columns):
                name = self._name(row, column)
                across, up = self._domain(row, column)
                axes[f"xaxis{name}"] = {**plain, "domain": across, "anchor": f"y{name}"}
                axes[f"yaxis{name}"] = {**plain, "domain": up, "anchor": f"x{name}", "scaleanchor": f"x{name}"}
        return axes

    def title(self, row: int, column: int, text: str, more: str = "") -> dict[str, Any]:
        """A title above a view, `text` in plotly's HTML; `more` shows when it is pointed at."""
        across, up = self._domain(row, column)
        said = {"hovertext": "<br>".join(map(escape, textwrap.wrap(more, 60)))} if more else {}
        return _note(across[0], up[1], text, xanchor="left", yanchor="bottom", align="left", yshift=3, **said)

    def message(self, row: int, column: int, text: str) -> dict[str, Any]:
        """A text in the middle of a view that has no points to show."""
        across, up = self._domain(row, column)
        return _note(
            sum(across) / 2,
            sum(up) / 2,
            "<br>".join(map(escape, textwrap.wrap(text, 34))),
            xanchor="center",
            yanchor="middle",
        )

    def foot(self, column: int, text: str) -> dict[str, Any]:
        """A small text under a column; `text` is plotly's HTML."""
        across, up = self._domain(self.rows - 1, column)
        small = {"size": 10.5}
        return _note(across[0], up[0], text, xanchor="left", yanchor="top", align="left", yshift=-3, font=small)

    def label(self, row: int, text: str, color: str) -> dict[str, Any]:
        """The name of a row, beside it; `text` is plotly's HTML."""
        up = self._domain(row, 0)[1]
        font = {"size": 14, "color": color}
        return _note(0.0, sum(up) / 2, text, xanchor="right", yanchor="middle", xshift=-6, textangle=-90, font=font)

    def _name(self, row: int, column: int) -> str:
        number = row * self.columns + column + 1
        return "" if number == 1 else str(number)

    def _domain(self, row: int, column: int) -> tuple[tuple[float, float], tuple[float, float]]:
        width = (1 - _GAP * (self.columns - 1)) / self.columns
        left = column * (width + _GAP)
        top = 1 - (row * (ROW_HEIGHT + TITLE) + TITLE) / self.height
        return (left, left + width), (top - ROW_HEIGHT / self.height, top)


def _note(x: float, y: float, text: str, **options: Any) -> dict[str, Any]:
    return {"xref": "paper", "yref": "paper", "x": x, "y": y, "showarrow": False, "text": text, **options}
