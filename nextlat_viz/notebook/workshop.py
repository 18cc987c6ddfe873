"""Figure workshop: a tray of pinned figures, arranged for print, with a caption, to download or to write."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import ipywidgets
import plotly.graph_objects as go
from traitlets import Bool, Int, Unicode

from nextlat_viz import figures, io
from nextlat_viz.display import escape, shorten
from nextlat_viz.figures.export import figure_bytes, require_new
from nextlat_viz.notebook import controls
from nextlat_viz.notebook.box import LABEL, Box, choice
from nextlat_viz.notebook.live import LiveWidget, javascript
from nextlat_viz.notebook.panel import Panel
from nextlat_viz.notebook.pictures import Pin, code, pinned
from nextlat_viz.notebook.plot import Plot
from nextlat_viz.notebook.state import ViewState
from nextlat_viz.plotting import name_file

WIDTHS = [
    ("column, 3.25 in", "column"), ("one-column page, 5.5 in", "single"), ("two-column page, 6.75 in", "text"),
    ("slide, 13.3 in", "slide"), ("poster, 16 in", "poster"),
]  # fmt: skip
_TYPES = {"pdf": "application/pdf", "svg": "image/svg+xml", "png": "image/png", "html": "text/html"}
_EMPTY = "No figure yet: press the pin (<i class='fa fa-thumb-tack'></i>) above a panel."
_MOST_PER_ROW, _LONGEST_TITLE = 4, 60


class Download(LiveWidget):
    """A button that saves a file on the user's machine. `make` returns the file's name, media type and content."""

    _esm = javascript(Path(__file__).parent / "download.js")
    label = Unicode("Download").tag(sync=True)
    # Not "tooltip", which ipywidgets expects on widgets with a description only.
    about = Unicode("Save the figure on your own machine").tag(sync=True)
    disabled = Bool(True).tag(sync=True)

    def __init__(self, make: Callable[[], tuple[str, str, bytes] | None]) -> None:
        self._make = make
        super().__init__()

    def _hear(self, widget: Any, message: Any, buffers: Any) -> None:
        super()._hear(widget, message, buffers)
        if message.get("kind") == "want" and not self.disabled:
            file = self._make()
            if file is not None:
                name, media, content = file
                # Every open page gets this; `view` tells which one has asked.
                self.send({"kind": "file", "view": message["view"], "name": name, "type": media}, [content])


class Tray(Box):
    """The pinned figures, in order, and the figure composed of them.

    Attributes
    ----------
    pins : list of Pin
    count : int
        Number of pins.
    shown : bool
        Whether the tray is in sight; until then nothing is drawn.
    """

    count = Int(0)
    shown = Bool(True)

    def __init__(self, state: ViewState) -> None:
        super().__init__(state, "nlv-tray")
        self._busy = ipywidgets.HTML()
        self.pins: list[Pin] = []
        self._lines: list[tuple[Any, ...]] = []
        self._plot: Plot | None = None
        self.width = choice("Width", "The venue's width; the text has a fitting size", WIDTHS)
        rows = [("automatic", 0), *((str(n), n) for n in range(1, _MOST_PER_ROW + 1))]
        self.columns = choice("In a row", "Figures side by side", rows)
        self.kind = choice("Format", "Kind of file", [(name.upper(), name) for name in ("pdf", "svg", "png", "html")])
        self.dpi = ipywidgets.BoundedIntText(
            300, min=30, max=2400, description="Dots per inch", style=LABEL, layout={"width": "165px"},
            tooltip="Of a PNG, and of thousands of points in a PDF or SVG",
        )  # fmt: skip
        self.transparent = ipywidgets.Checkbox(
            description="no background", tooltip="Transparent PNG", indent=False, layout={"width": "auto"}
        )
        self.name = ipywidgets.Text(
            "figure", description="Name", tooltip="File name, without its ending", style=LABEL,
            layout={"width": "190px"},
        )  # fmt: skip
        self.overwrite = ipywidgets.Checkbox(
            description="replace", tooltip="Overwrite an existing file", indent=False, layout={"width": "auto"}
        )
        self.download = Download(self._guarded_content)
        self.save = self._button("Save beside the notebook", "Write the file into the kernel's folder", self._save)
        self.show_code = self._button("Show code", "Code that makes this figure again", self._show_code)
        self._result = ipywidgets.HTML()
        self._list = ipywidgets.VBox()
        self.caption = ipywidgets.Textarea(
            description="Caption", style=LABEL, rows=6, tooltip="Made from the results in the figure; can be edited",
            layout={"width": "100%"},
        )  # fmt: skip
        self.code = ipywidgets.Textarea(rows=10, layout={"width": "100%", "display": "none"})
        self._stage = ipywidgets.VBox()
        self._stage.add_class("nlv-tray-stage")
        self.code.add_class("nlv-tray-code")
        left = ipywidgets.VBox([
            self._list, controls.row(self.width, self.columns), controls.row(self.kind, self.dpi, self.transparent),
            controls.row(self.name, self.download, self.save, self.overwrite), self._busy, self._alert, self._result,
            self.caption, self.show_code, self.code,
        ])  # fmt: skip
        left.add_class("nlv-tray-options")
        self.children = [left, self._stage]
        self._link(self, lambda change: self._compose(), "shown")
        for control in (self.width, self.columns):
            self._link(control, lambda change: self._compose())
        self._link(self.kind, lambda change: self._offer())
        self._link(self.name, lambda change: self._rename())
        self._offer()
        self._arrange()

    def __dir__(self) -> list[str]:
        return ["close", "figure", "pin", "pins", "write"]

    def __repr__(self) -> str:
        return f"<Tray of {len(self.pins)} figures>"

    @property
    def figure(self) -> go.Figure:
        """The pinned figures in one, for the chosen width.

        Raises
        ------
        ValueError
            When nothing is pinned, or a figure is too small to read at the width.
        """
        if not self.pins:
            raise ValueError("nothing is pinned: pin a panel's figure first, by its button or tray.pin(panel)")
        return figures.compose([pin.figure for pin in self.pins], **self._options())

    def pin(self, panel: Panel) -> None:
        """Keep what a panel shows now.

        Raises
        ------
        ValueError
            When it shows no figure now, or the tray is full.
        """
        if len(self.pins) == len(ascii_lowercase):
            raise ValueError(f"the tray holds {len(self.pins)} figures, as many as there are letters: remove some")
        self.pins.append(pinned(panel))
        self._arrange()

    def write(
        self,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        dpi: int | None = None,
        transparent: bool = False,
    ) -> Path:
        """Write the figure to a file, with a JSON of its caption and provenance.

        Parameters
        ----------
        path : path
            Ends in ``.pdf``, ``.svg``, ``.png`` or ``.html``.
        overwrite : bool
            Whether an existing file may be replaced.
        dpi : int, optional
            Dots per inch; default 300, of a slide 144, of a poster 200.
        transparent : bool
            Whether a PNG has no background.

        Raises
        ------
        FileExistsError
            When the file or its JSON exists.
        ValueError
            When nothing is pinned, or the name is too long.
        """
        target = require_new(path, overwrite)
        return figures.write_figure(self.figure, target, dpi=dpi, transparent=transparent)

    def _options(self) -> dict[str, Any]:
        return {"width": self.width.value, "columns": self.columns.value or None}

    def _written(self) -> dict[str, Any]:
        return {"dpi": self.dpi.value, **({"transparent": True} if self._clear else {})}

    @property
    def _clear(self) -> bool:
        return bool(self.transparent.value and self.kind.value == "png")

    def _rename(self) -> None:
        if self._plot is not None:
            name_file(self._plot, self._stem)

    @property
    def _stem(self) -> str:
        """The file's name without its ending."""
        return self.name.value.strip() or "figure"

    def _offer(self) -> None:
        self.transparent.layout.display = None if self.kind.value == "png" else "none"
        self.dpi.layout.display = "none" if self.kind.value == "html" else None

    def _arrange(self) -> None:
        """Show the pinned figures as lines with their buttons, and the figure made of them."""
        before = self._lines
        self._lines = [self._line(i) for i in range(len(self.pins))]
        empty = ipywidgets.HTML(_EMPTY)
        self._lines += [(empty,)] * (not self.pins)
        self._list.children = [line[0] for line in self._lines]
        # Close old lines only after they have left the page, which may still be drawing them.
        for line in before:
            for widget in line:
                widget.close()
        self.download.disabled = self.save.disabled = self.show_code.disabled = not self.pins
        self.code.layout.display = "none"
        self.count = len(self.pins)
        self._compose()

    def _line(self, i: int) -> tuple[Any, ...]:
        pin = self.pins[i]
        letter = f"<b>({ascii_lowercase[i]})</b> " if len(self.pins) > 1 else ""
        text = ipywidgets.HTML(f"{letter}{escape(shorten(pin.title, _LONGEST_TITLE))}", layout={"flex": "1 1 0"})
        buttons = []
        for icon, tooltip, call, able in (
            ("arrow-up", "Move towards (a)", lambda: self._move(i, -1), i > 0),
            ("arrow-down", "Move away from (a)", lambda: self._move(i, 1), i < len(self.pins) - 1),
            ("times", "Take off the tray", lambda: self._remove(i), True),
        ):
            button = self._button("", tooltip, call, icon, "nlv-tool")
            button.disabled = not able
            buttons.append(button)
        return (ipywidgets.HBox([text, *buttons]), text, *buttons)

    def _move(self, i: int, by: int) -> None:
        self.pins.insert(i + by, self.pins.pop(i))
        self._arrange()

    def _remove(self, i: int) -> None:
        del self.pins[i]
        self._arrange()

    def _compose(self) -> None:
        """Draw the figure as it will be written, and write its caption, if the tray is in sight."""
        if not self.shown:
            return
        self._result.value = ""
        if not self.pins:
            self.caption.value = ""
        self._stage.layout.display = None if self.pins else "none"
        if self.pins:
            figure = self.figure
            self.caption.value = figures.figure_caption(figure)
            figure.layout.meta = None
            name_file(figure, self._stem)
            if self._plot is None:
                self._plot = Plot(figure)
                self._stage.children = (self._plot,)
            else:
                # Update the plot: if it were replaced, the page might still be loading a view of the closed one.
                self._plot.become(figure)
        if self.code.layout.display is None:
            self._show_code()

    def _content(self) -> tuple[str, str, bytes]:
        """Return the file's name, media type and content."""
        kind = self.kind.value
        return f"{io.file_name(self._stem)}.{kind}", _TYPES[kind], figure_bytes(self.figure, kind, **self._written())

    def _guarded_content(self) -> tuple[str, str, bytes] | None:
        content: list[tuple[str, str, bytes]] = []
        with self._working("Drawing the file …"):
            content.append(self._content())
            self._result.value = f'<span role="status">{escape(content[0][0])} goes to your downloads</span>'
        return content[0] if content else None

    def _save(self) -> None:
        self._result.value = ""
        path = f"{self._stem}.{self.kind.value}"
        written = self.write(path, overwrite=self.overwrite.value, **self._written())
        self._result.value = f'<span role="status">wrote {escape(written)}</span>'

    def _show_code(self) -> None:
        path = f"{io.file_name(self._stem)}.{self.kind.value}"
        self.code.value = code(self.pins, self.state, self._options(), path, self._written())
        self.code.layout.display = None

    def close(self) -> None:
        """Take the tray off the page and out of memory."""
        if not self._closed:
            for line in self._lines:
                for widget in line:
                    widget.close()
        super().close()
