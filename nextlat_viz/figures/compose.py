"""Several figures of one view each in one figure, side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import plotly.graph_objects as go

from nextlat_viz import worlds
from nextlat_viz.display import escape
from nextlat_viz.figures.layout import Grid, Layout, axis_number
from nextlat_viz.figures.theme import Theme
from nextlat_viz.plotting import Figure
from nextlat_viz.worlds import drawing

_LARGEST = 11  # pixels of a letter in a small view
_HEADING = 22  # letters of a line above a view
# Worlds without one picture that says it all, or that need data of the reader's.
_LEFT_OUT = ("hmm", "text")


def compose(figures: Mapping[str, go.Figure], *, columns: int = 3, height: int = 300, theme: Theme = "auto") -> Figure:
    """Put figures of one view each side by side, with a heading each and the legend of the first.

    Parameters
    ----------
    figures : dict of heading to plotly Figure
        Each with one pair of axes. Their own titles and captions are left out.
    columns : int
        Views in a row.
    height : int
        Pixels of a view.
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure

    Raises
    ------
    ValueError
        For no figure, or one of several views.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> pair = compose({name: worlds.get(name).draw() for name in ("even", "mess3")}, columns=2)
    >>> [note.text for note in pair.layout.annotations if note.xref == "paper"]
    ['<b>even</b>', '<b>mess3</b>']
    """
    if not figures:
        raise ValueError("figures is empty: give {heading: figure}")
    columns = min(columns, len(figures))
    lines = max(len(textwrap.wrap(title, _HEADING)) for title in figures)
    grid = Grid(
        -(-len(figures) // columns),
        columns,
        height=height,
        above=16 + 18 * lines,
        foot=44,
        gap=0.03,
    )
    layout, traces = Layout(), []
    for i, (title, figure) in enumerate(figures.items()):
        parts = figure.to_plotly_json()["layout"]
        if "xaxis2" in parts:
            raise ValueError(f"figures[{title!r}] has several views: give figures of one view each")
        across, up = ({**parts.get(f"{name}axis", {})} for name in "xy")
        if up.get("scaleanchor"):
            up["scaleanchor"] = f"x{axis_number(i)}"
        axes = layout.view(*grid.place(*divmod(i, columns)), x=across, y=up, title=_broken(title))
        for trace in figure.data:
            # Views share the names in the legend.
            legend = {"showlegend": bool(trace.name and trace.showlegend and i == 0), "legendgroup": trace.name}
            content = trace.to_plotly_json()
            if "showscale" in content.get("marker", {}):
                content["marker"] = {**content["marker"], "showscale": False}
            if trace.type == "scatter":
                # A picture's outermost marks may be larger than its axes.
                content["cliponaxis"] = False
            traces.append(type(trace)({**content, **axes, **legend}))
        names = {"xref": axes["xaxis"], "yref": axes["yaxis"]}
        for kind, kept in (("annotations", layout.notes), ("shapes", layout.lines)):
            for item in parts.get(kind, ()):
                if item.get("xref") != "paper":
                    font = item.get("font", {})
                    small = {"font": {**font, "size": min(font.get("size", 12), _LARGEST)}}
                    kept.append({**item, **names, **(small if kind == "annotations" else {})})
    legend = {"orientation": "h", "x": 0, "yref": "container", "y": 0.01, "yanchor": "bottom"}
    return layout.finish(traces, theme, height=grid.pixels, margin={"l": 8, "t": 0, "b": 0}, legend=legend)


def _broken(title: str) -> str:
    return "<br>".join(escape(line) for line in textwrap.wrap(title, _HEADING))


def contact_sheet(*, columns: int = 4, theme: Theme = "auto") -> Figure:
    """Draw every world that comes with the library, in the middle of an episode.

    Examples
    --------
    >>> len(contact_sheet().layout.annotations) > 15
    True
    """
    drawn = {}
    for name in worlds.names():
        world = None if name in _LEFT_OUT else worlds.get(name)
        if world is not None and world.pictures:
            episode = world.sample(1, None if world.length else 12, seed=0)
            kind = "beliefs" if "beliefs" in world.pictures else world.pictures[0]
            drawn[name] = world.draw(
                kind, episode=episode, position=drawing.opening(world, episode), width=300, height=300
            )
    return compose(drawn, columns=columns, height=220, theme=theme)
