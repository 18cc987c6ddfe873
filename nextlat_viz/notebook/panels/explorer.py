"""LatentExplorer: the latent-space panel alone, with the controls of a studio."""

from __future__ import annotations

from typing import Any

import ipywidgets

from nextlat_viz.display import escape
from nextlat_viz.notebook import controls
from nextlat_viz.notebook.panel import choice
from nextlat_viz.notebook.panels.space import SpacePanel
from nextlat_viz.notebook.plot import Plot

_MOUSE = [("select (box)", "select"), ("select (lasso)", "lasso"), ("zoom", "zoom"), ("move", "pan")]


class LatentExplorer(SpacePanel):
    """The latents of one or several models: PCA, UMAP, and the belief a linear probe reads from them.

    A row of views per model, the same rows of the table in every view. Drag to select points, in all views and in
    all widgets that share the state; click a point to move the cursor there.

    Parameters
    ----------
    *models
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
