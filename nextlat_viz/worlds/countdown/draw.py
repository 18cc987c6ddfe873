"""The picture of a Countdown solution: numbers that flow together, two at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from nextlat_viz.plotting import Figure
from nextlat_viz.worlds import checks, drawing
from nextlat_viz.worlds.base import Episodes
from nextlat_viz.worlds.countdown.world import Countdown

_INPUT, _RESULT, _REACHED, _AHEAD = "#56B4E9", "#E69F00", "#009E73", "#9A9A9A"
_SIGNS = ("+", "−", "×", "÷")
_NODE, _SIGN = 42, 24
# Columns between an operation and its result.
_GAP = 0.42


@dataclass(eq=False)
class _Number:
    """A number in the picture: an input, in column 0, or the result of an equation."""

    value: int
    column: int
    operands: tuple[_Number, ...] = ()
    sign: str = ""
    true: bool = True
    row: float = 0.0

    def leaves(self) -> list[_Number]:
        return [leaf for one in self.operands for leaf in one.leaves()] or [self]

    def place(self) -> float:
        if self.operands:
            self.row = float(np.mean([one.place() for one in self.operands]))
        return self.row


def draw(
    world: Countdown, kind: str, episode: Episodes | None = None, position: int | None = None, **options: Any
) -> go.Figure:
    """Draw one kind of picture; ``Countdown.draw`` is the way in."""
    checks.picture(world, kind, options)
    return _equations(world, episode, position, **options)


def _equations(
    world: Countdown, episode: Episodes | None, position: int | None, width: int = 560, height: int | None = None
) -> go.Figure:
    at = 0 if episode is None else checks.one_episode(episode, position)
    example = world.sample(1, seed=0, states=False) if episode is None else episode
    tokens, upto = example.tokens[0], at or world.length
    if len(tokens) < world.prompt or not world.legal(tokens[None, : world.prompt]).all():
        raise ValueError(f"episode must begin with a problem of world {world.name!r}, got {tokens.tolist()}")
    inputs, made, mentioned = _flow(world, tokens, upto)
    read = [number for number in made if world.prompt + 5 * number.column <= upto]
    figure = Figure(layout=drawing.layout(width, 84 + 80 * world.numbers if height is None else height))
    figure.update_xaxes(range=[-0.4, world.equations + 0.4])
    figure.update_yaxes(range=[world.numbers - 0.35, -0.65], scaleanchor=None)
    for number in made:
        _join(figure, number, number in read)
    target = int(tokens[world.numbers])
    last = next((number for number in read if number.column == world.equations), None)
    known = [*inputs[: min(upto, world.numbers)], *read]
    for number in [*inputs, *made]:
        reached = number is last and number.value == target
        colour = _REACHED if reached else _RESULT if number.operands else _INPUT
        _dot(figure, number, colour if number in known else _AHEAD, number in known, number in mentioned)
        if number in read and not number.true:
            figure.add_annotation(
                x=number.column, y=number.row, text="<b>false</b>", showarrow=False, yshift=_NODE / 2 + 12
            )
    if last is not None:
        said = "the target" if last.value == target else f"target: {target}"
        figure.add_annotation(x=last.column, y=last.row, text=f"<b>{said}</b>", showarrow=False, yshift=-_NODE / 2 - 12)
    given = ", ".join(str(number.value) for number in inputs)
    drawing.caption(figure, f"{world.name}: make {target} out of {given}", _below(world, tokens, at, len(made)))
    return figure


def _flow(world: Countdown, tokens: np.ndarray, at: int) -> tuple[list[_Number], list[_Number], list[_Number]]:
    """Inputs and results, placed so that no lines cross, and the numbers that the equation being read has named."""
    inputs = [_Number(int(token), 0) for token in tokens[: world.numbers]]
    made: list[_Number] = []
    mentioned: list[_Number] = []
    pool = list(inputs)
    verdict = world.verify(tokens[None])
    for k in range(world.equations):
        start = world.prompt + 5 * k
        here = [int(token) for token in tokens[start : start + 5]]
        left = next((number for number in pool if here and number.value == here[0]), None)
        rest = [number for number in pool if number is not left]
        right = next((number for number in rest if len(here) > 2 and number.value == here[2]), None)
        if verdict.available[0, k] and left and right:
            sign = _SIGNS[here[1] - world.plus]
            made.append(_Number(here[4], k + 1, (left, right), sign, bool(verdict.true[0, k])))
            pool = [number for number in rest if number is not right] + [made[-1]]
        if start < at <= start + 5:
            named = [left, right if at > start + 2 else None, made[-1] if at == start + 5 and made else None]
            mentioned = [number for number in named if number]
    for row, leaf in enumerate(leaf for number in pool for leaf in number.leaves()):
        leaf.row = float(row)
    for number in pool:
        number.place()
    return inputs, made, mentioned


def _join(figure: go.Figure, number: _Number, read: bool) -> None:
    """Lines from the operands to the sign, and on to the result."""
    sign = number.column - _GAP
    upper, lower = number.operands
    line = {"width": 2.5, "color": drawing.INK} if read else {"width": 1, "color": drawing.INK, "dash": "dot"}
    figure.add_scatter(
        x=[upper.column, sign, lower.column, None, sign, number.column],
        y=[upper.row, number.row, lower.row, None, number.row, number.row],
        mode="lines",
        line=line,
        hoverinfo="skip",
    )
    if read:
        said = f"{upper.value} {number.sign} {lower.value} = {number.value}"
        figure.add_scatter(
            x=[sign],
            y=[number.row],
            mode="markers+text",
            text=[f"<b>{number.sign}</b>"],
            textfont={"color": "#111111", "size": 15},
            marker={"size": _SIGN, "opacity": 1, "color": "#DDDDDD", "line": {"width": 1, "color": drawing.INK}},
            hovertext=[said if number.true else f"{said} is false"],
            hoverinfo="text",
        )


def _dot(figure: go.Figure, number: _Number, colour: str, known: bool, named: bool) -> None:
    name = f"result {number.column}" if number.operands else "input"
    figure.add_scatter(
        x=[number.column],
        y=[number.row],
        mode="markers+text",
        text=[f"<b>{number.value}</b>" if known else "<b>?</b>"],
        textfont={"color": "#111111", "size": 14 if number.value < 1000 else 12},
        marker={
            "size": _NODE,
            "opacity": 1,
            "color": colour,
            "line": {"width": 4 if named else 1, "color": drawing.MARK if named else drawing.INK},
        },
        hovertext=[f"{name}: {number.value}" if known else f"{name}, to come"],
        hoverinfo="text",
    )


def _below(world: Countdown, tokens: np.ndarray, at: int, made: int) -> str:
    if not at:
        return "An example: inputs on the left, in each equation the left operand above the right."
    if at <= world.prompt:
        return f"After {at} tokens, all of them problem or pause; what is to come is dotted."
    text = world.decode(tokens[:at]).split(" | ")[-1]
    left_out = "" if made == world.equations else " (drawn only where the operands are there)"
    return f"After {at} tokens: {text}{left_out}"
