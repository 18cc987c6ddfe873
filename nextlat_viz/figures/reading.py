"""Figure of a string read by models and the ideal observer: surprise, next token, and path of beliefs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from nextlat_viz.display import escape, shorten
from nextlat_viz.errors import at_least
from nextlat_viz.figures import simplex
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.bars import bars, hatched, likeliest, name_axis
from nextlat_viz.figures.layout import LEGEND, Layout
from nextlat_viz.figures.theme import Theme, dash, symbol
from nextlat_viz.plotting import CATEGORICAL, CURSOR, Figure

if TYPE_CHECKING:
    from nextlat_viz.analysis import Trajectory
    from nextlat_viz.analysis.reading import StringReading

# Most bars in a narrow view; letters that fit below the surprise, and letters of the longest token there.
_BARS, _ACROSS, _LONGEST = 8, 48, 5
_FAINT = 0.45
BEFORE = "before the change"


def string_figure(
    reading: StringReading,
    position: int,
    *,
    original: StringReading | None = None,
    paths: Mapping[str, Trajectory] | None = None,
    original_paths: Mapping[str, Trajectory] | None = None,
    theme: Theme = "auto",
) -> Figure:
    """Draw the surprise of each token, the prediction after one of them, and the path of the belief.

    Parameters
    ----------
    reading : StringReading
    position : int
        The number of tokens, from 0, after which the prediction is drawn as bars.
    original : StringReading, optional
        A string to compare with: its curves are faint and dashed, and tokens that differ from it are marked.
    paths, original_paths : dict of label to Trajectory, optional
        Paths of both strings, as `StringReading.path` returns them; without `paths` there is no third view.
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure
        In traces whose ``meta["role"]`` is "surprise", point i is token i + 1.

    Raises
    ------
    ValueError
        For a position that is no integer, or that the string does not have.

    Examples
    --------
    >>> from nextlat_viz.analysis.reading import read_string
    >>> figure = string_figure(read_string("rrxor/nextlat", "0 1 1"), 2)
    >>> [trace.name for trace in figure.data]
    ['ideal observer', 'NextLat', 'ideal observer', 'NextLat']
    """
    count = reading.tokens.size
    if at_least("position", position, 0) > count:
        raise ValueError(f"position={position}: a string of {count} tokens has positions 0 to {count}")
    names = list(reading.surprise)[2:]
    looks = _looks(names, list(reading.laws))
    known = {name: law[position] for name, law in reading.readers.items() if np.nansum(law[position]) > 0}
    chosen = likeliest(list(known.values()), _BARS) if known else np.zeros(0, dtype=int)
    shown = [shorten(reading.world.vocabulary[token], 10) for token in chosen]

    layout, traces = Layout(), list[Any]()
    surprise, law, plane = _views(layout, reading, position, shown, paths)
    changed = [] if original is None else reading.changed(original).tolist()
    for place in changed:
        across = {"x0": place - 0.4, "x1": place + 0.4, "xref": "x", "y0": 0, "y1": 1, "yref": "y domain"}
        band = {"fillcolor": themes.rgba(CATEGORICAL[1], 0.25), "layer": "below", "line": {"width": 0}}
        layout.lines.append({"type": "rect", **across, **band})
    layout.rule(surprise, {"color": CURSOR, "width": 1.5, "dash": "dot"}, x=position)
    for name, look in looks.items():
        if original is not None:
            traces.append(_before(name, original.surprise[name], look, surprise))
        traces.append(_surprise(name, reading, look, surprise))
    for name, look in looks.items():
        if name in known:
            options = {"showlegend": False, "legendgroup": name, **law}
            traces.append(bars(name, known[name], reading.world.vocabulary, chosen, look["bars"], "law", **options))
    if paths and plane is not None:
        first = next(iter(paths.values()))
        traces.append(simplex.edges(None if first.axes else reading.world, meta={"role": "simplex"}, **plane))  # type: ignore[arg-type]
        for when, drawn in ((BEFORE, original_paths or {}), ("", paths)):
            traces += _paths(when, drawn, looks, position, plane)
    if original is not None and names:
        line = {"color": themes.EXACT, "width": 1.3, "dash": "dash"}
        traces.append(
            go.Scatter(x=[None], y=[None], mode="lines", line=line, name=BEFORE, meta={"role": "key"}, **surprise)
        )
    return layout.finish(
        traces,
        theme,
        height=380,
        margin={"l": 44, "t": 62, "b": 58},
        barmode="group",
        bargap=0.25,
        legend=LEGEND,
    )


def difference(
    reading: StringReading,
    original: StringReading,
    paths: Mapping[str, Trajectory],
    before: Mapping[str, Trajectory],
    position: int,
) -> str:
    """Describe how much the surprise and the belief changed with the string."""
    changed, names = reading.changed(original), reading.world.vocabulary
    if not changed.size:
        return ""
    parts = [f"{changed.size} tokens changed"]
    if changed.size == 1:
        old, new = (shorten(names[string.tokens[changed[0] - 1]]) for string in (original, reading))
        parts = [f"Position {changed[0]} changed from {old} to {new}"]
    more = [f"{label} {round(bits, 1) + 0.0:+.1f}" for label, bits in reading.more_surprise(original).items()]
    if more:
        parts.append(f"surprise changed, in bits: {', '.join(more)}")
    at = min(position, reading.tokens.size, original.tokens.size)
    moved = {label: (path, before[label]) for label, path in paths.items() if label in before and not path.axes}
    if moved:
        path, other = next(iter(moved.values()))
        far = {"exact": path.exact[at] - other.exact[at]}
        far |= {label: path.read[at] - other.read[at] for label, (path, other) in moved.items()}
        apart = ", ".join(f"{label} {np.abs(gap).sum() / 2:.2f}" for label, gap in far.items())
        parts.append(f"belief after position {at} moved, in total variation: {apart}")
    return "; ".join(parts) + "."


def _looks(names: Sequence[str], models: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return colour, dash, mark and bars of every reader; the ideal observer gets a wide grey line."""
    grey = {"color": themes.EXACT}
    exact: dict[str, Any] = {**grey, "width": 5, "dash": dash(0), "symbol": symbol(0), "bars": grey}
    looks = {
        name: {"color": color, "width": 2, "dash": dash(i), "symbol": symbol(i), "bars": hatched(color, i)}
        for i, (name, color) in enumerate(zip(models, themes.model_colors(models), strict=True))
    }
    return {name: looks.get(name, exact) | {"exact": name not in looks} for name in names}


def _views(
    layout: Layout,
    reading: StringReading,
    position: int,
    shown: Sequence[str],
    paths: Mapping[str, Trajectory] | None,
) -> tuple[dict[str, str], dict[str, str], dict[str, str] | None]:
    """Add the views of the surprise, of the prediction, and of the paths."""
    columns = [[0.0, 0.38], [0.45, 0.59], [0.74, 1.0]] if paths else [[0.0, 0.58], [0.68, 1.0]]
    tokens = [escape(shorten(reading.world.vocabulary[token], 8)) for token in reading.tokens]
    fit = sum(map(len, tokens)) + len(tokens) <= _ACROSS and max(map(len, tokens), default=0) <= _LONGEST
    x: dict[str, Any] = {
        "range": [0.4, max(len(tokens), 1) + 0.6], "showgrid": False, "title": {"text": "token" if fit else "position"},
    }  # fmt: skip
    if fit:
        x |= {"tickvals": list(range(1, len(tokens) + 1)), "ticktext": tokens}
    # At least 1 bit: else noise of a thousandth of a bit would look like surprise.
    peak = np.nanmax([1.0, *reading.surprise.iloc[:, 2:].to_numpy().ravel()])
    y = {"range": [0, 1.08 * float(peak)], "title": {"text": "surprise (bits)"}}
    surprise = layout.view(columns[0], [0.0, 1.0], x=x, y=y, title="Surprise")
    chances = {"range": [0, 1.02], "title": {"text": "" if paths else "probability"}}
    law = layout.view(
        columns[1],
        [0.0, 1.0],
        x={**name_axis(shown, ""), "tickangle": None},
        y=chances,
        title=reading.predicted.capitalize(),
        more=f"after token {position}" if position else "at the start",
    )
    if not paths:
        return surprise, law, None
    axes = next(iter(paths.values())).axes
    across, up = [{"title": {"text": name}} if axes else {"visible": False} for name in (axes or "xy")]
    title = "Place" if axes else "Belief"
    return surprise, law, layout.view(columns[2], [0.0, 1.0], x=across, y=up, title=title, square=True)


def _surprise(name: str, reading: StringReading, look: Mapping[str, Any], axes: Mapping[str, str]) -> go.Scatter:
    frame = reading.surprise
    label = escape(shorten(name))
    return go.Scatter(
        x=frame["position"].tolist(), y=frame[name].round(4).tolist(), mode="lines+markers", name=label,
        legendgroup=label, text=[escape(shorten(token)) for token in frame["token"]],
        line={"color": look["color"], "width": look["width"], "dash": look["dash"]},
        marker={"color": look["color"], "size": 9 if look["exact"] else 6, "symbol": look["symbol"]},
        hovertemplate=f"<b>{label}</b><br>position %{{x}}: %{{text}}<br>%{{y:.2f}} bits<extra></extra>",
        meta={"role": "surprise"}, **axes,
    )  # fmt: skip


def _before(name: str, values: Any, look: Mapping[str, Any], axes: Mapping[str, str]) -> go.Scatter:
    label = escape(shorten(name))
    return go.Scatter(
        x=list(range(1, len(values) + 1)), y=values.round(4).tolist(), mode="lines", name=f"{label} {BEFORE}",
        legendgroup=label, showlegend=False, hoverinfo="skip",
        line={"color": themes.rgba(look["color"], _FAINT), "width": 1.5, "dash": "dash"},
        meta={"role": "before"}, **axes,
    )  # fmt: skip


def _paths(
    when: str,
    paths: Mapping[str, Trajectory],
    looks: Mapping[str, Mapping[str, Any]],
    position: int,
    axes: Mapping[str, str],
) -> list[go.Scatter]:
    """Draw the exact path and the models' paths, with a mark at the position; paths of the original without marks."""
    if not paths:
        return []
    exact = next(iter(paths.values())).exact_coordinates
    lines = {name: exact if look["exact"] else paths[name].coordinates for name, look in looks.items()
             if look["exact"] or name in paths}  # fmt: skip
    traces = []
    for name, line in lines.items():
        look, label = looks[name], escape(shorten(name))
        color = themes.rgba(look["color"], _FAINT) if when else look["color"]
        width, pattern = (1.5, "dash") if when else (look["width"], look["dash"])
        options = {"legendgroup": label, "showlegend": False, "name": f"{label} {when}".strip(), **axes}
        traces.append(
            go.Scatter(
                x=line[:, 0].round(4).tolist(), y=line[:, 1].round(4).tolist(),
                mode="lines" if when else "lines+markers",
                line={"color": color, "width": width, "dash": pattern},
                marker={"color": color, "size": 5 + 3 * look["exact"], "symbol": look["symbol"]},
                hovertemplate=None if when else f"<b>{label}</b><br>after %{{pointNumber}} tokens<extra></extra>",
                hoverinfo="skip" if when else None, meta={"role": "before" if when else "path"}, **options,
            )
        )  # fmt: skip
        if not when and position < len(line):
            traces.append(
                go.Scatter(
                    x=line[position : position + 1, 0].tolist(), y=line[position : position + 1, 1].tolist(),
                    mode="markers", hoverinfo="skip", meta={"role": "cursor"},
                    marker={"size": 17 if look["exact"] else 11, "symbol": look["symbol"], "color": look["color"],
                            "line": {"width": 2, "color": CURSOR}},
                    **options,
                )
            )  # fmt: skip
    return traces
