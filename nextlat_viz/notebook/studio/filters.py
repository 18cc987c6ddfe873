"""Which rows stand out: those with a value, or one of several, in any column."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import ipywidgets

from nextlat_viz.display import escape
from nextlat_viz.notebook import controls
from nextlat_viz.notebook.base import Linked
from nextlat_viz.notebook.state import ViewState
from nextlat_viz.notebook.studio.strip import clipped

_NOTHING = "nothing"
_LABEL = {"description_width": "auto"}
_MOST_ROWS = 4


class Filter(Linked):
    """A column, then the values wanted of it; and, beside them, how many rows that leaves and how many are selected."""

    def __init__(self, state: ViewState) -> None:
        super().__init__(state=state)
        self._following = False
        self.column = ipywidgets.Dropdown(
            options=[_NOTHING], description="Filter by", tooltip="Let the rows with some value stand out", style=_LABEL,
            layout={"width": "auto", "max_width": "260px", "margin": "2px 12px 2px 0"},
        )  # fmt: skip
        self.values = ipywidgets.SelectMultiple(
            description="Keep", tooltip="Values to keep; Ctrl or Shift adds more", style=_LABEL,
            layout={"width": "auto", "min_width": "150px", "max_width": "300px", "margin": "2px 12px 2px 0"},
        )  # fmt: skip
        self.clear = ipywidgets.Button(
            description="Clear selection", tooltip="Select nothing", layout={"width": "auto"}
        )
        self.clear.on_click(self._guarded(lambda button: self.state.select(())))
        self._said = ipywidgets.HTML(layout={"margin": "2px 12px 2px 0"})
        self.children = [controls.row(self.column, self.values, self._said, self.clear), self._alert]
        self._link(self.column, self._choose)
        self._link(self.values, self._keep)
        for name in ("world", "filter", "selection", "step"):
            self._link(state, self._follow, name)
        self._follow(None)

    @contextlib.contextmanager
    def _still(self) -> Iterator[None]:
        """Change the controls without their changing the state: what comes first on show, nobody chose."""
        before, self._following = self._following, True
        try:
            yield
        finally:
            self._following = before

    def _follow(self, change: Any) -> None:
        state = self.state
        columns = [str(name) for name in state.latents[0].obs]
        wanted = next(iter(state.filter), None)
        with self._still():
            if list(self.column.options) != [_NOTHING, *columns]:
                self.column.options = [_NOTHING, *columns]
            if wanted is not None:
                self.column.value = wanted
            elif change is not None and change["name"] == "world":
                self.column.value = _NOTHING
            self._offer()
        self._tell()

    def _offer(self) -> None:
        """The values of the column on show, those that are kept marked."""
        name = self.column.value
        known = [] if name == _NOTHING else self.state.scene.values(name)
        options = [(clipped(str(one), 40), one) for one in known]
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
        if name != _NOTHING and not self._following:
            others = {key: kept for key, kept in self.state.filter.items() if key != name}
            self.state.filter = {name: self.values.value, **others} if self.values.value else others

    def _tell(self) -> None:
        """How many rows there are, are kept, and are selected."""
        state = self.state
        scene = state.scene
        total = scene.latents[0].n_obs
        said = [f"{total:,} rows" if len(scene.shown) == total else f"{total:,} rows, {len(scene.shown):,} drawn"]
        for name, kept in state.filter.items():
            values = ", ".join(clipped(str(one)) for one in kept[:4]) + (", …" if len(kept) > 4 else "")
            said.append(f"{name} is {values}")
        if state.filter:
            said.append(f"keeps {int(state.kept.sum()):,}")
        n = len(state.selection)
        said.append(f"{n:,} selected" if n else "drag over points to select")
        self._said.value = f'<span role="status">{escape("; ".join(said))}</span>'
        self.clear.disabled = not n
