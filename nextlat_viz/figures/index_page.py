"""The pages of a gallery of figures: one for each figure, and the index that leads to them."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import plotly.graph_objects as go

from nextlat_viz.figures.page import document
from nextlat_viz.figures.report import div

_OWN_STYLE = """
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); gap: 1.4rem }
.cards article { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: .9rem;
  min-width: 0; overflow-wrap: anywhere }
.cards img { display: block; width: 100%; height: 13rem; object-fit: contain; background: #fff; border-radius: 4px }
.cards h3 { font-size: 1.02rem; margin: .7rem 0 .2rem } .cards p { font-size: .9rem; margin: .2rem 0 .5rem }
.files { font-size: .85rem; color: var(--soft) } .files a { margin-right: .7rem } li { margin: .3rem 0 }
"""


@dataclass(frozen=True)
class Card:
    """What an index says of one figure.

    Attributes
    ----------
    title, note : str
        What it is, and a sentence on what to see.
    page : str
        File name of its page.
    image : str, optional
        File name of its picture.
    files : tuple of str
        File names of whatever else there is of it.
    """

    title: str
    note: str
    page: str
    image: str = ""
    files: tuple[str, ...] = ()


def index_page(
    title: str,
    note: str,
    sections: Mapping[str, Sequence[Card]],
    missing: Mapping[str, str],
    provenance: Mapping[str, Any] | None = None,
) -> str:
    """Return the page that leads to the pages of a gallery.

    Parameters
    ----------
    title, note : str
    sections : {heading: cards}
    missing : {title: reason}
        Figures that are not there, and why.
    provenance : dict, optional
        What JSON can hold.

    Returns
    -------
    str
        HTML for a file beside the pages.

    Examples
    --------
    >>> page = index_page("Figures", "Of two models.", {"rrxor": [Card("A <b>", "See", "a.html")]}, {"B": "no run"})
    >>> "A &lt;b&gt;" in page, 'href="a.html"' in page, "<b>B</b>: no run" in page
    (True, True, True)
    """
    body = [f"<p>{html.escape(note)}</p>"]
    for heading, cards in sections.items():
        body.append(f'<h2>{html.escape(heading)}</h2><div class="cards">{"".join(map(_card, cards))}</div>')
    if missing:
        told = "".join(f"<li><b>{html.escape(name)}</b>: {html.escape(why)}</li>" for name, why in missing.items())
        body.append(f"<h2>What is not here, and why</h2><ul>{told}</ul>")
    return document(title, "\n".join(body), style=_OWN_STYLE, plotly=False, provenance=provenance or {})


def figure_page(figure: go.Figure, title: str, note: str, provenance: Mapping[str, Any]) -> str:
    """Return the page of one figure of a gallery, to be read in light and dark.

    Examples
    --------
    >>> page = figure_page(go.Figure(), "A & B", "See", {})
    >>> "<h1>A &amp; B</h1>" in page, 'href="index.html"' in page
    (True, True)
    """
    body = f"<p>{html.escape(note)}</p><figure>{div(figure, 0)}</figure>"
    return document(title, body, gallery=True, provenance=provenance)


def _card(card: Card) -> str:
    page, title = quote(card.page), html.escape(card.title)
    picture = f'<a href="{page}"><img src="{quote(card.image)}" alt="" loading="lazy"></a>' if card.image else ""
    files = "".join(f'<a href="{quote(one)}">{html.escape(one.rpartition(".")[2].upper())}</a>' for one in card.files)
    return (
        f'<article>{picture}<h3><a href="{page}">{title}</a></h3><p>{html.escape(card.note)}</p>'
        f'<div class="files">{files}</div></article>'
    )
