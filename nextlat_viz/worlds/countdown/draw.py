"""Picture of a Countdown solution: how numbers are combined, two at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from nextlat_viz.display import counted
from nextlat_viz.plotting import CATEGORICAL, CURSOR, INK
from nextlat_viz.worlds import drawing
from nextlat_viz.worlds.base import Episodes
from nextlat_viz.worlds.countdown.world import Countdown
from nextlat_viz.worlds.drawing import picture

_REACHED, _RESULT, _INPUT, _AHEAD = CATEGORICAL[0], CATEGORICAL[1], CATEGORICAL[3], "#9A9A9A"
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
        return [leaf for number in self.operands for leaf in number.leaves()] or [self]

    def place(self) -> float:
        if self.operands:
            self.row = float(np.mean([number.place() for number in self.operands]))
        return self.row


@picture(Countdown, "equations")
def draw_equations(
    world: Countdown, episode: Episodes | None, position: int | None, *, width: int = 560, height: int | None = None
) -> go.Figure:
    """Draw the equations of an episode up to `position`, or the first episode of seed 0.

    Raises
    ------
    ValueError
        If the episode does not begin with a problem of this world.
    """
    example = world.sample(1, seed=0, states=False) if episode is None else episode
    tokens, upto = example.tokens[0], world.length if position is None else position
    if len(tokens) < world.prompt or not world.legal(tokens[None, : world.prompt]).all():
        raise ValueError(f"episode must begin with a problem of world {world.name!r}, got {tokens.tolist()}")
    inputs, results, mentioned = _flow(world, tokens, upto)
    read = [number for number in results if world.prompt + 5 * number.column <= upto]
    height = 84 + 80 * world.numbers if height is None else height
    across, up = [-0.4, world.equations + 0.4], [world.numbers - 0.35, -0.65]
    figure = drawing.canvas(width, height, across, up, equal=False)
    for number in results:
        _join(figure, number, number in read)
    target = int(tokens[world.numbers])
    last = next((number for number in read if number.column == world.equations), None)
    visible = [*inputs[: min(upto, world.numbers)], *read]
    for number in [*inputs, *results]:
        reached = number is last and number.value == target
        colour = _REACHED if reached else _RESULT if number.operands else _INPUT
        _dot(figure, number, colour if number in visible else _AHEAD, number in visible, number in mentioned)
        if number in read and not number.true:
            drawing.add_text(figure, (number.column, number.row), "<b>false</b>", yshift=_NODE / 2 + 12)
    if last is not None:
        label = "the target" if last.value == target else f"target: {target}"
        drawing.add_text(figure, (last.column, last.row), f"<b>{label}</b>", yshift=-_NODE / 2 - 12)
    numbers = ", ".join(str(number.value) for number in inputs)
    below = _below(world, tokens, position, len(results))
    drawing.add_caption(figure, f"{world.name}: make {target} from {numbers}", below)
    return figure


def _flow(world: Countdown, tokens: np.ndarray, at: int) -> tuple[list[_Number], list[_Number], list[_Number]]:
    """Inputs and results, placed so that no lines cross, and the numbers mentioned in the current equation."""
    inputs = [_Number(int(token), 0) for token in tokens[: world.numbers]]
    results: list[_Number] = []
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
            results.append(_Number(here[4], k + 1, (left, right), sign, bool(verdict.true[0, k])))
            pool = [number for number in rest if number is not right] + [results[-1]]
        if start < at <= start + 5:
            named = [left, right if at > start + 2 else None, results[-1] if at == start + 5 and results else None]
            mentioned = [number for number in named if number]
    for row, leaf in enumerate(leaf for number in pool for leaf in number.leaves()):
        leaf.row = float(row)
    for number in pool:
        number.place()
    return inputs, results, mentioned


def _join(figure: go.Figure, number: _Number, read: bool) -> None:
    """Draw lines from the operands to the sign and from there to the result."""
    sign = number.column - _GAP
    upper, lower = number.operands
    line = {"width": 2.5, "color": INK} if read else {"width": 1, "color": INK, "dash": "dot"}
    joint, gap = (sign, number.row), (np.nan, np.nan)
    ends = [(upper.column, upper.row), joint, (lower.column, lower.row), gap, joint, (number.column, number.row)]
    drawing.add_lines(figure, ends, line)
    if read:
        equation = f"{upper.value} {number.sign} {lower.value} = {number.value}"
        hover = [equation if number.true else f"{equation} is false"]
        drawing.add_dots(figure, [sign, number.row], hover, [number.sign], 15, size=_SIGN, color="#DDDDDD")


def _dot(figure: go.Figure, number: _Number, colour: str, known: bool, named: bool) -> None:
    name = f"result {number.column}" if number.operands else "input"
    hover = [f"{name}: {number.value}" if known else f"{name}, not read yet"]
    text, text_size = [str(number.value) if known else "?"], 14 if number.value < 1000 else 12
    line = {"width": 4 if named else 1, "color": CURSOR if named else INK}
    place = [number.column, number.row]
    drawing.add_dots(figure, place, hover, text, text_size, size=_NODE, color=colour, line=line)


def _below(world: Countdown, tokens: np.ndarray, at: int | None, made: int) -> str:
    if at is None:
        return "An example. Inputs are on the left; the left operand of an equation is above the right."
    if at <= world.prompt:
        return f"After {counted(at, 'token')} of the prompt; dotted equations have not been read yet."
    text = world.decode(tokens[:at]).split(" | ")[-1]
    note = "" if made == world.equations else " (equations with unavailable operands are not drawn)"
    return f"After {counted(at, 'token')}: {text}{note}"
