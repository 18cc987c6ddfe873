from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anndata import AnnData

from nextlat_viz.analysis import Projection, ProjectionCache, UmapJob, background, project_in_background
from nextlat_viz.analysis.projection.umap import Progress
from nextlat_viz.errors import LatentsError

ROOT = Path(__file__).parents[2]
# A UMAP that needs no compiling: the seed says what goes wrong.
STAND_IN = """
import os, time
class UMAP:
    def __init__(self, n_epochs, random_state, tqdm_kwds, precomputed_knn, **_):
        self.n_epochs, self.seed, self.file = n_epochs, random_state, tqdm_kwds["file"]
    def fit_transform(self, X):
        print("a library that prints", "{not json", flush=True)
        for epoch in range(self.n_epochs):
            self.file.write(f"\\r{epoch}")
        if self.seed == 1:
            raise ValueError("no layout for <b>")
        if self.seed == 2:
            os._exit(9)
        while self.seed == 3:
            time.sleep(0.05)
        return X[:, :2] + os.getpid() * 0
"""
# Starting Python on a crowded machine can take a minute; nothing here waits this long unless it fails.
PATIENCE = 500.0
PARAMS = {"n_neighbors": 5, "min_dist": 0.1, "n_epochs": 3, "seed": 0}


class Heard:
    """The callbacks of a job, and what they were told."""

    def __init__(self) -> None:
        self.progress: list[Progress] = []
        self.done: list[Any] = []
        self.errors: list[Exception] = []
        self.laying_out = threading.Event()

    def on_progress(self, now: Progress) -> None:
        self.progress.append(now)
        if now.stage == "laying out":
            self.laying_out.set()

    @property
    def callbacks(self) -> dict[str, Any]:
        return {"on_progress": self.on_progress, "on_done": self.done.append, "on_error": self.errors.append}


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def X() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Workers with the stand-in, and an empty folder for whatever is temporary."""
    (tmp_path / "umap").mkdir()
    (tmp_path / "umap" / "__init__.py").write_text(STAND_IN)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    background.close_workers()
    yield tmp_path / "temporary"
    background.close_workers()


def test_a_job_reports_and_delivers_and_cleans_up(stand_in: Path, X: np.ndarray, heard: Heard) -> None:
    job = UmapJob(X, PARAMS, **heard.callbacks)
    assert job.state == "ready"
    assert job.start().wait(PATIENCE) == "done"
    np.testing.assert_array_equal(heard.done[0], X[:, :2])
    stages = list(dict.fromkeys(now.stage for now in heard.progress))
    assert stages == ["loading UMAP", "finding neighbours", "compiling and laying out", "laying out"]
    assert heard.progress[-1] == Progress("laying out", 2, 3)
    assert heard.errors == []
    assert list(stand_in.iterdir()) == []
    job.cancel()
    assert job.state == "done"
    with pytest.raises(RuntimeError, match="job is done"):
        job.start()


def test_the_next_job_finds_the_worker_warm(stand_in: Path, X: np.ndarray) -> None:
    UmapJob(X, PARAMS).start().wait(PATIENCE)
    (worker,) = background._warm
    assert UmapJob(X, PARAMS).start().wait(PATIENCE) == "done"
    assert background._warm == [worker]
    worker.process.kill()
    worker.process.wait()
    assert UmapJob(X, PARAMS).start().wait(PATIENCE) == "done"
    assert background._warm != [worker]


@pytest.mark.parametrize(("seed", "message"), [(1, "ValueError: no layout for <b>"), (2, "ended with code 9")])
def test_a_worker_that_fails_says_why(stand_in: Path, X: np.ndarray, heard: Heard, seed: int, message: str) -> None:
    assert UmapJob(X, {**PARAMS, "seed": seed}, **heard.callbacks).start().wait(PATIENCE) == "failed"
    (error,) = heard.errors
    assert message in str(error)
    assert heard.done == []
    assert list(stand_in.iterdir()) == []


def test_cancel_ends_the_process_and_nobody_is_called(stand_in: Path, X: np.ndarray, heard: Heard) -> None:
    job = UmapJob(X, {**PARAMS, "seed": 3}, **heard.callbacks).start()
    assert heard.laying_out.wait(PATIENCE)
    assert job.wait(0.05) == "running"
    worker = job._worker
    assert worker is not None
    job.cancel()
    assert job.wait(PATIENCE) == "cancelled"
    assert worker.process.poll() is not None
    assert heard.done == heard.errors == []
    assert list(stand_in.iterdir()) == []
    assert background._warm == []


def test_cancel_before_the_start(X: np.ndarray) -> None:
    job = UmapJob(X, PARAMS)
    job.cancel()
    assert job.wait() == "cancelled"
    with pytest.raises(RuntimeError, match="cancelled"):
        job.start()


def test_an_error_of_the_callback_is_an_error_of_the_job(stand_in: Path, X: np.ndarray) -> None:
    errors: list[Exception] = []

    def fail(_: object) -> None:
        raise ZeroDivisionError("while drawing")

    assert UmapJob(X, PARAMS, on_done=fail, on_error=errors.append).start().wait(PATIENCE) == "failed"
    assert isinstance(errors[0], ZeroDivisionError)


def test_a_worker_ends_with_the_notebook_even_in_the_middle(stand_in: Path, X: np.ndarray, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"X": X}, tmp_path / "rows.safetensors")
    request = {"source": str(tmp_path / "rows.safetensors"), "target": str(tmp_path / "out.safetensors")}
    with subprocess.Popen(
        [sys.executable, "-m", "nextlat_viz.analysis.umap_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({**request, "params": {**PARAMS, "seed": 3}}) + "\n")
        process.stdin.flush()
        while "laying out" not in process.stdout.readline():
            assert process.poll() is None
        process.stdin.close()
        assert process.wait(PATIENCE) == 0


def test_projections_come_in_the_background_and_from_the_cache(
    stand_in: Path, trained: AnnData, heard: Heard, tmp_path: Path
) -> None:
    options = {"cache": ProjectionCache(user=tmp_path / "projections"), "n_epochs": 3}
    job = project_in_background(trained, **heard.callbacks, **options)
    assert job is not None
    assert job.wait(PATIENCE) == "done"
    assert project_in_background(trained, **heard.callbacks, **options) is None
    fresh, cached = heard.done
    assert isinstance(fresh, Projection)
    assert (fresh.cached, cached.cached) == (False, True)
    np.testing.assert_array_equal(fresh.coordinates, cached.coordinates)
    with pytest.raises(LatentsError, match="different rows"):
        project_in_background(trained, heard.done.append, rows=np.arange(9))


@pytest.mark.slow
def test_the_process_lays_out_as_this_one_does(umap: Projection, small: AnnData, heard: Heard) -> None:
    job = project_in_background(small, **heard.callbacks, cache=False, n_neighbors=10, n_epochs=30)
    assert job is not None
    assert job.wait(PATIENCE) == "done"
    background.close_workers()
    np.testing.assert_array_equal(heard.done[0].coordinates, umap.coordinates)
    assert heard.progress[-1].total == 30
