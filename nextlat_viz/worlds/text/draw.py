"""Pictures of text: a passage, and the frequencies of tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from nextlat_viz.display import counted, escape, shorten
from nextlat_viz.plotting import CATEGORICAL, CURSOR, INK, ROOM
from nextlat_viz.worlds import drawing
from nextlat_viz.worlds.base import Episodes
from nextlat_viz.worlds.drawing import picture
from nextlat_viz.worlds.text.world import Text

_LETTER, _LINE = 7.85, 18.2
_AHEAD = "rgba(121,121,121,0.5)"
_SHOWN = 160


@picture(Text, "passage")
def draw_passage(
    world: Text, episode: Episodes | None, at: int | None, *, width: int = 560, height: int | None = None
) -> go.Figure:
    """Draw text in lines: the tokens read, the current token marked, and the tokens ahead in grey."""
    tokens = None if episode is None else episode.tokens[0]
    passage = np.asarray(world.packed.parts["train"][:_SHOWN], np.int64) if tokens is None else tokens
    lines = _lines(world, passage, at, max(20, int((width - 2 * ROOM) / _LETTER)))
    height = min(420, 92 + int(_LINE * max(len(lines), 4))) if height is None else height
    fit = max(3, int((height - 84) / _LINE))
    figure = drawing.canvas(width, height, [0, 1], [0, 1], equal=False)
    current = next((index for index, (_, holds) in enumerate(lines) if holds), 0)
    top = min(max(0, current - fit * 2 // 3), max(0, len(lines) - fit))
    text = "<br>".join(line for line, _ in lines[top : top + fit])
    corner: dict[str, Any] = {"xanchor": "left", "yanchor": "top", "align": "left", "borderpad": 0}
    drawing.add_text(figure, (0, 1), text, 13, **corner)
    figure.layout.annotations[-1].font.family = "monospace"
    if at is None:
        title, below = f"{world.name}: start of the training documents", f"The first {len(passage)} tokens."
    elif at == 0:
        title, below = f"{world.name}: nothing read yet", "Grey: tokens not read yet."
    else:
        document = int(world.replay(passage[None])["document"][0, at - 1])
        title = f"{world.name} after {counted(at, 'token')}"
        below = f"Current token: {world.vocabulary[passage[at - 1]]}. Document {document + 1} of this window."
    drawing.add_caption(figure, title, below)
    return figure


def _lines(world: Text, tokens: np.ndarray, at: int | None, wide: int) -> list[tuple[str, bool]]:
    """Wrapped lines as escaped HTML for plotly, and whether each contains the current token."""
    lines: list[list[tuple[str, int]]] = [[]]
    for index, token in enumerate(tokens.tolist()):
        if token == world.boundary:
            # A separate line makes the boundary visible.
            lines += [[(f"──── {world.vocabulary[token]} ────", index)], []]
            continue
        first, *others = _letters(world, token).split("\n")
        lines[-1].append((first, index))
        if sum(len(letters) for letters, _ in lines[-1]) > wide:
            # Break before the last word, unless it is the only one.
            words = [place for place, (letters, _) in enumerate(lines[-1]) if place and letters.startswith(" ")]
            place = words[-1] if words else len(lines[-1]) - 1
            lines[-1:] = [lines[-1][:place], lines[-1][place:]]
        lines += [[(piece, index)] for piece in others]
    return [_line(line, at) for line in lines if line]


def _line(pieces: list[tuple[str, int]], at: int | None) -> tuple[str, bool]:
    html, holds = "", False
    for place, (letters, index) in enumerate(pieces):
        # Drop the space at which the line was broken.
        text = escape(letters if place else letters.lstrip(" "))
        if at is not None and index == at - 1:
            holds = True
            text = f'<b><span style="color:{CURSOR}">{text.replace(" ", "␣") or "↵"}</span></b>'
        elif at is not None and index >= at:
            text = f'<span style="color:{_AHEAD}">{text}</span>'
        html += text
    return html, holds


def _letters(world: Text, token: int) -> str:
    """The text of a token; its name if it is part of a character."""
    text = world.decode([token])
    return world.vocabulary[token] if "\ufffd" in text else text.replace("\r", "").replace("\t", "    ")


@picture(Text, "frequencies")
def draw_frequencies(
    world: Text, episode: Episodes | None, at: int | None, *, width: int = 560, height: int = 420
) -> go.Figure:
    """Draw the frequency of tokens by rank on logarithmic axes, as in Zipf's law."""
    counts = np.bincount(world.packed.parts["train"], minlength=len(world.vocabulary))
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] > 0]
    share = counts[order] / counts.sum()
    figure = drawing.canvas(width, height)
    grid = {"visible": True, "showgrid": True, "gridcolor": "rgba(121,121,121,0.25)", "zeroline": False, "type": "log"}
    axis = grid | {"linecolor": INK, "tickfont": {"size": 12}, "dtick": 1, "scaleanchor": None}
    figure.update_layout(
        margin={"l": 64, "r": ROOM, "t": 44, "b": 84},
        xaxis=axis | {"title": _title("rank")},
        yaxis=axis | {"title": _title("fraction of tokens"), "tickformat": ".0e"},
    )
    names = [escape(shorten(world.vocabulary[token])) for token in order]
    hover = [f"{name}<br>{count:,} times" for name, count in zip(names, counts[order], strict=True)]
    dots: dict[str, Any] = {"size": 5, "color": CATEGORICAL[6], "opacity": 0.9, "line": {"width": 0}}
    drawing.add_dots(figure, np.stack([np.arange(1, len(order) + 1), share], axis=1), hover, **dots)
    for place in sorted({int(r) for r in np.geomspace(1, len(order), 8)}):
        _label(figure, place, share[place - 1], names[place - 1], 22, INK)
    below = f"{len(order):,} of {len(world.vocabulary):,} tokens occur in the training documents."
    if episode is not None and at:
        token = int(episode.tokens[0, at - 1])
        rank = np.flatnonzero(order == token)
        below = f"Token {at} of the episode: {world.vocabulary[token]}"
        if rank.size:
            place = int(rank[0])
            drawing.add_ring(figure, (place + 1, share[place]), 14, 3)
            _label(figure, place + 1, share[place], f"<b>{names[place]}</b>", -24, CURSOR)
    drawing.add_caption(figure, f"{world.name}: frequency of each token", below)
    figure.layout.annotations[-1].update(yshift=-62)
    return figure


def _title(text: str) -> dict[str, Any]:
    return {"text": text, "font": {"size": 13}, "standoff": 8}


def _label(figure: go.Figure, rank: int, share: float, text: str, shift: int, colour: str) -> None:
    side = {"xshift": 8, "xanchor": "left"} if shift > 0 else {"xshift": -8, "xanchor": "right"}
    drawing.add_text(figure, np.log10([rank, share]), text, 12, colour, yshift=shift / 2, **side)
