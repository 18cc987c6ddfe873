"""Place whole figures on a large one: their axes, colour bars and notes get new names and places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import plotly.graph_objects as go

from nextlat_viz.figures.layout import axis_number, heading
from nextlat_viz.figures.theme import Theme, template
from nextlat_viz.plotting import CATEGORICAL, Figure

# Settings of bars and boxes that apply to a whole figure.
_SHARED = ("barmode", "bargap", "bargroupgap", "barnorm", "boxmode", "boxgap", "violinmode")
# Pixels of a colour bar: its title and the space around it keep their size in a low view.
_LEAST_BAR = 110
Place = Callable[[float], float]
Pixels = float | int


class Sheet:
    """A large figure with other figures at places in pixels; the legend is that of the first."""

    def __init__(self, width: int, height: int) -> None:
        self._width, self._height = width, height
        self._traces: list[Any] = []
        self._layout: dict[str, Any] = {"annotations": [], "shapes": [], "images": []}
        self._used: Counter[str] = Counter()

    def put(self, figure: go.Figure, left: Pixels, top: Pixels, width: Pixels, height: Pixels, title: str = "") -> None:
        """Put the views of a figure into a rectangle."""
        parts = figure.to_plotly_json()["layout"]
        for trace in figure.data:
            if "xaxis" not in trace:
                raise ValueError(
                    f"a figure holds a trace of type {trace.type!r}, and only those with axes can be placed"
                )
        names = self._names(figure, parts)

        def across(x: float | int) -> float:
            return (left + x * width) / self._width

        def up(y: float | int) -> float:
            return 1 - (top + (1 - y) * height) / self._height

        places, shares = {"x": across, "y": up}, {"x": width / self._width, "y": height / self._height}
        for old, new in names.items():
            if old.startswith("coloraxis"):
                self._layout[new] = self._scaled(parts[old], places, height)
                continue
            letter = old[0]
            axis = {**parts.get(f"{letter}axis{old[1:]}", {}), "automargin": False}
            if axis.get("overlaying") is None:
                axis["domain"] = [places[letter](float(end)) for end in axis.get("domain", (0, 1))]
            for reference in ("anchor", "overlaying", "matches", "scaleanchor"):
                axis[reference] = names.get(str(axis.get(reference)), axis.get(reference))
            if axis["anchor"] is None:
                axis["anchor"] = names.get(f"{'y' if letter == 'x' else 'x'}{old[1:]}", "free")
            axis = {name: part for name, part in axis.items() if part is not None}
            self._layout[f"{letter}axis{new[1:]}"] = axis
        for kind in ("annotations", "shapes", "images"):
            self._layout[kind] += [
                _moved(item, names, places, shares) for item in parts.get(kind, ()) if item.get("visible", True)
            ]
        if title:
            self._layout["annotations"].append(heading(title, "", across(0), up(1)))
        for name in _SHARED:
            if name in parts and self._layout.setdefault(name, parts[name]) != parts[name] and name == "barmode":
                raise ValueError(
                    f"bars of one figure are {self._layout[name]!r}, of another {parts[name]!r}: they take two figures"
                )
        first = not self._traces
        self._traces += [self._trace(trace, i, names, first, places, height) for i, trace in enumerate(figure.data)]

    def _names(self, figure: go.Figure, parts: Mapping[str, Any]) -> dict[str, str]:
        """Return the new names of a figure's axes and colour axes."""
        axes = {f"{name[0]}{name[5:]}" for name in parts if name[:5] in ("xaxis", "yaxis")}
        axes |= {trace[f"{letter}axis"] or letter for trace in figure.data for letter in "xy"} | {"x", "y"}
        names = {}
        for letter in "xy":
            for old in sorted((name for name in axes if name[0] == letter), key=lambda name: int(name[1:] or 1)):
                names[old] = f"{letter}{axis_number(self._used[letter])}"
                self._used[letter] += 1
        for old in sorted(name for name in parts if name.startswith("coloraxis")):
            names[old] = f"coloraxis{axis_number(self._used['color'])}"
            self._used["color"] += 1
        return names

    def _trace(
        self, trace: Any, i: int, names: Mapping[str, str], first: bool, places: Mapping[str, Place], height: Pixels
    ) -> Any:
        content = trace.to_plotly_json()
        content |= {f"{letter}axis": names[content.get(f"{letter}axis", letter)] for letter in "xy"}
        # Only the first figure is in the legend; its entries also switch the traces of the same name in the others.
        shown = bool(first and content.get("name") and content.get("showlegend"))
        content |= {"showlegend": shown, "legendgroup": content.get("name")}
        marker = content.setdefault("marker", {}) if "marker" in trace else {}
        if trace.type in ("scatter", "scattergl", "bar") and marker.get("color") is None:
            # Set plotly's default colour, which would depend on the traces of the figures before.
            color = content.get("line", {}).get("color", CATEGORICAL[i % len(CATEGORICAL)])
            marker["color"] = color
            if trace.type != "bar":
                content["line"] = {"color": color, **content.get("line", {})}
        for holder in (content, marker):
            if holder.get("coloraxis") in names:
                holder["coloraxis"] = names[holder["coloraxis"]]
            if "colorbar" in holder or holder.get("showscale"):
                holder |= self._scaled(holder, places, height)
        return type(trace)(content)

    def _scaled(self, holder: Mapping[str, Any], places: Mapping[str, Place], height: Pixels) -> dict[str, Any]:
        """Return a copy of `holder` with its colour bar at the new place."""
        bar = dict(holder.get("colorbar", {}))
        bar |= {"x": places["x"](bar.get("x", 1.02)), "y": places["y"](bar.get("y", 0.5))}
        if bar.get("lenmode", "fraction") == "fraction":
            long = bar.get("len", 1) * height
            if long < min(height, _LEAST_BAR):
                bar |= {"y": places["y"](0.0), "yanchor": "bottom"}
                long = min(height, _LEAST_BAR)
            bar |= {"lenmode": "pixels", "len": long}
        return {**holder, "colorbar": bar}

    def finish(self, theme: Theme, responsive: bool) -> Figure:
        """Return the figure; a `responsive` one is as wide as its place on a page."""
        layout = {name: part for name, part in self._layout.items() if part != []}
        legend = {"orientation": "h", "x": 0, "yref": "container", "y": 0.01, "yanchor": "bottom"}
        margin = {"l": 8, "t": 0, "b": 0} if responsive else dict.fromkeys("lrtb", 0)
        look = {"template": template(theme), "hovermode": "closest", "height": self._height, "margin": margin}
        return Figure(self._traces, {**look, "legend": legend, **layout})


def _moved(
    item: Mapping[str, Any], names: Mapping[str, str], places: Mapping[str, Place], shares: Mapping[str, float]
) -> dict[str, Any]:
    """Return an annotation, a shape or an image at its new place; an image is scaled to the new `shares`."""
    moved = dict(item)
    for letter in "xy":
        for name in (f"{letter}ref", f"a{letter}ref"):
            axis, *domain = str(item.get(name, letter if name[0] != "a" else "pixel")).split(" ")
            if axis == "paper":
                for key in (letter, f"{letter}0", f"{letter}1"):
                    if key in item and name[0] != "a":
                        moved[key] = places[letter](float(item[key]))
                if f"size{letter}" in item:
                    moved[f"size{letter}"] = item[f"size{letter}"] * shares[letter]
            elif axis in names:
                moved[name] = " ".join([names[axis], *domain])
    return moved
