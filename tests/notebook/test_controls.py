"""Busy lines, visible errors, controls of probes, text from data, and closing widgets."""

from __future__ import annotations

import asyncio
import weakref
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import nextlat_viz as nlv
from nextlat_viz.notebook import LatentExplorer, LossMonitor, ProbeLab, TrajectoryCompare, ViewState
from nextlat_viz.notebook import colors as colors_of
from nextlat_viz.notebook.plot import Plot
from nextlat_viz.notebook.studio import Studio
from tests.notebook.conftest import FakeUmap, labelled, living_plots, touch, traces, until


def said(plot: Any) -> str:
    return " ".join(note.text for note in plot.layout.annotations)


def status(explorer: LatentExplorer) -> str:
    return str(explorer.status.text.value)


def test_umaps_are_computed_one_model_after_another(state: ViewState, umaps: list[FakeUmap]) -> None:
    async def run() -> None:
        explorer = LatentExplorer(state=state)
        await until(lambda: umaps and "UMAP of NextLat: starting" in status(explorer))
        assert (explorer.status.cancel.layout.visibility, explorer.status.layout.width) == (None, "auto")
        assert said(explorer.plot).count("UMAP is being computed") == 2
        umaps[0].report("laying out", 30, 200)
        await until(lambda: "UMAP of NextLat: laying out, epoch 30 of 200" in status(explorer))
        assert explorer.status.bar.value == 0.15
        umaps[0].finish()
        await until(lambda: said(explorer.plot).count("UMAP is being computed") == 1)
        await until(lambda: len(umaps) == 2)
        assert umaps[1].latents is state.latents[1]
        umaps[1].finish()
        await until(lambda: "UMAP is being computed" not in said(explorer.plot))
        assert "UMAP" not in status(explorer)
        # An idle line leaves no gap above the views.
        assert (explorer.status.cancel.layout.visibility, explorer.status.layout.width) == ("hidden", "0")
        assert explorer.status.layout.visibility == "hidden"
        assert explorer.status.again.layout.display == "none"
        assert {len(explorer.plot.data[trace].x) for trace in traces(explorer.plot, "points")} == {320}
        state.color = "token"
        assert len(umaps) == 2
        explorer.close()

    asyncio.run(run())


def test_a_cancelled_umap_can_be_started_again(state: ViewState, umaps: list[FakeUmap]) -> None:
    async def run() -> None:
        explorer = LatentExplorer(state=state)
        await until(lambda: umaps)
        explorer.status.cancel.click()
        assert said(explorer.plot).count("UMAP was cancelled.") == 2
        await until(lambda: umaps[0].cancelled and state.layouts.running is None)
        assert "UMAP" not in status(explorer)
        assert explorer.status.again.layout.display is None
        explorer.status.again.click()
        await until(lambda: len(umaps) == 2)
        assert explorer.status.again.layout.display == "none"
        umaps[1].finish()
        await until(lambda: said(explorer.plot).count("being computed") == 1 and len(umaps) == 3)
        explorer.close()
        await until(lambda: umaps[2].cancelled)

    asyncio.run(run())


def test_another_layer_cancels_the_running_umap(state: ViewState, umaps: list[FakeUmap]) -> None:
    async def run() -> None:
        explorer = LatentExplorer(state=state)
        await until(lambda: umaps)
        state.site = "block0"
        # Too late: the result of a cancelled layout must not change the figure.
        umaps[0].report("laying out", 1, 2)
        await until(lambda: len(umaps) == 2)
        assert [umap.options["site"] for umap in umaps] == ["hidden", "block0"]
        assert umaps[0].cancelled
        assert "epoch 1 of 2" not in status(explorer)
        explorer.close()

    asyncio.run(run())


def test_widgets_of_one_state_share_a_umap(state: ViewState, umaps: list[FakeUmap]) -> None:
    async def run() -> None:
        views = [LatentExplorer(state=state), LatentExplorer(state=state)]
        await until(lambda: umaps)
        views[0].close()
        for i in range(2):
            await until(lambda i=i: len(umaps) > i)
            umaps[i].finish()
        await until(lambda: "UMAP is being computed" not in said(views[1].plot))
        assert len(umaps) == 2
        views[1].close()

    asyncio.run(run())


def test_a_umap_that_fails_is_shown(state: ViewState, umaps: list[FakeUmap]) -> None:
    async def run() -> None:
        explorer = LatentExplorer(state=state)
        await until(lambda: umaps)
        umaps[0].fail("no memory for <script>alert(1)</script>")
        await until(lambda: "UMAP failed" in said(explorer.plot) and len(umaps) == 2)
        assert "no memory for &lt;script&gt;" in said(explorer.plot).replace("<br>", " ")
        assert "<script>" not in explorer._alert.value + said(explorer.plot)
        umaps[1].finish()
        await until(lambda: state.layouts.running is None)
        assert explorer.status.again.layout.display is None
        explorer.close()

    asyncio.run(run())


def test_an_error_in_a_callback_is_shown_in_the_widget(state: ViewState, monkeypatch: pytest.MonkeyPatch) -> None:
    explorer = LatentExplorer(state=state)

    def broken(*arguments: Any) -> Any:
        raise RuntimeError("out of <b>ink</b>")

    monkeypatch.setattr(explorer, "_figure", broken)
    state.color = "position"
    assert 'role="alert"' in explorer._alert.value
    assert "out of &lt;b&gt;ink&lt;/b&gt;" in explorer._alert.value
    assert explorer._busy.value == ""
    monkeypatch.undo()
    monkeypatch.setattr(type(explorer), "_rows", broken)
    touch(explorer.plot, "click", {traces(explorer.plot, "points")[0]: [0]})
    assert "RuntimeError" in explorer._alert.value
    monkeypatch.undo()
    state.color = "token"
    assert explorer._alert.value == ""
    explorer.close()


def test_busy_is_shown_while_it_computes(state: ViewState, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = ProbeLab(state=state)
    seen: list[str] = []
    draw = lab._figure

    def watched() -> Any:
        seen.append(lab._busy.value)
        return draw()

    monkeypatch.setattr(lab, "_figure", watched)
    state.target = "state"
    assert len(seen) == 1
    assert 'role="status"' in seen[0]
    assert "Computing" in seen[0]
    assert lab._busy.value == ""
    lab.close()


def test_quick_work_is_not_announced_again(state: ViewState) -> None:
    lab, announced = ProbeLab(state=state), []
    for kind in ("step", "step", "layer", None, None):
        with lab._working(kind=kind):
            announced.append(bool(lab._busy.value))
    assert announced == [True, False, True, True, True]
    lab.close()


def test_a_refused_choice_is_undone(state: ViewState, monkeypatch: pytest.MonkeyPatch) -> None:
    explorer = LatentExplorer(state=state)
    color = labelled(explorer)["Colour by"]
    few = SimpleNamespace(options=lambda scene: {"token": "token"}, model_coloring=colors_of.model_coloring)
    monkeypatch.setattr("nextlat_viz.notebook.state.colors", few)
    color.value = "position"
    assert "unknown colour" in explorer._alert.value
    assert (color.value, state.color) == ("state", "state")
    explorer.close()


def test_controls_of_the_probe_are_drawn_and_lower(state: ViewState) -> None:
    lab = ProbeLab(state=state)
    good, other = lab.results
    assert good.score > 0.9
    assert max(good.shuffled, good.untrained) < 0.5
    assert other.untrained is None
    assert good.score > other.score
    names = [trace.name for trace in lab.plot.data]
    assert {"shuffled labels", "untrained model", "ceiling", "NextLat", "next-token"} <= set(names)
    drawn = {trace.name: trace.x[0] for trace in lab.plot.data if (trace.meta or {}) == {"role": "score", "model": 0}}
    assert drawn["NextLat"] == pytest.approx(good.score)
    assert drawn["untrained model"] == pytest.approx(good.untrained)
    assert drawn["shuffled labels"] == pytest.approx(good.shuffled)
    lab.close()


def test_probelab_compares_the_selection_with_the_rest(state: ViewState) -> None:
    lab = ProbeLab(state=state)
    state.select(range(state.latents[0].n_obs))
    assert "no rows" in lab._table.value
    state.select([])
    assert "Select rows" in lab._table.value
    lab.close()


EVIL = "<img src=x onerror=alert(1)>&"


@pytest.fixture
def evil(rrxor: list[AnnData]) -> AnnData:
    """Latents whose label, tokens and states contain HTML."""
    latents = rrxor[0].copy()
    about = dict(latents.uns["nextlat_viz"])
    about["label"] = EVIL
    vocabulary, states = ([f"{EVIL}{name}" for name in about[key]] for key in ("vocabulary", "state_names"))
    about["vocabulary"], about["state_names"] = vocabulary, states
    latents.uns["nextlat_viz"] = about
    for column in ("token", "state"):
        its = latents.obs[column].cat
        latents.obs[column] = its.rename_categories([f"{EVIL}{name}" for name in its.categories])
    return latents


def test_text_from_data_is_escaped(evil: AnnData) -> None:
    state = ViewState(evil)
    views = [LatentExplorer(state=state), ProbeLab(state=state), TrajectoryCompare(state=state)]
    state.target = "state"
    state.select([0, 1])
    for view in views:
        assert view._alert.value == ""
        assert "<img" not in view.plot.to_json().replace("\\u003c", "<")
        assert "&lt;img" in view.plot.to_json()
    assert "<img" not in views[0]._where.value
    assert "<img" not in views[1]._table.value
    for view in views:
        view.close()


@pytest.fixture(scope="module")
def pair() -> ViewState:
    return ViewState("rrxor/next_token", "rrxor/nextlat")


def test_shipped_checkpoints_have_untrained_controls(pair: ViewState) -> None:
    lab = ProbeLab(state=pair)
    assert all(item.untrained is not None and max(item.shuffled, item.untrained) < item.score for item in lab.results)
    lab.close()


def test_training_steps_can_be_chosen(pair: ViewState) -> None:
    explorer, lab = LatentExplorer(state=pair), ProbeLab(state=pair)
    step = labelled(explorer)["Training step"]
    end = lab.results[1].score
    step.value = 0
    assert (pair.step, pair.latents[1].uns["nextlat_viz"]["step"]) == (0, 0)
    assert lab.results[1].score < end
    assert lab.plot.data[0].x[0] == pytest.approx(lab.results[0].ceiling)
    with pytest.raises(ValueError, match="unknown training step 3"):
        pair.step = 3
    step.index = len(step.options) - 1
    assert lab.results[1].score == end
    assert explorer._alert.value == ""
    explorer.close()
    lab.close()


def test_closed_widgets_leave_nothing(rrxor: list[AnnData]) -> None:
    state = ViewState(*rrxor)
    LatentExplorer(state=state).close()
    before = living_plots()
    ghosts = []
    for view in [LatentExplorer, ProbeLab, TrajectoryCompare] * 5:
        first = view(state=state)
        ghosts += [weakref.ref(first.plot), weakref.ref(first)]
        first.close()
        first.close()
        del first
    assert living_plots() == before
    assert not [ghost for ghost in ghosts if ghost() is not None]
    # Only the state's own observers are left.
    assert not [call for calls in state._trait_notifiers.get("selection", {}).values() for call in calls]


def test_close_closes_every_control(state: ViewState) -> None:
    from ipywidgets.widgets.widget import _instances

    before = set(_instances)
    monitor = partial(LossMonitor, theme="dark")
    cloud = partial(nlv.Cloud, np.zeros((2, 2)))
    world = nlv.worlds.get("rrxor")
    for make in (
        *(partial(view, state=state) for view in (LatentExplorer, ProbeLab, TrajectoryCompare, Studio)),
        monitor,
        cloud,
        partial(nlv.EpisodeStepper, world, world.sample(1, 6, seed=0)),
    ):
        first = make()
        # A page that shows the widget asks for its layout.
        first.get_state()
        assert set(_instances) - before
        first.close()
    assert set(_instances) == before


def test_a_closed_widget_does_not_answer(state: ViewState, umaps: list[FakeUmap]) -> None:
    async def run() -> None:
        explorer = LatentExplorer(state=state)
        await until(lambda: umaps)
        plot = explorer.plot
        explorer.close()
        umaps[0].finish()
        await until(lambda: state.layouts.running is None)
        state.color = "position"
        touch(plot, "select", {0: [0]})
        assert state.selection == ()

    asyncio.run(run())


def test_monitor_draws_curves_as_they_come() -> None:
    assert nlv.LossMonitor is LossMonitor
    monitor = nlv.LossMonitor(theme="dark")
    assert "nothing measured yet" in monitor.plot.layout.title.text
    first, second = monitor.watch("next-token"), monitor.watch("<b>mine</b>")
    for step in (100, 200, 300):
        first({"step": step, "loss": 0.7 - step / 2000, "floor": 0.5})
    second({"step": 100, "loss": 0.6, "floor": 0.5})
    assert monitor.metrics["next-token"]["step"].tolist() == [100, 200, 300]
    assert [trace.name for trace in monitor.plot.data][:2] == ["next-token", "&lt;b&gt;mine&lt;/b&gt;"]
    np.testing.assert_allclose(monitor.plot.data[0].y, [0.65, 0.6, 0.55])
    np.testing.assert_allclose(monitor.plot.data[-1].y, [0.5, 0.5])
    assert monitor.plot.layout.title.text == "Loss while training"
    assert monitor.plot.layout.showlegend is not False
    assert isinstance(monitor.metrics["<b>mine</b>"], pd.DataFrame)
    ghost = weakref.ref(monitor.plot)
    monitor.close()
    del monitor, first, second
    living_plots()
    assert ghost() is None


def test_the_state_of_a_plot_is_up_to_date(rrxor: list[AnnData]) -> None:
    lab = ProbeLab(*rrxor)
    lab.state.target = "token"
    sent = lab.plot.get_state()
    assert sent["_figure"]["layout"]["xaxis"]["title"]["text"] == "held-out accuracy"
    assert isinstance(lab.plot, Plot)
    lab.close()
