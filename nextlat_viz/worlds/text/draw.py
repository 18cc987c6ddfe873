"""Pictures of text: a passage to read, and how often each token is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import plotly.graph_objects as go

from nextlat_viz.plotting import Figure
from nextlat_viz.worlds import checks, drawing
from nextlat_viz.worlds.base import Episodes
from nextlat_viz.worlds.text.world import Text

_LETTER, _LINE = 7.85, 18.2
_AHEAD = "rgba(121,121,121,0.5)"
_SHOWN = 160


def draw(
    world: Text,
    kind: str = "passage",
    episode: Episodes | None = None,
    position: int | None = None,
    **options: Any,
) -> go.Figure:
    """Draw one kind of picture; ``Text.draw`` is the way in.

    Raises
    ------
    UnknownNameError
        If there is no such kind, or the kind has no such option.
    """
    checks.picture(world, kind, options)
    at = None if episode is None else checks.one_episode(episode, position)
    return _KINDS[kind](world, None if episode is None else episode.tokens[0], at, **options)


def _passage(
    world: Text, tokens: np.ndarray | None, at: int | None, width: int = 560, height: int | None = None
) -> go.Figure:
    """Text, line by line: what was read, the current token, and what is still to come in a paler ink."""
    shown = np.asarray(world.packed.parts["train"][:_SHOWN], np.int64) if tokens is None else tokens
    lines = _lines(world, shown, at, max(20, int((width - 32) / _LETTER)))
    height = min(420, 92 + int(_LINE * max(len(lines), 4))) if height is None else height
    fit = max(3, int((height - 84) / _LINE))
    figure = Figure(layout=drawing.layout(width, height))
    figure.update_xaxes(range=[0, 1])
    figure.update_yaxes(range=[0, 1], scaleanchor=None)
    current = next((index for index, (_, holds) in enumerate(lines) if holds), 0)
    top = min(max(0, current - fit * 2 // 3), max(0, len(lines) - fit))
    figure.add_annotation(
        text="<br>".join(line for line, _ in lines[top : top + fit]),
        x=0,
        y=1,
        xanchor="left",
        yanchor="top",
        align="left",
        showarrow=False,
        borderpad=0,
        font={"family": "monospace", "size": 13},
    )
    if at is None:
        title, below = f"{world.name}: how the training documents begin", f"the first {len(shown)} tokens"
    else:
        document = int(world.replay(shown[None])["document"][0, at - 1])
        title = f"{world.name} after {at} tokens"
        below = f"token {world.vocabulary[shown[at - 1]]} of document {document + 1} in this window"
    drawing.caption(figure, title, below)
    return figure


def _lines(world: Text, tokens: np.ndarray, at: int | None, wide: int) -> list[tuple[str, bool]]:
    """Wrapped lines as plotly's HTML, every letter of the text escaped, and whether each holds the current token."""
    lines: list[list[tuple[str, int]]] = [[]]
    for index, token in enumerate(tokens.tolist()):
        if token == world.boundary:
            # A line of its own, so that where documents meet is seen at once.
            lines += [[(f"──── {world.vocabulary[token]} ────", index)], []]
            continue
        first, *others = _letters(world, token).split("\n")
        lines[-1].append((first, index))
        if sum(len(letters) for letters, _ in lines[-1]) > wide:
            # Break before the last word that is not the line's first.
            words = [place for place, (letters, _) in enumerate(lines[-1]) if place and letters.startswith(" ")]
            place = words[-1] if words else len(lines[-1]) - 1
            lines[-1:] = [lines[-1][:place], lines[-1][place:]]
        lines += [[(piece, index)] for piece in others]
    return [_line(line, at) for line in lines if line]


def _line(pieces: list[tuple[str, int]], at: int | None) -> tuple[str, bool]:
    html, holds = "", False
    for place, (letters, index) in enumerate(pieces):
        # A line does not begin with the blank it was broken at.
        text = drawing.safe(letters if place else letters.lstrip(" "))
        if at is not None and index == at - 1:
            holds = True
            text = f'<b><span style="color:{drawing.MARK}">{text.replace(" ", "␣") or "↵"}</span></b>'
        elif at is not None and index >= at:
            text = f'<span style="color:{_AHEAD}">{text}</span>'
        html += text
    return html, holds


def _letters(world: Text, token: int) -> str:
    """A token's text; part of a character by its name."""
    text = world.decode([token])
    return world.vocabulary[token] if "\ufffd" in text else text.replace("\r", "").replace("\t", "    ")


def _frequencies(
    world: Text, tokens: np.ndarray | None, at: int | None, width: int = 560, height: int = 420
) -> go.Figure:
    """Tokens by rank against how often they are used, on two logarithmic axes: Zipf's law, where it holds."""
    counts = np.bincount(world.packed.parts["train"], minlength=len(world.vocabulary))
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] > 0]
    share = counts[order] / counts.sum()
    rank = np.arange(1, len(order) + 1)
    figure = Figure(layout=drawing.layout(width, height))
    grid = {"visible": True, "showgrid": True, "gridcolor": "rgba(121,121,121,0.25)", "zeroline": False, "type": "log"}
    axis = grid | {"linecolor": drawing.INK, "tickfont": {"size": 12}, "dtick": 1, "scaleanchor": None}
    figure.update_layout(
        margin={"l": 64, "r": 24, "t": 44, "b": 84},
        xaxis=axis | {"title": _title("rank")},
        yaxis=axis | {"title": _title("share of tokens"), "tickformat": ".0e"},
    )
    names = [drawing.safe(world.vocabulary[token]) for token in order]
    figure.add_scatter(
        x=rank,
        y=share,
        mode="markers",
        marker={"size": 5, "color": drawing.state_colour(5), "opacity": 0.9},
        hovertext=[f"{name}<br>{count:,} times" for name, count in zip(names, counts[order], strict=True)],
        hoverinfo="text",
    )
    for place in sorted({int(r) for r in np.geomspace(1, len(order), 8)}):
        _label(figure, place, share[place - 1], names[place - 1], 22, drawing.INK)
    below = f"{len(order):,} of {len(world.vocabulary):,} tokens occur in the training documents"
    if tokens is not None and at is not None:
        token = int(tokens[at - 1])
        where = np.flatnonzero(order == token)
        below = f"{world.vocabulary[token]} is token {at} of the episode"
        if where.size:
            place = int(where[0])
            ring = {"size": 14, "symbol": "circle-open", "color": drawing.MARK, "line": {"width": 3}}
            figure.add_scatter(x=[place + 1], y=[share[place]], mode="markers", marker=ring, hoverinfo="skip")
            _label(figure, place + 1, share[place], f"<b>{names[place]}</b>", -24, drawing.MARK)
    drawing.caption(figure, f"{world.name}: how often each token is used", below)
    figure.layout.annotations[-1].update(yshift=-62)
    return figure


def _title(text: str) -> dict[str, Any]:
    return {"text": text, "font": {"size": 13}, "standoff": 8}


def _label(figure: go.Figure, rank: int, share: float, text: str, shift: int, colour: str) -> None:
    figure.add_annotation(
        x=np.log10(rank),
        y=np.log10(share),
        text=text,
        showarrow=False,
        xshift=8 if shift > 0 else -8,
        yshift=shift / 2,
        xanchor="left" if shift > 0 else "right",
        font={"size": 12, "color": colour},
    )


_KINDS: dict[str, Callable[..., go.Figure]] = {"passage": _passage, "frequencies": _frequencies}
