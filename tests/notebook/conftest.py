from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from anndata import AnnData

from nextlat_viz import analysis
from nextlat_viz.analysis.projection.umap import Progress
from nextlat_viz.notebook.layouts import UmapQueue
from nextlat_viz.notebook.plot import Plot
from nextlat_viz.notebook.state import ViewState
from tests.synthetic import make_latents

N, LENGTH = 40, 8


@pytest.fixture(scope="session")
def rrxor() -> list[AnnData]:
    """Two models, the second with little to read in it."""
    return [make_latents(n=N, length=LENGTH), make_latents(label="next-token", n=N, length=LENGTH, noise=0.6)]


@pytest.fixture(scope="session")
def mess3() -> list[AnnData]:
    return [make_latents("mess3", label=label, n=N, length=LENGTH, blocks=1) for label in ("NextLat", "next-token")]


@pytest.fixture(scope="session")
def untrained() -> AnnData:
    return make_latents(label="untrained", n=N, length=LENGTH)


class FakeJob:
    """A UMAP job that does what the test says, when the test says it."""

    def __init__(self, latents: AnnData, done: Any, progress: Any, error: Any, options: Mapping[str, Any]) -> None:
        self.latents, self.options, self.cancelled = latents, options, False
        self._done, self._progress, self._error = done, progress, error

    def _from_a_thread(self, call: Callable[[Any], None], what: Any) -> None:
        thread = threading.Thread(target=call, args=(what,))
        thread.start()
        thread.join()

    def report(self, stage: str, done: int, total: int) -> None:
        self._from_a_thread(self._progress, Progress(stage=stage, done=done, total=total))

    def finish(self) -> None:
        """Hand over a layout: PCA's, because nothing here depends on which."""
        self._from_a_thread(self._done, analysis.project(self.latents, "pca", **self.options))

    def fail(self, message: str) -> None:
        self._from_a_thread(self._error, RuntimeError(message))

    def cancel(self) -> None:
        self.cancelled = True


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[FakeJob]:
    """Every UMAP that was begun."""
    begun: list[FakeJob] = []

    def begin(latents: AnnData, done: Any, progress: Any, error: Any, **options: Any) -> FakeJob:
        begun.append(FakeJob(latents, done, progress, error, options))
        return begun[-1]

    monkeypatch.setattr(analysis, "project_in_background", begin, raising=False)
    return begun


@pytest.fixture(autouse=True)
def no_umap(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a test that asks for fake jobs has any; a real one takes longer than all tests here."""
    if "jobs" not in request.fixturenames:
        monkeypatch.setattr(UmapQueue, "want", lambda self, scene, site: None)


@pytest.fixture
def state(rrxor: list[AnnData], untrained: AnnData) -> ViewState:
    return ViewState(*rrxor, untrained=[untrained, None])


def touch(plot: Plot, event: str, points: Mapping[int, list[int]] | None = None) -> None:
    """Send what a page sends when points are touched: a "click" or a "select" of {trace: points}, None to dismiss."""
    pairs = None if points is None else [[trace, point] for trace, numbers in points.items() for point in numbers]
    plot._handle_custom_msg({"kind": event, "points": pairs}, [])


def traces(plot: Any, role: str) -> list[int]:
    """Which traces play a role."""
    return [i for i, trace in enumerate(plot.data) if (trace.meta or {}).get("role") == role]


def living_plots() -> int:
    gc.collect()
    # isinstance would ask lazy modules for their class, which imports what they stand for.
    return sum(issubclass(type(one), Plot) for one in gc.get_objects())
