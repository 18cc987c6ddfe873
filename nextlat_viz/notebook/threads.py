"""Shared by the threads of a kernel: results that are computed once, and the event loop that draws the panels."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")
Call = Callable[[], None]


class Results:
    """Results by key, each computed once, from any thread.

    A thread that asks for a result that another thread is computing waits for it. Other keys are not held up.

    Parameters
    ----------
    most : int, optional
        How many results to keep, the most recently used; default all.

    Examples
    --------
    >>> results = Results(most=2)
    >>> [results.get(key, lambda: f"{key}!") for key in "abc"]
    ['a!', 'b!', 'c!']
    >>> "a" in results, results.peek("c")
    (False, 'c!')
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._guard = threading.Lock()
        # One lock per key while it is computed. Reentrant, because a job may call a method that asks for the same key.
        self._locks: dict[Hashable, threading.RLock] = {}

    def __contains__(self, key: Hashable) -> bool:
        with self._guard:
            return key in self._values

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return a result, computed if it is missing. An error of `compute` is raised and not kept."""
        with self._guard:
            if key in self._values:
                self._values.move_to_end(key)
                known: T = self._values[key]
                return known
            lock = self._locks.setdefault(key, threading.RLock())
        with lock:
            with self._guard:
                if key in self._values:
                    return self._values[key]
            value = compute()
            with self._guard:
                self._values[key] = value
                self._locks.pop(key, None)
                while self._most is not None and len(self._values) > self._most:
                    self._values.popitem(last=False)
        return value

    def peek(self, key: Hashable, default: Any = None) -> Any:
        with self._guard:
            return self._values.get(key, default)


class Loop:
    """The kernel's event loop, reachable from every thread; without one, calls are made at once.

    Examples
    --------
    >>> loop, drawn = Loop(), []
    >>> loop.soon(lambda: drawn.append("panel"))
    >>> drawn
    ['panel']
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[Call, None] = {}
        self._lock = threading.Lock()
        self._scheduled = False
        self.attach()

    def attach(self) -> None:
        """Use the event loop of the calling thread from now on, unless one is running already."""
        if not self.running:
            with contextlib.suppress(RuntimeError):
                self._loop = asyncio.get_running_loop()

    @property
    def running(self) -> bool:
        return self._loop is not None and not self._loop.is_closed()

    @property
    def waiting(self) -> bool:
        """Whether calls wait for their turn."""
        return bool(self._waiting)

    def call(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Call on the loop's thread; do nothing once the loop is closed, because the kernel is about to exit."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(call, *arguments)

    def call_later(self, seconds: float | int, call: Call) -> None:
        if self._loop is not None:
            self.call(self._loop.call_later, seconds, call)

    def soon(self, call: Call) -> None:
        """Call in one of the next rounds of the loop, once even if it is asked for several times before.

        Each round makes one call, so that messages from the page are read between the redraws of two panels. A panel
        that is asked to redraw three times before its turn redraws once.
        """
        if not self.running:
            call()
            return
        with self._lock:
            self._waiting[call] = None
            first, self._scheduled = not self._scheduled, True
        if first:
            self.call(self._next)

    def flush(self) -> None:
        """Make the calls that wait for their turn now."""
        while self._make_one():
            pass

    def forget(self, call: Call) -> None:
        """Do not make a call that waits for its turn."""
        with self._lock:
            self._waiting.pop(call, None)

    def _next(self) -> None:
        try:
            self._make_one()
        finally:
            with self._lock:
                self._scheduled = more = bool(self._waiting)
            if more:
                self.call(self._next)

    def _make_one(self) -> bool:
        """Make the call that has waited longest; outside of the lock, because it may ask for other calls."""
        with self._lock:
            call = next(iter(self._waiting), None)
            if call is None:
                return False
            del self._waiting[call]
        call()
        return True
