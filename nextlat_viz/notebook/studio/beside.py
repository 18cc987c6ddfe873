"""What takes long, computed beside the kernel's own thread, so that hands and panels do not wait for it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# Seconds: what is done in this time is not worth saying that it is being computed.
_AT_ONCE = 1.5
# Seconds between two words of progress: a page that is told more often has no time to show it.
_BETWEEN = 0.1


class Waiting(ValueError):
    """What was asked for is being computed."""


class Cancelled(ValueError):
    """What was asked for was cancelled by the reader."""


@dataclass(frozen=True)
class Progress:
    """What is being computed.

    Attributes
    ----------
    what : str
        What was asked for.
    said : str
        What it is at, in words of its own; empty where it does not say.
    number, total : int
        Which it is, of how many that were asked for since there was nothing to do.
    share : float or None
        How much of it is done, 0 to 1; None where that is not known.
    stopping : bool
        Whether it was cancelled, and cannot stop at once.
    """

    what: str
    said: str
    number: int
    total: int
    share: float | None
    stopping: bool


@dataclass(eq=False)
class _Job:
    key: Hashable
    what: str
    compute: Callable[[], Any]
    told: dict[Callable[[], None], None] = field(default_factory=dict)
    said: str = ""
    share: float | None = None
    stop: bool = False
    result: Any = None


def _locked(method: Callable[Concatenate[Beside, P], R]) -> Callable[Concatenate[Beside, P], R]:
    """One thread at a time."""

    @wraps(method)
    def locked(self: Beside, *arguments: P.args, **options: P.kwargs) -> R:
        with self._lock:
            return method(self, *arguments, **options)

    return locked


class Beside:
    """Results by name, computed one after another in a thread; without an event loop, at once.

    Parameters
    ----------
    loop : event loop or None
        Where those who asked are told.

    Attributes
    ----------
    finished : int
        Grows whenever what is known changes: a result is there, was cancelled, or is wanted again.

    Examples
    --------
    >>> Beside(None).ask("sum", "the sum", lambda: 1 + 1, lambda: None)
    2
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._loop = loop
        self._known: dict[Hashable, Any] = {}
        self._jobs: dict[Hashable, _Job] = {}
        self._cancelled: dict[Hashable, _Job] = {}
        self._refused: set[Callable[[], None]] = set()
        self._running: _Job | None = None
        self._thread: threading.Thread | None = None
        self._done = 0
        self._said, self._patience = 0.0, _AT_ONCE
        self._watchers: list[Callable[[], None]] = []
        # Panels ask in the thread of the loop, a reader's choice and Cancel come in the one that hears widgets.
        self._lock = threading.RLock()
        self.finished = 0

    @_locked
    def ask(
        self,
        key: Hashable,
        what: str,
        compute: Callable[[], Any],
        done: Callable[[], None],
        *,
        first: bool = False,
    ) -> Any:
        """Return a result; where it is not there yet, have it computed and `done` called when it is.

        Parameters
        ----------
        key : hashable
        what : str
            What it is, for the reader.
        compute : callable
            May call `report`, which ends it where it was cancelled.
        done : callable
            Called once, on the kernel's thread.
        first : bool
            Before all else that waits.

        Raises
        ------
        Waiting
            When it is being computed; `what` says what.
        Cancelled
            When it was cancelled, until `again` or `drop`.
        Exception
            What computing it raised.
        """
        if key not in self._known and self._loop is None:
            self._settle(_finished(_Job(key, what, compute)))
        if key in self._known:
            result = self._known[key]
            if isinstance(result, Cancelled):
                self._cancelled[key].told[done] = None
                self._refused.add(done)
            if isinstance(result, Exception):
                raise result
            return result
        job = self._job(key)
        if job is None:
            job = _Job(key, what, compute)
            self._jobs = {key: job, **self._jobs} if first else {**self._jobs, key: job}
        job.told[done] = None
        if self._thread is None:
            self._wait(self._start())
            if self._running is None:
                return self.ask(key, what, compute, done)
        self._say()
        raise Waiting(f"{what} is being computed …")

    def report(self, done: float, total: int, said: str = "") -> None:
        """Say from the thread that computes how far it is, and perhaps at what; elsewhere it does nothing.

        Raises
        ------
        Cancelled
            When the reader has cancelled it.
        """
        job = self._running
        if job is None or threading.current_thread() is not self._thread:
            return
        if job.stop:
            raise Cancelled(f"{job.what} was cancelled")
        job.share, job.said = done / max(total, 1), said or job.said
        if time.monotonic() > self._said + _BETWEEN:
            self._said = time.monotonic()
            self._call(self._say)

    @property
    def progress(self) -> Progress | None:
        """What is being computed; None where nothing is."""
        job = self._running
        if job is None:
            return None
        number = self._done + 1
        return Progress(job.what, job.said, number, number + len(self._jobs), job.share, job.stop)

    def watch(self, call: Callable[[], None]) -> None:
        """Have a call made whenever `progress` changes."""
        self._watchers.append(call)

    @_locked
    def cancel(self) -> None:
        """Compute nothing of what was asked for: what is under way stops where it can, else its result is dropped."""
        jobs = [*([self._running] if self._running and not self._running.stop else []), *self._jobs.values()]
        self._jobs = {}
        for job in jobs:
            job.stop = True
            self._known[job.key] = Cancelled(f"{job.what} was cancelled")
            self._cancelled[job.key] = _Job(job.key, job.what, job.compute)
        self.finished += len(jobs)
        self._tell(jobs)

    @_locked
    def again(self) -> None:
        """Tell those who asked for what was cancelled to ask once more."""
        jobs, self._cancelled = list(self._cancelled.values()), {}
        for job in jobs:
            del self._known[job.key]
        self.finished += len(jobs)
        self._refused.clear()
        self._tell(jobs)

    @_locked
    def drop(self, key: Hashable) -> None:
        """Forget a result, or that there will be none; what is under way for it stops where it can, and is dropped."""
        self._known.pop(key, None)
        self._cancelled.pop(key, None)
        self._jobs.pop(key, None)
        if self._running is not None and self._running.key == key:
            self._running.stop = True
        self._say()

    @_locked
    def refused(self, done: Callable[[], None]) -> bool:
        """Whether something that was cancelled has been asked for with this call, since this was asked last."""
        found = done in self._refused
        self._refused.discard(done)
        return found

    @_locked
    def forget(self) -> None:
        """Compute nothing that has not begun, and tell nobody."""
        self._watchers.clear()
        self._jobs.clear()
        self._cancelled.clear()
        if self._running is not None:
            self._running.stop = True
            self._running.told.clear()

    def _job(self, key: Hashable) -> _Job | None:
        """Who computes a result, or will."""
        if self._running is not None and self._running.key == key and not self._running.stop:
            return self._running
        return self._jobs.get(key)

    def _start(self) -> threading.Thread:
        job = self._running = self._jobs.pop(next(iter(self._jobs)))
        # A daemon, so that a kernel can leave while it computes.
        self._thread = threading.Thread(target=self._work, args=(job,), daemon=True)
        self._thread.start()
        return self._thread

    def _wait(self, thread: threading.Thread) -> None:
        """Wait a little for what has just begun, but not for one after another."""
        assert self._loop is not None
        if self._patience == _AT_ONCE:
            self._loop.call_soon_threadsafe(self._loop.call_later, _AT_ONCE, self._rest)
        begun = time.monotonic()
        thread.join(self._patience)
        self._patience = max(0.0, self._patience - (time.monotonic() - begun))
        if not thread.is_alive():
            assert self._running is not None
            self._settle(self._running)
            self._running = self._thread = None

    def _rest(self) -> None:
        self._patience = _AT_ONCE

    def _work(self, job: _Job) -> None:
        _finished(job)
        self._call(self._end, job)

    @_locked
    def _end(self, job: _Job) -> None:
        """Back on the kernel's thread: go on with the next, and tell those who asked."""
        if self._running is not job:
            # It was waited for.
            return
        self._settle(job)
        self._running = self._thread = None
        self._done = self._done + 1 if self._jobs else 0
        if self._jobs:
            self._start()
        self._tell([job])

    def _settle(self, job: _Job) -> None:
        if not job.stop:
            self._known[job.key] = job.result
            self.finished += 1

    def _tell(self, jobs: list[_Job]) -> None:
        calls = dict.fromkeys(done for job in jobs for done in job.told)
        for job in jobs:
            job.told.clear()
        self._say()
        for done in calls:
            done()

    def _say(self) -> None:
        for call in self._watchers:
            call()

    def _call(self, call: Callable[..., None], *arguments: Any) -> None:
        """Call from the thread that computes."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *arguments)


def _finished(job: _Job) -> _Job:
    try:
        job.result = job.compute()
    except Exception as error:
        job.result = error
    return job
