"""Strip of all models: a small cloud of each, to choose which two are shown large."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from traitlets import Bytes, List, Unicode
from traitlets import Int as IntTrait

from nextlat_viz.display import shorten
from nextlat_viz.figures.rows import BELIEF, Coloring
from nextlat_viz.figures.rows import coloring as coloring_of
from nextlat_viz.latents import column
from nextlat_viz.notebook.box import Box, choice
from nextlat_viz.notebook.cloud.latents import Readings
from nextlat_viz.notebook.live import LiveWidget, javascript
from nextlat_viz.notebook.state import ViewState

# Most points of a small cloud: more could not be told apart.
_POINTS = 700
# Room around the frame for readings a little outside, as a share of its size.
_AROUND = 0.12
# Places are sent as bytes, whose steps are finer than the pixels of a small cloud.
_SIDE = 255
_CLOUD = Path(__file__).parents[1] / "cloud"


class Strip(Box):
    """Small clouds of all models, if there are more than two.

    A click on a model compares it with the reference, which is chosen from a list. A click on the reference swaps it
    with the compared model.
    """

    def __init__(self, state: ViewState) -> None:
        super().__init__(state, "nlv-models")
        about = "The model that others are compared with. Both are shown large, and in the other panels"
        self.reference = choice("Reference", about)
        self.reference.add_class("nlv-reference")
        self.clouds = SmallClouds(self._guarded(self._choose))
        self.children = [self._alert, self.reference, self.clouds]
        self._shown: Any = None
        self._link(self.reference, self._refer)
        for name in ("world", "step", "compared"):
            self._link(state, self._follow, name)
        self._follow(None)

    @property
    def needed(self) -> bool:
        """Whether there are models that are not shown large."""
        return len(self.state.scene.latents) > 2

    def _follow(self, change: Any) -> None:
        scene = self.state.scene
        with self._still():
            options = [(shorten(label, 24), name) for label, name in zip(scene.labels, scene.names, strict=True)]
            if list(self.reference.options) != options:
                self.reference.options = options
            self.reference.value = self.state.compared[0]
        self.layout.display = None if self.needed else "none"

    def _refer(self, change: Any) -> None:
        if not self._following:
            self._compare(change["new"], self.state.compared[1])

    def _choose(self, model: int) -> None:
        self._compare(self.state.compared[0], self.state.scene.names[model])

    def _compare(self, reference: str, other: str) -> None:
        """Compare two models; if both are the same, swap the present pair."""
        self.state.compared = self.state.compared[::-1] if reference == other else (reference, other)

    def show(self, view: str, readings: Mapping[int, Readings]) -> None:
        """Show every model's rows in a view; PCA stands in for UMAP, which is only computed for the two large models.

        `readings` holds the probes by model, as far as they have been asked for.
        """
        state, scene = self.state, self.state.scene
        if not self.needed:
            return
        view = view if view in scene.placing else "pca"
        models = range(len(scene.latents))
        colors = [state.coloring(model) for model in models]
        probes = [tuple(map(_key, readings.get(model, {}).values())) for model in models]
        inputs = (id(scene), view, state.site, state.compared, *map(_key, colors), *probes)
        if inputs == self._shown:
            return
        rows = scene.shown[:: -(-len(scene.shown) // _POINTS)]
        plain = coloring_of(scene.latents[0][rows], colors[0]) if isinstance(colors[0], str) else None
        roles = dict(zip(state.pair, ("reference", "compared"), strict=True))
        frame = self._frame(view, rows)
        small, palette = [], plain.palette if plain is not None else colors[0].palette  # type: ignore[union-attr]
        for model, (label, color) in enumerate(zip(scene.labels, colors, strict=True)):
            codes = color.codes[rows] if isinstance(color, Coloring) else plain.codes  # type: ignore[union-attr]
            places, why = self._places(view, model, rows, readings.get(model))
            if frame is not None:
                inside = ((places >= frame[0]) & (places <= frame[1])).all(axis=1)
                places, codes = places[inside], codes[inside] if len(places) else codes[:0]
            elif not len(places):
                codes = codes[:0]
            role = roles.get(model, "")
            note = f"{label}: {why or role or 'compare this model with the reference'}"
            small.append(Small(shorten(label, 40), note, role, places, codes))
        self.clouds.show(small, palette, frame)
        self._shown = inputs

    def _places(
        self, view: str, model: int, rows: Int[np.ndarray, " rows"], readings: Readings | None
    ) -> tuple[Float[np.ndarray, "points 2"], str]:
        """Return the places of a model's rows, or none and the reason."""
        scene = self.state.scene
        if view == "pca":
            plane = scene.pca(self.state.site)[model]
            return plane.coordinates[np.searchsorted(scene.shown, rows)].astype(np.float64), ""
        if readings is None:
            return np.zeros((0, 2)), "its probe is still to be computed"
        probes: list[Any] = [readings[name] for name in scene.placing[view]]
        for probe in probes:
            if isinstance(probe, str):
                return np.zeros((0, 2)), probe
        read = np.concatenate([probe.predict(scene.latents[model][rows]) for probe in probes], axis=1)
        return self._in_plane(view, read), ""

    def _frame(self, view: str, rows: Int[np.ndarray, " rows"]) -> Float[np.ndarray, "corners 2"] | None:
        """Return the part of the plane that all small clouds show, around the true places; None for PCA."""
        first = self.state.scene.latents[0]
        if view == "pca":
            return None
        truth = column(first, BELIEF)[rows] if view == BELIEF else np.stack([column(first, n)[rows] for n in "xy"], 1)
        places = self._in_plane(view, truth.astype(np.float64))
        low, high = np.nanmin(places, axis=0), np.nanmax(places, axis=0)
        room = _AROUND * float((high - low).max())
        return np.stack([low - room, high + room])

    def _in_plane(self, view: str, values: np.ndarray) -> np.ndarray:
        world: Any = self.state.scene.world
        return np.asarray(world.belief_coordinates(values) if view == BELIEF else values, dtype=np.float64)


def _key(value: object) -> object:
    """Return a value that identifies a colour or a probe: its id, or the text itself, which may be a new object."""
    return value if isinstance(value, str) else id(value)


@dataclass(frozen=True, eq=False)
class Small:
    """A small cloud: the name below it, its tooltip, its role ("reference", "compared" or empty), and its points."""

    name: str
    note: str
    role: str
    places: Float[np.ndarray, "rows 2"]
    codes: UInt8[np.ndarray, " rows"]


class SmallClouds(LiveWidget):
    """Small clouds in a row that scrolls; `on_choose` is called with the number of a clicked cloud.

    Examples
    --------
    >>> row = SmallClouds(print)
    >>> small = Small("seed 0", "", "reference", np.array([[0.0, 0.0], [2.0, 1.0]]), np.zeros(2, np.uint8))
    >>> row.show([small], ["#0072B2"])
    >>> row.names, row.counts, list(row._places)
    (['seed 0'], [2], [0, 64, 255, 191])
    >>> row.close()
    """

    _esm = javascript(_CLOUD / "small.js")
    _css = (_CLOUD / "cloud.css").read_text(encoding="utf-8")
    names = List(Unicode()).tag(sync=True)
    notes = List(Unicode()).tag(sync=True)
    roles = List(Unicode()).tag(sync=True)
    counts = List(IntTrait()).tag(sync=True)
    _places = Bytes().tag(sync=True)
    _codes = Bytes().tag(sync=True)
    _palette = Bytes().tag(sync=True)

    def __init__(self, on_choose: Callable[[int], None]) -> None:
        self._on_choose = on_choose
        super().__init__()

    def show(
        self, clouds: Sequence[Small], palette: Sequence[str], frame: Float[np.ndarray, "corners 2"] | None = None
    ) -> None:
        """Show clouds, coloured by a palette of ``#rrggbb``; all show the `frame`, or each shows all of its points."""
        squares = [_bytes(cloud.places, cloud.places if frame is None else frame) for cloud in clouds]
        shades = bytes(int(color[i : i + 2], 16) for color in palette for i in (1, 3, 5))
        with self.hold_sync():
            for trait, values in {
                "names": [cloud.name for cloud in clouds], "notes": [cloud.note for cloud in clouds],
                "roles": [cloud.role for cloud in clouds], "counts": [len(cloud.places) for cloud in clouds],
                "_places": b"".join(square.tobytes() for square in squares),
                "_codes": b"".join(cloud.codes.tobytes() for cloud in clouds), "_palette": shades,
            }.items():  # fmt: skip
                self.set_trait(trait, values)

    def _hear(self, widget: Any, message: Mapping[str, Any], buffers: Any) -> None:
        super()._hear(widget, message, buffers)
        if message.get("kind") == "choose":
            self._on_choose(int(message["model"]))


def _bytes(places: Float[np.ndarray, "rows 2"], frame: Float[np.ndarray, "corners 2"]) -> UInt8[np.ndarray, "rows 2"]:
    """Scale places to bytes, both axes alike, so that the frame fills the square; clip places outside of it."""
    if not len(places):
        return np.zeros((0, 2), np.uint8)
    low, high = frame.min(axis=0), frame.max(axis=0)
    scale = _SIDE / (float((high - low).max()) or 1.0)
    return np.asarray(np.clip(np.rint((places - (low + high) / 2) * scale + _SIDE / 2), 0, _SIDE).astype(np.uint8))
