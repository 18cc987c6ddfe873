"""Long work beside the kernel's thread: its progress, its end before time, and what the reader sees meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from anndata import AnnData

from nextlat_viz.notebook import ViewState, sources
from nextlat_viz.notebook.once import Once
from nextlat_viz.notebook.scene import Scene
from nextlat_viz.notebook.studio import Studio, beside
from nextlat_viz.notebook.studio.beside import Beside, Cancelled, Waiting

PAIR = ("rrxor/next_token", "rrxor/nextlat")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "_AT_ONCE", 0.01)
    monkeypatch.setattr(beside, "_BETWEEN", 0.0)


async def until(true: Callable[[], Any], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true"
        await asyncio.sleep(0.005)


class Gate:
    """Work that goes on when it is told to, in pieces, and says how far it is."""

    def __init__(self) -> None:
        self.go, self.begun, self.pieces, self.ends = threading.Semaphore(0), threading.Event(), 0, 0

    def work(self, report: Callable[[int, int], None], pieces: int = 4) -> str:
        self.begun.set()
        try:
            for piece in range(pieces):
                assert self.go.acquire(timeout=60)
                self.pieces += 1
                report(piece + 1, pieces)
        finally:
            self.ends += 1
        return "worked"


def asked(one: Beside, key: str, compute: Callable[[], Any], done: Callable[[], None], **options: Any) -> Any:
    try:
        return one.ask(key, key.capitalize(), compute, done, **options)
    except (Waiting, Cancelled) as error:
        return error


def test_one_computes_and_the_others_wait_but_for_nothing_else() -> None:
    once, calls, open_ = Once(), [], threading.Event()

    def slow() -> object:
        calls.append(1)
        assert open_.wait(60)
        return object()

    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(once.get("slow", slow))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert once.get("quick", lambda: 3) == 3
    assert "slow" not in once
    open_.set()
    for thread in threads:
        thread.join(60)
    assert len(calls) == 1
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


def test_what_fails_is_tried_again() -> None:
    once = Once()
    with pytest.raises(ZeroDivisionError):
        once.get("x", lambda: 1 / 0)
    assert once.get("x", lambda: 1.0) == 1.0


def test_a_scene_read_by_two_threads_fits_once(rrxor: list[AnnData], monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene([sources.Source(one) for one in rrxor], None, 1_000)
    fit, fits = sources.Source.untrained, []
    monkeypatch.setattr(sources.Source, "untrained", lambda self: fits.append(time.sleep(0.05)) or fit(self))
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(scene.probe(0, "belief", "hidden"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(fits) == 1
    assert len(set(map(id, found))) == 1


def test_paths_of_thousands_of_episodes_are_not_all_kept(rrxor: list[AnnData]) -> None:
    scene = Scene([sources.Source(one) for one in rrxor], None, 1_000)
    for episode in scene.episodes.tolist():
        for model in range(2):
            scene.path(model, "hidden", episode)
    assert len(scene._paths) == 64
    assert scene.path(1, "hidden", episode) is scene.path(1, "hidden", episode)


def test_progress_is_told_and_a_cancel_ends_what_can_end() -> None:
    gate, told = Gate(), []

    async def run() -> None:
        one = Beside(asyncio.get_running_loop())
        seen: list[Any] = []
        one.watch(lambda: seen.append(one.progress))
        compute = lambda: gate.work(lambda done, total: one.report(float(done), total))  # noqa: E731
        assert isinstance(asked(one, "first", compute, lambda: told.append("first")), Waiting)
        assert isinstance(asked(one, "second", lambda: 2, lambda: told.append("second")), Waiting)
        assert (one.progress.what, one.progress.number, one.progress.total) == ("First", 1, 2)
        gate.go.release()
        await until(lambda: one.progress.share == 0.25)
        one.cancel()
        assert told == ["first", "second"]
        assert one.progress.stopping
        assert str(asked(one, "second", lambda: 2, lambda: None)) == "Second was cancelled"
        gate.go.release()
        await until(lambda: one.progress is None)
        assert (gate.pieces, gate.ends) == (2, 1)
        assert seen[-1] is None
        assert isinstance(asked(one, "first", compute, lambda: told.append("again")), Cancelled)
        told.clear()
        one.again()
        assert told == ["again"]
        assert isinstance(asked(one, "first", compute, lambda: told.append("done")), Waiting)
        for _ in range(4):
            gate.go.release()
        await until(lambda: "done" in told)
        assert asked(one, "first", compute, lambda: None) == "worked"

    asyncio.run(run())


def test_what_cannot_stop_is_dropped_when_it_is_done() -> None:
    go, told = threading.Event(), []

    async def run() -> None:
        one = Beside(asyncio.get_running_loop())
        asked(one, "first", lambda: go.wait(60), lambda: told.append(1))
        one.cancel()
        # Wanted again before the first has come to its end.
        one.again()
        assert isinstance(asked(one, "first", lambda: 7, lambda: told.append(2)), Waiting)
        go.set()
        await until(lambda: 2 in told)
        assert asked(one, "first", lambda: None, lambda: None) == 7

    asyncio.run(run())


def test_what_comes_first_comes_before_what_waits() -> None:
    go, order = threading.Event(), []

    async def run() -> None:
        one = Beside(asyncio.get_running_loop())
        asked(one, "running", lambda: go.wait(60), lambda: None)
        asked(one, "later", lambda: order.append("later"), lambda: None)
        asked(one, "sooner", lambda: order.append("sooner"), lambda: None, first=True)
        go.set()
        await until(lambda: len(order) == 2)
        assert order == ["sooner", "later"]

    asyncio.run(run())


class Extraction:
    """In place of extraction: as slow as the test wants."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gate, self.threads, self._extract = Gate(), [], sources._extract
        monkeypatch.setattr(sources, "_extract", self)

    def __call__(self, checkpoint: Any, progress: Any = None) -> AnnData:
        if progress is not None:
            self.threads.append(threading.current_thread())
            self.gate.work(progress)
        return self._extract(checkpoint)


@pytest.fixture
def state() -> ViewState:
    return ViewState(*PAIR, max_points=240)


def step_of(made: Studio) -> Any:
    (slider,) = (one for one in made.children[0].children if one.description == "Training step")
    return slider


def test_a_step_is_extracted_beside_and_gone_to_when_it_is_there(
    state: ViewState, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Extraction(monkeypatch)

    async def run() -> None:
        made = Studio(state=state)
        await until(lambda: made.panels["knows"].drawn and made.status.cancel.layout.visibility == "hidden")
        slider, last = step_of(made), state.steps[-1]
        slider.value = 200
        # The control shows where the views are, which is where it was.
        assert (state.step, slider.label) == (None, f"{last:,}")
        await until(lambda: "Extracting next-token at step 200 … 1 of 2" in made.status.words.value)
        assert made.status.cancel.layout.visibility is None
        state.position = 5
        await until(lambda: "after position 5" in made.panels["knows"].plot.layout.annotations[0].text)
        slow.gate.go.release()
        await until(lambda: made.status.bar.value == 0.125)
        for _ in range(7):
            slow.gate.go.release()
        await until(lambda: state.step == 200)
        assert (slider.value, len(slow.threads)) == (200, 2)
        assert threading.main_thread() not in slow.threads
        assert made.panels["space"]._alert.value == made.status._alert.value == ""
        await until(lambda: made.status.words.value.endswith('"></span>'))
        # What is there already is gone to at once.
        slider.value = "none"
        assert state.step is None
        slider.value = 200
        assert state.step == 200
        made.close()

    asyncio.run(run())


def test_a_cancelled_step_leaves_everything_where_it_was(state: ViewState, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Extraction(monkeypatch)

    async def run() -> None:
        made = Studio(state=state)
        await until(lambda: made._turns.beside.progress is None)
        slider = step_of(made)
        slider.value = 200
        await until(slow.gate.begun.is_set)
        made.status.cancel.click()
        assert "Cancelled. Stopping after this one" in made.status.words.value
        slow.gate.go.release()
        await until(lambda: made._turns.beside.progress is None)
        assert (state.step, slider.value, slow.gate.pieces) == (None, "none", 1)
        assert "Going to step 200 was cancelled: choose it again" in made.status.words.value
        slider.value = 200
        for _ in range(8):
            slow.gate.go.release()
        await until(lambda: state.step == 200)
        made.close()

    asyncio.run(run())


def test_the_last_of_several_wishes_counts(state: ViewState, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Extraction(monkeypatch)

    async def run() -> None:
        made = Studio(state=state)
        await until(lambda: made._turns.beside.progress is None)
        first, second = state.steps[1:3]
        slider = step_of(made)
        slider.value = first
        await until(slow.gate.begun.is_set)
        slider.value = second
        for _ in range(9):
            slow.gate.go.release()
        await until(lambda: state.step == second)
        assert state.lacks(state.world, first)
        # Where code leads, no earlier wish leads away from.
        slow.gate.begun.clear()
        slider.value = first
        await until(slow.gate.begun.is_set)
        state.step = None
        for _ in range(8):
            slow.gate.go.release()
        await until(lambda: made._turns.beside.progress is None)
        assert state.step is None
        made.close()

    asyncio.run(run())


def test_an_extraction_that_fails_is_seen_and_can_be_tried_again(
    state: ViewState, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(checkpoint: Any, progress: Any = None) -> AnnData:
        raise RuntimeError("no <memory>")

    async def run() -> None:
        made = Studio(state=state)
        await until(lambda: made._turns.beside.progress is None)
        with monkeypatch.context() as patch:
            patch.setattr(sources, "_extract", broken)
            step_of(made).value = 200
            await until(lambda: made._alert.value or made.status._alert.value)
            assert "no &lt;memory&gt;" in made._alert.value + made.status._alert.value
            assert state.step is None
        step_of(made).value = 200
        await until(lambda: state.step == 200)
        made.close()

    asyncio.run(run())


def test_a_closed_studio_ends_what_it_began(state: ViewState, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Extraction(monkeypatch)

    async def run() -> None:
        made = Studio(state=state)
        step_of(made).value = 200
        await until(slow.gate.begun.is_set)
        made.close()
        slow.gate.go.release()
        await until(lambda: slow.gate.ends)
        await asyncio.sleep(0.05)
        assert (slow.gate.pieces, state.step) == (1, None)

    asyncio.run(run())


def test_without_an_event_loop_a_step_is_gone_to_at_once(state: ViewState) -> None:
    made = Studio(state=state)
    step_of(made).value = 200
    assert made._alert.value == made.status._alert.value == ""
    assert state.step == step_of(made).value == 200
    made.close()


def test_cancelled_probes_say_so_and_can_be_fitted_again(rrxor: list[AnnData], monkeypatch: pytest.MonkeyPatch) -> None:
    go, fit = threading.Event(), Scene.probe

    def slow(self: Scene, model: int, target: str, site: str) -> Any:
        if threading.current_thread() is not threading.main_thread():
            assert go.wait(60)
        return fit(self, model, target, site)

    monkeypatch.setattr(Scene, "probe", slow)

    async def run() -> None:
        made = Studio(*rrxor)
        knows = made.panels["knows"]
        await until(lambda: "is being computed" in knows.words)
        assert "of 2" in made.status.words.value
        assert knows._again.layout.display == "none"
        made.status.cancel.click()
        await until(lambda: "was cancelled" in knows.words)
        assert "Stopping after this one: The probe of" in made.status.words.value
        assert knows._again.layout.display is None
        made.state.position = 3
        await until(lambda: not made._turns._waiting)
        assert "was cancelled" in knows.words
        assert knows._again.layout.display is None
        go.set()
        knows._again.click()
        await until(lambda: knows.drawn)
        assert knows._again.layout.display == "none"
        assert "after position 3" in knows.plot.layout.annotations[0].text
        left = made._turns.beside._thread
        made.close()
        if left is not None:
            # What cannot stop half-way would go on into the next test.
            left.join(60)

    asyncio.run(run())
