"""A small table for a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape


def html_table(title: str, rows: Mapping[str, str], caption: str = "") -> str:
    """Return a titled two-column table; every text is escaped, since names come from data."""
    body = "".join(
        f"<tr><th style='text-align:left;font-weight:normal;padding-right:1em'>{escape(key)}</th>"
        f"<td style='text-align:left'>{escape(value)}</td></tr>"
        for key, value in rows.items()
    )
    note = f"<div style='opacity:.75;max-width:42em'>{escape(caption)}</div>" if caption else ""
    return f"<div><b>{escape(title)}</b><table>{body}</table>{note}</div>"
