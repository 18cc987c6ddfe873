"""Picture of a story: the places, with the people and things in them."""

from __future__ import annotations

import math
import textwrap
from typing import Any

import numpy as np
import plotly.graph_objects as go

from nextlat_viz.display import counted, escape
from nextlat_viz.plotting import INK, ROOM
from nextlat_viz.worlds import drawing
from nextlat_viz.worlds.base import Episodes
from nextlat_viz.worlds.drawing import picture, state_colour
from nextlat_viz.worlds.story.world import Story

_GAP = 10
# Heights of a room's heading and of a line in the room. A panel halves the height of the picture, not of its letters.
_HEAD = 40
_LINE = 30
_PER_LINE = 2


@picture(Story, "map")
def draw_places(
    world: Story, episode: Episodes | None, position: int | None, *, width: int = 560, height: int | None = None
) -> go.Figure:
    """Draw the places, and the people and things in them after `position` tokens of an episode.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> worlds.get("story").draw("map").layout.width
    560
    """
    rows = math.ceil(len(world.places) / _columns(world))
    height = 124 + 160 * rows if height is None else height
    across, up = width - 2.0 * ROOM, height - 112.0
    figure = drawing.canvas(width, height, [-1, across + 1], [up + 1, -1], equal=False)
    figure.layout.margin.b = 68
    rooms = _rooms(world, across, up)
    for name, (left, top, right, bottom) in zip(world.places, rooms, strict=True):
        corners = {"x0": left, "x1": right, "y0": top, "y1": bottom}
        figure.add_shape(type="rect", line={"width": 1.5, "color": INK}, layer="below", **corners)
        _write(figure, left + 6, top + 15, f"<b>{escape(name)}</b>", 11)
    if episode is None or not position:
        title = f"{world.name}: the places"
        people = _listed([name.capitalize() for name in world.people])
        note = f"People: {people}. Things: {_listed(world.things)}."
    else:
        tokens = episode.tokens[:, :position]
        now = {name: int(values[0, -1]) for name, values in world.replay(tokens).items()}
        title, note = f"{world.name} after {counted(position, 'token')}", world.decode(_sentence(world, tokens[0]))
        hidden = [name for name in world.things if now[f"where_{name}"] == len(world.places)]
        title += f" (not found yet: {_listed(hidden)})" if hidden else ""
        _fill(figure, world, rooms, now, _subject(world, tokens[0]))
    lines = textwrap.wrap(note, max(20, int(across / 7.2)))
    lines = lines if len(lines) <= 2 else [f"… {lines[-2]}", lines[-1]]
    figure.update_layout(title={"text": escape(title), "x": 0.5, "font": {"size": 15}})
    foot: dict[str, Any] = {"xref": "paper", "yref": "paper", "yanchor": "top", "yshift": -10}
    drawing.add_text(figure, (0.5, 0), "<br>".join(map(escape, lines)), 14, **foot)
    return figure


def _columns(world: Story) -> int:
    return min(len(world.places), 3 if len(world.places) != 4 else 2)


def _rooms(world: Story, across: float, up: float) -> list[tuple[float, float, float, float]]:
    """Left, top, right and bottom of each place, row by row; a short last row is centred."""
    columns = _columns(world)
    rows = math.ceil(len(world.places) / columns)
    wide, high = (across - _GAP * (columns - 1)) / columns, (up - _GAP * (rows - 1)) / rows
    rooms: list[tuple[float, float, float, float]] = []
    for index in range(len(world.places)):
        row, column = divmod(index, columns)
        short = columns - min(columns, len(world.places) - row * columns)
        left, top = (column + short / 2) * (wide + _GAP), row * (high + _GAP)
        rooms.append((left, top, left + wide, top + high))
    return rooms


def _fill(
    figure: go.Figure,
    world: Story,
    rooms: list[tuple[float, float, float, float]],
    now: dict[str, int],
    subject: str | None,
) -> None:
    """Add people with the things they hold, and below them the things that nobody holds."""
    nobody = len(world.people)
    colour = {name: state_colour(index) for index, name in enumerate((*world.people, *world.things))}
    people: list[tuple[float, float, str]] = []
    things: list[tuple[float, float, str]] = []
    for place, (left, top, right, bottom) in enumerate(rooms):
        # A line is the name of a person, or "", and the things next to it.
        lines: list[tuple[str, list[str]]] = []
        for index, person in enumerate(world.people):
            if now[f"where_{person}"] == place:
                parts = _parts([thing for thing in world.things if now[f"holder_{thing}"] == index], _PER_LINE)
                lines += [(person, parts[0] if parts else []), *(("", part) for part in parts[1:])]
        present = [thing for thing in world.things if now[f"where_{thing}"] == place]
        floor = _parts([thing for thing in present if now[f"holder_{thing}"] == nobody], _PER_LINE + 1)
        step = min(_LINE, (bottom - top - _HEAD - 5) / max(len(lines) + len(floor), 1))
        third = (right - left - 16) / (_PER_LINE + 1)
        for row, (person, held) in enumerate(lines):
            y = top + _HEAD + (row + 0.5) * step
            if person:
                people.append((left + 14, y, person))
                _write(figure, left + 14, y, escape(person.capitalize()), 11, 12)
            things += [(left + 14 + (column + 1) * third, y, thing) for column, thing in enumerate(held)]
        for row, lying in enumerate(reversed(floor)):
            y = bottom - 5 - (row + 0.5) * step
            things += [(left + 14 + column * third, y, thing) for column, thing in enumerate(lying)]
    for x, y, thing in things:
        _write(figure, x, y, escape(thing), 11, 8)
    for entities, size, symbol in ((people, 11, "circle"), (things, 9, "square")):
        marker: dict[str, Any] = {"size": size, "symbol": symbol, "color": [colour[name] for _, _, name in entities]}
        drawing.add_dots(figure, [(x, y) for x, y, _ in entities], line={"width": 0}, **marker)
    for x, y, name in people:
        if name == subject:
            drawing.add_ring(figure, (x, y), 17, 3)


def _parts(names: list[str], most: int) -> list[list[str]]:
    return [names[start : start + most] for start in range(0, len(names), most)]


def _write(figure: go.Figure, x: float, y: float, text: str, size: int, beside: int = 0) -> None:
    """Write text, some pixels beside a mark, also where the picture is narrow."""
    drawing.add_text(figure, (x, y), text, size, xanchor="left", borderpad=0, xshift=beside)


def _sentence(world: Story, tokens: np.ndarray) -> np.ndarray:
    """The sentence of the last token; an answer includes its question."""
    ends = [t for t, token in enumerate(tokens[:-1]) if world.vocabulary[token] == "."]
    return tokens[ends[-1] + 1 :] if ends else tokens


def _subject(world: Story, tokens: np.ndarray) -> str | None:
    """The subject of the current sentence; None in the opening and in questions."""
    sentence = _sentence(world, tokens)
    if len(sentence) == len(tokens) or world.vocabulary[sentence[0]] in {"where", "who", "is"}:
        return None
    word = world.vocabulary[sentence[0]]
    if word in world.people:
        return word
    before = world.replay(tokens[None, : len(tokens) - len(sentence) + 1])
    return world.people[int(before[word][0, -1])]


def _listed(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]
