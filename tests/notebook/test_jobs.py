"""The job queue: progress, cancelling, errors, and the display meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from anndata import AnnData

from nextlat_viz.notebook import ViewState, jobs
from nextlat_viz.notebook.jobs import Cancelled, Jobs, Waiting
from nextlat_viz.notebook.scene import Scene
from nextlat_viz.notebook.sources import Source
from nextlat_viz.notebook.studio import Studio
from nextlat_viz.notebook.threads import Loop, Results
from tests.notebook.conftest import labelled, until

PAIR = ("rrxor/next_token", "rrxor/nextlat")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_PATIENCE", 0.01)
    monkeypatch.setattr(jobs, "_BETWEEN_REPORTS", 0.0)


class Gate:
    """Work in pieces that continues on request and reports its progress."""

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


class Queue(Jobs):
    """A queue with its own results."""

    def __init__(self) -> None:
        super().__init__(Loop())
        self.results = Results()


def asked(queue: Queue, key: str, compute: Callable[[], Any], then: Callable[[], None], **options: Any) -> Any:
    try:
        return queue.ask(queue.results, key, key.capitalize(), compute, then, **options)
    except (Waiting, Cancelled) as error:
        return error


def test_threads_wait_only_for_their_own_key() -> None:
    results, calls, open_ = Results(), [], threading.Event()

    def slow() -> object:
        calls.append(1)
        assert open_.wait(60)
        return object()

    result: list[object] = []
    threads = [threading.Thread(target=lambda: result.append(results.get("slow", slow))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert results.get("quick", lambda: 3) == 3
    assert "slow" not in results
    open_.set()
    for thread in threads:
        thread.join(60)
    assert len(calls) == 1
    assert len(result) == 8
    assert len(set(map(id, result))) == 1


def test_a_failed_computation_is_tried_again() -> None:
    results = Results()
    with pytest.raises(ZeroDivisionError):
        results.get("x", lambda: 1 / 0)
    assert results.get("x", lambda: 1.0) == 1.0


def test_a_scene_read_by_threads_fits_each_probe_once(rrxor: list[AnnData], monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene([Source(table) for table in rrxor], None, 1_000)
    fit, fits = Source.untrained, []
    monkeypatch.setattr(Source, "untrained", lambda self: fits.append(time.sleep(0.05)) or fit(self))
    result: list[Any] = []
    threads = [threading.Thread(target=lambda: result.append(scene.probe(0, "belief", "hidden"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(fits) == 1
    assert len(set(map(id, result))) == 1


def test_only_the_latest_trajectories_are_kept(rrxor: list[AnnData]) -> None:
    scene = Scene([Source(table) for table in rrxor], None, 1_000)
    for episode in scene.episodes.tolist():
        for model in range(2):
            scene.path(model, "hidden", episode)
    assert len(scene._paths) == 64
    assert scene.path(1, "hidden", episode) is scene.path(1, "hidden", episode)


def test_progress_and_cancelling_a_job_that_reports() -> None:
    gate, calls = Gate(), []

    async def run() -> None:
        queue = Queue()
        seen: list[Any] = []
        queue.watch(lambda: seen.append(queue.running))
        compute = lambda: gate.work(lambda done, total: queue.report(float(done), total))  # noqa: E731
        assert isinstance(asked(queue, "first", compute, lambda: calls.append("first")), Waiting)
        assert isinstance(asked(queue, "second", lambda: 2, lambda: calls.append("second")), Waiting)
        assert (queue.running.title, queue.place) == ("First", (1, 2))
        gate.go.release()
        await until(lambda: queue.running.share == 0.25)
        queue.cancel()
        assert calls == ["first", "second"]
        assert queue.running.stopping
        assert str(asked(queue, "second", lambda: 2, lambda: None)) == "Second was cancelled"
        gate.go.release()
        await until(lambda: queue.running is None)
        assert (gate.pieces, gate.ends) == (2, 1)
        assert seen[-1] is None
        assert isinstance(asked(queue, "first", compute, lambda: calls.append("again")), Cancelled)
        calls.clear()
        queue.again()
        assert calls == ["again"]
        assert isinstance(asked(queue, "first", compute, lambda: calls.append("done")), Waiting)
        for _ in range(4):
            gate.go.release()
        await until(lambda: "done" in calls)
        assert asked(queue, "first", compute, lambda: None) == "worked"

    asyncio.run(run())


def test_a_cancelled_job_that_cannot_stop() -> None:
    """Its result is kept in case it is requested again, and is not computed twice."""
    go, told, computed = threading.Event(), [], []

    def compute() -> int:
        computed.append(go.wait(60))
        return 7

    async def run() -> None:
        queue = Queue()
        asked(queue, "first", compute, lambda: told.append(1))
        queue.cancel()
        assert isinstance(asked(queue, "first", compute, lambda: None), Cancelled)
        # Requested again before the first has ended.
        queue.again()
        assert isinstance(asked(queue, "first", compute, lambda: told.append(2)), Waiting)
        go.set()
        await until(lambda: 2 in told)
        assert asked(queue, "first", compute, lambda: None) == 7

    asyncio.run(run())
    assert computed == [True]


def test_a_cancelled_result_is_not_shown_until_requested_again() -> None:
    go = threading.Event()

    async def run() -> None:
        queue = Queue()
        asked(queue, "first", lambda: go.wait(60), lambda: None)
        queue.cancel()
        go.set()
        await until(lambda: queue.running is None)
        assert isinstance(asked(queue, "first", lambda: None, lambda: None), Cancelled)
        queue.again()
        assert asked(queue, "first", lambda: None, lambda: None) is True

    asyncio.run(run())


def test_who_meets_a_failure_in_an_empty_queue_is_offered_another_try() -> None:
    queue, then, offered = Queue(), lambda: None, []
    queue.watch(lambda: offered.append(queue.can_retry(then)))
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            queue.ask(queue.results, "key", "Key", lambda: 1 / 0, then)
    # Once, not at every drawing of the panel.
    assert offered == [True]


def test_a_job_without_listeners_is_cancelled() -> None:
    gate, calls = Gate(), []

    def first() -> None:
        calls.append("first")

    def second() -> None:
        calls.append("second")

    async def run() -> None:
        queue = Queue()
        compute = lambda: gate.work(lambda done, total: queue.report(done, total))  # noqa: E731
        asked(queue, "shared", compute, first)
        asked(queue, "shared", compute, second)
        asked(queue, "alone", lambda: 1, first)
        queue.withdraw(first)
        assert (queue.place, queue.running.stopping) == ((1, 1), False)
        queue.withdraw(second)
        assert queue.running.stopping
        gate.go.release()
        await until(lambda: queue.running is None)
        assert (calls, gate.ends, "alone" in queue.results) == ([], 1, False)

    asyncio.run(run())


def test_a_queue_works_in_the_next_event_loop() -> None:
    go, queues = threading.Event(), []

    async def begin() -> None:
        queues.append(Queue())
        asked(queues[0], "first", lambda: go.wait(60), lambda: None)

    async def go_on() -> None:
        (queue,) = queues
        queue._loop.attach()
        assert queue.running is not None
        queue._thread.join(60)
        asked(queue, "second", lambda: 2, lambda: None)
        await until(lambda: queue.running is None)
        assert asked(queue, "first", lambda: None, lambda: None) is True

    asyncio.run(begin())
    go.set()
    asyncio.run(go_on())


def test_first_puts_a_job_before_waiting_ones() -> None:
    go, order = threading.Event(), []

    async def run() -> None:
        queue = Queue()
        asked(queue, "running", lambda: go.wait(60), lambda: None)
        asked(queue, "later", lambda: order.append("later"), lambda: None)
        asked(queue, "sooner", lambda: order.append("sooner"), lambda: None, first=True)
        go.set()
        await until(lambda: len(order) == 2)
        assert order == ["sooner", "later"]

    asyncio.run(run())


def test_calls_run_one_per_round_and_once_each() -> None:
    calls: list[str] = []

    def first() -> None:
        calls.append("first")

    def second() -> None:
        calls.append("second")

    async def run() -> None:
        loop = Loop()
        for _ in range(3):
            loop.soon(first)
            loop.soon(second)
        assert calls == []
        await asyncio.sleep(0)
        assert calls == ["first"]
        loop.soon(first)
        loop.flush()
        assert calls == ["first", "second", "first"]
        loop.soon(first)
        loop.forget(first)
        await asyncio.sleep(0.01)
        assert len(calls) == 3

    asyncio.run(run())


def test_calls_from_other_threads_wake_the_loop() -> None:
    """Jupyter handles widget messages in another thread than the loop's, which may be asleep."""
    drawn: list[tuple[int, int]] = []

    async def run() -> None:
        loop, finished = Loop(), asyncio.get_running_loop().create_future()

        def hear(who: int) -> None:
            # The loop has gone to sleep by now.
            time.sleep(0.2)
            for i in range(200):
                loop.soon(partial(drawn.append, (who, i)))

        threads = [threading.Thread(target=hear, args=(who,)) for who in range(3)]

        def end() -> None:
            for thread in threads:
                thread.join()
            loop.soon(lambda: finished.set_result(None))

        for thread in [*threads, threading.Thread(target=end)]:
            thread.start()
        # Longer than a loop may sleep without being woken; nothing else wakes this one.
        await asyncio.wait_for(finished, 20)
        assert not loop._waiting

    asyncio.run(run())
    assert sorted(drawn) == [(who, i) for who in range(3) for i in range(200)]


def test_result_or_error_is_set_before_the_callback() -> None:
    go, results = threading.Event(), []

    def slow() -> int:
        go.wait(30)
        return 7

    def broken() -> int:
        raise ValueError("no such probe")

    async def run() -> None:
        queue = Queue()
        for name, compute in (("slow", slow), ("broken", broken), ("slow", slow)):
            with pytest.raises(Waiting, match="is being computed"):
                queue.ask(queue.results, name, name, compute, lambda: results.append("done"))
        go.set()
        while len(results) < 3:
            await asyncio.sleep(0.01)
        assert queue.ask(queue.results, "slow", "slow", slow, lambda: None) == 7
        with pytest.raises(ValueError, match="no such probe"):
            queue.ask(queue.results, "broken", "broken", broken, lambda: None)
        assert queue.changes == 2

    asyncio.run(run())


class Extraction:
    """A stand-in for extraction that takes as long as the test wants."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gate, self.threads, self._extract = Gate(), [], Source._extract
        monkeypatch.setattr(Source, "_extract", lambda source, *args: self(source, *args))

    def __call__(self, source: Source, checkpoint: Any, progress: Any = None) -> AnnData:
        if progress is not None:
            self.threads.append(threading.current_thread())
            self.gate.work(progress)
        return self._extract(source, checkpoint)


@pytest.fixture
def state() -> ViewState:
    return ViewState(*PAIR, max_points=240)


def test_a_step_is_extracted_in_the_background_then_shown(state: ViewState, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Extraction(monkeypatch)

    async def run() -> None:
        opened = Studio(state=state)
        await until(lambda: opened.panels["knows"].drawn and opened.status.cancel.layout.visibility == "hidden")
        slider, last = labelled(opened)["Training step"], state.steps[-1]
        slider.value = 200
        # The control still shows the old step, as the views do.
        assert (state.step, slider.label) == (None, f"{last:,}")
        await until(lambda: "Extracting next-token at step 200 … 1 of 2" in opened.status.text.value)
        assert opened.status.cancel.layout.visibility is None
        state.position = 5
        await until(lambda: "after position 5" in opened.panels["knows"].about.value)
        slow.gate.go.release()
        await until(lambda: opened.status.bar.value == 0.125)
        for _ in range(7):
            slow.gate.go.release()
        await until(lambda: state.step == 200)
        assert (slider.value, len(slow.threads)) == (200, 2)
        assert threading.main_thread() not in slow.threads
        assert opened.panels["space"]._alert.value == opened.status._alert.value == ""
        await until(lambda: opened.status.text.value.endswith('"></span>'))
        # A step that is already extracted is shown at once.
        slider.value = "none"
        assert state.step is None
        slider.value = 200
        assert state.step == 200
        opened.close()

    asyncio.run(run())


def test_a_cancelled_step_changes_nothing(state: ViewState, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Extraction(monkeypatch)

    async def run() -> None:
        opened = Studio(state=state)
        await until(lambda: not state.busy)
        slider = labelled(opened)["Training step"]
        slider.value = 200
        await until(slow.gate.begun.is_set)
        opened.status.cancel.click()
        assert "Cancelled. Stopping after this step" in opened.status.text.value
        slow.gate.go.release()
        await until(lambda: state.jobs.running is None)
        assert (state.step, slider.value, slow.gate.pieces) == (None, "none", 1)
        assert "Going to step 200 was cancelled: choose it again" in opened.status.text.value
        slider.value = 200
        for _ in range(8):
            slow.gate.go.release()
        await until(lambda: state.step == 200)
        opened.close()

    asyncio.run(run())


def test_the_last_of_several_requests_wins(state: ViewState, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Extraction(monkeypatch)

    async def run() -> None:
        opened = Studio(state=state)
        await until(lambda: not state.busy)
        first, second = state.steps[1:3]
        slider = labelled(opened)["Training step"]
        slider.value = first
        await until(slow.gate.begun.is_set)
        slider.value = second
        for _ in range(9):
            slow.gate.go.release()
        await until(lambda: state.step == second)
        assert state.lacks(state.world, first)
        # A step set in code is not undone by an earlier request.
        slow.gate.begun.clear()
        slider.value = first
        await until(slow.gate.begun.is_set)
        state.step = None
        for _ in range(8):
            slow.gate.go.release()
        await until(lambda: state.jobs.running is None)
        assert state.step is None
        opened.close()

    asyncio.run(run())


def test_a_failed_extraction_is_shown_and_can_be_tried_again(state: ViewState, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(source: Source, checkpoint: Any, progress: Any = None) -> AnnData:
        raise RuntimeError("no <memory>")

    async def run() -> None:
        opened = Studio(state=state)
        await until(lambda: not state.busy)
        with monkeypatch.context() as patch:
            patch.setattr(Source, "_extract", broken)
            labelled(opened)["Training step"].value = 200
            await until(lambda: opened._alert.value or opened.status._alert.value)
            assert "no &lt;memory&gt;" in opened._alert.value + opened.status._alert.value
            assert state.step is None
        labelled(opened)["Training step"].value = 200
        await until(lambda: state.step == 200)
        opened.close()

    asyncio.run(run())


def test_closing_a_studio_stops_its_jobs(state: ViewState, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Extraction(monkeypatch)

    async def run() -> None:
        opened = Studio(state=state)
        labelled(opened)["Training step"].value = 200
        await until(slow.gate.begun.is_set)
        opened.close()
        slow.gate.go.release()
        await until(lambda: slow.gate.ends)
        await asyncio.sleep(0.05)
        assert (slow.gate.pieces, state.step) == (1, None)

    asyncio.run(run())


def test_without_an_event_loop_a_step_is_shown_at_once(state: ViewState) -> None:
    opened = Studio(state=state)
    labelled(opened)["Training step"].value = 200
    assert opened._alert.value == opened.status._alert.value == ""
    assert state.step == labelled(opened)["Training step"].value == 200
    opened.close()


def test_cancelled_probes_say_so_and_can_be_fitted_again(rrxor: list[AnnData], monkeypatch: pytest.MonkeyPatch) -> None:
    go, fit = threading.Event(), Scene.probe

    def slow(self: Scene, model: int, target: str, site: str) -> Any:
        if threading.current_thread() is not threading.main_thread():
            assert go.wait(60)
        return fit(self, model, target, site)

    monkeypatch.setattr(Scene, "probe", slow)

    async def run() -> None:
        opened = Studio(*rrxor)
        knows = opened.panels["knows"]
        await until(lambda: "is being computed" in knows.words)
        assert "of 2" in opened.status.text.value
        assert knows._retry.layout.display == "none"
        opened.status.cancel.click()
        await until(lambda: "was cancelled" in knows.words)
        assert "Stopping after this step: The probe of" in opened.status.text.value
        assert knows._retry.layout.display is None
        opened.state.position = 3
        await until(lambda: not opened.state.loop._waiting)
        assert "was cancelled" in knows.words
        assert knows._retry.layout.display is None
        go.set()
        knows._retry.click()
        await until(lambda: knows.drawn)
        assert knows._retry.layout.display == "none"
        assert "after position 3" in knows.about.value
        left = opened.state.jobs._thread
        opened.close()
        if left is not None:
            # A job that cannot be stopped would continue into the next test.
            left.join(60)

    asyncio.run(run())
