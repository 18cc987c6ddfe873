"""Widgets of one panel: a studio's panel alone, with the controls that it needs."""

from __future__ import annotations

from typing import Any

import ipywidgets
import numpy as np
import plotly.graph_objects as go
from jaxtyping import Bool

from nextlat_viz import figures
from nextlat_viz.display import escape
from nextlat_viz.errors import LatentsError
from nextlat_viz.figures.theme import Theme
from nextlat_viz.figures.trajectories import trajectories
from nextlat_viz.notebook import controls
from nextlat_viz.notebook.box import choice
from nextlat_viz.notebook.cursor import EpisodeControls
from nextlat_viz.notebook.panel import Panel
from nextlat_viz.notebook.panels.answers import sentence
from nextlat_viz.notebook.panels.space import SpacePanel
from nextlat_viz.notebook.plot import Plot, Points
from nextlat_viz.notebook.state import ViewState

_MOUSE = [("select (box)", "select"), ("select (lasso)", "lasso"), ("zoom", "zoom"), ("move", "pan")]
_CELL = "padding:2px 18px 2px 0;text-align:right"


class LatentExplorer(SpacePanel):
    """The latents of one or several models: PCA, UMAP, and the belief that a linear probe predicts from them.

    A row of views per model, the same rows of the table in every view. Drag to select points, in all views and in
    all widgets that share the state; click a point to move the cursor there.

    Parameters
    ----------
    *models
        Models side by side: checkpoints, their names, or latents; or ``{world name: models}``.
    state : ViewState, optional
        The state of other widgets to link with, instead of models.
    theme : {"auto", "light", "dark"}, optional

    Attributes
    ----------
    state : ViewState
    selection : DataFrame
        The selected rows.

    Examples
    --------
    >>> explorer = LatentExplorer("rrxor/next_token", "rrxor/nextlat")
    >>> explorer.state.color = "position"
    >>> explorer.state.select(range(3))
    >>> explorer.selection["position"].tolist()
    [1, 2, 3]
    >>> explorer.close()
    """

    framed = False

    def _choice_of_view(self) -> Any:
        return choice("View", "How the latents are laid out")

    def _build(self) -> None:
        self._mouse = choice("Drag to", "What dragging with the mouse does", _MOUSE)
        self._count, self._where = ipywidgets.HTML(), ipywidgets.HTML()
        self._clear = self._button("Clear selection", "Select nothing", lambda: self._select(None))
        self._jobs = controls.StatusLine(self.state.jobs)
        shared = controls.row(
            controls.world(self), controls.color(self), controls.layer(self), controls.step(self), self._mouse,
            controls.theme(self), self.points, self.view, self._jobs, self.status,
        )  # fmt: skip
        self._show(
            above=[shared],
            below=[self.nearest, self.strip, controls.row(self._count, self._clear, self._where)],
            on_click=self._click, on_select=self._select, on_key=self._isolate,
            stage=(self._frame, self._points.box),
        )  # fmt: skip
        self._link(self._mouse, self._set_mouse)

    def _place(self, plot: Plot) -> None:
        super()._place(plot)
        plot.layout.on_change(self._guarded(self._show_mouse), "dragmode")

    def _describe(self) -> None:
        """Say how many rows are selected and where the cursor is."""
        super()._describe()
        state, scene = self.state, self.state.scene
        n = len(state.selection)
        total = scene.latents[0].n_obs
        part = "" if len(scene.shown) == total else f", {len(scene.shown):,} of them drawn"
        text = f"{n:,} of {total:,} rows selected{part}" if n else f"{total:,} rows{part}; drag over a view to select"
        self._count.value = f'<span role="status">{text}</span>'
        self._clear.disabled = not n
        (row,) = scene.rows([(state.episode, state.position)])
        read = escape(scene.reads(int(row)))
        self._where.value = (
            f'<span style="margin-left:16px">Cursor: episode {state.episode}, position {state.position}, '
            f"read <code>{read}</code></span>"
        )

    def _set_mouse(self, change: Any) -> None:
        if self._plot is not None:
            self._plot.layout.dragmode = self._mouse.value

    def _show_mouse(self, layout: Any, mode: str) -> None:
        if mode in dict(_MOUSE).values():
            self._mouse.value = mode


class ProbeLab(Panel):
    """Scores of linear probes with their controls, by layer and by position.

    Click a layer to show it everywhere; click a position, or drag over several, to select its rows. A table below the
    figure has the probe's error on the selected and on the other held-out rows.

    Parameters
    ----------
    *models
        Models side by side: checkpoints, their names, or latents; or ``{world name: models}``.
    state : ViewState, optional
        The state of other widgets to link with, instead of models; world, layer and step are then chosen there.
    theme : {"auto", "light", "dark"}, optional

    Attributes
    ----------
    state : ViewState
    selection : DataFrame
        The selected rows, with each model's error.

    Examples
    --------
    >>> lab = ProbeLab("rrxor/next_token", "rrxor/nextlat")
    >>> [result.label for result in lab.results]
    ['next-token', 'NextLat']
    >>> lab.close()
    """

    name, question, framed = "probes", "How much of the truth can a linear probe read?", False
    follows, watches = ("target", "site", "dark"), ("selection",)

    def __init__(self, *models: Any, state: ViewState | None = None, theme: Theme | None = None) -> None:
        super().__init__(*models, state=state, theme=theme)
        self._table = ipywidgets.HTML()
        self._show(
            above=[controls.row(*controls.own(self, controls.target(self)))],
            below=[self._table],
            on_click=self._click,
            on_select=self._select,
        )

    def __dir__(self) -> list[str]:
        return sorted([*super().__dir__(), "results"])

    @property
    def results(self) -> list[Any]:
        """The probe of each model, as `analysis.probe` returns it."""
        state = self.state
        return [state.scene.probe(i, state.target, state.site) for i in range(len(state.latents))]

    def _figure(self) -> go.Figure | str:
        state, scene = self.state, self.state.scene
        models = range(len(scene.latents))
        try:
            results = self.results
            by_site = [scene.by_site(i, state.target) for i in models]
            by_position = [scene.by_position(i, state.target, state.site) for i in models]
        except LatentsError as error:
            return sentence(f"there is no probe: {error}")
        return figures.probe_overview(
            results, by_site, by_position, labels=scene.labels, site=state.site, theme=state.theme
        )

    def _describe(self) -> None:
        """Write the error on the selection and on the other rows, a line per model."""
        state, scene = self.state, self.state.scene
        if self._message:
            self._table.value = ""
            return
        if not state.selection:
            self._table.value = "<span>Select rows here or in a linked view to see the probe's error on them.</span>"
            return
        inside = np.zeros(scene.latents[0].n_obs, dtype=bool)
        inside[state.rows] = True
        lines = [[escape(label), *self._errors(i, inside)] for i, label in enumerate(scene.labels)]
        error = "mean squared error" if self.results[0].metric == "R2" else "share of wrong classes"
        head = "".join(f'<th style="{_CELL}">{cell}</th>' for cell in (error, "selection", "other rows"))
        body = "".join(f"<tr>{''.join(f'<td style={_CELL!r}>{cell}</td>' for cell in line)}</tr>" for line in lines)
        self._table.value = f'<table role="status"><tr>{head}</tr>{body}</table>'

    def _errors(self, model: int, inside: Bool[np.ndarray, " rows"]) -> list[str]:
        """Return the mean error on the held-out rows of the selection and on the other held-out rows."""
        state, scene = self.state, self.state.scene
        mistakes = scene.mistakes(model, state.target, state.site)
        held_out = scene.held_out(model, state.target, state.site)
        parts = [mistakes[held_out & side] for side in (inside, ~inside)]
        return [f"{part.mean():.4f} <small>({part.size:,} rows)</small>" if part.size else "no rows" for part in parts]

    def _click(self, points: Points) -> None:
        for trace, point in self.plot.points(points, "site"):
            self.state.site = str(self.plot.data[trace].x[point])
        if self.plot.points(points, "position"):
            self._select(points)

    def _select(self, points: Points | None) -> None:
        chosen = {int(self.plot.data[trace].x[point]) for trace, point in self.plot.points(points, "position")}
        self.state.select(np.flatnonzero(np.isin(self.state.latents[0].obs["position"], list(chosen))).tolist())


class TrajectoryCompare(Panel):
    """The path of each model's belief through an episode, with the exact one, token by token.

    Press play or drag the slider; click a token, a point of a path or of an error curve to go there; drag over them
    to select.

    Parameters
    ----------
    *models
        Models side by side: checkpoints, their names, or latents; or ``{world name: models}``.
    state : ViewState, optional
        The state of other widgets to link with, instead of models; world, layer and step are then chosen there.
    theme : {"auto", "light", "dark"}, optional

    Attributes
    ----------
    state : ViewState
    selection : DataFrame
        The selected rows.
    paths : list of Trajectory
        The drawn paths, one per model.

    Examples
    --------
    >>> compare = TrajectoryCompare("rrxor/next_token", "rrxor/nextlat")
    >>> compare.state.position = 3
    >>> len(compare.paths), compare.state.position
    (2, 3)
    >>> compare.close()
    """

    name, question, framed = "trajectories", "How does the model's belief move through an episode?", False
    follows, watches = ("site", "episode", "position", "dark"), ("selection",)

    def __init__(self, *models: Any, state: ViewState | None = None, theme: Theme | None = None) -> None:
        super().__init__(*models, state=state, theme=theme)
        self._controls = EpisodeControls(self)
        self._why = ipywidgets.HTML()
        own = controls.own(self)
        self._show(
            above=[*([controls.row(*own)] if own else []), controls.row(*self._controls.row), self._why],
            on_click=self._click,
            on_select=self._select,
        )

    def __dir__(self) -> list[str]:
        return sorted([*super().__dir__(), "paths"])

    @property
    def paths(self) -> list[Any]:
        """The episode's path in each model, as `analysis.read_trajectory` returns it."""
        state = self.state
        return [state.scene.path(i, state.site, state.episode) for i in range(len(state.latents))]

    def _depends_on(self) -> tuple[Any, ...]:
        return (self._selected(),)

    def _selected(self) -> tuple[int, ...]:
        return tuple(position for episode, position in self.state.selection if episode == self.state.episode)

    def _figure(self) -> go.Figure:
        state = self.state
        return trajectories(
            state.latents,
            self.paths,
            state.position,
            labels=state.labels,
            selection=self._selected(),
            theme=state.theme,
        )

    def _describe(self) -> None:
        """Say why the paths are drawn by PCA if there is no probe."""
        _, why = self.state.scene.path_probes(0, self.state.site)
        self._why.value = escape(sentence(f"paths are drawn by PCA, because there is no probe: {why}")) if why else ""

    def _click(self, points: Points) -> None:
        touched = self._positions(points)
        if touched:
            self.state.position = touched[0]

    def _select(self, points: Points | None) -> None:
        self.state.selection = tuple((self.state.episode, position) for position in self._positions(points))

    def _positions(self, points: Points | None) -> list[int]:
        places = self.state.scene.positions(self.state.episode)
        return sorted({places[point] for _, point in self.plot.points(points, "path", "error", "strip")})

    def close(self) -> None:
        if not self._closed:
            self._controls.close()
        super().close()
