"""Where does the model think we are: the latents of every model, with the episode as a path through them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ipywidgets
import numpy as np
from jaxtyping import Int

from nextlat_viz import figures
from nextlat_viz.errors import LatentsError
from nextlat_viz.figures.rows import BELIEF
from nextlat_viz.widgets import controls
from nextlat_viz.widgets.layouts import UmapQueue
from nextlat_viz.widgets.plot import Points
from nextlat_viz.widgets.state import ViewState
from nextlat_viz.widgets.studio.card import Card
from nextlat_viz.widgets.studio.strip import clipped
from nextlat_viz.widgets.studio.turns import Turns

_PLACE = ("x", "y")
# Characters of a label that fit beside its row of views.
_LONGEST = 32


class SpaceCard(Card):
    """PCA and UMAP of each model, and what a linear probe reads in the world's own coordinates where it has some."""

    name, question = "space", "Where does the model think we are?"

    def __init__(self, state: ViewState, turns: Turns) -> None:
        super().__init__(state, turns)
        self._umap_line = ipywidgets.HTML()
        self._umap_button = ipywidgets.Button(layout={"width": "auto", "display": "none"})
        self._umap_button.on_click(self._guarded(self._press))
        self._umaps = UmapQueue(self._later, self._ask, self._say_umap, self._complain)
        self._show(
            above=[controls.row(self._umap_line, self._umap_button)], on_click=self._click, on_select=self._select
        )

    def _looks_at(self) -> Any:
        """All but the cursor, then the cursor."""
        state = self.state
        scene = state.scene
        umaps = (one if isinstance(one, str) else id(one) for one in scene.umap(state.site))
        kept = tuple(sorted(state.filter.items()))
        around = (id(scene), *umaps, state.color, state.site, state.selection, kept, state.dark)
        return around, (state.episode, state.position)

    def _prepare(self) -> None:
        self._umaps.want(self.state.scene, self.state.site)
        running = self._umaps.running
        self._umap_button.description = "Cancel UMAP" if running else "Compute UMAP"
        self._umap_button.layout.display = None if running or self._umaps.stopped else "none"

    def _draw(self, looks: Any) -> None:
        if self._drawn is not None and looks[0] == self._drawn[0]:
            self._move_cursor()
        else:
            super()._draw(looks)

    def _figure(self) -> Any:
        state, scene = self.state, self.state.scene
        models = range(len(scene.latents))
        planes = [
            {"pca": pca, "umap": umap}
            for pca, umap in zip(scene.pca(state.site), scene.umap(state.site), strict=True)
        ]  # fmt: skip
        for i in models:
            planes[i].update(self._read_place(i))
        return figures.clouds(
            scene.latents,
            planes,
            [self._reading(i) for i in models],
            state.color,
            labels=[clipped(label, _LONGEST) for label in scene.labels],
            rows=scene.shown,
            selection=self._standing_out(),
            cursor=(state.episode, state.position),
            theme=state.theme,
        )

    def _standing_out(self) -> Int[np.ndarray, " rows"] | None:
        """The selected rows that the filter keeps; without a selection, all it keeps."""
        state = self.state
        if not state.filter:
            return state.rows if state.selection else None
        return state.rows[state.kept[state.rows]] if state.selection else np.flatnonzero(state.kept)

    def _reading(self, model: int) -> Any:
        """The probe of the belief where the world has coordinates for it, or why there is none."""
        scene = self.state.scene
        if BELIEF not in scene.targets or not hasattr(scene.world, "belief_coordinates"):
            return None
        try:
            return scene.probe(model, BELIEF, self.state.site)
        except (LatentsError, ValueError) as error:
            return str(error)

    def _read_place(self, model: int) -> dict[str, Any]:
        """Where a linear probe says we are, in a world that knows the place: a view of its own."""
        scene, site = self.state.scene, self.state.site
        if not set(_PLACE) <= set(scene.targets):
            return {}
        try:
            probes = [scene.probe(model, name, site) for name in _PLACE]
        except (LatentsError, ValueError) as error:
            return {"place": str(error)}
        read = np.concatenate([one.predict(scene.latents[model])[scene.shown] for one in probes], axis=1)
        scores = ", ".join(f"{one.score:.2f}".replace("-", "−") for one in probes)
        plane = scene.pca(site)[model]
        return {
            f"Place, by linear probes: R² {scores}": replace(
                plane, coordinates=read.astype(np.float32), explained_variance=None, trustworthiness=None,
                note=f"x and y as linear probes read them. {probes[0].note}",
            )
        }  # fmt: skip

    def _path(self) -> Int[np.ndarray, " positions"]:
        """Which of the drawn points are the cursor's episode, up to the cursor, in reading order."""
        state, scene = self.state, self.state.scene
        keys = [(state.episode, place) for place in scene.positions(state.episode) if place <= state.position]
        at = np.searchsorted(scene.shown, scene.rows(keys))
        return at if at.size and at[-1] < len(scene.shown) and scene.shown[at[-1]] == scene.rows(keys)[-1] else at[:0]

    def _move_cursor(self) -> None:
        """Send the cursor and nothing else, as `figures.clouds` draws it: every point stays where it is."""
        path = self._path()
        marks: dict[Any, dict[Any, Any]] = {}
        assert self._plot is not None
        drawn: Any = self._plot.data
        for trace in drawn:
            about = trace.meta or {}
            marks.setdefault((about.get("model"), about.get("column")), {})[about.get("role")] = trace
        with self._plot.batch_update():
            for view in marks.values():
                if "cursor" in view and view["points"].x is not None:
                    points, cursor = view["points"], view["cursor"]
                    cursor.x, cursor.y = points.x[path], points.y[path]
                    cursor.marker.size = [4.0] * (len(path) - 1) + [16.0] * (len(path) > 0)

    def _say_umap(self, said: str) -> None:
        self._umap_line.value = f'<span role="status" aria-live="polite">{figures.escape(said)}</span>' if said else ""

    def _press(self, button: Any) -> None:
        (self._umaps.cancel if self._umaps.running else self._umaps.again)()
        self._ask()

    def _click(self, points: Points) -> None:
        rows = self._rows(points)
        if rows:
            self.state.go_to(*self.state.scene.keys(rows[:1])[0])

    def _select(self, points: Points | None) -> None:
        kept = self.state.kept
        self.state.select(row for row in self._rows(points) if kept[row])

    def _rows(self, points: Points | None) -> list[int]:
        assert self._plot is not None
        shown = self.state.scene.shown
        return sorted({int(shown[point]) for _, point in self._plot.points(points, "points")})

    def close(self) -> None:
        """Take the card off the page and out of memory; a UMAP under way is stopped."""
        if not self._closed:
            self._umaps.close()
        super().close()
