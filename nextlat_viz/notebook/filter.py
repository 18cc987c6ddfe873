"""The filter of a studio: which rows are highlighted."""

from __future__ import annotations

from typing import Any

import ipywidgets
import numpy as np

from nextlat_viz.display import escape, shorten, words
from nextlat_viz.notebook import controls
from nextlat_viz.notebook.box import LABEL, ROOM, Box, choice
from nextlat_viz.notebook.state import ViewState

_NO_COLUMN = "nothing"
_MOST_ROWS = 4


class Filter(Box):
    """Choose a column and which values to keep. `summary` counts the rows kept and selected, `clear` selects none."""

    def __init__(self, state: ViewState) -> None:
        super().__init__(state)
        self.column = choice("Filter by", "Highlight the rows with certain values", [_NO_COLUMN])
        self.values = ipywidgets.SelectMultiple(
            description="Keep", tooltip="Values to keep; Ctrl or Shift adds more", style=LABEL,
            layout={**ROOM, "min_width": "150px"},
        )  # fmt: skip
        self.clear = self._button("Clear selection", "Select nothing", lambda: self.state.select(()))
        self.summary = ipywidgets.HTML()
        self.children = [controls.row(self.column, self.values), self._alert]
        self._link(self.column, self._choose)
        self._link(self.values, self._keep)
        for name in ("world", "filter", "selection", "step"):
            self._link(state, self._follow, name)
        self._follow(None)

    def _follow(self, change: Any) -> None:
        state = self.state
        columns = [(words(name), str(name)) for name in state.latents[0].obs]
        filtered = next(iter(state.filter), None)
        with self._still():
            options = [(_NO_COLUMN, _NO_COLUMN), *columns]
            if list(self.column.options) != options:
                self.column.options = options
            if filtered is not None:
                self.column.value = filtered
            elif change is not None and change["name"] == "world":
                self.column.value = _NO_COLUMN
            self._offer()
        self._summarise()

    def _offer(self) -> None:
        """Offer the values of the chosen column, with the kept ones selected."""
        name = self.column.value
        known = [] if name == _NO_COLUMN else self.state.scene.values(name)
        options = [(shorten(value, 40), value) for value in known]
        if list(self.values.options) != options:
            self.values.options = options
            self.values.rows = min(max(len(options), 1), _MOST_ROWS)
        self.values.value = self.state.filter.get(name, ())
        self.values.layout.display = None if known else "none"

    def _choose(self, change: Any) -> None:
        if self._following:
            return
        self.state.filter = {}
        with self._still():
            self._offer()

    def _keep(self, change: Any) -> None:
        name = self.column.value
        if name != _NO_COLUMN and not self._following:
            others = {key: kept for key, kept in self.state.filter.items() if key != name}
            self.state.filter = {name: self.values.value, **others} if self.values.value else others

    def _summarise(self) -> None:
        """Write the filter, and how many rows it keeps and are selected."""
        state = self.state
        scene = state.scene
        total = scene.latents[0].n_obs
        parts = []
        for name, kept in state.filter.items():
            values = ", ".join(shorten(value) for value in kept[:4]) + (", …" if len(kept) > 4 else "")
            parts.append(f"{words(name)} is {values}")
        if state.filter:
            parts.append(f"keeps {int(state.kept.sum()):,} of {total:,} rows")
        n = len(state.selection)
        if n:
            episodes = [episode for episode, _ in state.selection]
            held_out = int(np.isin(episodes, scene.held_out_episodes).sum())
            parts.append(f"{n:,} selected, {held_out:,} held out from the probes")
        self.summary.value = f'<span role="status">{escape("; ".join(parts))}</span>'
        self.clear.layout.display = None if n else "none"
