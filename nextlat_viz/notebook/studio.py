"""The studio: a grid of panels on one state, with the controls they share."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ipywidgets
import plotly.graph_objects as go

from nextlat_viz import figures
from nextlat_viz.display import escape, shorten
from nextlat_viz.errors import unknown
from nextlat_viz.figures.export import FORMATS, sidecar
from nextlat_viz.figures.theme import Theme
from nextlat_viz.notebook import controls
from nextlat_viz.notebook.panel import LABEL, ROOM, Box, Panel, choice, shared_state
from nextlat_viz.notebook.panels.answers import AheadPanel, KnowsPanel, NextPanel
from nextlat_viz.notebook.panels.pairs import PairsPanel
from nextlat_viz.notebook.panels.space import SpacePanel
from nextlat_viz.notebook.panels.what_if import WhatIfPanel
from nextlat_viz.notebook.panels.world import WorldPanel
from nextlat_viz.notebook.state import ViewState

DEFAULT = ("rrxor/next_token", "rrxor/nextlat")
PANELS: tuple[type[Panel], ...] = (
    WorldPanel, SpacePanel, NextPanel, AheadPanel, KnowsPanel, PairsPanel, WhatIfPanel,
)  # fmt: skip
SIZES = [("as shown", None), ("paper column", "column"), ("paper width", "text"), ("slide", "slide")]
_NO_COLUMN = "nothing"
_MOST_ROWS = 4


class Studio(Box):
    """Two or more models at one cursor: a panel for each question.

    Click a point, a token or a pair, drag over points, press an arrow key: all panels follow. A click on a panel's
    question folds it; a folded panel computes nothing. Open it with `studio`, which describes the parameters.

    Attributes
    ----------
    state : ViewState
        Cursor, selection, filter, colour, layer, training step: to read, to set and to share.
    selection : DataFrame
        The selected rows.
    panels : dict of {name: panel}
    """

    def __init__(self, *models: Any, state: ViewState | None = None, theme: Theme | None = None) -> None:
        opened = shared_state(models, state, theme)
        if state is None and len(opened.worlds) > 1 and not isinstance(models[0], Mapping):
            raise ValueError(
                f"these models are of several worlds ({', '.join(opened.worlds)}), which have no episode in common: "
                "give models of one world, or sort them by world: studio({world name: [models]})"
            )
        super().__init__(opened)
        self._dom_classes = ("nextlat-viz", "nlv-studio")
        self.status = controls.StatusLine(opened.jobs)
        self.cursor, self.filter = controls.Cursor(opened), Filter(opened)
        self.panels: dict[str, Panel] = {panel.name: panel(state=opened) for panel in PANELS}
        questions = {name: panel.question for name, panel in self.panels.items() if name != PairsPanel.name}
        # Draw every panel once before the cell ends.
        opened.loop.flush()
        grid = ipywidgets.GridBox(list(self.panels.values()), layout={"width": "100%"})
        grid.add_class("nlv-grid")
        shared = controls.row(
            controls.world(self), controls.color(self), controls.layer(self), controls.step(self), controls.theme(self),
            self.status,
        )  # fmt: skip
        exports = Export(opened, questions, self.export)
        self.children = [shared, self._alert, self.filter, self.cursor, grid, exports]
        self._link(opened, self._paint, "dark")
        self._paint(None)

    def __dir__(self) -> list[str]:
        return ["close", "export", "panels", "selection", "state"]

    def __repr__(self) -> str:
        state = self.state
        return f"<Studio of {', '.join(state.labels)} at episode {state.episode}, position {state.position}>"

    def _paint(self, change: Any) -> None:
        """Set the theme of the clouds, which have no plotly template."""
        for name, wanted in (("nlv-on-light", False), ("nlv-on-dark", True)):
            (self.add_class if self.state.dark is wanted else self.remove_class)(name)

    def export(
        self, panel: str, path: str | os.PathLike[str], *, size: str | None = None, overwrite: bool = False
    ) -> Path:
        """Write the figure of a panel to a file, with a JSON of its provenance.

        Parameters
        ----------
        panel : str
            One of `panels`, such as ``"space"``.
        path : path
            Ends in ``.png``, ``.svg``, ``.pdf`` or ``.html``.
        size : {"column", "text", "slide"}, optional
            As wide as a column or the text of a paper's page, or a slide, with text of a fitting size, dark on white.
            Default as shown.
        overwrite : bool
            Whether an existing file may be replaced.

        Returns
        -------
        Path
            The file written.

        Raises
        ------
        UnknownNameError
            For a panel, a size or a file format that does not exist.
        FileExistsError
            When the file or its JSON exists.
        ValueError
            When the panel shows no figure, or one with more views in a row than the size has room for.
        """
        if panel not in self.panels:
            raise unknown("panel", panel, self.panels)
        self.state.loop.flush()
        shown, target = self.panels[panel], Path(path)
        for file in (target, sidecar(target)):
            if file.exists() and not overwrite:
                raise FileExistsError(f"{file} exists: choose another name, or pass overwrite=True")
        if shown.plot is None and shown.drawn:
            raise ValueError(f"panel {panel!r} shows a table: it is studio.panels[{panel!r}].table")
        if not shown.drawn:
            raise ValueError(f"panel {panel!r} shows no figure now: {shown.words}")
        figure = go.Figure(shown.plot.to_dict())
        options: dict[str, Any] = {}
        if size is not None:
            figure, options = figures.for_print(figure, size), dict(figures.print_options(size))
        state = self.state
        provenance = {
            "panel": panel, "question": shown.question, "world": state.world, "color": state.color,
            "layer": state.site, "probe reads": state.target, "training step": state.step, "episode": state.episode,
            "position": state.position, "filter": state.filter, "selected rows": state.rows,
            "size": size or "as shown", **figures.provenance_of(*state.latents),
        }  # fmt: skip
        return figures.write_figure(figure, target, provenance, **options)


class Filter(Box):
    """A column and the values to keep of it, with the number of rows kept and selected."""

    def __init__(self, state: ViewState) -> None:
        super().__init__(state)
        self.column = choice("Filter by", "Highlight the rows with certain values", [_NO_COLUMN])
        self.values = ipywidgets.SelectMultiple(
            description="Keep", tooltip="Values to keep; Ctrl or Shift adds more", style=LABEL,
            layout={**ROOM, "min_width": "150px"},
        )  # fmt: skip
        self.clear = self._button("Clear selection", "Select nothing", lambda: self.state.select(()))
        self._summary = ipywidgets.HTML(layout={"margin": "2px 12px 2px 0"})
        self.children = [controls.row(self.column, self.values, self._summary, self.clear), self._alert]
        self._link(self.column, self._choose)
        self._link(self.values, self._keep)
        for name in ("world", "filter", "selection", "step"):
            self._link(state, self._follow, name)
        self._follow(None)

    def _follow(self, change: Any) -> None:
        state = self.state
        columns = [str(name) for name in state.latents[0].obs]
        wanted = next(iter(state.filter), None)
        with self._still():
            if list(self.column.options) != [_NO_COLUMN, *columns]:
                self.column.options = [_NO_COLUMN, *columns]
            if wanted is not None:
                self.column.value = wanted
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
        """How many rows there are, are kept, and are selected."""
        state = self.state
        scene = state.scene
        total = scene.latents[0].n_obs
        parts = [f"{total:,} rows" if len(scene.shown) == total else f"{total:,} rows, {len(scene.shown):,} drawn"]
        for name, kept in state.filter.items():
            values = ", ".join(shorten(value) for value in kept[:4]) + (", …" if len(kept) > 4 else "")
            parts.append(f"{name} is {values}")
        if state.filter:
            parts.append(f"keeps {int(state.kept.sum()):,}")
        n = len(state.selection)
        parts.append(f"{n:,} selected" if n else "drag over points to select")
        self._summary.value = f'<span role="status">{escape("; ".join(parts))}</span>'
        self.clear.disabled = not n


class Export(Box):
    """Writes the figure of a panel, chosen by its question, to a file by `Studio.export`."""

    def __init__(self, state: ViewState, panels: Mapping[str, str], export: Callable[..., Path]) -> None:
        super().__init__(state)
        self._export = export
        options = [(question, name) for name, question in panels.items()]
        self.panel = choice("Export", "The panel to write to a file", options, max_width="330px")
        self.path = ipywidgets.Text(
            value=f"{options[0][1]}.png", description="to", continuous_update=False, style=LABEL,
            tooltip=f"File name, in the notebook's folder: {', '.join(f'.{ending}' for ending in FORMATS)}",
            layout={"width": "220px"},
        )  # fmt: skip
        self.size = choice("size", "Width of the figure, with text of a fitting size", SIZES)
        self.overwrite = ipywidgets.Checkbox(
            description="replace", tooltip="Overwrite an existing file", indent=False, layout={"width": "auto"}
        )
        self.button = self._button("Export", "Write the file", self._press)
        self._result = ipywidgets.HTML()
        row = controls.row(self.panel, self.path, self.size, self.overwrite, self.button, self._result)
        self.children = [row, self._alert]
        self._link(self.panel, self._name)

    def _name(self, change: Any) -> None:
        """Suggest the panel's name, with the present file format."""
        ending = Path(self.path.value).suffix or ".png"
        self.path.value, self._result.value = f"{self.panel.value}{ending}", ""

    def _press(self) -> None:
        self._result.value = ""
        path = self._export(
            self.panel.value, self.path.value, size=self.size.value, overwrite=self.overwrite.value
        )  # fmt: skip
        self._result.value = f'<span role="status">wrote {escape(path.resolve())}</span>'


def studio(*models: Any, state: ViewState | None = None, theme: Theme | None = None) -> Studio:
    """Open models side by side, with linked panels that each answer one question.

    Parameters
    ----------
    *models
        Checkpoints, their names, or latents, all of one world; or one dict ``{world name: models}``. By default the
        shipped pair of RRXOR, with and without next-latent prediction.
    state : ViewState, optional
        In place of models, to link the studio with other widgets.
    theme : {"auto", "light", "dark"}, optional
        "auto" leaves the page's own background.

    Returns
    -------
    Studio

    Raises
    ------
    ValueError
        For models of several worlds that are not sorted by world.
    LatentsError
        For models that did not read the same episodes.

    Examples
    --------
    >>> opened = studio("rrxor/next_token", "rrxor/nextlat")
    >>> opened.state.go_to(3, 5)
    >>> opened
    <Studio of next-token, NextLat at episode 3, position 5>
    >>> opened.state.select(range(2))
    >>> opened.selection["position"].tolist()
    [1, 2]
    >>> opened.close()
    """
    return Studio(*(models or (DEFAULT if state is None else ())), state=state, theme=theme)
