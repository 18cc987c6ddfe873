"""Text for notebooks, figures and pages: escaping, shortening and tables."""

from __future__ import annotations

import html
import importlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

LONGEST = 24
"""Longest name in a label, in characters."""

# Characters that change the direction of the text around them: an override in a name would mirror the whole label.
_DIRECTIONS = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C])


def escape(text: object) -> str:
    """Escape text from data for HTML and for plotly, which interprets some HTML tags, all entities, and LaTeX.

    Characters that only set the direction of text are removed.

    Examples
    --------
    >>> escape("<b>A & B</b> $x$")
    '&lt;b&gt;A &amp; B&lt;/b&gt; &#36;x&#36;'
    """
    # Quotes by number: plotly knows few entities by name.
    return html.escape(str(text).translate(_DIRECTIONS), quote=False).translate({34: "&#34;", 36: "&#36;", 39: "&#39;"})


def shorten(text: object, longest: int = LONGEST) -> str:
    r"""Cut text to a number of characters, with an ellipsis as the last. Control characters become spaces.

    Examples
    --------
    >>> shorten("next-token"), shorten("next-token", 6), shorten("two\nlines")
    ('next-token', 'next-…', 'two lines')
    """
    whole = str(text)
    # Cut before checking each character: a name may have thousands.
    shown = whole[:longest]
    if not shown.isprintable():
        shown = "".join(letter if letter.isprintable() else " " for letter in shown)
    return shown if len(whole) <= longest else shown[: max(longest - 1, 0)].rstrip() + "…"


def counted(n: int, noun: str) -> str:
    """Write a number of things, such as ``1 token`` or ``3 tokens``.

    Examples
    --------
    >>> counted(1, "token"), counted(1200, "token")
    ('1 token', '1,200 tokens')
    """
    return f"{n:,} {noun}{'s' * (n != 1)}"


def words(name: object) -> str:
    """Write the name of a column or of a state with spaces instead of underscores.

    Examples
    --------
    >>> words("moves_left")
    'moves left'
    """
    return str(name).replace("_", " ")


def distinct(labels: Iterable[object]) -> list[str]:
    """Number the labels that occur more than once.

    Examples
    --------
    >>> distinct(["hf", "NextLat", "hf"])
    ['hf (1)', 'NextLat', 'hf (2)']
    """
    texts = [str(label) for label in labels]
    totals, numbers = Counter(texts), Counter[str]()
    numbered = []
    for text in texts:
        numbers[text] += 1
        numbered.append(f"{text} ({numbers[text]})" if totals[text] > 1 else text)
    return numbered


def table(title: str, rows: Mapping[str, object], note: str = "") -> str:
    """Return a titled two-column HTML table; every text is escaped.

    Parameters
    ----------
    title : str
    rows : dict of {name: value}
    note : str
        A paragraph below the table.
    """
    body = "".join(
        f'<tr><th style="text-align:left;font-weight:normal;padding-right:1em">{escape(key)}</th>'
        f'<td style="text-align:left">{escape(value)}</td></tr>'
        for key, value in rows.items()
    )
    below = f'<div style="opacity:.75;max-width:42em">{escape(note)}</div>' if note else ""
    return f"<div><b>{escape(title)}</b><table>{body}</table>{below}</div>"


_Function = TypeVar("_Function", bound=Callable[..., Any])
_DRAWERS: dict[str, Callable[..., Any]] = {}


def draws(kind: str) -> Callable[[_Function], _Function]:
    """Register the decorated function to draw a kind of object."""

    def register(function: _Function) -> _Function:
        _DRAWERS[kind] = function
        return function

    return register


def drawer(kind: str, home: str) -> Callable[..., Any]:
    """Return the function that draws a kind of object.

    Objects call this instead of importing figures, so that imports between folders go one way.

    Parameters
    ----------
    kind : str
    home : str
        The module that registers the function with `draws`. It is imported when the first such object is drawn.
    """
    if kind not in _DRAWERS:
        importlib.import_module(home)
    return _DRAWERS[kind]
