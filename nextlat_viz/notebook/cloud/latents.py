"""Clouds of latents: every row of a table as a point, coloured by any column; one cloud, or one per model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

import ipywidgets
import numpy as np
from anndata import AnnData
from jaxtyping import Float, Int, UInt8

from nextlat_viz.display import distinct, escape
from nextlat_viz.figures.clouds import NAMES, quality
from nextlat_viz.figures.probes import scores
from nextlat_viz.figures.rows import BELIEF, Coloring, coloring, describer
from nextlat_viz.latents import meta, site
from nextlat_viz.notebook.box import text_line
from nextlat_viz.notebook.cloud.widget import Cloud
from nextlat_viz.notebook.scene import Scene

if TYPE_CHECKING:
    from nextlat_viz.analysis import ProbeResult, Projection

_HEIGHT = 380
Rows = Int[np.ndarray, " rows"]
VIEWS = {**NAMES, BELIEF: "Belief, by a linear probe", "place": "Place, by linear probes"}
Readings = Mapping[str, "ProbeResult | str"]


class Paint(TypedDict):
    """Colour arguments of `Cloud` and `Cloud.recolor`."""

    codes: UInt8[np.ndarray, " rows"]
    palette: list[str]
    key: dict[str, str]


def latent_cloud(
    latents: AnnData, where: Projection | Float[np.ndarray, "rows 2"], color: str = "state", **options: Any
) -> Cloud:
    """Show every row of a table of latents as a point; the cloud has the table's row numbers.

    Parameters
    ----------
    latents : AnnData
    where : Projection or (rows, 2) array
        Coordinates of the rows, such as ``nlv.project(latents)``; of every row, not a sample.
    color : str
        A column of ``obs``, ``"belief"`` or ``"belief:<state>"``, as in `nextlat_viz.figures.color_options`.
    **options
        Passed on to `Cloud`: ``title``, ``on_select``, ``on_click``, ``cursor``, ``height``.

    Returns
    -------
    Cloud
        ``latents[cloud.selection]`` are the selected rows; ``cloud.recolor(**paint(latents, name))`` recolours it.

    Raises
    ------
    ValueError
        When `where` has another number of rows.
    UnknownNameError
        When there is no such column or state.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> latents = nlv.extract(nlv.load("rrxor/nextlat"), progress=False)
    >>> cloud = latent_cloud(latents, nlv.project(latents, "pca"))
    >>> cloud.recolor(**paint(latents, "position"))
    >>> cloud.select([0, 1])
    >>> latents[cloud.selection].obs["position"].tolist()
    [1, 2]
    >>> cloud.close()
    """
    places = where if isinstance(where, np.ndarray) else where.coordinates
    if len(places) != latents.n_obs:
        raise ValueError(f"where must hold one place for each of {latents.n_obs:,} rows, got {len(places):,}")
    return Cloud(places, labels=describer(latents, str, "\n"), **paint(latents, color), **options)


def paint(latents: AnnData, color: str | Coloring) -> Paint:
    """Return codes, palette and key of a column, or of a coloring, as `Cloud` takes them.

    The key of numbers holds the two ends of the scale, the key of names every name.

    Raises
    ------
    UnknownNameError
        When there is no such column or state.
    """
    colors = coloring(latents, color) if isinstance(color, str) else color
    texts, shades = [text for text, _ in colors.names], [shade for _, shade in colors.names]
    # Long names were cut, and may have become equal.
    return {
        "codes": colors.codes, "palette": colors.palette, "key": dict(zip(distinct(texts), shades, strict=True)),
    }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Places:
    """Coordinates of rows (ascending) in a view, a title with the view's scores, and a note on how it was computed."""

    rows: Int[np.ndarray, " rows"] = field(repr=False)
    coordinates: Float[np.ndarray, "rows 2"] = field(repr=False)
    title: str
    note: str


def places(
    scene: Scene, model: int, view: str, where: str, readings: Readings, umap: Projection | str = ""
) -> Places | str:
    """Return the coordinates of a model's rows in a view at a layer, or a sentence that says why there are none.

    `readings` holds the model's probes by their targets. A message may replace a probe or the UMAP.
    """
    latents = scene.latents[model]
    rows = np.arange(latents.n_obs)
    if view == "umap":
        if isinstance(umap, str):
            return umap
        # Only the fitted rows: UMAP would place other rows between them, and show structure that does not exist.
        return Places(umap.rows, umap.coordinates, ", ".join(["UMAP", *quality(umap)]), umap.note)
    if view == "pca":
        plane = scene.pca(where)[model]
        coordinates = plane.transform(site(latents, where))
        return Places(rows, coordinates, ", ".join(["PCA", *quality(plane)]), plane.note)
    probes = [readings[name] for name in scene.placing[view]]
    for probe in probes:
        if isinstance(probe, str):
            return probe
    fitted: Any = probes
    coordinates = np.concatenate([probe.predict(latents) for probe in fitted], axis=1)
    if view == BELIEF:
        world: Any = scene.world
        coordinates = world.belief_coordinates(coordinates)
    note = "" if view == BELIEF else "x and y as linear probes read them. "
    title = f"{VIEWS[view]}: {', '.join(scores(*fitted))}"
    return Places(rows, coordinates, title, f"{note}{fitted[0].note}")


class RowCloud(Cloud):
    """A cloud of some rows (ascending) of a table of latents; its methods and callbacks take row numbers of the table.

    `describe` returns the label of a row, by default that of `describer`; the other parameters are those of `Cloud`.
    """

    def __init__(
        self,
        latents: AnnData,
        rows: Rows,
        coordinates: Float[np.ndarray, "rows 2"],
        color: str | Coloring,
        *,
        on_click: Callable[[int], None],
        on_select: Callable[[Rows], None],
        describe: Callable[[int], str] | None = None,
        **options: Any,
    ) -> None:
        self.latents, self.rows, self.color = latents, rows, color
        label = describe or describer(latents, str, "\n")
        super().__init__(
            coordinates,
            labels=lambda point: label(int(rows[point])),
            on_click=lambda point: on_click(int(rows[point])),
            on_select=lambda points: on_select(rows[points]),
            **self._colors_of(color),
            **options,
        )

    def has(self, latents: AnnData, rows: Rows) -> bool:
        """Whether these are the rows shown, of the same episodes."""
        same = meta(latents)["episodes_sha256"] == meta(self.latents)["episodes_sha256"]
        return same and np.array_equal(rows, self.rows)

    def paint(self, color: str | Coloring, latents: AnnData | None = None) -> None:
        """Colour the rows by a column or a coloring of every row, of another model's table if one is given."""
        self.color, self.latents = color, self.latents if latents is None else latents
        self.recolor(**self._colors_of(color))

    def highlight(self, rows: Rows | None) -> None:
        """Select those of the given rows that are shown; None selects nothing."""
        self.select(np.zeros(0, dtype=np.int64) if rows is None else self._points(rows))

    def go_to(self, rows: Rows) -> None:
        """Draw the path to the cursor, through rows in reading order, or none if a row is not shown."""
        points = self._points(rows)
        self.cursor = points.tolist() if len(points) == len(rows) else []

    def mark(self, rows: Rows) -> None:
        """Mark those of the given rows that are shown by squares."""
        self.near = self._points(np.sort(rows)).tolist()

    def _points(self, rows: Rows) -> Int[np.ndarray, " shown"]:
        at = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        return at[self.rows[at] == rows]

    def _colors_of(self, color: str | Coloring) -> Paint:
        if isinstance(color, Coloring):
            return {**paint(self.latents, color), "codes": color.codes[self.rows]}
        return paint(self.latents if len(self.rows) == self.latents.n_obs else self.latents[self.rows], color)


class EveryPoint:
    """One cloud for each model that has places; only changed places, colours, selection or cursor are sent.

    `on_click` is called with a row of the table, `on_select` with rows, `on_key` with the number of an entry of the
    key; `box` holds the clouds, with notes below.
    """

    def __init__(
        self, on_click: Callable[[int], None], on_select: Callable[[Rows], None], on_key: Callable[[int], None]
    ) -> None:
        self._callbacks: dict[str, Any] = {"on_click": on_click, "on_select": on_select, "on_key": on_key}
        self._row = ipywidgets.HBox(layout={"flex_flow": "row wrap", "width": "100%"})
        self._note = text_line()
        self.box = ipywidgets.VBox([self._row, self._note], layout={"width": "100%"})
        self._clouds: list[RowCloud | None] = []

    @property
    def clouds(self) -> list[RowCloud]:
        """The clouds of the models that have places."""
        return [cloud for cloud in self._clouds if cloud is not None]

    def by_model(self, models: Sequence[int]) -> list[tuple[int, RowCloud]]:
        """Return (model, cloud) pairs; `models` are the numbers of the models in the order of drawing."""
        pairs = zip(models, self._clouds, strict=True)
        return [(model, cloud) for model, cloud in pairs if cloud is not None]

    def draw(
        self,
        labels: Sequence[str],
        latents: Sequence[AnnData],
        where: Sequence[Places | str],
        colors: Sequence[str | Coloring],
    ) -> None:
        """Show points at new places: move a cloud that has the same rows of the same episodes, else make a new one."""
        before, self._clouds = [*self._clouds, *[None] * len(latents)], []
        parts: list[Any] = []
        for label, table, place, color, old in zip(labels, latents, where, colors, before, strict=False):
            cloud = None if isinstance(place, str) else self._cloud(old, label, table, place, color)
            self._clouds.append(cloud)
            parts.append(cloud or ipywidgets.HTML(f"<b>{escape(label)}</b><br>{escape(place)}"))
            parts[-1].layout = {"flex": "1 1 300px", "min_width": "0", "margin": "0 6px 6px 0"}
        for old in before:
            if old is not None and old not in self._clouds:
                old.close()
        self._row.children = parts
        notes = dict.fromkeys(place.note for place in where if isinstance(place, Places) and place.note)
        self._note.value = "<br>".join(escape(note) for note in notes)

    def close(self) -> None:
        for cloud in self.clouds:
            cloud.close()
        self._clouds = []
        self._row.children = ()

    def _cloud(
        self, old: RowCloud | None, label: str, table: AnnData, place: Places, color: str | Coloring
    ) -> RowCloud:
        title = f"{label}: {place.title}"
        if old is None or not old.has(table, place.rows):
            options = {"title": title, "height": _HEIGHT, **self._callbacks}
            return RowCloud(table, place.rows, place.coordinates, color, **options)
        old.move(place.coordinates)
        old.title = title
        old.paint(color, table)
        return old
