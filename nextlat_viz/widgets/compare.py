"""One episode, stepped through."""

from __future__ import annotations

from typing import Any

import ipywidgets
import plotly.graph_objects as go

from nextlat_viz import figures
from nextlat_viz.figures.theme import Theme
from nextlat_viz.widgets import controls
from nextlat_viz.widgets.base import View
from nextlat_viz.widgets.plot import Points
from nextlat_viz.widgets.state import ViewState

_LABEL = {"description_width": "auto"}


class TrajectoryCompare(View):
    """How each model's belief moves through an episode, beside how it should, token by token.

    Press play or drag the slider; click a token, a point of a path or of an error curve to go there; drag over them
    to select.

    Parameters
    ----------
    *what
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
        What is drawn, one per model.

    Examples
    --------
    >>> compare = TrajectoryCompare("rrxor/next_token", "rrxor/nextlat")
    >>> compare.state.position = 3
    >>> len(compare.paths), compare.state.position
    (2, 3)
    >>> compare.close()
    """

    def __init__(self, *what: Any, state: ViewState | None = None, theme: Theme | None = None) -> None:
        super().__init__(*what, state=state, theme=theme)
        self._episode = ipywidgets.BoundedIntText(
            description="Episode", tooltip="Which episode is followed", style=_LABEL, layout={"width": "150px"}
        )
        self._side = ipywidgets.HTML()
        self._next = ipywidgets.Button(
            description="Next held-out",
            tooltip="Go to the next episode no probe was fitted on",
            layout={"width": "auto"},
        )
        self._next.on_click(self._guarded(self._go_on))
        self._play = ipywidgets.Play(interval=800, min=1, tooltip="Step through the episode")
        self._slider = ipywidgets.IntSlider(
            description="Position", tooltip="How many tokens have been read", min=1, continuous_update=False,
            style=_LABEL, layout={"width": "360px"},
        )  # fmt: skip
        self._follow(None)
        # Linked in the page, so that playing does not wait for the kernel.
        self._jslink = ipywidgets.jslink((self._play, "value"), (self._slider, "value"))
        own = [] if self._shares else [controls.world(self), controls.site(self), controls.step(self)]
        last = [] if self._shares else [controls.theme(self)]
        self._show(
            above=[
                *([controls.row(*own, *last)] if own else []),
                controls.row(self._episode, self._next, self._side, self._play, self._slider),
            ],
            below=[],
            on_click=self._click,
            on_select=self._select,
        )
        self._link(self._episode, self._set_episode)
        self._link(self._slider, self._set_position)
        for name in ("world", "step", "site", "episode", "position"):
            self._link(self.state, self._follow, name)

    def __dir__(self) -> list[str]:
        return sorted([*super().__dir__(), "paths"])

    @property
    def paths(self) -> list[Any]:
        """The episode's path in each model, as `analysis.read_trajectory` gives it."""
        state = self.state
        return [state.scene.path(i, state.site, state.episode) for i in range(len(state.latents))]

    def _looks_at(self) -> Any:
        state = self.state
        return id(state.scene), state.site, state.episode, state.position, self._selected(), state.dark

    def _selected(self) -> tuple[int, ...]:
        return tuple(position for episode, position in self.state.selection if episode == self.state.episode)

    def _figure(self) -> go.Figure:
        state = self.state
        return figures.trajectories(
            state.latents,
            self.paths,
            state.position,
            labels=state.labels,
            selection=self._selected(),
            theme=state.theme,
        )

    def _follow(self, change: Any) -> None:
        """Show where the state is."""
        state, scene = self.state, self.state.scene
        places = scene.positions(state.episode)
        with self._episode.hold_trait_notifications():
            self._episode.min, self._episode.max = int(scene.episodes[0]), int(scene.episodes[-1])
            self._episode.value = state.episode
        for control in (self._slider, self._play):
            with control.hold_trait_notifications():
                # The larger bound first: at no moment may the range be empty.
                control.max = max(places[-1], control.max)
                control.min, control.max = places[0], places[-1]
                control.value = state.position
        held_out = state.episode in scene.held_out_episodes
        said = "held out from the probes" if held_out else "probes were fitted on it"
        self._side.value = f'<span style="margin:0 14px">{said}</span>'

    def _set_episode(self, change: Any) -> None:
        self.state.episode = self._episode.value

    def _set_position(self, change: Any) -> None:
        self.state.position = self._slider.value

    def _go_on(self, button: Any) -> None:
        its = self.state.scene.held_out_episodes
        later = its[its > self.state.episode]
        self.state.episode = int(later[0] if later.size else its[0])

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
        """Take the widget off the page and out of memory."""
        if not self._closed:
            self._jslink.unlink()
        super().close()
