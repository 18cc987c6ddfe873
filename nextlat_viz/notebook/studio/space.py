"""Where does the model think we are: the latents of every model, with the episode as a path through them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ipywidgets
import numpy as np
from jaxtyping import Int

from nextlat_viz import figures
from nextlat_viz.errors import LatentsError
from nextlat_viz.figures.rows import BELIEF
from nextlat_viz.notebook import controls
from nextlat_viz.notebook.plot import Plot, Points
from nextlat_viz.notebook.state import ViewState
from nextlat_viz.notebook.studio.card import Card
from nextlat_viz.notebook.studio.every_point import EveryPoint
from nextlat_viz.notebook.studio.places import PLACE, VIEWS, Readings, places, read_by_probes, views
from nextlat_viz.notebook.studio.strip import clipped

if TYPE_CHECKING:
    from nextlat_viz.analysis import Projection

# Characters of a label that fit beside its row of views.
_LONGEST = 32
# Rows from which a sample is too small a part of them to begin with.
_MANY = 100_000
_LABEL = {"description_width": "auto"}
_ROOM = {"width": "auto", "max_width": "280px", "margin": "2px 10px 2px 0"}


class SpaceCard(Card):
    """PCA and UMAP of each model, and what linear probes read in the world's own coordinates where it has some.

    A figure shows all of these of as many rows as one bears; a larger table is drawn as clouds of every row, one view
    at a time.
    """

    name, question = "space", "Where does the model think we are?"

    def __init__(self, state: ViewState) -> None:
        super().__init__(state)
        self._readings: list[Readings] = []
        self._umaps: list[Projection | str] = []
        self._points = EveryPoint(self._guarded(self._go), self._guarded(self._pick))
        self._frame = ipywidgets.VBox(layout={"width": "100%"})
        self.points = ipywidgets.Dropdown(
            description="Draw", tooltip="A figure of some rows in all views, or every row in one", style=_LABEL,
            layout=_ROOM,
        )  # fmt: skip
        self.view = ipywidgets.Dropdown(
            description="View", tooltip="How the latents are laid out", style=_LABEL, layout=_ROOM
        )
        self.status = controls.StatusLine(state.layouts, self._ask)
        self._offer(None)
        self._link(state, self._offer, "world")
        self._show(
            above=[controls.row(self.points, self.view, self.status)],
            on_click=self._click, on_select=self._select,
        )  # fmt: skip
        for control in (self.points, self.view):
            self._link(control, lambda change: self._ask())

    def _open(self, above: Sequence[Any], below: Sequence[Any] = (), answer: Sequence[Any] = ()) -> None:
        super()._open(above, below, answer=(self._frame, self._points.box))

    def _place(self, plot: Plot) -> None:
        self._frame.children = (plot,)

    def _bring(self, wanted: Any) -> None:
        """Show the figure or the clouds. The other is hidden, not taken away."""
        for one in (self._frame, self._points.box):
            one.layout.display = None if one is wanted else "none"

    @property
    def clouds(self) -> list[Any]:
        """The clouds of every row, one for each model that has places in this view; none where a figure is drawn."""
        self.refresh()
        return [cloud for cloud in self._points.clouds if cloud is not None]

    @property
    def plot(self) -> Any:
        """The figure as the state is now; where clouds are drawn, their view as a figure."""
        self.refresh()
        return self._figure() if self.points.value else self._plot

    def _offer(self, change: Any) -> None:
        """Whether there is a choice between a figure and every row, and which views there are."""
        scene = self.state.scene
        total, shown = scene.latents[0].n_obs, len(scene.shown)
        more = total > shown
        sample = f"{shown:,} of {total:,} rows, all views" if more else "all views"
        self.points.options = [(sample, False), *([(f"all {total:,} rows, one view", True)] if more else [])]
        self.points.value = total > max(shown, _MANY)
        self.points.layout.display = None if more else "none"
        try:
            known = views(scene)
        except LatentsError:
            known = ["pca", "umap"]
        self.view.options = [(VIEWS[one], one) for one in known]
        self.view.value = known[0]

    def _looks_at(self) -> Any:
        """All but the cursor, then the cursor."""
        state = self.state
        scene = state.scene
        umaps = (one if isinstance(one, str) else id(one) for one in self._umaps)
        read = (one if isinstance(one, str) else id(one) for its in self._readings for one in its.values())
        where = (id(scene), *umaps, *read, state.site, self.points.value, self.points.value and self.view.value)
        marks = (state.selection, tuple(sorted(state.filter.items())))
        return (where, state.color, marks, state.dark), (state.episode, state.position)

    def _prepare(self) -> None:
        state = self.state
        every = bool(self.points.value)
        self.view.layout.display = None if every else "none"
        if not every or self.view.value == "umap":
            self._umaps = state.ask_umaps(state.site, self._ask)
        else:
            self._umaps = [""] * len(state.latents)
        self.status.follow()
        self._readings = [self._read(model) for model in range(len(state.scene.latents))]

    def _read(self, model: int) -> Readings:
        """The probes that predict where rows are, or a message in place of one that is not there."""
        scene, site = self.state.scene, self.state.site
        try:
            wanted = read_by_probes(scene)
        except LatentsError:
            # Latents of no known world have targets all the same, but no picture to read them in.
            return {}
        if self.points.value:
            wanted = {BELIEF: (BELIEF,), "place": PLACE}.get(self.view.value, ())
        found: dict[str, Any] = {}
        for name in wanted:
            try:
                found[name] = self._probe(model, name, site)
            except (LatentsError, ValueError) as error:
                found[name] = str(error)
        return found

    def _draw(self, looks: Any) -> None:
        if self.points.value:
            self._draw_clouds(looks)
        elif self._drawn is not None and looks[0] == self._drawn[0]:
            self._move_cursor()
        else:
            super()._draw(looks)
            self._points.close()
            self._bring(self._frame)

    def _draw_clouds(self, looks: Any) -> None:
        state, scene = self.state, self.state.scene
        (where, color, marks, _), _ = looks
        before = self._drawn[0] if self._drawn is not None else (None, None, None, None)
        self._say("")
        if where != before[0]:
            found = [
                places(scene, model, self.view.value, state.site, readings, umap)
                for model, (readings, umap) in enumerate(zip(self._readings, self._umaps, strict=True))
            ]
            self._points.draw([clipped(label, _LONGEST) for label in scene.labels], scene.latents, found, color)
            self._bring(self._points.box)
        elif color != before[1]:
            self._points.recolor(scene.latents, color)
        if (where, marks) != (before[0], before[2]):
            standing = self._standing_out()
            self._points.select(np.zeros(0, dtype=np.int64) if standing is None else standing)
        self._points.go_to(self._way())

    def _figure(self) -> Any:
        """All views, or the one that clouds are drawn in, of as many rows as a figure bears."""
        state, scene = self.state, self.state.scene
        models = range(len(scene.latents))
        planes: list[dict[str, Any]] = [
            {"pca": pca, "umap": umap}
            for pca, umap in zip(scene.pca(state.site), self._umaps, strict=True)
        ]  # fmt: skip
        if self.points.value:
            planes = [{name: plane for name, plane in its.items() if name == self.view.value} for its in planes]
        for i in models:
            planes[i].update(self._read_place(i))
        return figures.clouds(
            scene.latents,
            planes,
            [self._readings[i].get(BELIEF) for i in models],
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

    def _read_place(self, model: int) -> dict[str, Any]:
        """Where linear probes say we are, in a world that knows the place: a view of its own."""
        scene, site = self.state.scene, self.state.site
        if PLACE[0] not in self._readings[model]:
            return {}
        found = places(scene, model, "place", site, self._readings[model])
        if isinstance(found, str):
            return {VIEWS["place"]: found}
        plane = scene.pca(site)[model]
        read = found.coordinates[scene.shown].astype(np.float32)
        probes: Any = self._readings[model]
        scores = ", ".join(f"{probes[name].score:.2f}".replace("-", "−") for name in PLACE)
        return {
            f"{VIEWS['place']}: R² {scores}": replace(
                plane, coordinates=read, explained_variance=None, trustworthiness=None,
                note=f"{found.title}. {found.note}",
            )
        }  # fmt: skip

    def _way(self) -> Int[np.ndarray, " positions"]:
        """The rows of the cursor's episode, up to the cursor, in reading order."""
        state, scene = self.state, self.state.scene
        return scene.rows([(state.episode, at) for at in scene.positions(state.episode) if at <= state.position])

    def _path(self) -> Int[np.ndarray, " positions"]:
        """Which of the points of the figure are the way to the cursor; none where its episode is not drawn."""
        shown, way = self.state.scene.shown, self._way()
        at = np.searchsorted(shown, way)
        return at if at.size and at[-1] < len(shown) and shown[at[-1]] == way[-1] else at[:0]

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

    def _click(self, points: Points) -> None:
        rows = self._rows(points)
        if rows:
            self._go(rows[0])

    def _select(self, points: Points | None) -> None:
        self._pick(np.array(self._rows(points), dtype=np.int64))

    def _go(self, row: int) -> None:
        """Put the cursor on a row."""
        self.state.go_to(*self.state.scene.keys([row])[0])

    def _pick(self, rows: Int[np.ndarray, " rows"]) -> None:
        """Select what the filter keeps of some rows."""
        self.state.select(rows[self.state.kept[rows]])

    def _rows(self, points: Points | None) -> list[int]:
        assert self._plot is not None
        shown = self.state.scene.shown
        return sorted({int(shown[point]) for _, point in self._plot.points(points, "points")})

    def close(self) -> None:
        """Take the card off the page and out of memory."""
        if not self._closed:
            self.status.close()
            self._points.close()
        super().close()
