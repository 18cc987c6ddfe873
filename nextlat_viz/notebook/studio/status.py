"""What is going on beside the kernel's thread, how far it is, and a button that ends it."""

from __future__ import annotations

from typing import Any

import ipywidgets

from nextlat_viz.display import escape
from nextlat_viz.notebook.base import Panel
from nextlat_viz.notebook.studio.beside import Beside

_AUTO = {"width": "auto"}


class Status(Panel):
    """One line, kept free while nothing is going on so that nothing below it moves.

    Parameters
    ----------
    beside : Beside
        What computes.
    """

    def __init__(self, beside: Beside) -> None:
        super().__init__()
        self._beside, self._said = beside, ""
        self.words = ipywidgets.HTML(layout={"max_width": "75%"})
        self.bar = ipywidgets.FloatProgress(min=0, max=1, layout={"width": "160px", "margin": "0 10px"})
        self.cancel = ipywidgets.Button(
            description="Cancel", tooltip="Stop this, and what waits behind it", layout=_AUTO
        )
        self.cancel.on_click(self._guarded(lambda button: beside.cancel()))
        line = ipywidgets.HBox(
            [self.words, self.bar, self.cancel], layout={"min_height": "36px", "align_items": "center"}
        )
        self.children = [line, self._alert]
        self.add_class("nlv-status")
        beside.watch(self._follow)
        self._follow()

    def say(self, words: str) -> None:
        """Show words until something is going on again."""
        self._said = words
        self._follow()

    def _follow(self) -> None:
        if self._closed:
            return
        now = self._beside.progress
        if now is not None and not now.stopping:
            self._said = ""
        share: Any = None
        if now is None:
            words = self._said
        elif now.stopping:
            words = f"Cancelled. Stopping after this one: {now.said or now.what}"
        else:
            count = f" {now.number} of {now.total}" if now.total > 1 else ""
            words = now.said or f"{now.what} is being computed …{count}"
            share = (now.number - 1) / now.total if now.share is None and now.total > 1 else now.share
        self.words.value = f'<span role="status" aria-live="polite">{escape(words)}</span>'
        self.bar.value = share or 0.0
        self.bar.layout.visibility = "hidden" if share is None else None
        self.cancel.layout.visibility = "hidden" if now is None or now.stopping else None
