"""The studio: a grid of panels on one state, with the controls they share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ipywidgets
import plotly.graph_objects as go

from nextlat_viz import figures
from nextlat_viz.errors import one_of
from nextlat_viz.figures.export import require_new
from nextlat_viz.figures.provenance import provenance_in
from nextlat_viz.figures.theme import Theme
from nextlat_viz.notebook import controls
from nextlat_viz.notebook.box import Box, styled
from nextlat_viz.notebook.cursor import Cursor
from nextlat_viz.notebook.lessons import Rail
from nextlat_viz.notebook.lessons.lesson import lessons_about
from nextlat_viz.notebook.panel import Panel, shared_state
from nextlat_viz.notebook.panels.answers import AheadPanel, KnowsPanel, NextPanel
from nextlat_viz.notebook.panels.differ import DifferPanel
from nextlat_viz.notebook.panels.pairs import PairsPanel
from nextlat_viz.notebook.panels.read import ReadPanel
from nextlat_viz.notebook.panels.space import SpacePanel
from nextlat_viz.notebook.panels.task import TaskPanel, ThinkingPanel
from nextlat_viz.notebook.panels.training import TrainingPanel
from nextlat_viz.notebook.panels.what_if import WhatIfPanel
from nextlat_viz.notebook.panels.world import WorldPanel
from nextlat_viz.notebook.pictures import panel_figure
from nextlat_viz.notebook.plot import PlotlyLibrary
from nextlat_viz.notebook.state import ViewState
from nextlat_viz.notebook.workshop import Tray

PANELS: tuple[type[Panel], ...] = (
    WorldPanel, SpacePanel, NextPanel, KnowsPanel, AheadPanel, ReadPanel, TaskPanel, TrainingPanel, ThinkingPanel,
    PairsPanel, WhatIfPanel, DifferPanel,
)  # fmt: skip
_ARRANGING = ["world", "step", "arrangement"]


class Studio(Box):
    """Two or more models at one cursor, on one screen: a panel for each question.

    Click a point, a token or a pair, drag over points, press an arrow key: all panels follow. The world, the latents
    and two more panels are in sight; tabs choose among the rest. A panel that is out of sight computes nothing. Open it
    with `studio`, which describes the parameters.

    The event loop draws the world, and then makes the other panels; `panels` makes one at once.

    Attributes
    ----------
    state : ViewState
        Cursor, selection, filter, colour, layer, training step, arrangement: to read, to set and to share.
    selection : DataFrame
        The selected rows.
    panels : mapping of {name: panel}
    rail : Rail
        The steps of a lesson: ``studio.rail.start("beliefs")``.
    tray : Tray
        The pinned figures, arranged for a paper.
    """

    def __init__(self, *models: Any, state: ViewState | None = None, theme: Theme | None = None) -> None:
        opened = shared_state(models, state, theme)
        super().__init__(opened, "nextlat-viz nlv-studio")
        # Kept from now on: the event loop makes the plots, which borrow it too, only later.
        PlotlyLibrary.borrow()
        self._complete = self._guarded(self._arrange)
        opened.observe(self._complete, _ARRANGING)
        self._links.append((opened, self._complete, _ARRANGING))
        self.status = controls.StatusLine(opened.jobs)
        self.cursor = Cursor(opened)
        self.panels = Panels(self._add)
        self._filter: controls.Filter | None = None
        self._rail: Rail | None = None
        self._tray: Tray | None = None
        self._tabs = ipywidgets.ToggleButtons(tooltip="The question of the panel below", style={"button_width": "auto"})
        about = "Swap this panel with the one beside it"
        self._swap = self._button("", about, self._exchange, "exchange", "nlv-tool")
        self._line = styled(ipywidgets.HBox, "nlv-line", self._tabs, self._swap)
        self._columns = [styled(ipywidgets.VBox, "nlv-column") for side in range(2)]
        self._grid = styled(ipywidgets.HBox, "nlv-columns", *self._columns)
        self._more = ipywidgets.ToggleButton(icon="sliders", tooltip="Filter, theme", layout={"width": "auto"})
        # Rail and filter have many widgets, so they are made on first use. They get a box of their own, because the
        # page draws all children of a box again when one is added between them.
        self._shelf = styled(ipywidgets.VBox, "nlv-shelf")
        self._workshop = ipywidgets.ToggleButton(
            description="Figures",
            icon="thumb-tack",
            tooltip="Figures for a paper: arrange and download what is pinned",
            layout={"width": "auto"},
            _dom_classes=["nlv-worded"],
        )
        about = "Open a lesson about these models, or leave it"
        self._lesson = self._button("Lesson", about, self._open_lesson, "graduation-cap", "nlv-worded")
        self._bar = controls.row(
            controls.world(self), controls.play_steps(self), controls.step(self), controls.layer(self),
            controls.color(self), self._more, self._workshop, self._lesson, self.status, style="nlv-bar",
        )  # fmt: skip
        strip = styled(ipywidgets.HBox, "nlv-bar nlv-strip", *self.cursor.controls.row, self.cursor)
        self.children = [self._bar, self._alert, strip, self._shelf, self._grid]
        self._link(opened, self._paint, "dark")
        self._link(opened, self._offer_lesson, "world")
        self._link(opened, self._show_filter, ["filter", "selection"])
        self._link(self._more, self._open_drawer)
        self._link(self._workshop, self._open_tray)
        self._link(self._tabs, lambda change: self._choose(detail=change["new"]))
        self._paint(None)
        self._offer_lesson()
        self._show_filter()
        self._arrange()

    def __dir__(self) -> list[str]:
        return ["close", "export", "figure", "panels", "rail", "selection", "state", "tray"]

    def __repr__(self) -> str:
        state = self.state
        return f"<Studio of {', '.join(state.labels)} at episode {state.episode}, position {state.position}>"

    def _paint(self, change: Any) -> None:
        """Paint the whole studio dark or light, unless it follows its page."""
        for name, dark in (("nlv-on-light", False), ("nlv-on-dark", True)):
            (self.add_class if self.state.dark is dark else self.remove_class)(name)

    def _arrange(self, change: Any = None) -> None:
        """Arrange the panels as the user chose, or else by the preset for this kind of world."""
        state, panels = self.state, {panel.name: panel for panel in PANELS}
        movable = [name for name in panels if name not in ("world", "space")]
        chosen: dict[str, Any] = {**self._preset(), **state.arrangement.get(state.world, {})}
        beside, detail = (one_of("panel", chosen[place], movable) for place in ("beside", "detail"))
        if detail == beside:
            detail = next(name for name in movable if name != beside)
        large = chosen.get("large")
        folded = [one_of("panel", name, panels) for name in chosen.get("folded", ())]
        # Questions that do not apply here come last.
        tabs = sorted((name for name in movable if name != beside), key=lambda name: bool(panels[name].unsuited(state)))
        self._beside = beside
        opening = state.loop.running and not self.panels.made and large is None
        in_sight = {"world", "space", beside, detail} if large is None else {one_of("panel", large, panels)}
        with self._still():
            self._tabs.options = [(panels[name].tab, name) for name in tabs]
            self._tabs.value = detail
            self._tabs.tooltips = [panels[name].question for name in tabs]
            if opening:
                self.panels["world"]
                # Makes the others after the loop has drawn the world.
                state.loop.soon(self._complete)
            else:
                # The latents last: their panel fits probes and starts WebGL, and the others appear before that.
                for name in sorted((name for name in panels if name in in_sight), key=lambda name: name == "space"):
                    self.panels[name]
                view: Any = self.panels["space"].view
                view.value = one_of("view", chosen["view"], dict(view.options).values())
            for name, panel in self.panels.made.items():
                place = name if name in ("world", "space") else "beside" if name == beside else "detail"
                for other in ("beside", "detail"):
                    (panel.add_class if place == other else panel.remove_class)(f"nlv-at-{other}")
                panel.folded, panel.large, panel.shown = name in folded, name == large, name in in_sight
        self._line.layout.display = None if detail in in_sight else "none"
        left, right = self._columns
        made = self.panels.made
        others = [panel for name, panel in made.items() if name not in ("world", "space", beside)]
        fixed = {name: [made[name]] if name in made else [] for name in ("world", "space", beside)}
        sides = (*fixed["world"], *fixed[beside]), (*fixed["space"], self._line, *others)
        for column, parts in zip(self._columns, sides, strict=True):
            if column.children != parts:
                column.children = parts
        left.layout.display = None if in_sight & {"world", beside} else "none"
        right.layout.display = None if in_sight - {"world", beside} else "none"

    def _add(self, kind: type[Panel]) -> Panel:
        """Make a panel; the next `_arrange` puts it in place."""
        panel = kind(state=self.state)
        panel.on_pin = lambda panel: self.tray.pin(panel)
        self._link(panel, lambda change: self._choose(large=panel.name if change["new"] else None), "large")
        self._link(panel, self._fold, "folded")
        if isinstance(panel, SpacePanel):
            self._link(panel.view, self._choose_view)
        self._columns[1].children += (panel,)
        # Observe last again: the panels must have updated the options that the arrangement chooses from.
        self.state.unobserve(self._complete, _ARRANGING)
        self.state.observe(self._complete, _ARRANGING)
        return panel

    def _preset(self) -> dict[str, str]:
        """Return the view and the two panels to show first for this kind of world."""
        if self.state.scene.recursive:
            return {"view": "pca", "beside": "knows", "detail": "thinking"}
        placing = self.state.scene.placing
        first = "knows" if "belief" in placing or TaskPanel.unsuited(self.state) else "task"
        return {"view": next(iter(placing), "pca"), "beside": "next", "detail": first}

    def _choose(self, **choices: Any) -> None:
        if not self._following:
            self.state.arrange(**choices)

    def _choose_view(self, change: Any) -> None:
        # A change while the list is refilled for another world is not the user's choice.
        if not self.panels["space"]._following:
            self._choose(view=change["new"])

    @property
    def filter(self) -> controls.Filter:
        """The filter in the drawer, with the theme; its summary is in the bar."""
        if self._filter is None:
            self._filter = controls.Filter(self.state)
            self._drawer = ipywidgets.VBox([self._filter, controls.theme(self)], layout={"display": "none"})
            self._shelf.children += (self._drawer,)
            self._bar.children += (self._filter.summary, self._filter.clear)
        return self._filter

    def _show_filter(self, change: Any = None) -> None:
        """Make the filter when there is something to summarise."""
        if self.state.filter or self.state.selection:
            _ = self.filter

    def _open_drawer(self, change: Any) -> None:
        _ = self.filter
        self._drawer.layout.display = None if change["new"] else "none"

    @property
    def rail(self) -> Rail:
        """The steps of a lesson."""
        if self._rail is None:
            self._rail = Rail(self.state, self.panels)
            self._link(self._rail, self._offer_lesson, "lesson")
            self._shelf.children = (self._rail, *self._shelf.children)
        return self._rail

    def _open_lesson(self) -> None:
        """Open a lesson, or leave the open one."""
        self.rail.toggle()

    def _offer_lesson(self, change: Any = None) -> None:
        """Show the button if there is a lesson about these models."""
        lesson = None if self._rail is None else self._rail.lesson
        self._lesson.layout.display = None if lesson or lessons_about(self.state) else "none"

    @property
    def tray(self) -> Tray:
        """The pinned figures."""
        if self._tray is None:
            self._tray = Tray(self.state)
            self._link(self._tray, self._open_tray, "count")
            self._open_tray(None)
            self.children = [*self.children, self._tray]
        return self._tray

    def _open_tray(self, change: Any) -> None:
        """Show the tray in place of the panels, or only the number of pinned figures."""
        opened = self._workshop.value
        self._grid.layout.display = "none" if opened else None
        if opened or self._tray is not None:
            count = self.tray.count
            self._workshop.description = f"Figures ({count})" if count else "Figures"
            self.tray.shown, self.tray.layout.display = opened, None if opened else "none"

    def _fold(self, change: Any) -> None:
        self._choose(folded=tuple(name for name, panel in self.panels.made.items() if panel.folded))

    def _exchange(self) -> None:
        self._choose(beside=self._tabs.value, detail=self._beside)

    def close(self) -> None:
        """Take the studio off the page and out of memory, with its panels."""
        if not self._closed:
            self.state.loop.forget(self._complete)
            PlotlyLibrary.give_back()
        super().close()

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
        size : {"column", "single", "text", "slide", "poster"}, optional
            What the figure is for: a column or the text width of a paper, a slide, a poster. It gets that width, a
            fitting text size and dark text on white. Default as shown.
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
            When the panel shows no figure, or a figure with more views in a row than fit into the size.
        """
        one_of("panel", panel, self.panels)
        target = require_new(path, overwrite)
        figure = self.figure(panel)
        about = {**provenance_in(figure)["parts"][0], "caption": figures.figure_caption(figure)}
        if size is not None:
            figure = figures.for_print(figure, size)
        return figures.write_figure(figure, target, {**about, "size": size or "as shown"})

    def figure(self, panel: str, size: tuple[int, int] | None = None) -> go.Figure:
        """Return everything a panel shows, also the text below it, as one figure.

        Missing results, such as probes, are computed first. `figures.figure_caption` says what the figure was made
        from.

        Parameters
        ----------
        panel : str
            One of `panels`, such as ``"space"``.
        size : (int, int), optional
            Width and height in pixels; default as on the page.

        Raises
        ------
        UnknownNameError
            For a panel that does not exist.
        ValueError
            When the panel shows no figure.

        Examples
        --------
        >>> from nextlat_viz.notebook.serve import studio
        >>> opened = studio("rrxor/next_token", "rrxor/nextlat")
        >>> figure = opened.figure("world")
        >>> figures.figure_caption(figure).split("?")[0]
        'Where are we in the world'
        >>> opened.close()
        """
        shown, state = self.panels[one_of("panel", panel, self.panels)], self.state
        queues = (state.jobs, state.layouts, state.history)
        state.loop.flush()
        while shown.plot is not None or not shown.drawn:
            # A probe that has been fitted may lead the panel to ask for another.
            if all(queue.running is None for queue in queues):
                break
            for queue in queues:
                queue.wait()
        return panel_figure(shown, size)


class Panels(Mapping[str, Panel]):
    """The panels of a studio by name. Each is made when it is first asked for; `made` holds those made so far."""

    def __init__(self, make: Callable[[type[Panel]], Panel]) -> None:
        self._make = make
        self.made: dict[str, Panel] = {}

    def __getitem__(self, name: str) -> Panel:
        if name not in self.made:
            kinds = {panel.name: panel for panel in PANELS}
            self.made[name] = self._make(kinds[name])
        return self.made[name]

    def __iter__(self) -> Iterator[str]:
        return iter([panel.name for panel in PANELS])

    def __len__(self) -> int:
        return len(PANELS)
