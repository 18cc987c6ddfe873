from __future__ import annotations

import asyncio
import contextlib
import gc
import queue
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from anndata import AnnData

from nextlat_viz import analysis
from nextlat_viz.analysis.projection.umap import Progress
from nextlat_viz.notebook.jobs import Cancelled
from nextlat_viz.notebook.plot import Plot
from nextlat_viz.notebook.state import ViewState
from tests.synthetic import make_latents

N, LENGTH = 40, 8


@pytest.fixture(scope="session")
def rrxor() -> list[AnnData]:
    """Two models; little can be read from the second."""
    return [make_latents(n=N, length=LENGTH), make_latents(label="next-token", n=N, length=LENGTH, noise=0.6)]


@pytest.fixture(scope="session")
def mess3() -> list[AnnData]:
    return [make_latents("mess3", label=label, n=N, length=LENGTH, blocks=1) for label in ("NextLat", "next-token")]


@pytest.fixture(scope="session")
def untrained() -> AnnData:
    return make_latents(label="untrained", n=N, length=LENGTH)


@pytest.fixture(scope="session")
def probed() -> dict[Any, Any]:
    """The probes of `probes_once` by what they were fitted to, each with its tables, whose ids are so kept."""
    return {}


@pytest.fixture(autouse=True)
def probes_once(
    rrxor: list[AnnData], mess3: list[AnnData], probed: dict[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fit each probe of the tables that all tests share once, because every studio that opens asks for two."""
    shared, fit = {id(table) for table in (*rrxor, *mess3)}, analysis.probe

    def probe(latents: Any, *arguments: Any, **options: Any) -> analysis.ProbeResult:
        if id(latents) not in shared:
            return fit(latents, *arguments, **options)
        untrained = options.pop("untrained", None)
        key = id(latents), id(untrained), arguments, *sorted(options.items())
        if key not in probed:
            probed[key] = fit(latents, *arguments, untrained=untrained, **options), latents, untrained
        return probed[key][0]

    monkeypatch.setattr(analysis, "probe", probe)


class FakeUmap:
    """A UMAP that the test controls."""

    def __init__(self, latents: AnnData, options: Mapping[str, Any]) -> None:
        self.latents, self.options, self.cancelled = latents, options, False
        self._orders: queue.Queue[Progress | Exception | None] = queue.Queue()

    def report(self, stage: str, done: int, total: int) -> None:
        self._orders.put(Progress(stage=stage, done=done, total=total))

    def finish(self) -> None:
        """Return PCA as the layout, because no test depends on the layout."""
        self._orders.put(None)

    def fail(self, message: str) -> None:
        self._orders.put(RuntimeError(message))

    def run(self, progress: Callable[[Progress], None]) -> analysis.Projection:
        """A stand-in for the other process, with a heartbeat that notices a cancel."""
        now = Progress("starting")
        try:
            while True:
                progress(now)
                with contextlib.suppress(queue.Empty):
                    order = self._orders.get(timeout=0.01)
                    if order is None:
                        return analysis.project(self.latents, "pca", **self.options)
                    if isinstance(order, Exception):
                        raise order
                    now = order
        except Cancelled:
            self.cancelled = True
            raise


@pytest.fixture
def umaps(monkeypatch: pytest.MonkeyPatch) -> list[FakeUmap]:
    """All UMAPs that were started. Only a test with an event loop can control them."""
    begun: list[FakeUmap] = []

    def begin(latents: AnnData, progress: Any = None, **options: Any) -> analysis.Projection:
        begun.append(FakeUmap(latents, options))
        return begun[-1].run(progress)

    monkeypatch.setattr(analysis, "project_in_process", begin, raising=False)
    return begun


async def until(true: Callable[[], Any], seconds: float = 120) -> None:
    """Let the event loop run until a condition holds."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "the condition does not hold"
        await asyncio.sleep(0.005)


@pytest.fixture
def state(rrxor: list[AnnData], untrained: AnnData) -> ViewState:
    return ViewState(*rrxor, untrained=[untrained, None])


def touch(plot: Plot, event: str, points: Mapping[int, list[int]] | None = None) -> None:
    """Send what a page sends when points are touched: a "click" or a "select" of {trace: points}, None to dismiss."""
    pairs = None if points is None else [[trace, point] for trace, numbers in points.items() for point in numbers]
    plot._handle_custom_msg({"kind": event, "points": pairs}, [])


def traces(plot: Any, role: str) -> list[int]:
    """Return the numbers of the traces with a role."""
    return [i for i, trace in enumerate(plot.data) if (trace.meta or {}).get("role") == role]


def living_plots() -> int:
    gc.collect()
    # isinstance would ask lazy modules for their class, which imports them.
    return sum(issubclass(type(item), Plot) for item in gc.get_objects())


def labelled(widget: Any) -> dict[str, Any]:
    """The controls in the first row of a widget, by their labels."""
    controls = {getattr(control, "description", ""): control for control in widget.children[0].children}
    return {label: control for label, control in controls.items() if label}
