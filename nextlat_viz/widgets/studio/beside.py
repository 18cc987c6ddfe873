"""What takes long, computed beside the kernel's own thread, so that hands and panels do not wait for it."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

# Seconds: what is done in this time is not worth saying that it is being computed.
_AT_ONCE = 1.5


class Waiting(ValueError):
    """What was asked for is being computed."""


class Beside:
    """Results by name, computed one after another in a thread; without an event loop, at once.

    Parameters
    ----------
    loop : event loop or None
        Where those who asked are told.

    Examples
    --------
    >>> Beside(None).ask("sum", "the sum", lambda: 1 + 1, lambda: None)
    2
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._loop = loop
        self._known: dict[Hashable, Any] = {}
        self._jobs: deque[tuple[Hashable, Callable[[], Any]]] = deque()
        self._told: dict[Hashable, list[Callable[[], None]]] = {}
        self._thread: threading.Thread | None = None
        self.finished = 0

    def ask(self, key: Hashable, what: str, compute: Callable[[], Any], done: Callable[[], None]) -> Any:
        """Return a result; where it is not there yet, have it computed and `done` called when it is.

        Raises
        ------
        Waiting
            When it is being computed; `what` says what.
        Exception
            What computing it raised.
        """
        if key not in self._known and self._loop is None:
            self._compute(key, compute)
        if key in self._known:
            result = self._known[key]
            if isinstance(result, Exception):
                raise result
            return result
        if key not in self._told:
            self._jobs.append((key, compute))
        self._told.setdefault(key, []).append(done)
        if self._thread is None:
            self._start().join(_AT_ONCE)
        if key in self._known:
            return self.ask(key, what, compute, done)
        raise Waiting(f"{what} is being computed …")

    def forget(self) -> None:
        """Compute nothing that has not begun, and tell nobody."""
        self._jobs.clear()
        self._told.clear()

    def _start(self) -> threading.Thread:
        # A daemon, so that a kernel can leave while it computes.
        self._thread = threading.Thread(target=self._work, args=self._jobs.popleft(), daemon=True)
        self._thread.start()
        return self._thread

    def _work(self, key: Hashable, compute: Callable[[], Any]) -> None:
        self._compute(key, compute)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell, key)

    def _compute(self, key: Hashable, compute: Callable[[], Any]) -> None:
        try:
            self._known[key] = compute()
        except Exception as error:
            self._known[key] = error
        self.finished += 1

    def _tell(self, key: Hashable) -> None:
        self._thread = None
        if self._jobs:
            self._start()
        for done in dict.fromkeys(self._told.pop(key, ())):
            done()
