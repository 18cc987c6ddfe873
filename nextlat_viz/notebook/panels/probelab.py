"""The probe panel: scores of linear probes by layer, by position, and on the selected rows."""

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
from nextlat_viz.notebook import controls
from nextlat_viz.notebook.panel import Panel
from nextlat_viz.notebook.panels.answers import sentence
from nextlat_viz.notebook.plot import Points
from nextlat_viz.notebook.state import ViewState

_CELL = "padding:2px 18px 2px 0;text-align:right"


class ProbeLab(Panel):
    """Scores of linear probes with their controls, by layer and by position.

    Click a layer to show it everywhere; click a position, or drag over several, to select its rows. Below the figure
    is the probe's error on the selection and on the other rows, over held-out rows.

    Parameters
    ----------
    *models
        Models side by side: checkpoints, their names, or latents; or ``{world name: models}``.
    state : ViewState, optional
        In place of models, to link this widget with others; world, layer and training step are then chosen there.
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
        """The error on the selection and on the other rows, a line per model."""
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
        """The mean error on the held-out rows of the selection and on the other held-out rows."""
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
