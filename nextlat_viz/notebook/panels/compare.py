"""The trajectory panel: the path of each model's belief through one episode."""

from __future__ import annotations

from typing import Any

import ipywidgets
import plotly.graph_objects as go

from nextlat_viz.display import escape
from nextlat_viz.figures.theme import Theme
from nextlat_viz.figures.trajectories import trajectories
from nextlat_viz.notebook import controls
from nextlat_viz.notebook.panel import Panel
from nextlat_viz.notebook.panels.answers import sentence
from nextlat_viz.notebook.plot import Points
from nextlat_viz.notebook.state import ViewState


class TrajectoryCompare(Panel):
    """The path of each model's belief through an episode, with the exact one, token by token.

    Press play or drag the slider; click a token, a point of a path or of an error curve to go there; drag over them
    to select.

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
        self._controls = controls.EpisodeControls(self)
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
        """Say why the paths are those of the PCA where no probe reads them."""
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
