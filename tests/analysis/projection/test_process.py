from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from anndata import AnnData

from nextlat_viz.analysis import Projection, ProjectionCache, project_in_process
from nextlat_viz.analysis.projection import process
from nextlat_viz.analysis.projection.process import _lay_out
from nextlat_viz.analysis.projection.umap import Progress
from nextlat_viz.errors import LatentsError

ROOT = Path(__file__).parents[3]
# A stand-in for UMAP that needs no compiling. The seed chooses the failure.
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


class Stop(Exception):
    """Raised by a cancel."""


@pytest.fixture
def X() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Workers that import the stand-in, and an empty folder for temporary files."""
    (tmp_path / "umap").mkdir()
    (tmp_path / "umap" / "__init__.py").write_text(STAND_IN)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    process.close_workers()
    yield tmp_path / "temporary"
    process.close_workers()


def test_progress_is_reported_and_no_files_are_left(stand_in: Path, X: np.ndarray) -> None:
    reports: list[Progress] = []
    np.testing.assert_array_equal(_lay_out(X, reports.append, **PARAMS), X[:, :2])
    stages = list(dict.fromkeys(now.stage for now in reports))
    assert [stage for stage in stages if stage != "starting"] == [
        "loading UMAP",
        "finding neighbours",
        "compiling and laying out",
        "laying out",
    ]
    assert reports[-1] == Progress("laying out", 2, 3)
    assert list(stand_in.iterdir()) == []


def test_the_worker_is_reused(stand_in: Path, X: np.ndarray) -> None:
    _lay_out(X, **PARAMS)
    (worker,) = process._idle
    _lay_out(X, **PARAMS)
    assert process._idle == [worker]
    worker.process.kill()
    worker.process.wait()
    _lay_out(X, **PARAMS)
    assert process._idle != [worker]


@pytest.mark.parametrize(("seed", "message"), [(1, "ValueError: no layout for <b>"), (2, "ended with code 9")])
def test_errors_of_the_worker_are_reported(stand_in: Path, X: np.ndarray, seed: int, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        _lay_out(X, **{**PARAMS, "seed": seed})
    assert list(stand_in.iterdir()) == []


def test_an_exception_from_progress_kills_a_silent_worker(
    stand_in: Path, X: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers, beats = [], 0
    take = process._take
    monkeypatch.setattr(process, "_take", lambda: workers.append(take()) or workers[-1])

    def progress(now: Progress) -> None:
        nonlocal beats
        # The stand-in reports three epochs, then is silent for ever.
        beats += now == Progress("laying out", 2, 3)
        if beats == 3:
            raise Stop

    with pytest.raises(Stop):
        _lay_out(X, progress, **{**PARAMS, "seed": 3})
    (worker,) = workers
    assert worker.process.poll() is not None
    assert list(stand_in.iterdir()) == []
    assert process._idle == []


def test_the_worker_ends_with_its_caller_even_during_a_layout(stand_in: Path, X: np.ndarray, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"X": X}, tmp_path / "rows.safetensors")
    request = {"source": str(tmp_path / "rows.safetensors"), "target": str(tmp_path / "out.safetensors")}
    with subprocess.Popen(
        [sys.executable, "-m", "nextlat_viz.analysis.projection.process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])},
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(json.dumps({**request, "params": {**PARAMS, "seed": 3}}) + "\n")
        worker.stdin.flush()
        while "laying out" not in worker.stdout.readline():
            assert worker.poll() is None
        worker.stdin.close()
        assert worker.wait(PATIENCE) == 0


def test_the_caller_can_exit_during_a_layout(stand_in: Path, tmp_path: Path) -> None:
    """Neither the waiting thread nor the worker keeps the caller from ending, by exit or by a signal."""
    code = f"""
import os, threading, numpy as np
from nextlat_viz.analysis.projection import process
def progress(now):
    if now.stage == "laying out":
        print(process.worker.process.pid, flush=True)
        begun.set()
begun, take = threading.Event(), process._take
def watched():
    process.worker = take()
    return process.worker
process._take = watched
X = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
params = {{**{PARAMS!r}, "seed": 3}}
threading.Thread(target=process._lay_out, args=(X, progress), kwargs=params, daemon=True).start()
begun.wait({PATIENCE})
if os.environ["ENDING"] == "kill":
    os.kill(os.getpid(), 9)
"""
    for ending in ("exit", "kill"):
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)]), "ENDING": ending}
        run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=PATIENCE)
        worker = int(run.stdout.split()[0])
        assert run.returncode == (0 if ending == "exit" else -9)
        deadline = time.monotonic() + 60
        while psutil.pid_exists(worker) and psutil.Process(worker).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, f"the worker outlives a caller that ended by {ending}"
            time.sleep(0.05)


def test_the_second_projection_comes_from_the_cache(stand_in: Path, trained: AnnData, tmp_path: Path) -> None:
    options = {"cache": ProjectionCache(user=tmp_path / "projections"), "n_epochs": 3}
    reports: list[Progress] = []
    fresh = project_in_process(trained, reports.append, **options)
    assert reports
    reports.clear()
    cached = project_in_process(trained, reports.append, **options)
    assert reports == []
    assert isinstance(fresh, Projection)
    assert (fresh.cached, cached.cached) == (False, True)
    np.testing.assert_array_equal(fresh.coordinates, cached.coordinates)
    with pytest.raises(LatentsError, match="different rows"):
        project_in_process(trained, rows=np.arange(9))


@pytest.mark.slow
@pytest.mark.xdist_group("umap")
def test_the_layout_is_the_same_in_both_processes(umap: Projection, small: AnnData) -> None:
    reports: list[Progress] = []
    layout = project_in_process(small, reports.append, cache=False, n_neighbors=10, n_epochs=30)
    process.close_workers()
    np.testing.assert_array_equal(layout.coordinates, umap.coordinates)
    assert reports[-1].total == 30
