"""Widgets that share a state show each other's changes."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from anndata import AnnData

from nextlat_viz.errors import LatentsError, UnknownNameError
from nextlat_viz.notebook import LatentExplorer, ProbeLab, TrajectoryCompare, ViewState
from tests.notebook.conftest import LENGTH, N, labelled, touch, traces
from tests.synthetic import make_latents


@pytest.fixture
def linked(state: ViewState) -> Iterator[Any]:
    views = SimpleNamespace(
        state=state,
        explorer=LatentExplorer(state=state),
        lab=ProbeLab(state=state),
        compare=TrajectoryCompare(state=state),
    )
    yield views
    for view in (views.explorer, views.lab, views.compare):
        view.close()


def alerts(*views: Any) -> list[str]:
    return [view._alert.value for view in views]


def test_a_selection_in_the_explorer_is_shared(linked: Any) -> None:
    points = traces(linked.explorer.plot, "points")
    touch(linked.explorer.plot, "select", {points[0]: [0, 2], points[4]: [2, 9]})
    assert linked.state.selection == ((0, 1), (0, 3), (1, 2))
    assert linked.state.selected[["episode", "position"]].to_numpy().tolist() == [[0, 1], [0, 3], [1, 2]]
    assert linked.lab.selection.equals(linked.explorer.selection)
    for trace in points:
        assert linked.explorer.plot.data[trace].selectedpoints == (0, 2, 9)
    assert "3 of 320 rows selected" in linked.explorer._count.value
    assert "NextLat" in linked.lab._table.value
    linked.state.go_to(0, 5)
    (strip,) = traces(linked.compare.plot, "strip")
    widths = linked.compare.plot.data[strip].marker.line.width
    assert [i + 1 for i, width in enumerate(widths) if width == 2] == [1, 3]
    assert alerts(linked.explorer, linked.lab, linked.compare) == ["", "", ""]


def test_the_table_of_a_selection_has_each_models_error(linked: Any) -> None:
    linked.state.select(range(20))
    table = linked.state.selected
    assert len(table) == 20
    assert table["error, next-token"].mean() > table["error, NextLat"].mean()
    assert table["error, NextLat"].min() >= 0


def test_dismissing_and_clearing_select_nothing(linked: Any) -> None:
    linked.state.select([1, 2])
    touch(linked.explorer.plot, "select")
    assert linked.state.selection == ()
    assert linked.explorer.plot.data[traces(linked.explorer.plot, "points")[0]].selectedpoints is None
    assert linked.explorer._clear.disabled
    linked.state.select([1, 2])
    linked.explorer._clear.click()
    assert linked.state.selected.empty


def test_background_points_cannot_be_selected(linked: Any) -> None:
    exact = traces(linked.explorer.plot, "exact")[0]
    touch(linked.explorer.plot, "select", {exact: [0, 1]})
    assert linked.state.selection == ()


def test_a_click_in_the_explorer_moves_the_cursor_and_the_trajectory(linked: Any) -> None:
    point = traces(linked.explorer.plot, "points")[1]
    touch(linked.explorer.plot, "click", {point: [3 * LENGTH + 4]})
    assert (linked.state.episode, linked.state.position) == (3, 5)
    assert (
        linked.compare._controls.episode.value,
        linked.compare._controls.position.value,
        linked.compare._controls.play.value,
    ) == (3, 5, 5)
    assert {path.episode for path in linked.compare.paths} == {3}
    # The older steps up to the cursor; the newest step is a separate trace.
    path = linked.compare.plot.data[traces(linked.compare.plot, "trail")[1]]
    assert len(path.x) == 4
    assert "episode 3, position 5" in linked.explorer._where.value


def test_the_slider_moves_the_explorers_cursor(linked: Any) -> None:
    linked.compare._controls.position.value = 6
    assert linked.state.position == 6
    cursor = linked.explorer.plot.data[traces(linked.explorer.plot, "cursor")[0]]
    assert len(cursor.x) == 6
    points = linked.explorer.plot.data[traces(linked.explorer.plot, "points")[0]]
    row = linked.state.episode * LENGTH + 5
    assert (cursor.x[-1], cursor.y[-1]) == (points.x[row], points.y[row])


def test_a_click_on_the_trajectory_moves_the_cursor(linked: Any) -> None:
    for role, place in (("strip", 2), ("error", 5), ("path", 0)):
        touch(linked.compare.plot, "click", {traces(linked.compare.plot, role)[-1]: [place]})
        assert linked.state.position == linked.compare._controls.position.value == place + 1


def test_a_box_over_the_trajectory_selects_its_rows(linked: Any) -> None:
    linked.state.go_to(7, 1)
    touch(linked.compare.plot, "select", {traces(linked.compare.plot, "error")[0]: [1, 3]})
    assert linked.state.selection == ((7, 2), (7, 4))
    assert "2 of 320 rows selected" in linked.explorer._count.value


def test_a_click_on_a_layer_shows_it_everywhere(linked: Any) -> None:
    layers = linked.lab.plot.data[traces(linked.lab.plot, "site")[0]].x
    before = linked.explorer.plot.data[traces(linked.explorer.plot, "points")[0]].x.copy()
    touch(linked.lab.plot, "click", {traces(linked.lab.plot, "site")[0]: [list(layers).index("block0")]})
    assert linked.state.site == "block0"
    assert labelled(linked.explorer)["Layer"].value == "block0"
    assert (linked.explorer.plot.data[traces(linked.explorer.plot, "points")[0]].x != before).any()
    assert {result.site for result in linked.lab.results} == {"block0"}


def test_a_click_on_a_position_selects_its_rows(linked: Any) -> None:
    touch(linked.lab.plot, "click", {traces(linked.lab.plot, "position")[0]: [0]})
    assert linked.lab._alert.value == ""
    table = linked.state.selected
    assert len(table) == N
    assert set(table["position"]) == {1}


def test_rows_are_selected_by_number_or_by_a_mask(state: ViewState) -> None:
    position = state.latents[0].obs["position"]
    state.select(position > LENGTH - 2)
    assert set(state.selected["position"]) == {LENGTH - 1, LENGTH}
    assert len(state.selection) == 2 * N
    state.select({1, 0})
    assert state.selection == ((0, 1), (0, 2))
    for rows in ([-1], [0.5], [len(position)], [True], 3, [(0, 1)]):
        with pytest.raises(LatentsError, match="rows"):
            state.select(rows)
    assert state.selection == ((0, 1), (0, 2))


def test_the_cursor_refuses_missing_episodes(state: ViewState) -> None:
    state.go_to(2, LENGTH + 5)
    assert (state.episode, state.position) == (2, LENGTH)
    with pytest.raises(ValueError, match=f"no episode 9999: there are {N}, from 0 to {N - 1}"):
        state.go_to(9999, 1)
    with pytest.raises(ValueError, match="position=-1 must be at least 0"):
        state.go_to(0, -1)
    assert (state.episode, state.position) == (2, LENGTH)


def test_another_world_changes_every_widget(rrxor: list[AnnData], mess3: list[AnnData]) -> None:
    state = ViewState({"rrxor": rrxor, "mess3": mess3})
    views = [LatentExplorer(state=state), ProbeLab(state=state), TrajectoryCompare(state=state)]
    state.color, state.site = "belief:start", "block1"
    state.select([1, 2])
    world = labelled(views[0])["World"]
    assert dict(world.options) == {"rrxor": "rrxor", "mess3": "mess3"}
    world.value = "mess3"
    assert (state.world, state.scene.world.name) == ("mess3", "mess3")
    shown = {label: control.value for label, control in labelled(views[0]).items()}
    assert (shown["Colour by"], shown["Layer"]) == (state.color, state.site)
    state.color = "state"
    for name in ("rrxor", "mess3"):
        world.value = name
    assert (state.color, state.site, state.step) == ("state", "hidden", None), "what both worlds have stays"
    assert (state.selection, state.site) == ((), "hidden")
    assert state.color not in ("belief:start",)
    assert alerts(*views) == ["", "", ""]
    assert [result.name.partition("/")[0] for result in views[1].results] == ["mess3", "mess3"]
    (strip,) = traces(views[2].plot, "strip")
    assert set(views[2].plot.data[strip].text) <= set(state.scene.world.vocabulary)
    text = {note.text for note in views[0].plot.layout.annotations}
    assert {f"<b>{name}</b>" for name in state.scene.world.state_names} <= text
    world.value = "rrxor"
    assert alerts(*views) == ["", "", ""]
    assert state.labels == ["NextLat", "next-token"]
    for view in views:
        view.close()


def test_colour_layer_and_target_change_what_is_drawn(linked: Any) -> None:
    explorer, lab, state = linked.explorer, linked.lab, linked.state
    controls = labelled(explorer)
    first = traces(explorer.plot, "points")[0]
    before = explorer.plot.data[first].marker.color.copy()
    controls["Colour by"].value = "position"
    assert state.color == "position"
    assert (explorer.plot.data[first].marker.color != before).any()
    assert explorer.plot.data[traces(explorer.plot, "key")[0]].marker.colorbar.title.text == "position"
    controls["Layer"].value = "embed"
    assert state.site == "embed"
    assert "from embed" in lab.plot.layout.annotations[0].text
    state.target = "token"
    assert lab.plot.layout.xaxis.title.text == "held-out accuracy"
    state.select([0])
    assert "share of wrong classes" in lab._table.value
    assert alerts(explorer, lab, linked.compare) == ["", "", ""]


def test_the_theme_applies_to_all_widgets(linked: Any) -> None:
    theme = labelled(linked.explorer)["Theme"]
    theme.value = True
    views = (linked.explorer, linked.lab, linked.compare)
    assert {view.plot.layout.template.layout.paper_bgcolor for view in views} == {"#111111"}
    theme.value = False
    assert {view.plot.layout.template.layout.paper_bgcolor for view in views} == {"#ffffff"}
    theme.value = None
    assert {view.plot.layout.template.layout.paper_bgcolor for view in views} == {"rgba(0,0,0,0)"}


def test_next_held_out_goes_round(linked: Any) -> None:
    held_out = linked.state.scene.held_out_episodes.tolist()
    linked.state.episode = held_out[-2]
    linked.compare._controls.next.click()
    assert linked.state.episode == held_out[-1]
    assert "held out" in linked.compare._controls.side.value
    linked.compare._controls.next.click()
    assert linked.state.episode == held_out[0]
    linked.state.episode = next(episode for episode in range(N) if episode not in held_out)
    assert "training episode" in linked.compare._controls.side.value


@pytest.mark.parametrize("view", [LatentExplorer, ProbeLab, TrajectoryCompare])
def test_a_single_model(view: Any, rrxor: list[AnnData]) -> None:
    first = view(rrxor[0], theme="dark")
    assert first.state.labels == ["NextLat"]
    assert first._alert.value == ""
    assert {"World", "Layer", "Training step"} <= labelled(first).keys()
    first.close()


def test_two_seeds_of_one_objective_are_told_apart(rrxor: list[AnnData]) -> None:
    other = rrxor[0].copy()
    other.uns["nextlat_viz"] = {**other.uns["nextlat_viz"], "name": "rrxor/nextlat/seed1"}
    assert ViewState(rrxor[0], other).labels == ["NextLat, seed0", "NextLat, seed1"]


def test_two_models_of_one_label_and_name_are_told_apart(rrxor: list[AnnData]) -> None:
    assert ViewState(rrxor[0], rrxor[0].copy()).labels == ["NextLat, seed0 (1)", "NextLat, seed0 (2)"]


def test_two_worlds_of_one_name_are_named_as_the_reason(mess3: list[AnnData]) -> None:
    other = make_latents("mess3:x=0.1", label="other", n=N, length=LENGTH, blocks=1)
    with pytest.raises(LatentsError, match="of two worlds with the name 'mess3' and other parameters"):
        ViewState(mess3[0], other)


@pytest.mark.parametrize(
    ("trait", "wrong", "hint"),
    [
        ("color", "positon", "unknown colour 'positon'. Did you mean 'position'"),
        ("site", "blok0", "unknown layer 'blok0'. Did you mean 'block0'"),
        ("target", "beleif", "unknown target 'beleif'. Did you mean 'belief'"),
        ("world", "rrxr", "unknown world 'rrxr'. Did you mean 'rrxor'"),
        ("step", 7, "unknown training step 7"),
    ],
)
def test_unknown_names_suggest_the_nearest(state: ViewState, trait: str, wrong: Any, hint: str) -> None:
    before = getattr(state, trait)
    with pytest.raises(UnknownNameError) as caught:
        setattr(state, trait, wrong)
    assert hint in str(caught.value)
    assert getattr(state, trait) == before


def test_other_bad_input(state: ViewState, rrxor: list[AnnData]) -> None:
    with pytest.raises(ValueError, match="no episode 900: there are 40, from 0 to 39"):
        state.episode = 900
    with pytest.raises(ValueError, match=r"1 .* not there"):
        state.selection = [(0, 1), (0, 99)]
    with pytest.raises(ValueError, match="not both"):
        ProbeLab(rrxor[0], state=state)
    with pytest.raises(ValueError, match="no model to show"):
        LatentExplorer()
    with pytest.raises(ValueError, match="one entry per model: 2, got 1"):
        ViewState(*rrxor, untrained=[None])
    with pytest.raises(TypeError, match=r"must be a checkpoint, its name .* or latents, got int"):
        ViewState(3)


def test_a_position_past_the_end_is_the_end(state: ViewState) -> None:
    state.position = 99
    assert state.position == LENGTH
    state.position = -3
    assert state.position == 1


def test_many_rows_are_drawn_as_whole_episodes(rrxor: list[AnnData]) -> None:
    state = ViewState(*rrxor, max_points=100)
    explorer = LatentExplorer(state=state)
    points = traces(explorer.plot, "points")[0]
    assert len(explorer.plot.data[points].x) == 96
    assert "320 rows, 96 of them drawn" in explorer._count.value
    touch(explorer.plot, "select", {points: [95]})
    assert state.selection == ((11, LENGTH),)
    state.select([0, 319])
    assert explorer.plot.data[points].selectedpoints == (0,)
    explorer.close()
