"""Base class of widgets with JavaScript: a widget that starts late misses no message from the kernel."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import anywidget
from traitlets import Unicode

_HERE = Path(__file__).parent


class LiveWidget(anywidget.AnyWidget):
    """Base class of widgets whose JavaScript is joined by `javascript` and calls ``listen`` in ``initialize``.

    If a widget takes more than two seconds to start, as on a page that draws several figures, anywidget drops all later
    messages to it. `live.js` goes around that check, and this class sends again the state that was sent before.
    """

    _own_id = Unicode().tag(sync=True)
    _heard = False
    _unheard: frozenset[str] = frozenset()

    def open(self) -> None:
        # marimo opens a widget before its constructor has set everything.
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
        """Note that the page listens now, and send the state that it missed."""
        self._heard = True
        if self._unheard:
            super().send_state(self._unheard)

    def _hear(self, widget: Any, message: Mapping[str, Any], buffers: Any) -> None:
        if message.get("kind") == "start":
            self._started(message)


def javascript(*files: Path) -> str:
    """Join `live.js` and a widget's own files to one module, without the lines of comments: each widget sends it.

    Returns text, not a path: anywidget watches files for changes, and the watch keeps every closed widget in memory.
    """
    text = "\n".join(file.read_text(encoding="utf-8") for file in (_HERE / "live.js", *files))
    return re.sub(r"(?m)^\s*//.*\n", "", text)
