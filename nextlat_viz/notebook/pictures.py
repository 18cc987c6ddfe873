"""Panels as figures for files, with their provenance and the code that makes them again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_lowercase
from typing import Any

import ipywidgets
import plotly.graph_objects as go

from nextlat_viz.figures.compose import row_of_figures
from nextlat_viz.figures.paper import plain_html, with_words
from nextlat_viz.figures.provenance import with_provenance
from nextlat_viz.notebook import colors
from nextlat_viz.notebook.panel import Panel
from nextlat_viz.notebook.plot import Plot
from nextlat_viz.notebook.sources import Source
from nextlat_viz.notebook.state import ViewState

# Width in pixels if no page has drawn the figure.
_WIDTH = 480


@dataclass
class Pin:
    """A figure that no longer changes, and how to make it again.

    `settings` maps each setting to its line of code; `changes` are the ranges that the user zoomed to.
    """

    panel: str
    title: str
    figure: go.Figure = field(repr=False)
    settings: dict[str, str] = field(repr=False)
    size: tuple[int, int] | None
    changes: dict[str, Any] = field(repr=False)


def panel_figure(panel: Panel, size: tuple[int, int] | None = None) -> go.Figure:
    """Return everything a panel shows, also the text below it, as one figure.

    Parameters
    ----------
    panel : Panel
    size : (int, int), optional
        Width and height of its figure in pixels; default as on the page.

    Raises
    ------
    ValueError
        When the panel shows no figure now; the message says why.
    """
    name = panel.name
    if not panel.drawn:
        raise ValueError(f"panel {name!r} shows no figure now: {panel.words}")
    views = panel.views
    if not views:
        raise ValueError(f"panel {name!r} shows a table: it is studio.panels[{name!r}].table")
    size = size or shown_size(panel)
    parts = [go.Figure(view.data, view.layout) for view in views]
    if size is not None:
        parts[-1].update_layout(width=size[0], height=size[1])
    for part in parts:
        part.layout.width = part.layout.width or _WIDTH
    if len(parts) == 1:
        figure = parts[0]
    else:
        width = sum(part.layout.width for part in parts)
        figure = row_of_figures(parts, int(width))
    lines = [line for text in _words(panel) for line in plain_html(text).split("<br>") if line]
    if lines:
        with_words(figure, lines, int(figure.layout.width))
    state = panel.state
    about = {
        "panel": name, "question": panel.question, "color": state.color, "layer": state.site,
        "probe reads": state.target, "training step": state.step, "episode": state.episode,
        "position": state.position, "filter": state.filter, "compared": state.compared,
        "selected rows": state.rows.tolist(),
    }  # fmt: skip
    return with_provenance(
        figure, panel.question, _view(panel), [state.latents[i] for i in state.pair], panel.probes, **about
    )


def shown_size(panel: Panel) -> tuple[int, int] | None:
    """Return the width and height of a panel's figure on the page that drew it last; None if no page has."""
    plot = panel.plot
    return plot.shown if isinstance(plot, Plot) else None


def _words(panel: Panel) -> list[str]:
    """Return the visible texts beside the figure, as HTML."""

    def texts(widget: Any) -> Iterator[str]:
        if getattr(widget.layout, "display", None) == "none":
            return
        if isinstance(widget, ipywidgets.HTML) and "nlv-words" in widget._dom_classes and widget.value:
            # Keep why something is missing in the figure, but leave out the advice after the colon.
            without = widget is getattr(panel, "_without", None)
            yield re.sub(r": [^<]*" if without else r": nlv\.[^<]*", ".", widget.value)
        for child in getattr(widget, "children", ()):
            yield from texts(child)

    return list(texts(panel._body))


def _view(panel: Panel) -> str:
    """Describe what a panel's figure shows."""
    state, follows = panel.state, panel.follows
    view = getattr(panel, "view", None)
    parts = [str(view.label)] if view is not None and getattr(view, "label", None) else []
    if "site" in follows:
        parts.append("the hidden state after the last layer" if state.site == "hidden" else f"layer {state.site}")
    if "target" in follows:
        parts.append(f"target: {state.target}")
    if "color" in follows:
        parts.append(f"coloured by {colors.color_name(state.color)}")
    if "position" in follows:
        parts.append(f"episode {state.episode}, position {state.position}")
    if "selection" in follows and state.selection:
        parts.append(f"{len(state.selection):,} selected rows stand out")
    return ", ".join(parts)


def pinned(panel: Panel) -> Pin:
    """Return what a panel shows now as a pin.

    Raises
    ------
    ValueError
        When it shows no figure now.
    """
    size = shown_size(panel)
    return Pin(panel.name, panel.question, panel_figure(panel), _settings(panel), size, _zoomed(panel))


def code(pins: Sequence[Pin], state: ViewState, options: dict[str, Any], path: str, written: dict[str, Any]) -> str:
    """Write the code that makes the composed figure again, in a new kernel.

    `options` are those of `nextlat_viz.figures.compose`, `written` those of `write_figure`.
    """
    lines = ["import nextlat_viz as nlv", "", *_opening(state._sources), "state = studio.state"]
    before: dict[str, str] = {}
    for letter, pin in zip(ascii_lowercase, pins, strict=False):
        moved = before.get("show") != pin.settings["show"]
        lines += [line for name, line in pin.settings.items() if moved or before.get(name) != line]
        before |= pin.settings
        size = "" if pin.size is None else f", size={pin.size}"
        lines.append(f"{letter} = studio.figure({pin.panel!r}{size})")
        if pin.changes:
            lines.append(f"{letter}.update_layout({pin.changes!r})")
    names = ", ".join(ascii_lowercase[: len(pins)])
    extra = "".join(f", {name}={value!r}" for name, value in options.items() if value is not None)
    more = "".join(f", {name}={value!r}" for name, value in written.items())
    lines += [
        f"figure = nlv.figures.compose([{names}]{extra})",
        f"nlv.figures.write_figure(figure, {path!r}{more})",
        "print(nlv.figures.figure_caption(figure))",
    ]
    return "\n".join(lines)


def _opening(opened: Mapping[str, Sequence[Source]]) -> list[str]:
    """Return the lines of code that open the models."""
    lines, worlds = list[str](), {}
    for world, sources in opened.items():
        names = list[str]()
        for source in sources:
            if not source.reference:
                lines = ["# tables: the latents that this studio was opened with, in their order"]
            names.append(repr(source.reference) if source.reference else f"tables[{len(names)}]")
        worlds[world] = ", ".join(names)
    if len(worlds) == 1:
        (models,) = worlds.values()
        return [*lines, f"studio = nlv.studio({models})"]
    listed = ", ".join(f"{world!r}: [{models}]" for world, models in worlds.items())
    return [*lines, f"studio = nlv.studio({{{listed}}})"]


def _settings(panel: Panel) -> dict[str, str]:
    """Return the lines of code that set the state and the panel's own controls, by setting."""
    state = panel.state
    lines = {
        "show": f"state.show({state.world!r}, step={state.step})",
        **{name: f"state.{name} = {getattr(state, name)!r}" for name in ("color", "site", "target")},
        "filter": f"state.filter = {dict(state.filter)!r}",
        "compared": f"state.compared = {state.compared!r}",
        "selection": f"state.select({_runs(state.rows.tolist())})",
        "cursor": f"state.go_to({state.episode}, {state.position})",
    }
    here = f"studio.panels[{panel.name!r}]"
    held = getattr(panel, "held", None)
    for name, widget in vars(panel).items():
        if (
            name.startswith("_")
            or not isinstance(widget, ipywidgets.ValueWidget)
            or isinstance(widget, ipywidgets.HTML)
        ):
            continue
        # A dragged number is restored by `hold` below.
        dragged = isinstance(widget, ipywidgets.FloatSlider) or (name == "to" and held is not None)
        chosen = not hasattr(widget, "options") or len(widget.options) > 1
        if widget.value is not None and chosen and not dragged:
            lines[f"{panel.name}.{name}"] = f"{here}.{name}.value = {widget.value!r}"
    if held is not None:
        lines[f"{panel.name}.held"] = f"{here}.hold({held!r})"
    return lines


def _runs(rows: Sequence[int]) -> str:
    """Write ascending row numbers as code, runs as ranges."""
    runs: list[list[int]] = []
    for row in rows:
        if runs and row == runs[-1][1] + 1:
            runs[-1][1] = row
        else:
            runs.append([row, row])
    parts = [str(first) if first == last else f"*range({first}, {last + 1})" for first, last in runs]
    return f"[{', '.join(parts)}]"


def _zoomed(panel: Panel) -> dict[str, Any]:
    """Return the ranges of axes that the user has zoomed to."""
    plot = panel.plot
    if not isinstance(plot, Plot):
        return {}
    fresh = panel._figure()
    if isinstance(fresh, str):
        return {}
    ranges = {}
    for name in plot.layout:
        if name[:5] in ("xaxis", "yaxis") and plot.layout[name].range is not None:
            now = [*plot.layout[name].range]
            if now != [*(fresh.layout[name].range or ())]:
                ranges[f"{name}.range"] = now
    return ranges
