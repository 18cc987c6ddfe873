"""The base of widgets with their own JavaScript: a widget that starts late misses no message from the kernel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import anywidget
from traitlets import Unicode

_HERE = Path(__file__).parent


class LiveWidget(anywidget.AnyWidget):
    """The base of widgets with JavaScript of their own, made by `javascript`, whose ``initialize`` calls ``listen``.

    anywidget gives a widget two seconds to start and drops every later message if it took longer, which happens on a
    page that is busy, such as one that draws several figures. `live.js` takes the messages past that check, and here
    the messages sent before it did are sent again.
    """

    _own_id = Unicode().tag(sync=True)
    _heard = False
    _unheard: frozenset[str] = frozenset()

    def open(self) -> None:
        # marimo opens a widget itself, before its constructor has set everything.
        early = self.comm is not None and not self._own_id
        if self.comm is None:
            self._model_id = uuid4().hex
        if self.comm is None or early:
            self._own_id = self._model_id
            self.on_msg(self._hear)
        super().open()
        if early:
            self.send_state()

    def send_state(self, key: str | Iterable[str] | None = None) -> None:
        super().send_state(key)
        if not self._heard:
            keys = self.keys if key is None else [key] if isinstance(key, str) else key
            self._unheard |= frozenset(keys)

    def _started(self, message: Mapping[str, Any]) -> None:
        """The page listens from now on."""
        self._heard = True
        if self._unheard:
            super().send_state(self._unheard)

    def _hear(self, widget: Any, message: Mapping[str, Any], buffers: Any) -> None:
        if message.get("kind") == "start":
            self._started(message)


def javascript(*files: Path) -> str:
    """Join `live.js` and a widget's own files to one module.

    As a string: anywidget watches a file for changes, and the watch would keep every closed widget in memory.
    """
    return "\n".join(file.read_text(encoding="utf-8") for file in (_HERE / "live.js", *files))
