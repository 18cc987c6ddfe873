"""Pictures of worlds: the registry that ``World.draw`` uses, and the layout and marks that all pictures share."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from numpy.typing import ArrayLike

from nextlat_viz.display import escape, shorten
from nextlat_viz.errors import unknown
from nextlat_viz.plotting import CATEGORICAL, CURSOR, INK, ROOM, TOOLBAR, Figure
from nextlat_viz.worlds import checks

if TYPE_CHECKING:
    from nextlat_viz.worlds.base import Episodes, World

Picture = TypeVar("Picture", bound=Callable[..., go.Figure])

# Characters of a name that hover text shows.
HOVER = 120
# Default size of a picture in pixels; in a panel it may shrink to this fraction of its size.
_WIDTH, SMALLER = 560, 0.35
_DARK = 90  # of 255: a grey on which white is easier to read than black
QUIET: dict[str, Any] = {"hoverinfo": "skip", "showlegend": False}
"""Options of a trace without hover text and legend entry."""

_PICTURES: dict[tuple[type, str], Callable[..., go.Figure]] = {}


def picture(owner: type, kind: str) -> Callable[[Picture], Picture]:
    """Register the function that draws one kind of picture of a class; a decorator.

    For a world the function is called as ``function(world, episode, position, **options)`` after all arguments were
    checked. ``episode`` holds one episode and ``position`` is the number of tokens read, from 0; or both are None. The
    function's keyword-only parameters are the options of the picture. The module ``draw`` in the folder of the class is
    imported when a picture is first requested.

    Examples
    --------
    >>> from nextlat_viz.worlds import HiddenMarkovWorld, hmm
    >>> class Coin(HiddenMarkovWorld):
    ...     pictures = ("faces",)
    >>> @picture(Coin, "faces")
    ... def draw_faces(world, episode, position, *, width=200):
    ...     return go.Figure(layout={"width": width, "title": {"text": "heads, tails"}})
    >>> Coin("coin", [[[0.5]], [[0.5]]]).draw("faces", width=300).layout.width
    300
    """

    def register(function: Picture) -> Picture:
        _PICTURES[owner, kind] = function
        return function

    return register


def find_picture(owner: type, kind: str) -> Callable[..., go.Figure]:
    """Return the function registered for a class, or for the nearest of its base classes."""
    for cls in owner.__mro__:
        package = cls.__module__.rpartition(".")[0]
        if (cls, kind) not in _PICTURES and package and find_spec(f"{package}.draw"):
            importlib.import_module(f"{package}.draw")
        if function := _PICTURES.get((cls, kind)):
            return function
    raise NotImplementedError(
        f"no function draws the picture {kind!r} of {owner.__name__}: override draw, or register a function with "
        f"nextlat_viz.worlds.drawing.picture({owner.__name__}, {kind!r})"
    )


def draw_picture(
    world: World, kind: str | None, episode: Episodes | None, position: int | None, options: Mapping[str, Any]
) -> go.Figure:
    """Check the arguments of ``World.draw`` and call the function registered for the kind of picture."""
    if kind is None and world.pictures:
        kind = world.pictures[0]
    if kind is None or kind not in world.pictures:
        raise unknown("kind of picture", kind, world.pictures)
    function = find_picture(type(world), kind)
    parameters = inspect.signature(function).parameters.values()
    accepted = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    for option, value in options.items():
        if option not in accepted:
            raise unknown(f"option of picture {kind!r}:", option, accepted)
        if option in ("width", "height") and value is not None:
            checks.integer(option, value)
    at = None if episode is None else checks.one_episode(episode, position)
    figure = function(world, episode, at, **options)
    fix_ranges(figure)
    return figure


def fix_ranges(figure: go.Figure) -> None:
    """Set the ranges of both axes to what the dots and names fill, in a picture with equal scales and no ranges.

    plotly would fit the ranges to the size of the page, and start from those when the size changes.
    """
    if figure.layout.yaxis.scaleanchor is None or figure.layout.xaxis.range or figure.layout.yaxis.range:
        return
    # By axis: places, and the pixels that a dot or a name takes before and after them.
    extents: dict[str, list[np.ndarray]] = {"x": [np.zeros((3, 0))], "y": [np.zeros((3, 0))]}
    for trace in figure.data:
        if trace.type in ("scatter", "scattergl") and trace.x is not None:
            size = trace.marker.size if "markers" in (trace.mode or "") else None
            half = 0.0 if size is None else np.array(size, dtype=float) / 2
            for name, parts in extents.items():
                parts.append(np.stack(np.broadcast_arrays(np.array(trace[name], dtype=float), half, half)))
    for item in figure.layout.annotations:
        if (item.xref or "x", item.yref or "y") == ("x", "y"):
            letters = len(re.sub("<[^>]*>", "", item.text))
            for (name, parts), half in zip(extents.items(), (4.2 * letters, 9.0), strict=True):
                shift = item[f"{name}shift"] or 0
                parts.append(np.array([[item[name]], [half - shift], [half + shift]], dtype=float))
    filled = {name: np.concatenate(parts, axis=1) for name, parts in extents.items()}
    filled = {name: part[:, np.isfinite(part).all(axis=0)] for name, part in filled.items()}
    if not all(part.size for part in filled.values()):
        return
    margin, ends = figure.layout.margin, ((name, part[0].min(), part[0].max()) for name, part in filled.items())
    across = (figure.layout.width or _WIDTH) - (margin.l or 0) - (margin.r or 0)
    up = (figure.layout.height or _WIDTH) - (margin.t or 0) - (margin.b or 0)
    # In a panel the picture shrinks, but its dots and names keep their size.
    room = {"x": max(SMALLER * across, 1), "y": max(SMALLER * up, 1)}
    pixel = max(float(high - low) / room[name] for name, low, high in ends) or 1 / room["x"]
    for name, (place, before, after) in filled.items():
        low, high = (place - (before + 4) * pixel).min(), (place + (after + 4) * pixel).max()
        figure.layout[f"{name}axis"].range = [float(low), float(high)]


def decisive_position(world: World, episode: Episodes) -> int | None:
    """Return the position of the world's decisive prediction, such as the choice of an arm; None without one."""
    decisive = world.decisive(episode) if world.causal else None
    return None if decisive is None or not decisive.any() else int(decisive[0].argmax()) + 1


def opening_position(world: World, episode: Episodes) -> int:
    """Return the position at which a picture of an episode opens; no world's picture is empty there.

    It is the decisive prediction's position, or else the middle of the tokens after the prompt; at least 1.
    """
    decisive = decisive_position(world, episode)
    if decisive is not None:
        return decisive
    prompt = int(episode.loss_mask[0].argmax())
    return max(1, (prompt + int(episode.length[0])) // 2)


def state_colour(index: int) -> str:
    """Colour of a state or token by its index, starting over after the last colour of the palette."""
    return CATEGORICAL[index % len(CATEGORICAL)]


def canvas(width: int, height: int, x: Any = None, y: Any = None, equal: bool = True, fixed: bool = False) -> Figure:
    """Return an empty picture of ranges `x` and `y`: transparent, without axes, `equal` in scale, `fixed` in zoom."""
    # Constrain the domain, not the range: plotly would keep a range fitted to a page whose size is not final.
    hidden = {"visible": False, "fixedrange": fixed, "constrain": "domain"}
    layout: dict[str, Any] = {
        "width": width,
        "height": height,
        "template": "none",
        "margin": {"l": ROOM, "r": ROOM, "t": 44, "b": 40},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": INK, "size": 13},
        "showlegend": False,
        "legend": {
            "font": {"size": 12},
            "title": {"font": {"size": 12}},
            "itemsizing": "constant",
            "y": 0,
            "yanchor": "bottom",
        },
        "modebar": TOOLBAR,
        "xaxis": hidden | {"range": x},
        "yaxis": hidden | {"range": y, "scaleanchor": "x" if equal else None},
        "hoverlabel": {"bgcolor": "#2b2f36", "font": {"color": "#ffffff"}},
        "dragmode": "pan",
    }
    return Figure(layout=layout)


def add_caption(figure: go.Figure, title: str, below: str) -> None:
    """Add a title at the top and a note of one or two lines below the picture; both are escaped."""
    # A legend narrows the plot, and a sentence centred under it would run off the left edge.
    x, anchor = (0, "left") if figure.layout.showlegend else (0.5, "center")
    figure.update_layout(title={"text": escape(shorten(title, 120)), "x": 0.5, "font": {"size": 15}})
    lines = [escape(line) for line in below.split("\n")]
    paper: dict[str, Any] = {"xref": "paper", "yref": "paper", "xanchor": anchor, "yshift": -10 - 14 * len(lines)}
    add_text(figure, (x, 0), "<br>".join(lines), 11, **paper)


def add_text(
    figure: go.Figure, place: Iterable[Any], text: str, size: int = 13, colour: str = INK, **options: Any
) -> None:
    """Add text, already escaped, at a place; options are those of a plotly annotation."""
    x, y = place
    figure.add_annotation(x=x, y=y, text=text, showarrow=False, font={"size": size, "color": colour}, **options)


def add_dots(
    figure: go.Figure,
    places: ArrayLike,
    hover: Sequence[str] | None = None,
    text: Sequence[str] = (),
    text_size: int = 14,
    **marker: Any,
) -> None:
    """Add markers at places (dots, 2) with hover text, and bold text in them; both are escaped already."""
    x, y = np.asarray(places, float).reshape(-1, 2).T
    figure.add_scatter(
        x=x,
        y=y,
        mode="markers+text" if text else "markers",
        text=[f"<b>{word}</b>" for word in text] if text else None,
        textfont={"color": _ink_on(marker.get("color")), "size": text_size} if text else None,
        marker={"opacity": 1, "line": {"width": 1, "color": INK}} | marker,
        hovertext=hover,
        hoverinfo="skip" if hover is None else "text",
        showlegend=False,
    )


def _ink_on(colour: Any) -> Any:
    """Return the colour of text on a colour, or on each of several: white on dark ones."""
    if isinstance(colour, list):
        return [_ink_on(part) for part in colour]
    if not isinstance(colour, str) or not re.fullmatch("#[0-9a-fA-F]{6}", colour):
        return "#111111"
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#ffffff" if 0.299 * red + 0.587 * green + 0.114 * blue < _DARK else "#111111"


def add_ring(figure: go.Figure, place: Iterable[Any], size: float | int, width: float | int = 4) -> None:
    """Add a ring around the current place."""
    line = {"width": width, "color": CURSOR}
    add_dots(figure, [*place], size=size, symbol="circle-open", color=CURSOR, line=line)
    # At the edge of a picture, half of it would be cut off.
    figure.data[-1].cliponaxis = False


def add_lines(figure: go.Figure, places: ArrayLike, line: Mapping[str, Any], **options: Any) -> None:
    """Add a line through places (points, 2), interrupted at NaN; options are those of a plotly trace."""
    x, y = np.asarray(places, float).reshape(-1, 2).T
    figure.add_scatter(x=x, y=y, **{"mode": "lines", "line": line, **QUIET, **options})


def segments(starts: Float[np.ndarray, "lines 2"], ends: Float[np.ndarray, "lines 2"]) -> Float[np.ndarray, "points 2"]:
    """Places of one trace that draws many separate straight lines."""
    return np.stack([starts, ends, np.full_like(starts, np.nan)], axis=1).reshape(-1, 2)
