"""A panel's figure as a file, with where it came from beside it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets
import plotly.graph_objects as go

from nextlat_viz import figures
from nextlat_viz.display import escape
from nextlat_viz.figures.export import FORMATS
from nextlat_viz.notebook import controls
from nextlat_viz.notebook.base import Linked
from nextlat_viz.notebook.state import ViewState

if TYPE_CHECKING:
    from nextlat_viz.notebook.studio.card import Card

_LABEL = {"description_width": "auto"}
SIZES = [("as shown", None), ("paper column", "column"), ("paper width", "text"), ("slide", "slide")]


def write(card: Card, path: str | os.PathLike[str], overwrite: bool, size: str | None = None) -> Path:
    """Write what a card shows to a file; the studio's ``export`` is the way in.

    Raises
    ------
    UnknownNameError
        For a size or an ending that does not exist.
    FileExistsError
        When the file, or the JSON that goes beside it, is there already and may not be written over.
    ValueError
        When the card shows no figure, or one with more views side by side than the size has room for.
    """
    target = Path(path)
    for one in (target, target.with_suffix(".json")):
        if one.exists() and not overwrite:
            raise FileExistsError(f"{one} exists: choose another name, or say overwrite=True")
    if card.plot is None and card.drawn:
        raise ValueError(f"panel {card.name!r} shows a table: it is studio.panels[{card.name!r}].table")
    if not card.drawn:
        raise ValueError(f"panel {card.name!r} shows no figure now: {card.words}")
    figure = go.Figure(card.plot.to_dict())
    options: dict[str, Any] = {}
    if size is not None:
        figure, options = figures.for_print(figure, size), dict(figures.print_options(size))
    state = card.state
    about = {
        "panel": card.name, "question": card.question, "world": state.world, "color": state.color, "layer": state.site,
        "probe reads": state.target, "training step": state.step, "episode": state.episode,
        "position": state.position, "filter": state.filter, "selected rows": state.rows, "size": size or "as shown",
        **figures.provenance_of(*state.latents),
    }  # fmt: skip
    return figures.write(figure, target, about, **options)


class Export(Linked):
    """Which panel, into which file, and a button.

    Parameters
    ----------
    state : ViewState
    panels : dict of {name: question}
        Those that draw figures.
    export : callable
        ``export(panel, path, size, overwrite)`` writes the file and returns where.
    """

    def __init__(
        self, state: ViewState, panels: dict[str, str], export: Callable[[str, str, str | None, bool], Path]
    ) -> None:
        super().__init__(state=state)
        self._export = export
        options = [(question, name) for name, question in panels.items()]
        self.panel = ipywidgets.Dropdown(
            options=options, description="Export", tooltip="Which panel is written to a file", style=_LABEL,
            layout={"width": "auto", "max_width": "330px"},
        )  # fmt: skip
        self.path = ipywidgets.Text(
            value=f"{options[0][1]}.png", description="to", continuous_update=False, style=_LABEL,
            tooltip=f"A file beside the notebook: {', '.join(f'.{one}' for one in FORMATS)}", layout={"width": "220px"},
        )  # fmt: skip
        self.size = ipywidgets.Dropdown(
            options=SIZES, description="size", tooltip="How wide the text is to be read", style=_LABEL,
            layout={"width": "auto"},
        )  # fmt: skip
        self.overwrite = ipywidgets.Checkbox(
            description="replace", tooltip="Write over a file of that name", indent=False, layout={"width": "auto"}
        )
        self.button = ipywidgets.Button(description="Export", tooltip="Write the file", layout={"width": "auto"})
        self._said = ipywidgets.HTML()
        row = controls.row(self.panel, self.path, self.size, self.overwrite, self.button, self._said)
        self.children = [row, self._alert]
        self.button.on_click(self._guarded(self._press))
        self._link(self.panel, self._name)

    def _name(self, change: Any) -> None:
        """The panel's name for the file, with the ending there was."""
        ending = Path(self.path.value).suffix or ".png"
        self.path.value, self._said.value = f"{self.panel.value}{ending}", ""

    def _press(self, button: Any) -> None:
        self._said.value = ""
        with self._working("Writing …"):
            path = self._export(self.panel.value, self.path.value, self.size.value, self.overwrite.value)
            self._said.value = f'<span role="status">wrote {escape(path.resolve())}</span>'
