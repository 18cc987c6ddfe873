"""Who draws next: one panel at a time, with the reader's hands heard in between."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from nextlat_viz.widgets.studio.beside import Beside


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

    def ask(self, call: Callable[[], None]) -> None:
        """Have a call made when it is its turn."""
        if self._loop is None or self._loop.is_closed():
            call()
            return
        if not self._waiting:
            self._loop.call_soon(self._next)
        self._waiting[call] = None

    def flush(self) -> None:
        """Make every call that waits now."""
        while self._waiting:
            self._pop()

    def forget(self) -> None:
        """Make none of them."""
        self._waiting.clear()
        self.beside.forget()

    def _next(self) -> None:
        if self._waiting:
            self._pop()
        if self._waiting and self._loop is not None:
            self._loop.call_soon(self._next)

    def _pop(self) -> None:
        call = next(iter(self._waiting))
        del self._waiting[call]
        call()
