"""One cloud for each model, side by side, of every row there is: for tables too large for a figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import ipywidgets
import numpy as np
from anndata import AnnData
from jaxtyping import Int

from nextlat_viz.display import escape
from nextlat_viz.latents import meta
from nextlat_viz.notebook.cloud import Cloud
from nextlat_viz.notebook.cloud_latents import latent_cloud, paint
from nextlat_viz.notebook.studio.places import Places

_HEIGHT = 380
Rows = Int[np.ndarray, " rows"]


class EveryPoint:
    """Keeps its clouds, and sends of them what changed: places, colours, selection or cursor.

    Parameters
    ----------
    on_click : callable taking a row of the table
    on_select : callable taking rows of the table

    Attributes
    ----------
    box : widget
        The clouds, with what is to be said of them.
    clouds : list of Cloud or None
        None for a model without places.
    """

    def __init__(self, on_click: Callable[[int], None], on_select: Callable[[Rows], None]) -> None:
        self._on_click, self._on_select = on_click, on_select
        self._row = ipywidgets.HBox(layout={"flex_flow": "row wrap", "width": "100%"})
        self._note = ipywidgets.HTML()
        self._note.add_class("nlv-words")
        self.box = ipywidgets.VBox([self._row, self._note], layout={"width": "100%"})
        self.clouds: list[Cloud | None] = []
        self._places: list[Places | str] = []
        self._read: list[str] = []

    def draw(
        self, labels: Sequence[str], latents: Sequence[AnnData], where: Sequence[Places | str], color: str
    ) -> None:
        """Put the points where they are now; clouds of the same rows of the same episodes are moved."""
        parts, clouds = [], []
        for i, (label, table, found) in enumerate(zip(labels, latents, where, strict=True)):
            old = self.clouds[i] if i < len(self.clouds) else None
            cloud = None if isinstance(found, str) else self._cloud(old, i, label, table, found, color)
            if old is not None and old is not cloud:
                old.close()
            clouds.append(cloud)
            words = f"<b>{escape(label)}</b><br>{escape(found)}" if isinstance(found, str) else ""
            part = ipywidgets.HTML(words) if cloud is None else cloud
            part.layout = {"flex": "1 1 300px", "min_width": "0", "margin": "0 6px 6px 0"}
            parts.append(part)
        for gone in self.clouds[len(clouds) :]:
            if gone is not None:
                gone.close()
        self.clouds, self._places = clouds, list(where)
        self._read = [meta(table)["episodes_sha256"] for table in latents]
        self._row.children = parts
        notes = dict.fromkeys(one.note for one in where if isinstance(one, Places) and one.note)
        self._note.value = "<br>".join(escape(note) for note in notes)

    def recolor(self, latents: Sequence[AnnData], color: str) -> None:
        """Colour every cloud by another column."""
        for cloud, table, found in zip(self.clouds, latents, self._places, strict=True):
            if cloud is not None and isinstance(found, Places):
                cloud.recolor(**paint(_taken(table, found), color))

    def select(self, rows: Rows) -> None:
        """Let rows of the table stand out."""
        for cloud, found in zip(self.clouds, self._places, strict=True):
            if cloud is not None and isinstance(found, Places):
                cloud.select(_among(found.rows, rows))

    def go_to(self, rows: Rows) -> None:
        """Draw the way to the cursor, through rows of the table in reading order."""
        for cloud, found in zip(self.clouds, self._places, strict=True):
            if cloud is not None and isinstance(found, Places):
                at = _among(found.rows, rows)
                cloud.cursor = at.tolist() if len(at) == len(rows) else []

    def close(self) -> None:
        """Take the clouds off the page and out of memory."""
        for cloud in self.clouds:
            if cloud is not None:
                cloud.close()
        self.clouds, self._places = [], []
        self._row.children = ()

    def _cloud(self, old: Cloud | None, i: int, label: str, table: AnnData, found: Places, color: str) -> Cloud:
        before = None
        if old is not None and self._read[i] == meta(table)["episodes_sha256"]:
            before = self._places[i]
        title = f"{label}: {found.title}"
        if old is not None and isinstance(before, Places) and np.array_equal(before.rows, found.rows):
            old.move(found.coordinates)
            old.title = title
            old.recolor(**paint(_taken(table, found), color))
            return old
        return latent_cloud(
            _taken(table, found), found.coordinates, color, title=title, height=_HEIGHT,
            on_click=lambda row: self._on_click(int(found.rows[row])),
            on_select=lambda rows: self._on_select(found.rows[rows]),
        )  # fmt: skip


def _taken(table: AnnData, found: Places) -> AnnData:
    return table if len(found.rows) == table.n_obs else table[found.rows]


def _among(known: Int[np.ndarray, " known"], rows: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " found"]:
    """Which of the known rows, ascending, these are; those that are not among them are left out."""
    at = np.minimum(np.searchsorted(known, rows), len(known) - 1)
    return at[known[at] == rows]
