"""The plotly figure class, the differences between two figures, and the colours that all pictures share."""

from __future__ import annotations

import contextlib
import html
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
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
    texts = [own[_FILE]] if own.get(_FILE) else [figure.layout.title.text, *(n.text for n in figure.layout.annotations)]
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


def changes(
    old: Mapping[str, Any], new: Mapping[str, Any], skip: set[str], whole: frozenset[str] | set[str] = frozenset()
) -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, new value) of the differences between two plotly dictionaries; None for a key that is gone.

    Parameters
    ----------
    old, new : dict
    skip : set of str
        Keys left alone, at any depth.
    whole : set of str
        Keys whose values are replaced whole when anything in them differs.

    Examples
    --------
    >>> list(changes({"marker": {"size": 5, "color": "red"}}, {"marker": {"size": 5}}, skip=set()))
    [('marker.color', None)]
    """
    for key in [*new, *(key for key in old if key not in new)]:
        before, after = old.get(key), new.get(key)
        if key in skip:
            continue
        present = [value for value in (before, after) if value is not None]
        if present and all(isinstance(value, Mapping) for value in present) and key not in whole:
            for path, value in changes(before or {}, after or {}, skip, whole):
                yield f"{key}.{path}", value
        elif not _same(before, after):
            yield key, after


def _same(first: Any, second: Any) -> bool:
    if first is second:
        return True
    if isinstance(first, np.ndarray) or isinstance(second, np.ndarray):
        if first is None or second is None:
            return False
        first, second = np.asarray(first), np.asarray(second)
        numeric = first.dtype.kind == second.dtype.kind == "f"
        return bool(np.array_equal(first, second, equal_nan=numeric))
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(_same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        with contextlib.suppress(ValueError):  # raised by arrays in the lists
            # Fast for hundreds of unchanged texts.
            if list(first) == list(second):
                return True
        return len(first) == len(second) and all(_same(a, b) for a, b in zip(first, second, strict=True))
    return bool(first == second)


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
