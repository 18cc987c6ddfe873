"""Who draws next: one panel at a time, with the reader's hands heard in between."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

from nextlat_viz.notebook.studio.beside import Beside


class Turns:
    """Calls waiting for their turn, each at most once however often it was asked for.

    Under an event loop one call is made per round of the loop, so that messages are read between two, and a panel
    that is asked for three times before its turn comes draws once, the last. Without a loop every call is made at once.

    Attributes
    ----------
    beside : Beside
        For what takes too long for a turn.

    Examples
    --------
    >>> turns, drawn = Turns(), []
    >>> turns.ask(lambda: drawn.append("panel"))
    >>> drawn
    ['panel']
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        with contextlib.suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()
        self.beside = Beside(self._loop)
        self._waiting: dict[Callable[[], None], None] = {}
        # Jupyter hears widgets in another thread than the one that runs cells and this loop.
        self._lock = threading.Lock()
        self._scheduled = False

    def ask(self, call: Callable[[], None]) -> None:
        """Have a call made when it is its turn; from any thread."""
        if self._loop is None or self._loop.is_closed():
            call()
            return
        with self._lock:
            self._waiting[call] = None
            first, self._scheduled = not self._scheduled, True
        if first:
            self._loop.call_soon_threadsafe(self._next)

    def flush(self) -> None:
        """Make every call that waits now."""
        while self._pop():
            pass

    def forget(self) -> None:
        """Make none of them."""
        with self._lock:
            self._waiting.clear()
        self.beside.forget()

    def _next(self) -> None:
        try:
            self._pop()
        finally:
            with self._lock:
                self._scheduled = bool(self._waiting)
                more = self._scheduled
            if more and self._loop is not None:
                self._loop.call_soon(self._next)

    def _pop(self) -> bool:
        """Make the call that has waited longest, if any does."""
        with self._lock:
            call = next(iter(self._waiting), None)
            if call is None:
                return False
            del self._waiting[call]
        call()
        return True
