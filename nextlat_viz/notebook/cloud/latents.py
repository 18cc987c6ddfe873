"""Clouds of latents: every row of a table, however many, coloured by any column; one cloud or one for each model."""

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
from nextlat_viz.figures.rows import BELIEF, coloring, describer
from nextlat_viz.latents import meta, site
from nextlat_viz.notebook.cloud.widget import Cloud
from nextlat_viz.notebook.panel import text_line
from nextlat_viz.notebook.scene import Scene

if TYPE_CHECKING:
    from nextlat_viz.analysis import ProbeResult, Projection

_HEIGHT = 380
Rows = Int[np.ndarray, " rows"]
PLACE = ("x", "y")
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
    """Show every row of a table of latents as a point; row numbers of the cloud are the table's.

    Parameters
    ----------
    latents : AnnData
    where : Projection or (rows, 2) array
        Where each row is, such as ``nlv.project(latents)``; of every row, not a sample.
    color : str
        A column of ``obs``, ``"belief"`` or ``"belief:<state>"``, as in `nextlat_viz.figures.color_options`.
    **options
        Handed to `Cloud`: ``title``, ``on_select``, ``on_click``, ``cursor``, ``height``.

    Returns
    -------
    Cloud
        ``latents[cloud.selection]`` is what is selected. Recolour it with ``cloud.recolor(**paint(latents, name))``.

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


def paint(latents: AnnData, color: str) -> Paint:
    """Return codes, palette and key of a column, as `Cloud` takes them.

    The key of numbers holds the two ends of the scale, the key of names every name.

    Raises
    ------
    UnknownNameError
        When there is no such column or state.
    """
    colors = coloring(latents, color)
    texts, shades = [text for text, _ in colors.names], [shade for _, shade in colors.names]
    # Long names were cut, and may be the same now.
    return {
        "codes": colors.codes, "palette": colors.palette, "key": dict(zip(distinct(texts), shades, strict=True)),
    }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Places:
    """Rows of the table, ascending, in the plane; the name of the view with its scores, and how it was computed."""

    rows: Int[np.ndarray, " rows"] = field(repr=False)
    coordinates: Float[np.ndarray, "rows 2"] = field(repr=False)
    title: str
    note: str


def read_by_probes(scene: Scene) -> tuple[str, ...]:
    """The targets whose probes place rows in the world: the belief where the world has a picture of it, or x and y."""
    targets = scene.targets
    beliefs = BELIEF in targets and hasattr(scene.world, "belief_coordinates")
    return ((BELIEF,) if beliefs else ()) + (PLACE if set(PLACE) <= set(targets) else ())


def views(scene: Scene) -> list[str]:
    """The views that a scene has, by their names in `VIEWS`."""
    read = read_by_probes(scene)
    return ["pca", "umap", *([BELIEF] if BELIEF in read else []), *(["place"] if PLACE[0] in read else [])]


def places(
    scene: Scene, model: int, view: str, where: str, readings: Readings, umap: Projection | str = ""
) -> Places | str:
    """Return the coordinates of a model's rows in a view at a layer, or a sentence that says why there are none.

    `readings` holds the model's probes, as `read_by_probes` names them; a message may stand in place of a probe or
    of the UMAP.
    """
    latents = scene.latents[model]
    everything = np.arange(latents.n_obs)
    if view == "umap":
        if isinstance(umap, str):
            return umap
        # Only the rows it was fitted on: UMAP places others between them, which would show structure that is not there.
        return Places(umap.rows, umap.coordinates, ", ".join(["UMAP", *quality(umap)]), umap.note)
    if view == "pca":
        plane = scene.pca(where)[model]
        coordinates = plane.transform(site(latents, where))
        return Places(everything, coordinates, ", ".join(["PCA", *quality(plane)]), plane.note)
    probes = [readings[name] for name in ((BELIEF,) if view == BELIEF else PLACE)]
    for probe in probes:
        if isinstance(probe, str):
            return probe
    fitted: Any = probes
    read = np.concatenate([probe.predict(latents) for probe in fitted], axis=1)
    if view == BELIEF:
        world: Any = scene.world
        read = world.belief_coordinates(read)
    note = "" if view == BELIEF else "x and y as linear probes read them. "
    title = f"{VIEWS[view]}: {', '.join(scores(*fitted))}"
    return Places(everything, read, title, f"{note}{fitted[0].note}")


class EveryPoint:
    """One cloud per model, None for one without places; only changed places, colours, selection or cursor are sent.

    `on_click` is called with a row of the table, `on_select` with rows; `box` holds the clouds, with notes below.
    """

    def __init__(self, on_click: Callable[[int], None], on_select: Callable[[Rows], None]) -> None:
        self._on_click, self._on_select = on_click, on_select
        self._row = ipywidgets.HBox(layout={"flex_flow": "row wrap", "width": "100%"})
        self._note = text_line()
        self.box = ipywidgets.VBox([self._row, self._note], layout={"width": "100%"})
        self.clouds: list[Cloud | None] = []
        self._places: list[Places | str] = []
        self._read: list[str] = []

    def draw(
        self, labels: Sequence[str], latents: Sequence[AnnData], where: Sequence[Places | str], color: str
    ) -> None:
        """Show points at new places; a cloud of the same rows of the same episodes is moved, others are made anew."""
        parts, clouds = [], []
        for i, (label, table, place) in enumerate(zip(labels, latents, where, strict=True)):
            old = self.clouds[i] if i < len(self.clouds) else None
            cloud = None if isinstance(place, str) else self._cloud(old, i, label, table, place, color)
            if old is not None and old is not cloud:
                old.close()
            clouds.append(cloud)
            words = f"<b>{escape(label)}</b><br>{escape(place)}" if isinstance(place, str) else ""
            part = ipywidgets.HTML(words) if cloud is None else cloud
            part.layout = {"flex": "1 1 300px", "min_width": "0", "margin": "0 6px 6px 0"}
            parts.append(part)
        for gone in self.clouds[len(clouds) :]:
            if gone is not None:
                gone.close()
        self.clouds, self._places = clouds, list(where)
        self._read = [meta(table)["episodes_sha256"] for table in latents]
        self._row.children = parts
        notes = dict.fromkeys(place.note for place in where if isinstance(place, Places) and place.note)
        self._note.value = "<br>".join(escape(note) for note in notes)

    def recolor(self, latents: Sequence[AnnData], color: str) -> None:
        for cloud, table, place in zip(self.clouds, latents, self._places, strict=True):
            if cloud is not None and isinstance(place, Places):
                cloud.recolor(**paint(_taken(table, place), color))

    def select(self, rows: Rows) -> None:
        for cloud, place in zip(self.clouds, self._places, strict=True):
            if cloud is not None and isinstance(place, Places):
                cloud.select(_among(place.rows, rows))

    def go_to(self, rows: Rows) -> None:
        """Draw the path to the cursor, through rows of the table in reading order."""
        for cloud, place in zip(self.clouds, self._places, strict=True):
            if cloud is not None and isinstance(place, Places):
                at = _among(place.rows, rows)
                cloud.cursor = at.tolist() if len(at) == len(rows) else []

    def close(self) -> None:
        for cloud in self.clouds:
            if cloud is not None:
                cloud.close()
        self.clouds, self._places = [], []
        self._row.children = ()

    def _cloud(self, old: Cloud | None, i: int, label: str, table: AnnData, place: Places, color: str) -> Cloud:
        before = None
        if old is not None and self._read[i] == meta(table)["episodes_sha256"]:
            before = self._places[i]
        title = f"{label}: {place.title}"
        if old is not None and isinstance(before, Places) and np.array_equal(before.rows, place.rows):
            old.move(place.coordinates)
            old.title = title
            old.recolor(**paint(_taken(table, place), color))
            return old
        return latent_cloud(
            _taken(table, place), place.coordinates, color, title=title, height=_HEIGHT,
            on_click=lambda row: self._on_click(int(place.rows[row])),
            on_select=lambda rows: self._on_select(place.rows[rows]),
        )  # fmt: skip


def _taken(table: AnnData, place: Places) -> AnnData:
    return table if len(place.rows) == table.n_obs else table[place.rows]


def _among(known: Int[np.ndarray, " known"], rows: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " matches"]:
    """Positions of `rows` in `known`, which is ascending; rows that are not in it are left out."""
    at = np.minimum(np.searchsorted(known, rows), len(known) - 1)
    return at[known[at] == rows]
