"""What HTML pages of ours have in common: how they look in light and dark, plotly.js, where they came from."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import Any

from plotly.offline import get_plotlyjs

PLOTLY, INDEX = "plotly.min.js", "index.html"
_STYLE = """
:root { color-scheme: light dark; --ink: #23272e; --soft: #6b7078; --paper: #ffffff; --card: #f6f7f9; --rule: #dfe2e7 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e6ea; --soft: #9aa0a8; --paper: #111214; --card: #1a1c20; --rule: #33373d }
}
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, sans-serif }
main { max-width: 1140px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem } a { color: inherit }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem } h2 { font-size: 1.2rem; margin: 2.6rem 0 .5rem }
p, .made, nav { color: var(--soft); max-width: 46rem; margin: .3rem 0 .9rem }
.wide { overflow-x: auto } figure { margin: 0; overflow-x: auto }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums }
th, td { padding: .38rem .9rem .38rem 0; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap }
th:first-child, td:first-child { text-align: left } thead th { color: var(--soft); font-weight: 600 }
details { margin-top: 3rem; color: var(--soft) } summary { cursor: pointer }
pre { background: var(--card); padding: 1rem; border-radius: 8px; overflow-x: auto; font-size: .82rem }
"""
# A page taken out of its folder says what it misses.
_BESIDE = f"""<script src="{PLOTLY}" onerror="document.documentElement.className = 'alone'"></script>
<style>.alone main::before {{ content: "This page needs the file {PLOTLY} beside it." }}</style>"""


def document(
    title: str,
    body: str,
    *,
    style: str = "",
    plotly: bool = True,
    gallery: bool = False,
    provenance: Mapping[str, Any] | None = None,
    end: str = "",
) -> str:
    """Return a whole HTML page.

    Parameters
    ----------
    title : str
        Text, in the tab and as the heading.
    body : str
        HTML, under the heading.
    style : str
        CSS beyond that of every page.
    plotly : bool
        Whether there are figures on it.
    gallery : bool
        Whether it is one of a gallery's pages: plotly.js is then the file ``plotly.min.js`` beside it instead of in
        it, and a link leads to ``index.html``.
    provenance : dict, optional
        What JSON can hold; shown folded at the end.
    end : str
        HTML behind everything else, such as scripts.

    Examples
    --------
    >>> page = document("A & B", "<p>C</p>", plotly=False, provenance={"d": "<e>"})
    >>> "<h1>A &amp; B</h1>" in page, "&lt;e&gt;" in page, len(page) < 5000
    (True, True, True)
    """
    script = _BESIDE if gallery else f"<script>{get_plotlyjs()}</script>"
    back = f'<nav><a href="{INDEX}">All figures</a></nav>' if gallery else ""
    origin = ""
    if provenance is not None:
        told = html.escape(json.dumps(provenance, indent=2))
        origin = f"<details><summary>Where this came from</summary><pre>{told}</pre></details>"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}{style}</style>{script if plotly else ''}</head>\n"
        f"<body><main>{back}<h1>{html.escape(title)}</h1>\n{body}{origin}</main>\n{end}</body></html>\n"
    )
