"""Clouds of latents to look around in."""

from __future__ import annotations

from typing import Any

import ipywidgets
import plotly.graph_objects as go

from nextlat_viz import figures
from nextlat_viz.display import escape
from nextlat_viz.figures.rows import BELIEF, prefix
from nextlat_viz.figures.theme import Theme
from nextlat_viz.notebook import controls
from nextlat_viz.notebook.base import View
from nextlat_viz.notebook.plot import Points
from nextlat_viz.notebook.state import ViewState

MOUSE = [("selects a box", "select"), ("selects freely (lasso)", "lasso"), ("zooms", "zoom"), ("moves", "pan")]


class LatentExplorer(View):
    """The latents of one or several models: PCA, UMAP, and the belief a linear probe reads from them.

    A row of views per model, the same rows of the table in every view. Drag to select points, in all views and in
    all widgets that share the state; click one to move the cursor there.

    Parameters
    ----------
    *what
        Models side by side: checkpoints, their names, or latents; or ``{world name: models}``.
    state : ViewState, optional
        In place of models, to link this widget with others.
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

    def __init__(self, *what: Any, state: ViewState | None = None, theme: Theme | None = None) -> None:
        super().__init__(*what, state=state, theme=theme)
        self._mouse = ipywidgets.Dropdown(
            options=MOUSE, description="Dragging", tooltip="What dragging the mouse over a view does",
            style={"description_width": "auto"}, layout={"width": "auto", "margin": "2px 12px 2px 0"},
        )  # fmt: skip
        self.status = [
            controls.StatusLine(self.state.jobs),
            controls.StatusLine(self.state.layouts, self._redraw),
        ]  # fmt: skip
        self._where = ipywidgets.HTML()
        self._count = ipywidgets.HTML()
        self._clear = ipywidgets.Button(description="Clear selection", tooltip="Select nothing", disabled=True)
        self._clear.on_click(self._guarded(lambda button: self._select(None)))
        self._show(
            above=[
                controls.row(
                    controls.world(self), controls.color(self), controls.site(self), controls.step(self), self._mouse,
                    controls.theme(self),
                ),
                controls.row(*self.status),
            ],
            below=[controls.row(self._count, self._clear, self._where)],
            on_click=self._click,
            on_select=self._select,
        )  # fmt: skip
        self._link(self._mouse, self._set_mouse)
        self.plot.layout.on_change(self._guarded(self._show_mouse), "dragmode")
        self._tell()

    def _looks_at(self) -> Any:
        state = self.state
        self._umaps = state.ask_umaps(state.site, self._redraw)
        return (
            id(state.scene), *(umap if isinstance(umap, str) else id(umap) for umap in self._umaps),
            state.color, state.site, state.episode, state.position, state.selection, state.dark,
        )  # fmt: skip

    def _figure(self) -> go.Figure:
        state, scene = self.state, self.state.scene
        planes = zip(scene.pca(state.site), self._umaps, strict=True)
        return figures.clouds(
            scene.latents,
            [{"pca": pca, "umap": umap} for pca, umap in planes],
            [
                scene.probe(i, BELIEF, state.site) if BELIEF in scene.targets else None
                for i in range(len(scene.latents))
            ],
            state.color,
            labels=scene.labels,
            rows=scene.shown,
            selection=state.rows if state.selection else None,
            cursor=(state.episode, state.position),
            theme=state.theme,
        )

    def _redraw(self) -> None:
        if not self._closed:
            super()._redraw()
            self._tell()

    def _tell(self) -> None:
        """Say in words what is selected and where the cursor is."""
        state, scene = self.state, self.state.scene
        n = len(state.selection)
        total = scene.latents[0].n_obs
        part = "" if len(scene.shown) == total else f", {len(scene.shown):,} of them drawn"
        said = f"{n:,} of {total:,} rows selected{part}" if n else f"{total:,} rows{part}; drag over a view to select"
        self._count.value = f'<span role="status">{said}</span>'
        self._clear.disabled = not n
        names = [escape(name) for name in scene.vocabulary]
        line = scene.tokens[int(scene.episodes.searchsorted(state.episode))]
        read = prefix(line[: state.position], names)
        self._where.value = (
            f'<span style="margin-left:16px">Cursor: episode {state.episode}, position {state.position}, '
            f"read <code>{read}</code></span>"
        )
        self.status[1].follow()

    def _set_mouse(self, change: Any) -> None:
        self.plot.layout.dragmode = self._mouse.value

    def _show_mouse(self, layout: Any, mode: str) -> None:
        if mode in dict(MOUSE).values():
            self._mouse.value = mode

    def _click(self, points: Points) -> None:
        rows = self._rows(points)
        if rows:
            self.state.go_to(*self.state.scene.keys(rows[:1])[0])

    def _select(self, points: Points | None) -> None:
        self.state.select(self._rows(points))

    def _rows(self, points: Points | None) -> list[int]:
        shown = self.state.scene.shown
        return sorted({int(shown[point]) for _, point in self.plot.points(points, "points")})

    def close(self) -> None:
        """Take the widget off the page and out of memory; a UMAP under way is stopped."""
        if not self._closed:
            self.state.layouts.withdraw(self._redraw)
            for line in self.status:
                line.close()
        super().close()
