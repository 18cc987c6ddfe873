"""Latent-space panel: PCA, UMAP and the readings of linear probes, with the episode as a path through the points."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ipywidgets
import numpy as np
from jaxtyping import Int

from nextlat_viz import figures
from nextlat_viz.analysis.differences import nearest_rows
from nextlat_viz.display import escape, shorten
from nextlat_viz.errors import LatentsError
from nextlat_viz.figures.probes import scores
from nextlat_viz.figures.rows import BELIEF
from nextlat_viz.figures.rows import coloring as coloring_of
from nextlat_viz.figures.theme import Theme, fading_path, ring_sizes
from nextlat_viz.notebook import colors, controls
from nextlat_viz.notebook.box import choice, text_line
from nextlat_viz.notebook.cloud.figure import cloud_figure
from nextlat_viz.notebook.cloud.latents import VIEWS, EveryPoint, Readings, places
from nextlat_viz.notebook.jobs import Cancelled, Waiting
from nextlat_viz.notebook.panel import Panel
from nextlat_viz.notebook.panels.pairs import tail
from nextlat_viz.notebook.panels.strip import Strip
from nextlat_viz.notebook.plot import Plot, Points
from nextlat_viz.notebook.state import ViewState
from nextlat_viz.plotting import CURSOR

if TYPE_CHECKING:
    import pandas as pd

    from nextlat_viz.analysis import ProbeResult, Projection
    from nextlat_viz.analysis.projection.umap import Progress

# Characters of a label that fit at the side of its row of views.
_LONGEST = 32
# From this number of rows on, the panel starts with all rows instead of a sample.
_MANY = 100_000
_ABOUT = {
    "pca": "The plane of the largest variance",
    "umap": "Neighbours near each other; distances between clusters mean little",
    "belief": "The belief that a linear probe reads, with the exact beliefs",
    "place": "The place that linear probes read",
}


class SpacePanel(Panel):
    """PCA, UMAP, or what linear probes read in the world's own coordinates, with the models side by side.

    A figure shows a sample of a large table; clouds can show every row.
    """

    name, question = "space", "Where does the model think we are?"
    follows = ("episode", "position", "site", "color", "target", "compared", "selection", "filter", "dark")

    def __init__(self, *models: Any, state: ViewState | None = None, theme: Theme | None = None) -> None:
        super().__init__(*models, state=state, theme=theme)
        self._readings: dict[int, Readings] = {}
        self._umaps: list[Projection | str] = []
        self._prepared: Any = None
        self._waits = False
        self._points = EveryPoint(self._guarded(self._go), self._guarded(self._pick), self._guarded(self._isolate))
        self._clicked: Any = None
        self._near: tuple[Any, dict[int, pd.DataFrame]] = (None, {})
        self.nearest = text_line()
        self.nearest.add_class("nlv-near")
        self.strip = Strip(self.state)
        self._frame = ipywidgets.VBox(layout={"width": "100%"})
        self.points = choice("Draw", "All views of a sample, or one view of all rows")
        self.view = self._choice_of_view()
        self.status = controls.StatusLine(self.state.layouts, self._ask)
        self._offer(None)
        self._link(self.state, self._offer, "world")
        for control in (self.points, self.view):
            self._link(control, lambda change: self._ask())
        self._build()

    def _choice_of_view(self) -> Any:
        look = {"style": {"button_width": "auto"}, "_dom_classes": ["nlv-tabs"]}
        return ipywidgets.ToggleButtons(tooltip="How the latents are laid out", **look)

    def _build(self) -> None:
        self._show(
            beside=[self.view, self.points, self.status], on_click=self._click, on_select=self._select,
            on_key=self._isolate, stage=(self._frame, self._points.box), below=[self.nearest],
        )  # fmt: skip

    def _arrange(self, stage: ipywidgets.VBox) -> Sequence[Any]:
        """Put the strip beside the views, which are square and leave room at their side."""
        if not self.framed:
            return [stage]
        stage.layout.width = "auto"
        beside = ipywidgets.HBox([stage, self.strip], layout={"width": "100%"})
        return [beside]

    @property
    def _single(self) -> bool:
        """Whether a single view is drawn instead of all."""
        return self.framed or bool(self.points.value)

    def _place(self, plot: Plot) -> None:
        self._frame.children = (plot,)

    def _bring(self, chosen: Any) -> None:
        """Show the figure or the clouds; hide and keep the other."""
        for part in (self._frame, self._points.box):
            part.layout.display = None if part is chosen else "none"

    @property
    def clouds(self) -> list[Any]:
        """The clouds of every row, one for each model that has places in this view; none if a figure is drawn."""
        self._update()
        return list(self._points.clouds)

    @property
    def plot(self) -> Any:
        """The figure of the present state; if clouds are drawn, their view as a figure."""
        self._update()
        return self._figure() if self.points.value else self._plot

    @property
    def views(self) -> list[Any]:
        """The figure, or one for each cloud."""
        return [cloud_figure(cloud) for cloud in self.clouds] if self.points.value else super().views

    @property
    def probes(self) -> list[ProbeResult]:
        self._update()
        known = [probe for model in self.state.pair for probe in self._readings[model].values()]
        return [probe for probe in known if not isinstance(probe, str)]

    def _offer(self, change: Any) -> None:
        """Offer all rows if a figure shows a sample, and the views that the scene has."""
        scene = self.state.scene
        total, shown = scene.latents[0].n_obs, len(scene.shown)
        more = total > shown
        with self._still():
            some, every = ("", "") if self.framed else (", all views", ", one view")
            sample = f"{shown:,} of {total:,} rows{some}"
            self.points.options = [(sample, False), *([(f"all {total:,} rows{every}", True)] if more else [])]
            self.points.value = total > max(shown, _MANY)
            self.points.layout.display = None if more else "none"
            views = ("pca", "umap", *scene.placing)
            self.view.options = [(VIEWS[name].split(",")[0] if self.framed else VIEWS[name], name) for name in views]
            self.view.value = "pca"
            self.view.tooltips = [_ABOUT[name] for _, name in self.view.options] if self.framed else []

    def _looks_at(self) -> Any:
        """Return what the figure depends on: everything but the cursor, then the cursor."""
        state = self.state
        keys = (result if isinstance(result, str) else id(result) for result in self._results())
        where = (id(state.scene), *keys, *state.pair, state.site, self.points.value, self._single and self.view.value)
        painted = tuple(color if isinstance(color, str) else id(color) for color in map(state.coloring, state.pair))
        near = tuple(int(row) for rows in self._nearest().values() for row in rows["row"])
        marks = (state.selection, tuple(sorted(state.filter.items())), near)
        return (where, painted, marks, state.dark), (state.episode, state.position)

    def _results(self) -> list[Any]:
        """Return the UMAPs and probes of the two models, or messages in place of missing ones."""
        return [*self._umaps, *(reading for model in self.state.pair for reading in self._readings[model].values())]

    def _prepare(self) -> None:
        state = self.state
        single, error = self._single, state.color == colors.ERROR
        inputs = (
            id(state.scene), *state.pair, state.site, self.points.value, single and self.view.value,
            error and state.target, state.jobs.changes, state.layouts.changes,
        )  # fmt: skip
        if inputs == self._prepared:
            return
        self.view.layout.display = None if single else "none"
        if not single or self.view.value == "umap":
            self._umaps = self._ask_umaps()
        else:
            self._umaps = [""] * len(state.pair)
        self.status.follow()
        waiting = self._read_all(error)
        # While results are missing, ask for them at every change, so that they can be computed again.
        missing = waiting or any(isinstance(result, str) and result for result in self._results())
        # Asking may have changed the queues.
        self._prepared = None if missing else (*inputs[:-2], state.jobs.changes, state.layouts.changes)

    def _read_all(self, error: bool) -> bool:
        """Ask for the probes of the two models, then of the strip's models one by one, so that other panels go first.

        With `error`, ask also for the probes whose errors colour the rows. Returns whether a probe is still missing.
        """
        state, pair = self.state, self.state.pair
        others = [model for model in range(len(state.scene.latents)) if model not in pair]
        self._readings, self._waits = {}, False
        for model in [*pair, *others]:
            if self._waits and model not in pair:
                break
            self._readings[model] = self._read(model)
            if error:
                self._ask_probe(model, state.target)
        return self._waits

    def _ask_probe(self, model: int, target: str) -> Any:
        """Return a probe, or a message if it is missing."""
        try:
            return self._probe(model, target, self.state.site)
        except ValueError as error:
            self._waits |= isinstance(error, Waiting)
            return str(error)

    def _ask_umaps(self) -> list[Projection | str]:
        """Return the UMAP of the two models, or messages in place of missing ones.

        UMAPs of another layer, world or step that are still being computed are stopped.
        """
        scene, site, queue = self.state.scene, self.state.site, self.state.layouts
        keys = [("umap", model, site) for model in self.state.pair]
        queue.withdraw(self._ask, [(scene.results, key) for key in keys])
        layouts: list[Projection | str] = []
        for key in keys:
            label = scene.labels[key[1]]

            def compute(model: int = key[1], label: str = label) -> Projection:
                def report(now: Progress) -> None:
                    epoch = f", epoch {now.done} of {now.total}" if now.total else ""
                    queue.report(now.done, now.total, f"UMAP of {label}: {now.stage}{epoch}")

                return scene.umap_of(model, site, report)

            try:
                layouts.append(queue.ask(scene.results, key, f"UMAP of {label}", compute, self._ask))
            except Waiting:
                layouts.append("UMAP is being computed …")
            except Cancelled:
                layouts.append("UMAP was cancelled.")
            except LatentsError as error:
                # Leave out the advice, which is about arguments of a call.
                layouts.append(str(error).split(": ")[0])
            except Exception as error:
                layouts.append(f"UMAP failed: {error}")
        return scene.aligned_umaps(site, layouts)

    def _read(self, model: int) -> Readings:
        """Return the probes that place rows in the world, or messages in place of missing ones."""
        placing = self.state.scene.placing
        targets = [placing.get(self.view.value, ())] if self._single else placing.values()
        return {name: self._ask_probe(model, name) for name in itertools.chain.from_iterable(targets)}

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
        state, scene, pair = self.state, self.state.scene, self.state.pair
        (where, painted, marks, _), _ = looks
        before = self._drawn[0] if self._drawn is not None else (None, None, None, None)
        self._say("")
        if where != before[0]:
            coordinates = [
                places(scene, model, self.view.value, state.site, self._readings[model], umap)
                for model, umap in zip(pair, self._umaps, strict=True)
            ]
            tables = [scene.latents[model] for model in pair]
            self._points.draw(self._labels(), tables, coordinates, list(map(state.coloring, pair)))
            self._bring(self._points.box)
        elif painted != before[1]:
            for model, cloud in self._points.by_model(pair):
                cloud.paint(state.coloring(model))
        near = self._nearest()
        for model, cloud in self._points.by_model(pair):
            cloud.mark(near[model]["row"].to_numpy() if model in near else np.zeros(0, dtype=np.int64))
        if (where, marks) != (before[0], before[2]):
            for cloud in self._points.clouds:
                cloud.highlight(state.highlighted)
        for cloud in self._points.clouds:
            cloud.go_to(self._path())

    def _labels(self) -> list[str]:
        return [shorten(self.state.scene.labels[model], _LONGEST) for model in self.state.pair]

    def _figure(self) -> Any:
        """Draw all views, or the single view, of as many rows as a figure can draw."""
        state, scene, pair = self.state, self.state.scene, self.state.pair
        planes: list[dict[str, Any]] = [{} for _ in pair]
        for plane, model, umap in zip(planes, pair, self._umaps, strict=True):
            if not self._single or self.view.value == "pca":
                plane["pca"] = scene.pca(state.site)[model]
            if not self._single or self.view.value == "umap":
                plane["umap"] = umap
            plane.update(self._read_place(model))
        painted: list[Any] = [state.coloring(model) for model in pair]
        figure = figures.clouds(
            [scene.latents[model] for model in pair],
            planes,
            [self._readings[model].get(BELIEF) for model in pair],
            painted[0] if isinstance(painted[0], str) else painted,
            labels=self._labels(),
            rows=scene.shown,
            selection=state.highlighted,
            cursor=(state.episode, state.position),
            near=[rows["row"].to_numpy() for rows in self._nearest().values()],
            across=self._single,
            theme=state.theme,
        )
        if self._single and self.strip.needed:
            # The strip leaves less room for the headings.
            for heading in figure.layout.annotations:
                name, line, about = heading.text.partition("</span><br>")
                heading.text = f'{name}{line}<span style="font-size:10.5px">{about}</span>' if about else heading.text
        return figure

    def _read_place(self, model: int) -> dict[str, Any]:
        """Return the view of the places that linear probes read, if the world has places."""
        scene, site = self.state.scene, self.state.site
        if "x" not in self._readings[model]:
            return {}
        view = places(scene, model, "place", site, self._readings[model])
        if isinstance(view, str):
            return {VIEWS["place"]: view}
        probes: Any = self._readings[model]
        score, *_ = scores(*(probes[name] for name in scene.placing["place"]))
        return {
            f"{VIEWS['place']}: {score}": replace(
                scene.pca(site)[model], coordinates=view.coordinates[scene.shown].astype(np.float32),
                explained_variance=None, trustworthiness=None, note=f"{view.title}. {view.note}",
            )
        }  # fmt: skip

    def _path(self) -> Int[np.ndarray, " positions"]:
        """Return the rows of the cursor's episode, up to the cursor, in reading order."""
        state, scene = self.state, self.state.scene
        return scene.rows([(state.episode, at) for at in scene.positions(state.episode) if at <= state.position])

    def _move_cursor(self) -> None:
        """Update only the cursor and its path, as `figures.clouds` draws them."""
        shown, path = self.state.scene.shown, self._path()
        at = np.searchsorted(shown, path)
        if not (at.size and at[-1] < len(shown) and shown[at[-1]] == path[-1]):
            # The figure draws a sample of whole episodes, without this one.
            at = at[:0]
        plot = self._plot
        assert plot is not None
        views: dict[Any, dict[str, list[int]]] = {}
        for i, trace in enumerate(plot._data):
            about = trace.get("meta", {})
            view = views.setdefault((about.get("model"), about.get("column")), {})
            view.setdefault(about.get("role", ""), []).append(i)
        with plot.one_message():
            for view in views.values():
                if "cursor" in view and "x" in plot._data[view["points"][0]]:
                    points, cursor = plot._data[view["points"][0]], view["cursor"][0]
                    x, y = points["x"][at], points["y"][at]
                    ring = {"x": x, "y": y, "marker": {"size": ring_sizes(len(at))}}
                    parts = fading_path(np.stack([x, y], axis=1), CURSOR)
                    for trace, part in zip([cursor, *view["trail"]], [ring, *parts], strict=True):
                        plot.put(trace, "x", part["x"])
                        plot.put(trace, "y", part["y"])
                        for name in part["marker"].keys() & {"size", "angle"}:
                            plot.put(trace, f"marker.{name}", part["marker"][name])

    def _click(self, points: Points) -> None:
        rows = self._rows(points)
        if rows:
            self._go(rows[0])

    def _select(self, points: Points | None) -> None:
        self._pick(np.array(self._rows(points), dtype=np.int64))

    def _go(self, row: int) -> None:
        """Move the cursor to a row, and list the rows nearest to it until the cursor moves on."""
        ((episode, position),) = self.state.scene.keys([row])
        self._clicked = (id(self.state.scene), episode, position)
        self.state.go_to(episode, position)
        self._ask()

    def _isolate(self, entry: int) -> None:
        """Filter the rows of a class of the colour key, or remove that filter."""
        state = self.state
        color = state.coloring(state.pair[0])
        if not isinstance(color, str) or color not in state.latents[0].obs:
            return
        names = coloring_of(state.latents[0][state.scene.shown], color).classes
        if entry < len(names):
            values = tuple(value for value in state.scene.values(color) if str(value) == names[entry])
            others = {name: kept for name, kept in state.filter.items() if name != color}
            state.filter = others if state.filter.get(color) == values else {color: values, **others}

    def _nearest(self) -> dict[int, pd.DataFrame]:
        """Return the rows nearest to the clicked point in each model's latents; none once the cursor has moved on."""
        state, scene = self.state, self.state.scene
        if self._clicked != (id(scene), state.episode, state.position):
            return {}
        key = (*self._clicked, state.site, *state.pair)
        if key != self._near[0]:
            (row,) = scene.rows([(state.episode, state.position)])
            self._near = key, {model: nearest_rows(scene.latents[model], row, state.site) for model in state.pair}
        return self._near[1]

    def _describe(self) -> None:
        """List the nearest rows, and show all models in the strip."""
        scene, lines = self.state.scene, []
        for model, rows in self._nearest().items():
            items = []
            for near in rows.itertuples():
                read = scene.reads(int(near.row))
                about = escape(f"read {read}, episode {near.episode}, position {near.position}")
                items.append(f'<span title="{about}">{near.distance:.3g} <code>{escape(tail(read, 12))}</code></span>')
            label = escape(shorten(scene.labels[model], _LONGEST))
            lines.append(f"<div><b>Nearest in {label}</b> (distance, read): {' &ensp; '.join(items)}</div>")
        self.nearest.value = "".join(lines)
        self.strip.show(self.view.value if self._single else "pca", self._readings)

    def _pick(self, rows: Int[np.ndarray, " rows"]) -> None:
        """Select the rows that the filter keeps."""
        self.state.select(rows[self.state.kept[rows]])

    def _rows(self, points: Points | None) -> list[int]:
        assert self._plot is not None
        shown = self.state.scene.shown
        return sorted({int(shown[point]) for _, point in self._plot.points(points, "points")})
