"""The plotly figure class, and the colours that all pictures share."""

from __future__ import annotations

import html
import re
from typing import Any

import plotly.graph_objects as go
import plotly.io
from plotly.colors import sample_colorscale

# After Okabe & Ito (2008), with equal steps of lightness: the first six can be told apart with any colour vision, and
# in greyscale. The colours of the two main models come last, so that a picture with few categories never uses them for
# something else.
CATEGORICAL = ("#008C65", "#EAA51A", "#C474A1", "#84D6FC", "#F7EA50", "#4B3CA5", "#0072B2", "#D55E00")
DISTINCT = 6
"""Number of colours of `CATEGORICAL` that can be told apart; more categories also need labels or marks."""
# Cividis without its two ends, which are invisible on a dark or a light page.
SEQUENTIAL = tuple(sample_colorscale("Cividis", [k / 20 for k in range(3, 19)], colortype="rgb"))
# Mid-grey text has a contrast of 4.3 on white and on Jupyter's dark grey, and is readable on both.
INK = "#797979"
MISSING = "#8a8a8a"
CURSOR = "#DC267F"
"""Colour of the cursor: the current token, state or place."""

TOOLBAR: dict[str, Any] = {"orientation": "v", "bgcolor": "rgba(0,0,0,0)", "color": INK, "activecolor": "#0072B2"}
"""The toolbar that plotly shows under the mouse: a column in the right margin, beside titles and legends."""
ROOM = 34
"""Width in pixels of a right margin into which the toolbar fits."""

CONFIG: dict[str, Any] = {
    "displaylogo": False,
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "responsive": True,
    "scrollZoom": False,
    "modeBarButtonsToRemove": [
        "sendDataToCloud",
        "sendChartToCloud",
        "autoScale2d",
        "toggleSpikelines",
        "zoomIn2d",
        "zoomOut2d",
    ],
    "toImageButtonOptions": {"format": "svg"},
}
"""plotly configuration of every figure: no logo and no upload."""
_LONGEST = 60  # letters of a file name
_FILE = "file"  # in the layout's meta


def configuration(figure: go.Figure, *, responsive: bool = True) -> dict[str, Any]:
    """Return plotly's configuration of a figure, with the name of the file that the camera button writes.

    The name is that of `name_file`, else the title, else the first heading. `responsive` must be False in JupyterLab,
    which resizes figures itself: if plotly does so too, a figure loses its height when the window is resized.

    Examples
    --------
    >>> configuration(go.Figure().update_layout(title="<b>Loss</b> & floor"))["toImageButtonOptions"]["filename"]
    'Loss_floor'
    """
    own = figure.layout.meta if isinstance(figure.layout.meta, dict) else {}
    texts = [own[_FILE]] if _FILE in own else [figure.layout.title.text, *(n.text for n in figure.layout.annotations)]
    plain = (html.unescape(re.sub("<[^>]*>", " ", text or "").strip()) for text in texts)
    name = next(filter(None, map(_file_name, plain)), "figure")
    image = {**CONFIG["toImageButtonOptions"], "filename": name}
    return {**CONFIG, "responsive": responsive, "toImageButtonOptions": image}


def name_file(figure: go.Figure, *parts: str) -> None:
    """Name the file that the camera button writes, also of a figure that is changed in place.

    Examples
    --------
    >>> figure = go.Figure()
    >>> name_file(figure, "rrxor", "world")
    >>> configuration(figure)["toImageButtonOptions"]["filename"]
    'rrxor_world'
    """
    room = _LONGEST // max(len(parts), 1) - 1
    name = "_".join(filter(None, (_file_name(part)[:room] for part in parts)))
    figure.layout.meta = {**(figure.layout.meta or {}), _FILE: name}


def _file_name(text: str) -> str:
    return re.sub(r"\W+", "_", text).strip("_")[:_LONGEST]


class Figure(go.Figure):
    """A plotly figure without upload button and logo, in a notebook, in a browser or in a file.

    plotly takes these settings only when a figure is shown, so that a plain plotly figure has a "Share chart" button.

    Examples
    --------
    >>> '"showSendToCloud": false' in Figure().to_html(include_plotlyjs=False)
    True
    """

    def show(self, *arguments: Any, **options: Any) -> Any:
        """Show the figure, as plotly does."""
        return super().show(*arguments, **{"config": configuration(self, responsive=False), **options})

    def to_html(self, *arguments: Any, **options: Any) -> str:
        """Return the figure as HTML, as plotly does."""
        text: str = super().to_html(*arguments, **{"config": configuration(self), **options})
        return text

    def write_html(self, *arguments: Any, **options: Any) -> None:
        """Write the figure as HTML, as plotly does."""
        super().write_html(*arguments, **{"config": configuration(self), **options})

    def _repr_mimebundle_(self, *arguments: Any, **options: Any) -> Any:
        return super()._repr_mimebundle_(*arguments, **{"config": configuration(self, responsive=False), **options})

    def _ipython_display_(self) -> None:
        if plotly.io.renderers.render_on_display and plotly.io.renderers.default:
            self.show()
        else:
            print(repr(self))
