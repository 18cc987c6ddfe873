"""The world panel: the world as it draws itself, with the true path up to the cursor."""

from __future__ import annotations

import re
from typing import Any

from nextlat_viz.errors import LatentsError
from nextlat_viz.figures.recursion import thinking_boards
from nextlat_viz.figures.theme import Theme
from nextlat_viz.notebook.panel import Panel, choice, take_legend, text_line
from nextlat_viz.notebook.panels.answers import sentence
from nextlat_viz.notebook.state import ViewState

# Pixels the picture is laid out for; on the page it is as wide as its panel.
_WIDTH = 400
# Boards of recursive models in a row, and the least height of a row in pixels.
_BOARDS, _LEAST = 3, 240


class WorldPanel(Panel):
    """The belief simplex, the street map, the star, the board: as the world draws itself."""

    name, question, tab = "world", "Where are we in the world?", "World"
    follows = ("episode", "position")
    watches = ("dark",)

    def __init__(self, *models: Any, state: ViewState | None = None, theme: Theme | None = None) -> None:
        super().__init__(*models, state=state, theme=theme)
        self.kind = choice("Picture", "How the world is drawn")
        self._offer(None)
        self._link(self.state, self._offer, "world")
        self._caption = text_line()
        self._show(beside=[self.kind], below=[self._caption])
        self._link(self.kind, lambda change: self._ask())

    def _offer(self, change: Any) -> None:
        """Offer the world's pictures, the beliefs first: they are what a reader of the tokens can know."""
        try:
            kinds = list(self.state.scene.world.pictures)
        except LatentsError:
            kinds = []
        kinds.sort(key=lambda kind: kind != "beliefs")
        self.kind.options = kinds
        self.kind.value = kinds[0] if kinds else None
        self.kind.layout.display = None if len(kinds) > 1 else "none"

    def _depends_on(self) -> tuple[Any, ...]:
        state = self.state
        return self.kind.value, state.scene.recursive and (state.jobs.changes, state.dark)

    @classmethod
    def unsuited(cls, state: ViewState) -> str:
        """Why there is no picture."""
        try:
            world = state.scene.world
            return "" if world.pictures else f"The world {world.name!r} has no picture."
        except LatentsError as error:
            return f"{error}."

    def _figure(self) -> Any:
        if self.why_not:
            return self.why_not
        if self.state.scene.recursive:
            return self._boards()
        state, kind = self.state, self.kind.value
        world = state.scene.world
        figure = world.draw(kind, episode=state.scene.read(state.episode), position=state.position, width=_WIDTH)
        # Its own height, the width of its panel.
        figure.layout.width = None
        self._caption.value = _take_words(figure)
        return figure

    def _boards(self) -> Any:
        """The board that each recursive model answers at the cursor's step."""
        state, scene = self.state, self.state.scene
        try:
            thinkings = {label: self._thinking(model) for model, label in enumerate(scene.labels)}
        except ValueError as error:
            return sentence(str(error))
        puzzle = int(scene.episodes.searchsorted(state.episode))
        figure = thinking_boards(thinkings, puzzle, state.position, columns=_BOARDS, theme=state.theme)
        # Lower, the headings would lie over the boards.
        figure.layout.meta = {"least": _LEAST * -(-len(thinkings) // _BOARDS)}
        self._caption.value = _take_words(figure)
        return figure


def _take_words(figure: Any) -> str:
    """Take the title, the legend and the notes below it out of a picture, and return them as HTML, which wraps."""
    layout = figure.layout
    below = [note.xref == note.yref == "paper" and (note.y or 0) <= 0 for note in layout.annotations]
    # The legend first: a low panel has room for the first lines only.
    parts = [layout.title.text, *(take_legend(figure) if layout.showlegend else [])]
    parts += [note.text for note, low in zip(layout.annotations, below, strict=True) if low]
    layout.annotations = [note for note, low in zip(layout.annotations, below, strict=True) if not low]
    layout.title.text = ""
    traces = [trace.to_plotly_json() for trace in figure.data]
    # The toolbar is in the right margin, and a colour bar.
    layout.margin.update({"l": 8, "t": 8, "b": 8} if layout.xaxis.visible is False else {"t": 8})
    if any("colorbar" in trace or "colorbar" in trace.get("marker", {}) for trace in traces):
        layout.margin.r = 64
    text = " &ensp;".join(part for part in parts if part)
    # The whole of it under the mouse, where only the first lines have room.
    return f'<span title="{re.sub("<[^>]*>", "", text)}">{text}</span>'
