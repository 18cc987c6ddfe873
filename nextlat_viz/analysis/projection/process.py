"""UMAP in another process, which can be stopped at any time and leaves the interpreter of the caller free.

A thread is not enough: numba's compilation and layout hold the interpreter lock for seconds and cannot be interrupted.
A ``multiprocessing`` pool is not used, because a spawned worker imports the caller's ``__main__`` again, which runs a
user's script a second time, and because it would outlive a killed notebook in the middle of a layout.

`project_in_process` is the caller's side. ``python -m nextlat_viz.analysis.projection.process`` is the worker. They
exchange lines of JSON over the worker's standard input and output, and rows and layouts as safetensors files. To
``{"source": path, "target": path, "params": {...}}`` the worker answers ``{"stage": ..., "done": ..., "total": ...}``
while it works, then ``{"finished": true}`` or ``{"error": ...}``.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from nextlat_viz.paths import PACKAGE

if TYPE_CHECKING:
    from anndata import AnnData

    from nextlat_viz.analysis.projection.result import Projection
    from nextlat_viz.analysis.projection.umap import Progress

# Seconds between two calls of `progress` while the worker is silent, so that a cancel is heard while it compiles.
_HEARTBEAT = 0.1
# Seconds without a request after which a worker ends: it holds the memory of numba and its compiled code.
_IDLE = 600


def project_in_process(
    latents: AnnData, progress: Callable[[Progress], None] | None = None, **options: Any
) -> Projection:
    """Compute ``project(latents, "umap", **options)`` with the layout in another process.

    The call returns when the projection is ready. Made from a thread, it leaves the calling program responsive. A
    layout from the cache needs no other process.

    Parameters
    ----------
    latents : AnnData
        Of one model.
    progress : callable taking a Progress, optional
        Called at least ten times a second with the present stage. An exception that it raises
        stops the process and is raised again.
    **options
        As in `project`: ``site``, ``rows``, ``seed``, ``n_neighbors``, ...

    Raises
    ------
    LatentsError, UnknownNameError, ValueError
        As `project`.
    RuntimeError
        When the process fails; the message quotes the end of its error output.
    """
    from nextlat_viz.analysis.projection.project import umap_projection

    return umap_projection(latents, partial(_lay_out, progress=progress), **options)


def _lay_out(
    X: Float[np.ndarray, "rows dim"], progress: Callable[[Progress], None] | None = None, **params: Any
) -> Float[np.ndarray, "rows 2"]:
    """`umap_layout` in the worker."""
    from safetensors.numpy import load_file, save_file

    from nextlat_viz.analysis.projection.umap import Progress

    now = Progress("starting")
    with tempfile.TemporaryDirectory(prefix="nextlat_viz_umap_", ignore_cleanup_errors=True) as folder:
        source, target = Path(folder) / "rows.safetensors", Path(folder) / "layout.safetensors"
        save_file({"X": np.ascontiguousarray(X, dtype=np.float32)}, source)
        worker = _take()
        try:
            for message in worker.ask({"source": str(source), "target": str(target), "params": params}):
                if "error" in message:
                    raise RuntimeError(f"UMAP failed: {message['error']}")
                now = Progress(**message) if message else now
                if progress is not None:
                    progress(now)
            layout: np.ndarray = load_file(target)["layout"]
        except BaseException:
            # After an error or a cancel the worker may still be laying out, so it cannot be used again.
            worker.kill()
            raise
    _give_back(worker)
    return layout


class _Worker:
    """The worker process, seen from the caller's side."""

    def __init__(self) -> None:
        # A file, because a pipe that nobody reads fills up and then stops the writer.
        self.errors: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        # The worker must import this very package, wherever the notebook imported it from.
        path = os.pathsep.join([str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "nextlat_viz.analysis.projection.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
        # Reading a pipe with a timeout is not possible on Windows, so a thread reads and a queue has the timeout.
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._listen, name="umap", daemon=True).start()

    def ask(self, request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Send a request and yield the messages of its answer; an empty one at every heartbeat without a message."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        while True:
            try:
                line = self._lines.get(timeout=_HEARTBEAT)
            except queue.Empty:
                yield {}
                continue
            if line is None:
                break
            # Libraries may print between the messages.
            if line.startswith("{"):
                message = json.loads(line)
                if "finished" in message:
                    return
                yield message
        code = self.process.wait()
        self.errors.seek(0)
        last = " ".join(self.errors.read().strip().splitlines()[-3:]) or "perhaps the computer ran out of memory"
        raise RuntimeError(f"the UMAP process ended with code {code} before it was done: {last}")

    def kill(self) -> None:
        """End the process and close its files."""
        with contextlib.suppress(OSError):
            self.process.kill()
        self.process.wait()
        for file in (self.process.stdin, self.errors):
            with contextlib.suppress(OSError, ValueError):
                file.close()  # type: ignore[union-attr]

    def _listen(self) -> None:
        """Read the worker's output to its end, in a thread."""
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)


# One worker is kept between layouts, because compiling takes longer than most of them.
_idle: list[_Worker] = []
_idle_lock = threading.Lock()


def _take() -> _Worker:
    with _idle_lock:
        worker = _idle.pop() if _idle else None
    if worker is not None and worker.process.poll() is None:
        return worker
    if worker is not None:
        worker.kill()
    return _Worker()


def _give_back(worker: _Worker) -> None:
    with _idle_lock:
        if not _idle:
            _idle.append(worker)
            return
    worker.kill()


@atexit.register
def close_workers() -> None:
    """End the process that is kept; the next layout starts another."""
    while _idle:
        _idle.pop().kill()


def main() -> None:
    """Answer requests until standard input closes, or no request comes for ten minutes."""
    # An interrupt of a notebook cell reaches every process of its group and does not concern this layout.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_receive, args=(requests,), daemon=True).start()
    while True:
        try:
            line = requests.get(timeout=_IDLE)
        except queue.Empty:
            os._exit(0)
        try:
            _answer(**json.loads(line))
            _send(finished=True)
        except Exception as error:
            traceback.print_exc()
            _send(error=f"{type(error).__name__}: {error}")


def _answer(source: str, target: str, params: dict[str, Any]) -> None:
    from safetensors.numpy import load_file, save_file

    from nextlat_viz.analysis.projection.umap import umap_layout

    layout = umap_layout(load_file(source)["X"], **params, progress=lambda now: _send(**now._asdict()))
    save_file({"layout": layout}, target)


def _receive(requests: queue.Queue[str]) -> None:
    for line in sys.stdin:
        requests.put(line)
    # The input ends when the caller ends, even if killed: the worker must not outlive it, not even during a layout.
    os._exit(0)


def _send(**message: Any) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    main()
