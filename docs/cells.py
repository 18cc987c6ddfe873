"""Run the cells of a page or a notebook, and keep their outputs in a form that needs no running kernel.

Cells run in this process without an event loop, so that every widget is complete when its cell ends. A page of the site
is MyST Markdown with ``{code-cell}`` blocks; a notebook is an ``.ipynb`` file.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Collection, Iterator
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets
import nbformat
import plotly.graph_objects as go
from IPython.core.displayhook import DisplayHook
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display
from IPython.utils.capture import capture_output
from myst_nb.core.read import read_myst_markdown_notebook
from traitlets.config import Config

from nextlat_viz.notebook import EpisodeStepper
from nextlat_viz.notebook.panel import Box, Panel
from nextlat_viz.notebook.plot import Plot
from nextlat_viz.notebook.studio import Studio
from nextlat_viz.pages import episode_page
from nextlat_viz.pages.page import figure_html

_NUMBERS = itertools.count()
_LIVE = "A widget. In a notebook it has controls and follows the other widgets; here it is as it opens."
_HEIGHT = 690  # pixels of a page of an episode
_TRAIN = re.compile(r"\bsteps=[\d_]+")


def read(path: Path) -> nbformat.NotebookNode:
    """Read a page or a notebook."""
    if path.suffix == ".ipynb":
        return nbformat.read(path, as_version=4)
    return read_myst_markdown_notebook(path.read_text(encoding="utf-8"))


def code(path: Path) -> list[str]:
    """Return the code of the cells; empty for a page without cells."""
    return [cell.source for cell in read(path).cells if cell.cell_type == "code"]


def run(
    path: Path, episodes: Path | None = None, stem: str = "", *, quick: bool = False, leave_out: Collection[str] = ()
) -> nbformat.NotebookNode:
    """Run the cells in the current folder and return the notebook with their outputs.

    Parameters
    ----------
    path : path
        Of a page or a notebook.
    episodes : folder, optional
        Where to write pages of episodes to step through; their names begin with `stem`.
    quick : bool
        Train for two steps wherever a cell says ``steps=``.
    leave_out : several str, optional
        Tags of cells that are not run.

    Raises
    ------
    RuntimeError
        If a cell without the tag ``raises-exception`` fails; names the page and shows the cell.
    """
    notebook = read(path)
    with _shell(episodes, stem) as shell:
        for number, cell in enumerate(notebook.cells):
            tags = cell.metadata.get("tags", ())
            if cell.cell_type != "code" or set(tags) & set(leave_out):
                continue
            source = _TRAIN.sub("steps=2", cell.source) if quick else cell.source
            with capture_output() as captured:
                outcome = shell.run_cell(source)
            error = outcome.error_before_exec or outcome.error_in_exec
            if error is not None and "raises-exception" not in tags:
                raise RuntimeError(f"{path}, cell {number}: {type(error).__name__}: {error}\n\n{source}") from error
            # A progress bar is no output.
            cell.outputs = [] if "remove-output" in tags else list(_outputs(captured))
            if error is not None:
                text = f"{type(error).__name__}: {error}"
                cell.outputs.append(nbformat.v4.new_output("stream", name="stdout", text=text))
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def _outputs(captured: Any) -> Iterator[nbformat.NotebookNode]:
    if captured.stdout:
        yield nbformat.v4.new_output("stream", name="stdout", text=captured.stdout)
    for output in captured.outputs:
        data = {kind: value for kind, value in output.data.items() if kind in ("text/html", "text/plain")}
        markdown = output.data.get("text/markdown")
        yield nbformat.v4.new_output("display_data", data={"text/markdown": markdown} if markdown else data)


class _Hook(DisplayHook):
    """Shows the value of a cell's last line as a notebook does, without a number before it."""

    def __call__(self, result: Any = None) -> None:
        if result is not None and not self.quiet():
            display(result)


@contextlib.contextmanager
def _shell(episodes: Path | None, stem: str) -> Iterator[InteractiveShell]:
    """Open a shell that shows figures and widgets as HTML."""
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}), displayhook_class=_Hook)
    show = shell.display_formatter.ipython_display_formatter

    def register(kind: type, html: Callable[[Any], str]) -> None:
        show.for_type(kind, lambda value: display({"text/html": html(value)}, raw=True))

    register(go.Figure, plot_html)
    register(ipywidgets.Widget, widget_html)
    register(Plot, plot_html)
    register(EpisodeStepper, lambda stepper: _episode_frame(stepper, episodes, stem))
    try:
        yield shell
    finally:
        InteractiveShell.clear_instance()


def plot_html(figure: go.Figure) -> str:
    """Return a figure as HTML for a page of the site, which has plotly.js."""
    return f'<div class="nlv-figure">{figure_html(go.Figure(figure.to_dict()), next(_NUMBERS))}</div>'


def widget_html(widget: ipywidgets.Widget) -> str:
    """Return the figures and the texts of a widget as HTML, without its controls."""
    note = f'<p class="nlv-note">{_LIVE}</p>' if isinstance(widget, Box) else ""
    return f'<div class="nlv-widget">{note}{"".join(_parts(widget))}</div>'


def _parts(widget: Any) -> Iterator[str]:
    if isinstance(widget, Studio):
        for panel in widget.panels.made.values():
            if panel.shown:
                yield f'<section><p class="nlv-question">{escape(panel.question)}</p>{"".join(_panel(panel))}</section>'
    elif isinstance(widget, Panel):
        yield from _panel(widget)
    elif isinstance(widget, Plot):
        yield plot_html(widget)
    elif isinstance(widget, ipywidgets.HTML):
        yield f"<div>{widget.value}</div>" if widget.value else ""
    elif isinstance(widget, ipywidgets.RadioButtons):
        yield "<ul>" + "".join(f"<li>{escape(str(option))}</li>" for option in widget.options) + "</ul>"
    elif getattr(widget, "layout", None) is None or widget.layout.display != "none":
        for child in getattr(widget, "children", ()):
            yield from _parts(child)


def _panel(panel: Panel) -> Iterator[str]:
    plot = panel.plot
    if plot is not None:
        yield plot_html(plot)
    else:
        for child in panel.children:
            yield from _parts(child)


def _episode_frame(stepper: EpisodeStepper, episodes: Path | None, stem: str) -> str:
    """Write the page of the episode that the stepper shows, and return a frame that holds it."""
    if episodes is None:
        return widget_html(stepper)
    page = episode_page(
        stepper.world, stepper.episode, kind=stepper._picture.value, title=stepper.world.name, gallery=True
    )
    page = re.sub(r"<nav>.*?</nav>", "", page, flags=re.DOTALL)
    page = page.replace('src="plotly.min.js"', 'src="../_static/plotly.min.js"')
    name = f"{stem}-{next(_NUMBERS)}-{stepper.world.name}.html"
    episodes.mkdir(parents=True, exist_ok=True)
    (episodes / name).write_text(page, encoding="utf-8")
    title = f"An episode of {stepper.world.name} to step through"
    return (
        f'<iframe class="nlv-episode" loading="lazy" title="{title}" data-page="episodes/{name}" height="{_HEIGHT}">'
        "</iframe>"
    )
