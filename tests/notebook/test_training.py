"""Training steps in the studio: curves and pictures of a user's pair of models, and playing through its steps."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import Any

import IPython
import pytest

import nextlat_viz as nlv
from nextlat_viz.latents import meta
from nextlat_viz.notebook import controls
from nextlat_viz.notebook.box import Box
from nextlat_viz.notebook.panels.training import TrainingPanel
from nextlat_viz.notebook.sources import Source
from nextlat_viz.notebook.state import ViewState
from nextlat_viz.notebook.studio import Studio
from tests.notebook.conftest import labelled, touch, traces, until

SMALL: dict[str, Any] = {
    **{"layers": 1, "dim": 16, "heads": 2, "mlp_dim": 16, "psi_width": 16, "batch_size": 8, "steps": 40},
    **{"warmup_steps": 2, "decay_steps": 4, "validate_every": 10, "validation_episodes": 32, "progress": False},
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Two runs as trained in a notebook; the second stops at step 30."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel=object()))
        return [
            nlv.train("rrxor", "next_token", out=folder / "long", **SMALL),
            nlv.train("rrxor", "nextlat", out=folder / "short", stop_at=-9.0, **SMALL),
        ]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run without snapshots."""
    return nlv.train("rrxor", "nextlat", seed=1, out=tmp_path_factory.mktemp("alone"), **SMALL)


@pytest.fixture
def panel(pair: list[Any]) -> Any:
    opened = TrainingPanel(state=ViewState(*pair, max_points=300))
    opened.shown = True
    yield opened
    opened.close()


def test_steps_of_a_users_pair_can_be_chosen(pair: list[Any]) -> None:
    state = ViewState(*pair)
    assert state.steps == [0, 1, 2, 3, 4, 6, 9, 12, 18, 25]
    assert state.step_choices[-2:] == [("25", 25), ("end", None)]
    assert [run.step for run in pair] == [40, 30]


def test_curves_join_the_log_and_measured_steps(panel: Any, pair: list[Any]) -> None:
    plot = panel.plot
    curves = [plot.data[i] for i in traces(plot, "curve")]
    assert [curve.name for curve in curves] == ["next-token", "NextLat"] * 2
    assert list(curves[0].x) == [0, 1, 2, 3, 4, 6, 9, 10, 12, 18, 20, 25, 30, 40]
    assert list(curves[1].x)[-2:] == [25, 30]
    assert [curve.xaxis for curve in curves] == ["x", "x", "x2", "x2"]
    logged = pair[0].metrics.set_index("step")
    assert list(curves[2].y)[-1] == logged.loc[40, "belief_r2"]
    assert {trace.y[0] for trace in (plot.data[i] for i in traces(plot, "floor"))} == {logged["floor"].iloc[0]}
    cursors = [plot.data[i] for i in traces(plot, "cursor")]
    assert [list(item.x) for item in cursors] == [[40], [30]] * 2
    assert "untrained" in panel.about.value
    assert "floor" in panel.about.value
    assert (panel.words, panel._alert.value) == ("", "")


def test_headings_above_the_curves_fit_a_narrow_panel(panel: Any) -> None:
    headings = [note.text for note in panel.plot.layout.annotations if note.text]
    assert len(headings) == 2
    for line in "<br>".join(headings).replace("<b>", "").replace("</b>", "").split("<br>"):
        assert len(line) <= 20


def test_measured_values_equal_the_training_log(pair: list[Any]) -> None:
    """Measuring a snapshot again gives the log entry of its step, up to precision."""
    source = Source(pair[0])
    logged = source.history.set_index("step").loc[40]
    row = source.validate(40)
    assert row["loss"] == pytest.approx(logged["loss"], abs=2e-3)
    assert row["belief_r2"] == pytest.approx(logged["belief_r2"], abs=2e-2)


def test_the_marker_follows_and_a_click_goes_to_the_nearest_step(panel: Any) -> None:
    state, plot = panel.state, panel.plot
    curve = traces(plot, "curve")[0]
    touch(plot, "click", {curve: [list(plot.data[curve].x).index(20)]})
    assert state.step == 18
    plot = panel.plot
    assert {tuple(plot.data[i].x) for i in traces(plot, "cursor")} == {(18,)}
    assert [line.x0 for line in plot.layout.shapes] == [18, 18]
    assert "at step 18" in panel.about.value
    touch(plot, "click", {curve: [len(plot.data[curve].x) - 1]})
    assert state.step is None


def test_pictures_share_the_axes_of_the_last_step(panel: Any) -> None:
    panel.view.value = "Pictures"
    plot, state = panel.plot, panel.state
    clouds = [plot.data[i] for i in traces(plot, "points")]
    steps = sorted({cloud.meta["step"] for cloud in clouds})
    assert (len(steps), steps[0], steps[-1], len(clouds)) == (6, 0, 40, 12)
    assert len({tuple(plot.layout[f"xaxis{i or ''}"].range) for i in (0, *range(2, 13))}) == 1
    end = state.scene.pca("hidden")[0]
    assert clouds[5].x[0] == end.coordinates[0, 0]
    assert panel._alert.value == ""
    # The step shown has a picture, with a frame.
    state.show(step=4)
    plot = panel.plot
    framed = [name for name in plot.layout if name.startswith("xaxis") and plot.layout[name].linewidth == 3]
    assert len(framed) == 2
    assert {cloud.meta["step"] for cloud in (plot.data[i] for i in traces(plot, "points"))} > {0, 4, 40}
    touch(plot, "click", {traces(plot, "points")[0]: [3]})
    assert state.step == 0
    panel.view.value = "Curves"
    assert traces(panel.plot, "curve")


def test_pictures_have_one_colour_for_all_steps(panel: Any) -> None:
    panel.view.value, panel.state.color = "Pictures", "model:surprise"
    assert panel.drawn
    assert panel._alert.value == ""
    assert "Coloured by state: the chosen colour differs from step to step." in panel.about.value


def test_a_figure_waits_for_the_values_between_log_entries(pair: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    measure = Source.validate

    def slow(source: Source, step: int) -> dict[str, float]:
        # Longer than a figure waits for a result.
        time.sleep(step == 1)
        return measure(source, step)

    monkeypatch.setattr(Source, "validate", slow)

    async def run() -> None:
        opened = Studio(*pair)
        curve = next(trace for trace in opened.figure("training").data if (trace.meta or {}).get("role") == "curve")
        assert list(curve.x)[:5] == [0, 1, 2, 3, 4]
        opened.close()

    asyncio.run(run())


def test_a_model_without_snapshots_is_named(pair: list[Any], alone: Any) -> None:
    panel = TrainingPanel(state=ViewState(pair[1], alone))
    panel.shown = True
    assert panel.why_not == ""
    assert traces(panel.plot, "curve")
    assert "NextLat (2) has no snapshot at step 1, 2, 3, 4, 6, 9, … (9 in all)" in panel.about.value
    panel.view.value = "Pictures"
    assert "there are no pictures" in panel.words
    panel.close()


def test_an_empty_panel_says_why(alone: Any, rrxor: list[Any]) -> None:
    panel = TrainingPanel(state=ViewState(alone))
    panel.shown = True
    assert traces(panel.plot, "curve")
    assert "There are no snapshots of earlier training steps: nlv.train keeps some in a notebook" in panel.about.value
    panel.close()
    panel_of_latents = TrainingPanel(state=ViewState(*rrxor))
    assert panel_of_latents.why_not.endswith(
        "was given as latents, which have no training history: open its checkpoint."
    )
    panel_of_latents.close()
    (alone.folder / "metrics.csv").rename(alone.folder / "away.csv")
    lost = TrainingPanel(state=ViewState(alone))
    assert "came without its training curve" in lost.why_not
    lost.close()
    (alone.folder / "away.csv").rename(alone.folder / "metrics.csv")


def test_measurements_arrive_one_by_one_and_can_be_cancelled(pair: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    measure, may = Source.validate, threading.Semaphore(0)

    def slow(source: Source, step: int) -> dict[str, float]:
        assert may.acquire(timeout=60)
        return measure(source, step)

    monkeypatch.setattr(Source, "validate", slow)

    async def run() -> None:
        panel = TrainingPanel(state=ViewState(*pair))
        panel.shown = True
        await until(lambda: "0 of 20 values that training did not log" in panel.about.value)
        assert traces(panel.plot, "curve")
        may.release()
        await until(lambda: "1 of 20 values" in panel.about.value)
        assert "of 20" in panel.status.text.value
        panel.status.cancel.click()
        may.release()
        await until(lambda: panel.state.history.running is None and not panel.state.loop.waiting)
        assert panel.status.again.layout.display is None
        left = panel.state.history._thread
        panel.shown = False
        panel.close()
        for _ in range(30):
            may.release()
        if left is not None:
            left.join(60)

    asyncio.run(run())


def test_play_shows_each_step_and_waits_for_it(pair: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    extract, may, shown = Source._extract, threading.Event(), []

    def slow(source: Source, checkpoint: Any, progress: Any = None) -> Any:
        if progress is not None and threading.current_thread() is not threading.main_thread():
            assert may.wait(60)
        return extract(source, checkpoint, progress)

    state = ViewState(*pair, max_points=200)
    monkeypatch.setattr(Source, "_extract", slow)
    state.observe(lambda change: shown.append(change["new"]), "step")
    few = [("0", 0), ("4", 4), ("12", 12), ("end", None)]
    monkeypatch.setattr(ViewState, "step_choices", property(lambda state: few))

    async def run() -> None:
        opened = Studio(state=state)
        bar = opened.children[0].children
        play = next(part for part in bar if type(part).__name__ == "Play")
        await until(lambda: not state.busy)
        play.set_state({"playing": True})
        # Beats before the step is ready are skipped.
        for beat in range(1, 6):
            play.set_state({"value": beat})
            await asyncio.sleep(0.01)
        assert shown == []
        may.set()
        for beat in range(6, 400):
            await until(lambda: not state.busy, 60)
            if not play.playing:
                break
            play.set_state({"value": beat})
        assert shown == [0, 4, 12, None]
        assert labelled(opened)["Training step"].label == "end"
        for panel in (opened.panels["space"], opened.panels["knows"]):
            assert panel.drawn
            assert panel._alert.value == ""
        # Playing stops when the user moves.
        play.set_state({"playing": True})
        await until(lambda: state.step == 0)
        state.show(step=12)
        await until(lambda: not state.busy)
        play.set_state({"value": 500})
        assert (play.playing, state.step) == (False, 12)
        # The stop button of the page returns to the start.
        play.set_state({"value": 0})
        await until(lambda: state.step == 0)
        opened.close()

    asyncio.run(run())


def test_models_with_one_step_cannot_be_played(alone: Any) -> None:
    view = Box(ViewState(alone))
    assert controls.play_steps(view).layout.display == "none"
    view.close()


def test_a_step_past_the_end_of_one_model_is_its_last(pair: list[Any]) -> None:
    source = Source(pair[1])
    assert source.at(30) is source.at() is pair[1]
    assert meta(source.latents(30))["label"] == "NextLat"
    assert source.has()


def test_another_world_opens_at_its_last_step(pair: list[Any], mess3: list[Any]) -> None:
    state = ViewState({"rrxor": pair, "mess3": mess3})
    state.show(step=4)
    state.world = "mess3"
    assert (state.world, state.step) == ("mess3", None)
    state.show("rrxor", 4)
    state.show("mess3")
    assert state.step is None
