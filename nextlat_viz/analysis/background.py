"""UMAP beside the notebook: a process of its own lays out, so the kernel stays free to answer."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from anndata import AnnData
from jaxtyping import Float

from nextlat_viz.analysis.projection.project import UmapPlan
from nextlat_viz.analysis.projection.result import Projection
from nextlat_viz.analysis.projection.umap import Progress
from nextlat_viz.paths import PACKAGE

State = Literal["ready", "running", "done", "failed", "cancelled"]


class UmapJob:
    """One UMAP layout in another process.

    The callbacks come from a thread of the job's own. Just one of `on_done` and `on_error` is called, once, and
    neither after `cancel`.

    Parameters
    ----------
    X : (rows, dim) array
    params : dict
        ``n_neighbors``, ``min_dist``, ``n_epochs``, ``seed``: see `umap_layout`.
    on_progress : callable taking a Progress, optional
    on_done : callable taking the (rows, 2) float32 layout, optional
    on_error : callable taking an Exception, optional
        Also told when `on_done` itself fails, so that nothing is lost in a thread.
    """

    def __init__(
        self,
        X: Float[np.ndarray, "rows dim"],
        params: Mapping[str, Any],
        on_progress: Callable[[Progress], None] | None = None,
        on_done: Callable[[Any], None] | None = None,
        on_error: Callable[[Exception], None] | None = None,
    ) -> None:
        self.X, self.params = X, dict(params)
        self.on_progress, self.on_done, self.on_error = on_progress, on_done, on_error
        self.state: State = "ready"
        self._worker: _Worker | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="umap", daemon=True)

    def start(self) -> UmapJob:
        """Begin, and return at once."""
        with self._lock:
            if self.state != "ready":
                raise RuntimeError(f"this job is {self.state}: make a new one to run it again")
            self.state = "running"
        self._thread.start()
        return self

    def cancel(self) -> None:
        """Stop now; nothing happens where the job has ended already."""
        with self._lock:
            if self.state not in ("ready", "running"):
                return
            self.state = "cancelled"
            if self._worker is not None:
                # Only the process: its pipes are the job thread's to close, which is reading from them.
                self._worker.process.kill()

    def wait(self, timeout: float | int | None = None) -> State:
        """Wait until the job has ended and its callback has returned, or for `timeout` seconds."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return self.state

    def _run(self) -> None:
        try:
            with tempfile.TemporaryDirectory(prefix="nextlat_viz_umap_", ignore_cleanup_errors=True) as folder:
                layout = self._lay_out(Path(folder))
            with self._lock:
                if self.state == "cancelled":
                    return
                self.state = "done"
            if self.on_done is not None:
                self.on_done(layout)
        except Exception as error:
            with self._lock:
                if self.state == "cancelled":
                    return
                self.state = "failed"
            if self.on_error is not None:
                self.on_error(error)

    def _lay_out(self, folder: Path) -> np.ndarray:
        from safetensors.numpy import load_file, save_file

        source, target = folder / "rows.safetensors", folder / "layout.safetensors"
        save_file({"X": np.ascontiguousarray(self.X, dtype=np.float32)}, source)
        worker = _take()
        try:
            with self._lock:
                self._worker = worker
                if self.state == "cancelled":
                    worker.process.kill()
            for message in worker.ask({"source": str(source), "target": str(target), "params": self.params}):
                if "error" in message:
                    raise RuntimeError(f"UMAP failed: {message['error']}")
                if self.on_progress is not None and self.state == "running":
                    self.on_progress(Progress(**message))
            layout: np.ndarray = load_file(target)["layout"]
            with self._lock:
                # From here on cancel() must not reach a worker that the next job may be given.
                self._worker = None
        except BaseException:
            worker.kill()
            raise
        _give_back(worker)
        return layout


def project_in_background(
    latents: AnnData,
    on_done: Callable[[Projection], None],
    on_progress: Callable[[Progress], None] | None = None,
    on_error: Callable[[Exception], None] | None = None,
    **options: Any,
) -> UmapJob | None:
    """Do ``project(latents, "umap", **options)`` without keeping the caller waiting.

    What is in the cache is handed to `on_done` before this returns, and there is no job (None). Else the started job
    is returned, and the callbacks come from its thread, `on_done` with the finished Projection.

    Raises
    ------
    LatentsError, UnknownNameError, ValueError
        At once, for what can be seen to be wrong; what fails later goes to `on_error`.
    """
    plan = UmapPlan.of(latents, **options)
    found = plan.cached()
    if found is not None:
        on_done(found)
        return None
    return UmapJob(plan.X, plan.params, on_progress, lambda layout: on_done(plan.finish(layout)), on_error).start()


class _Worker:
    """A running umap_worker."""

    def __init__(self) -> None:
        # A file, because a pipe that nobody reads fills up and stops the writer.
        self.errors: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        # The worker must find this very package, however the notebook came by it.
        home = str(PACKAGE.parent)
        search = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "nextlat_viz.analysis.umap_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": search, "PYTHONIOENCODING": "utf-8"},
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )

    def ask(self, request: Mapping[str, Any]) -> Any:
        """Send a request and give the messages of its answer, without the closing ``finished``."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(OSError):
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        for line in self.process.stdout:
            # Libraries may print what they like between our lines.
            if line.startswith("{"):
                message = json.loads(line)
                if "finished" in message:
                    return
                yield message
        code = self.process.wait()
        self.errors.seek(0)
        said = self.errors.read().strip().splitlines()[-3:]
        why = " ".join(said) or "perhaps the computer ran out of memory"
        raise RuntimeError(f"the UMAP process ended with code {code} before it was done: {why}")

    def kill(self) -> None:
        with contextlib.suppress(OSError):
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.errors):
            with contextlib.suppress(OSError, ValueError):
                pipe.close()  # type: ignore[union-attr]


# One worker stays warm between jobs, because compiling costs more than most layouts.
_warm: list[_Worker] = []
_warm_lock = threading.Lock()


def _take() -> _Worker:
    with _warm_lock:
        worker = _warm.pop() if _warm else None
    if worker is not None and worker.process.poll() is None:
        return worker
    if worker is not None:
        worker.kill()
    return _Worker()


def _give_back(worker: _Worker) -> None:
    with _warm_lock:
        if not _warm:
            _warm.append(worker)
            return
    worker.kill()


@atexit.register
def close_workers() -> None:
    """End the process that is kept warm; the next job starts another."""
    while _warm:
        _warm.pop().kill()
