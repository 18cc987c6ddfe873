"""Where are we: the world itself, with the episode's true path up to the cursor."""

from __future__ import annotations

import textwrap
from typing import Any

import ipywidgets

from nextlat_viz.errors import LatentsError
from nextlat_viz.notebook import controls
from nextlat_viz.notebook.state import ViewState
from nextlat_viz.notebook.studio.card import Card

# Pixels the picture is laid out for; on the page it is as wide as its card.
_WIDTH = 400
# Characters of the small sentence under a picture that fit into it.
_LINE = 60


class WorldCard(Card):
    """The belief simplex, the street map, the star, the board: as the world draws itself."""

    name, question = "world", "Where are we?"

    def __init__(self, state: ViewState) -> None:
        super().__init__(state)
        self._kind = ipywidgets.Dropdown(
            description="Picture", tooltip="How the world is drawn", style={"description_width": "auto"},
            layout={"width": "auto", "max_width": "260px"},
        )  # fmt: skip
        self._offer(None)
        self._link(state, self._offer, "world")
        self._show(above=[controls.row(self._kind)])
        self._link(self._kind, lambda change: self._ask())

    def _offer(self, change: Any) -> None:
        """Which pictures the world has; the beliefs first where there are some, for that is what a reader has."""
        try:
            kinds = list(self.state.scene.world.pictures)
        except LatentsError:
            kinds = []
        kinds.sort(key=lambda kind: kind != "beliefs")
        self._kind.options = kinds
        self._kind.value = kinds[0] if kinds else None
        self._kind.layout.display = None if len(kinds) > 1 else "none"

    def _looks_at(self) -> Any:
        state = self.state
        return id(state.scene), self._kind.value, state.episode, state.position

    def _figure(self) -> Any:
        state, kind = self.state, self._kind.value
        try:
            world = state.scene.world
        except LatentsError as error:
            return f"{error}."
        if kind is None:
            return f"The world {world.name!r} has no picture of itself."
        figure = world.draw(kind, episode=state.scene.read(state.episode), position=state.position, width=_WIDTH)
        # A height of its own, the width of its card.
        figure.layout.width = None
        for note in figure.layout.annotations:
            lines = textwrap.wrap(note.text, _LINE, break_long_words=False)
            if note.xref == note.yref == "paper" and len(lines) > 1:
                note.update(text="<br>".join(lines), align="left")
                figure.layout.margin.b += 14 * (len(lines) - 1)
        return figure
