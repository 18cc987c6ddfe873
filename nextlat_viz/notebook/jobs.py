"""The job queue: run slow computations in a background thread while the kernel stays free to answer.

Three threads meet here:

- The kernel's event loop runs the cells, draws the panels and calls back when a job has ended.
- Jupyter may handle widget messages (controls, clicks, Cancel) in a thread different from the loop's.
- A queue's worker thread computes, one job after the other. It touches no widget: it reports to the loop.

Without an event loop, as in a script or a test, everything is computed at once.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any

from nextlat_viz.notebook.threads import Call, Loop, Results

# Seconds to wait for a job that has just begun: a probe of a small table is ready by then, and its panel is drawn once,
# with the result, instead of twice.
_PATIENCE = 1.5
# Seconds between two reports of progress: a page that gets more of them has no time to show them.
_BETWEEN_REPORTS = 0.1


class Waiting(ValueError):
    """The result is still being computed."""


class Cancelled(ValueError):
    """The user cancelled the computation."""


@dataclass(eq=False)
class Job:
    """A computation, and the calls to make when it ends.

    `text` names the present stage; `share` is the part done, from 0 to 1, or None if unknown; `stopping` is whether the
    job must stop: it was cancelled, or no caller waits for it.
    """

    results: Results
    key: Hashable
    title: str
    compute: Callable[[], Any]
    listeners: dict[Call, None] = field(default_factory=dict)
    text: str = ""
    share: float | None = None
    stopping: bool = False
    error: Exception | None = None


@dataclass(eq=False)
class _Failure:
    """The error of a job, and the calls to make when it may be tried again."""

    error: Exception
    listeners: dict[Call, None] = field(default_factory=dict)


class Jobs:
    """Computations that run one after another in a background thread.

    A caller asks for a result by key. It is called back when the job has ended, failed, was cancelled, or may be tried
    again, and then asks once more. The caller keeps the results, in a `Results`; the queue keeps failures.

    Parameters
    ----------
    loop : Loop
        Where callbacks run.
    patience : float
        Seconds to wait for a job that begins at once.

    Attributes
    ----------
    changes : int
        Grows whenever a job has ended, was cancelled, or may be tried again.
    note : str
        A message for the user, shown until the next job begins.

    Examples
    --------
    >>> Jobs(Loop()).ask(Results(), "sum", "The sum", lambda: 1 + 1, lambda: None)
    2
    """

    def __init__(self, loop: Loop, patience: float | int | None = None) -> None:
        self._loop = loop
        self._most_patience = self._patience = _PATIENCE if patience is None else patience
        self._waiting: dict[tuple[Results, Hashable], Job] = {}
        self._failures: dict[tuple[Results, Hashable], _Failure] = {}
        self._running: Job | None = None
        self._thread: threading.Thread | None = None
        self._ended = 0
        self._reported = 0.0
        self._watchers: dict[Call, None] = {}
        # Panels ask on the loop's thread, controls and Cancel come from the thread that handles widget messages.
        self._lock = threading.RLock()
        self.changes = 0
        self.note = ""

    def ask(
        self,
        results: Results,
        key: Hashable,
        title: str,
        compute: Callable[[], Any],
        then: Call,
        *,
        first: bool = False,
    ) -> Any:
        """Return a result; if it is missing, queue its computation and call `then` when that has ended.

        `compute` runs in the background thread; with `first`, before the jobs that wait. It may call `report`, which
        raises to stop it if it was cancelled. `then` is called once, on the loop's thread. `title` tells the user what
        is computed.

        Raises
        ------
        Waiting
            While it is computed.
        Cancelled
            After it was cancelled, until `again` or `forget`.
        Exception
            The error that `compute` raised, until `again` or `forget`.
        """
        with self._lock:
            if self._thread is not None and not self._thread.is_alive():
                # The job has ended, but the loop has not called `_end` yet, or was closed before it could.
                self._end(self._running)
            failure = self._failures.get((results, key))
            if failure is not None:
                if then not in failure.listeners:
                    failure.listeners[then] = None
                    # From now on `can_retry` is true for this listener, which may be after the queue has become empty.
                    self._changed()
                raise _fresh(failure.error)
            if key in results:
                return results.peek(key)
            if not self._loop.running:
                self._finish(_run(Job(results, key, title, compute)))
                return self.ask(results, key, title, compute, then)
            job = self._find(results, key)
            if job is None:
                job = Job(results, key, title, compute)
                new = {(results, key): job}
                self._waiting = new | self._waiting if first else self._waiting | new
            job.listeners[then] = None
            if self._running is None:
                self._start_next()
                self._wait_briefly()
                if self._running is None:
                    return self.ask(results, key, title, compute, then)
        self._changed()
        raise Waiting(f"{title} is being computed …")

    def report(self, done: float | int, total: float | int, text: str = "") -> None:
        """Report progress, from the function that computes: `done` of `total`, and optionally the present stage.

        In every other thread this does nothing.

        Raises
        ------
        Cancelled
            When the job was cancelled. This is how a cancel reaches the computation.
        """
        job = self._running
        if job is None or threading.current_thread() is not self._thread:
            return
        if job.stopping:
            raise Cancelled(f"{job.title} was cancelled")
        job.share, job.text = (done / total if total else None), text or job.text
        if time.monotonic() > self._reported + _BETWEEN_REPORTS:
            self._reported = time.monotonic()
            self._loop.call(self._changed)

    @property
    def running(self) -> Job | None:
        """The job that is running; None while the queue is empty."""
        return self._running

    @property
    def place(self) -> tuple[int, int]:
        """Number of the running job and of all jobs, counted since the queue was last empty."""
        return self._ended + 1, self._ended + 1 + len(self._waiting)

    def wait(self) -> None:
        """Wait, on the loop's thread, until nothing is computed any more."""
        while (thread := self._thread) is not None:
            thread.join()
            self._end(self._running)

    def can_retry(self, then: Call) -> bool:
        """Whether `again` would compute anything that a listener has asked for."""
        return any(then in failure.listeners and can_retry(failure.error) for failure in self._failures.values())

    def watch(self, call: Call) -> None:
        """Call whenever `running`, `note` or `can_retry` changes."""
        self._watchers[call] = None

    def unwatch(self, call: Call) -> None:
        self._watchers.pop(call, None)

    def say(self, note: str) -> None:
        """Show a message to the user until the next job begins."""
        self.note = note
        self._changed()

    def cancel(self) -> None:
        """Cancel the running job and those that wait. A job that never calls `report` still runs to its end."""
        with self._lock:
            running = [] if self._running is None or self._running.stopping else [self._running]
            jobs = [*running, *self._waiting.values()]
            self._waiting.clear()
            listeners: dict[Call, None] = {}
            for job in jobs:
                job.stopping = True
                self._failures[job.results, job.key] = _Failure(Cancelled(f"{job.title} was cancelled"))
                listeners |= job.listeners
                job.listeners.clear()
            self.changes += len(jobs)
        self._notify(listeners)

    def again(self) -> None:
        """Try the cancelled and failed jobs again, if `can_retry`."""
        with self._lock:
            again = {key: failure for key, failure in self._failures.items() if can_retry(failure.error)}
            listeners: dict[Call, None] = {}
            for key, failure in again.items():
                del self._failures[key]
                listeners |= failure.listeners
            self.changes += len(again)
        self._notify(listeners)

    def forget(self, results: Results, key: Hashable) -> None:
        """Forget that a result was cancelled or has failed."""
        with self._lock:
            self._failures.pop((results, key), None)

    def withdraw(self, then: Call, keep: Collection[tuple[Results, Hashable]] = ()) -> None:
        """Withdraw the requests of a listener, except those in `keep`; a job with no other listener is stopped."""
        with self._lock:
            jobs = [*([self._running] if self._running else []), *self._waiting.values()]
            withdrawn = [job for job in jobs if then in job.listeners and (job.results, job.key) not in keep]
            for job in withdrawn:
                del job.listeners[then]
                if not job.listeners:
                    job.stopping = True
                    self._waiting.pop((job.results, job.key), None)
            for key, failure in self._failures.items():
                if key not in keep:
                    failure.listeners.pop(then, None)
        if withdrawn:
            self._changed()

    def _find(self, results: Results, key: Hashable) -> Job | None:
        """Return the running or waiting job for a result, unless it is stopping."""
        job = self._running
        if job is not None and job.results is results and job.key == key and not job.stopping:
            return job
        return self._waiting.get((results, key))

    def _start_next(self) -> None:
        job = self._running = self._waiting.pop(next(iter(self._waiting)))
        self.note = ""
        # A daemon, so that the kernel can exit while it computes.
        self._thread = threading.Thread(target=self._work, args=(job,), name="job", daemon=True)
        self._thread.start()

    def _work(self, job: Job) -> None:
        _run(job)
        self._loop.call(self._end, job)

    def _wait_briefly(self) -> None:
        """Wait for the job that has just begun.

        The loop stands still meanwhile, so all jobs share one allowance of seconds, refilled after as many seconds.
        """
        assert self._thread is not None
        assert self._running is not None
        if self._patience == self._most_patience:
            self._loop.call_later(self._most_patience, self._refill)
        begun = time.monotonic()
        self._thread.join(self._patience)
        self._patience = max(0.0, self._patience - (time.monotonic() - begun))
        if not self._thread.is_alive():
            # `ask` returns the result itself, so no listener is called.
            self._running.listeners.clear()
            self._end(self._running)

    def _refill(self) -> None:
        self._patience = self._most_patience

    def _end(self, job: Job | None) -> None:
        """On the loop's thread: keep the failure of a job, start the next, and call the listeners."""
        with self._lock:
            if job is None or self._running is not job:
                # `ask` has ended this job already.
                return
            self._finish(job)
            self._running = self._thread = None
            self._ended = self._ended + 1 if self._waiting else 0
            if self._waiting:
                self._start_next()
            listeners = dict(job.listeners)
        self._notify(listeners)

    def _finish(self, job: Job) -> None:
        if not job.stopping:
            if job.error is not None:
                self._failures[job.results, job.key] = _Failure(job.error)
            self.changes += 1

    def _notify(self, listeners: Iterable[Call]) -> None:
        self._changed()
        for call in listeners:
            call()

    def _changed(self) -> None:
        for call in list(self._watchers):
            call()


def _run(job: Job) -> Job:
    try:
        job.results.get(job.key, job.compute)
    except Exception as error:
        job.error = error
    return job


def _fresh(error: Exception) -> Exception:
    """Return a copy of an error. Raising the stored error would add frames to it, which keep widgets alive."""
    error.__traceback__ = None
    try:
        return copy.copy(error)
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


def can_retry(error: Exception) -> bool:
    """Whether a computation may succeed when it is tried again: not if the latents or arguments rule it out."""
    return isinstance(error, Cancelled) or not isinstance(error, ValueError)
