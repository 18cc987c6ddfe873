"""The studio: panels share one cursor and one selection, and an error in one panel stays there."""

from __future__ import annotations

import asyncio
import gc
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import plotly.graph_objects as go
import psutil
import pytest
from anndata import AnnData

from nextlat_viz import analysis, worlds
from nextlat_viz.display import shorten
from nextlat_viz.errors import LatentsError, UnknownNameError
from nextlat_viz.latents import extract
from nextlat_viz.notebook import LatentExplorer, ViewState
from nextlat_viz.notebook.panels.space import SpacePanel
from nextlat_viz.notebook.panels.world import _take_words as take_words
from nextlat_viz.notebook.scene import Scene
from nextlat_viz.notebook.serve import studio
from nextlat_viz.notebook.studio import Studio
from nextlat_viz.plotting import changes, configuration
from nextlat_viz.training import load
from tests.notebook.conftest import LENGTH, N, living_plots, touch, traces
from tests.synthetic import make_latents


@pytest.fixture
def opened(rrxor: list[AnnData]) -> Iterator[Studio]:
    widget = studio(*rrxor)
    yield widget
    widget.close()


@pytest.fixture(scope="module")
def shipped() -> Iterator[Studio]:
    """The shipped pair with its models, with fewer rows drawn."""
    widget = studio(state=ViewState("rrxor/next_token", "rrxor/nextlat", max_points=600))
    yield widget
    widget.close()


def alerts(made: Studio) -> dict[str, str]:
    return {name: card._alert.value for name, card in made.panels.items() if card._alert.value}


def cursor_of(made: Studio) -> list[Any]:
    plot = made.panels["space"].plot
    return [plot.data[i] for i in traces(plot, "cursor")]


def drawn_as_new(made: Studio) -> None:
    """Compare every figure with that of a new studio opened in the same state."""
    other = Studio(state=made.state)
    for name, card in made.panels.items():
        if card.drawn and card.plot is not None:
            for old, new in zip(card.plot.data, other.panels[name].plot.data, strict=True):
                for axis in "xy":
                    # A cursor that was moved has the precision of the points.
                    first, two = (np.asarray(trace[axis]) for trace in (old, new))
                    assert np.allclose(first, two, atol=1e-5) if first.dtype.kind == "f" else (first == two).all(), name
                text = [{k: v for k, v in trace.to_plotly_json().items() if k not in "xy"} for trace in (old, new)]
                assert not list(changes(*text, skip={"uid"})), name
    other.close()


def test_every_panel_has_its_question(opened: Studio) -> None:
    names = "world space next knows ahead read task training thinking pairs what_if differ"
    assert " ".join(opened.panels) == names
    for card in opened.panels.values():
        assert card._fold.description == f"▾ {card.question}"
        assert card.question.endswith("?")
    assert alerts(opened) == {}
    assert [name for name, card in opened.panels.items() if card._drawn] == ["world", "space", "next", "knows"]
    assert [name for name, card in opened.panels.items() if card.shown] == ["world", "space", "next", "knows"]
    assert opened.panels["space"].view.value == "belief"
    assert opened.panels["pairs"].drawn
    assert not opened.panels["ahead"].drawn
    assert repr(opened) == f"<Studio of NextLat, next-token at episode {opened.state.episode}, position {LENGTH // 2}>"
    assert set(dir(opened)) >= {"export", "panels", "selection", "state"}


def test_a_step_of_the_slider_moves_every_panel(opened: Studio) -> None:
    opened.cursor.controls.position.value = 5
    state = opened.state
    assert (state.position, opened.cursor.controls.play.value, opened.cursor.strip.position) == (5, 5, 5)
    assert {len(trace.x) for trace in cursor_of(opened) if trace.x is not None and len(trace.x)} == {5}
    assert "after position 5" in opened.panels["next"].about.value
    assert "after position 5" in opened.panels["knows"].about.value
    assert len(opened.panels["world"].plot.data[-2].x) == 6
    drawn_as_new(opened)


def test_a_key_or_a_click_on_a_token_moves_the_cursor(opened: Studio) -> None:
    opened.cursor.strip.set_state({"position": 4})
    assert opened.state.position == opened.cursor.controls.position.value == 4
    opened.cursor.strip.set_state({"position": 99})
    assert opened.state.position == opened.cursor.strip.position == LENGTH


def test_a_click_on_a_point_goes_to_its_episode(opened: Studio) -> None:
    plot = opened.panels["space"].plot
    touch(plot, "click", {traces(plot, "points")[1]: [7 * LENGTH + 2]})
    assert (opened.state.episode, opened.state.position) == (7, 3)
    assert opened.cursor.controls.episode.value == 7
    tokens = opened.state.scene.tokens[7]
    assert opened.cursor.strip.tokens == [opened.state.scene.vocabulary[token] for token in tokens]
    # The rows nearest to the point are listed until the cursor moves on.
    assert opened.panels["space"].nearest.value.count("Nearest in") == 2
    opened.state.position = 4
    assert opened.panels["space"].nearest.value == ""
    drawn_as_new(opened)


def test_a_selection_is_shared(opened: Studio) -> None:
    plot = opened.panels["space"].plot
    touch(plot, "select", {traces(plot, "points")[0]: [0, 9]})
    assert opened.state.selection == ((0, 1), (1, 2))
    assert opened.selection[["episode", "position"]].to_numpy().tolist() == [[0, 1], [1, 2]]
    opened.state.episode = 1
    assert opened.cursor.strip.selected == [2]
    assert "2 selected" in opened.filter.summary.value
    assert {plot.data[i].selectedpoints for i in traces(plot, "points")} == {(0, 9)}
    opened.filter.clear.click()
    assert opened.state.selection == ()
    assert opened.cursor.strip.selected == []


def test_a_filter_emphasises_its_rows_and_can_select_them(opened: Studio) -> None:
    plot, state = opened.panels["space"].plot, opened.state
    opened.filter.column.value = "position"
    assert opened.filter.values.options[0] == ("1", 1)
    opened.filter.values.value = (2, 3)
    assert state.filter == {"position": (2, 3)}
    kept = np.flatnonzero(state.latents[0].obs["position"].isin([2, 3]))
    assert plot.data[traces(plot, "points")[0]].selectedpoints == tuple(kept)
    assert f"keeps {kept.size}" in opened.filter.summary.value
    touch(plot, "select", {traces(plot, "points")[0]: [0, 1, 2]})
    assert state.selection == ((0, 2), (0, 3))
    state.filter = {"state": ["start"], "position": 4}
    assert (opened.filter.column.value, opened.filter.values.value) == ("state", ("start",))
    assert "state is start; position is 4" in opened.filter.summary.value
    assert plot.data[traces(plot, "points")[0]].selectedpoints == ()
    opened.filter.column.value = "nothing"
    assert state.filter == {}
    assert opened.filter.values.layout.display == "none"
    assert alerts(opened) == {}


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [({"stat": ["start"]}, "Did you mean 'state'"), ({"state": ["Q"]}, "value of column 'state': 'Q'")],
)
def test_a_filter_of_unknown_values_is_refused(opened: Studio, wrong: Any, hint: str) -> None:
    with pytest.raises(UnknownNameError, match=hint):
        opened.state.filter = wrong
    assert opened.state.filter == {}


def test_colour_layer_and_world_are_shared(rrxor: list[AnnData], mess3: list[AnnData]) -> None:
    widget = studio({"rrxor": rrxor, "mess3": mess3})
    state = widget.state
    state.color, state.site, state.filter = "position", "block1", {"state": "start"}
    assert alerts(widget) == {}
    drawn_as_new(widget)
    state.world = "mess3"
    assert alerts(widget) == {}
    assert state.filter == {}
    assert widget.filter.column.value == "nothing"
    assert "mess3" in widget.panels["world"]._caption.value
    assert widget.panels["what_if"].to.options[0] == ("certainty of A", "A")
    drawn_as_new(widget)
    state.world = "rrxor"
    assert alerts(widget) == {}
    widget.close()


def test_a_step_sends_only_the_cursor(opened: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    for card in opened.panels.values():
        if card.plot is not None:
            card.plot._heard = True
    sent: list[int] = []
    kind_of_comm = type(opened.comm)
    send = kind_of_comm.publish_msg

    def count(self: Any, kind: str, data: Any = None, metadata: Any = None, buffers: Any = None, **keys: Any) -> Any:
        sizes = [memoryview(buffer).nbytes for buffer in buffers or ()]
        sent.append(len(json.dumps(data, default=str)) + sum(sizes))
        return send(self, kind, data, metadata, buffers, **keys)

    monkeypatch.setattr(kind_of_comm, "publish_msg", count)
    opened.panels["space"].folded = False
    sent.clear()
    opened.state.position = 3
    step = sum(sent)
    sent.clear()
    opened.state.color = "position"
    clouds = sum(sent)
    print(f"a step sends {step:,} bytes, another colour {clouds:,}")
    space = [len(trace.x) for trace in cursor_of(opened) if trace.x is not None]
    assert set(space) <= {0, 3}
    # Of all seven panels; the clouds of this small table alone are six times eight bytes a row.
    assert 0 < step < 25_000


def test_steps_through_an_episode_read_it_once(rrxor: list[AnnData], monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []
    replayed: list[int] = []
    from_spec = worlds.from_spec
    monkeypatch.setattr(worlds, "from_spec", lambda *spec, **options: built.append(spec) or from_spec(*spec, **options))
    widget = studio(*rrxor)
    episodes = widget.state.scene.episodes[:2].tolist()
    world = widget.state.scene.world
    replay = type(world).replay
    monkeypatch.setattr(
        type(world), "replay", lambda self, tokens: replayed.append(len(tokens)) or replay(self, tokens)
    )
    replayed.clear()
    for episode in (*episodes, *episodes):
        for position in range(1, LENGTH + 1):
            widget.state.go_to(episode, position)
    widget.close()
    assert len(replayed) <= len(episodes)
    assert len(built) <= 1


def test_a_step_starts_no_umap_but_another_layer_does(rrxor: list[AnnData], monkeypatch: pytest.MonkeyPatch) -> None:
    def lay_out(latents: AnnData, progress: Any = None, **options: Any) -> analysis.Projection:
        return analysis.project(latents, "pca", **options)

    monkeypatch.setattr(analysis, "project_in_process", lay_out, raising=False)
    widget = studio(*rrxor)
    requests: list[str] = []
    ask = SpacePanel._ask_umaps
    monkeypatch.setattr(SpacePanel, "_ask_umaps", lambda self: requests.append(self.state.site) or ask(self))
    for position in (2, 3, 4):
        widget.state.position = position
    assert requests == []
    widget.state.arrange(view="umap")
    assert set(requests) == {widget.state.site}
    requests.clear()
    widget.state.site = widget.state.scene.sites[0]
    assert set(requests) == {widget.state.site}
    widget.close()


@pytest.mark.soak
def test_random_events_leave_the_studio_consistent(opened: Studio, soak: bool) -> None:
    events = 2_000 if soak else 80
    state, rng = opened.state, np.random.default_rng(0)
    heard: list[Any] = []
    state.observe(lambda change: heard.append(change["new"]), ["episode", "position", "selection"])

    async def play(studio_: Studio, events: int) -> None:
        plot = studio_.panels["space"].plot
        points = traces(plot, "points")
        for _ in range(events):
            episode, position = int(rng.integers(N)), int(rng.integers(1, LENGTH + 1))
            kind = rng.integers(4)
            before = (state.episode, state.position, state.selection)
            n = len(heard)
            if kind == 0:
                touch(plot, "click", {points[0]: [episode * LENGTH + position - 1]})
                assert (state.episode, state.position) == (episode, position)
            elif kind == 1:
                studio_.cursor.controls.position.value = position
                assert state.position == position
            elif kind == 2:
                studio_.cursor.strip.set_state({"position": position})
                assert state.position == position
            else:
                touch(plot, "select", {points[1]: [episode * LENGTH + position - 1]})
                assert state.selection == ((episode, position),)
            assert (len(heard) > n) == (before != (state.episode, state.position, state.selection))
            await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)

    async def whole() -> tuple[int, int]:
        widget = Studio(state=state)
        for _ in range(20):
            await asyncio.sleep(0)
        await play(widget, events // 4)
        gc.collect()
        before = psutil.Process().memory_info().rss
        await play(widget, events)
        gc.collect()
        after = psutil.Process().memory_info().rss
        assert alerts(widget) == {}
        # Panels that drew one after another show the last state.
        assert {len(trace.x) for trace in cursor_of(widget) if trace.x is not None and len(trace.x)} == {state.position}
        widget.close()
        return before, after

    for card in opened.panels.values():
        card.shown = False
    before, after = asyncio.run(whole())
    print(f"{before / 2**20:.0f} MiB before, {after / 2**20:.0f} MiB after")
    assert after < 1.05 * before


def test_an_error_in_one_panel_leaves_the_others_alive(opened: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any) -> Any:
        raise RuntimeError("<script>no picture today</script>")

    next_card = opened.panels["next"]
    with monkeypatch.context() as patch:
        patch.setattr(type(next_card), "_figure", broken)
        opened.state.position = 3
        assert list(alerts(opened)) == ["next"]
        assert "&lt;script&gt;no picture today" in next_card._alert.value
        assert next_card._stage.layout.display == "none"
        assert not next_card.drawn
        opened.state.position = 4
        assert {len(trace.x) for trace in cursor_of(opened) if trace.x is not None and len(trace.x)} == {4}
        assert "after position 4" in opened.panels["knows"].about.value
    opened.state.position = 5
    assert alerts(opened) == {}
    assert "after position 5" in next_card.about.value
    assert next_card._stage.layout.display is None


EVIL = {
    "html": "<img src=x onerror=alert(1)><b>bold</b> & $x^2$",
    "rtl": "مرحبا בעולם",
    "emoji": "👩‍👩‍👧‍👦🏳️‍🌈",
    "long": "x" * 10_000,
    "lines": "one\ntwo\r\nthree",
}


def renamed(latents: AnnData, name: str) -> AnnData:
    """The same latents with other names for a token, a state and the model."""
    other = latents.copy()
    about = dict(other.uns["nextlat_viz"])
    about["vocabulary"] = [name, *about["vocabulary"][1:]]
    about["label"] = f"{about['label']} {name}"
    other.uns["nextlat_viz"] = about
    for column, old in (("token", "0"), ("state", "start")):
        other.obs[column] = other.obs[column].cat.rename_categories({old: name})
    other.obs["note"] = name
    return other


@pytest.mark.parametrize("kind", EVIL)
def test_names_are_escaped(rrxor: list[AnnData], kind: str) -> None:
    widget = studio(*(renamed(table, EVIL[kind]) for table in rrxor))
    assert set(alerts(widget)) <= {"world"}
    widget.state.position = 5
    widget.state.color = "note"
    widget.filter.column.value = "note"
    widget.filter.values.value = (EVIL[kind],)
    widget.state.target = "state"
    pairs = widget.panels["pairs"]
    widget.state.arrange(detail="pairs")
    pairs.list.chosen = 0
    assert set(alerts(widget)) <= {"world"}
    written = [widget.filter.summary.value, pairs._about.value]
    written += [note.text for card in widget.panels.values() if card.plot for note in card.plot.layout.annotations]
    for text in written:
        assert "<img" not in text
        assert "$" not in text
        assert len(text) < 3_000
    # A list shows its options as text.
    cells = [cell for line in pairs.list.rows for cell in line]
    assert cells
    assert all(len(cell) < 70 and "\n" not in cell for cell in cells)
    assert all(len(token) <= 24 and "\n" not in token for token in widget.cursor.strip.tokens)
    widget.close()


def test_options_of_long_names_are_cut(rrxor: list[AnnData]) -> None:
    tables = [table.copy() for table in rrxor]
    for table in tables:
        table.obs["n" * 10_000] = 0.0
    made = studio(*tables)
    colour = next(part for part in made.children[0].children if getattr(part, "description", "") == "Colour by")
    assert max(len(label) for label, _ in colour.options) == 60
    colour.value = "n" * 10_000
    assert made.state.color == "n" * 10_000
    made.close()


def test_a_name_is_cut_to_one_short_line() -> None:
    assert shorten("a\nb") == "a b"
    assert shorten("x" * 10_000) == "x" * 23 + "…"


def test_a_table_with_the_start_token_is_stepped_through_from_position_0() -> None:
    read = worlds.get("rrxor").sample(40, 8)
    tables = [extract(load(f"rrxor/{name}"), read, positions=slice(0, None)) for name in ("next_token", "nextlat")]
    widget = studio(*tables)
    widget.state.go_to(3, 0)
    strip = widget.cursor.strip
    assert (widget.state.position, strip.position, widget.cursor.controls.position.min) == (0, 0, 0)
    assert list(strip.places) == list(range(9))
    assert list(strip.tokens) == ["start", *map(str, read.tokens[3])]
    assert strip.notes[0] == "token start"
    assert not alerts(widget)
    assert "after position 0" in widget.panels["next"].about.value
    assert len(widget.panels["world"].plot.data[-2].x) == 1
    drawn_as_new(widget)
    widget.state.position = 1
    assert not alerts(widget)
    assert len(widget.panels["world"].plot.data[-2].x) == 2
    widget.close()


@pytest.mark.parametrize(("name", "position"), [("path_star", 22), ("s3", 10), ("rrxor", 6)])
def test_a_world_opens_at_its_decisive_prediction_or_in_the_middle(name: str, position: int) -> None:
    state = ViewState(f"{name}/nextlat")
    assert state.position == position


def test_an_episode_that_its_world_cannot_read_still_opens(
    rrxor: list[AnnData], monkeypatch: pytest.MonkeyPatch
) -> None:
    def illegal(scene: Scene, episode: int) -> None:
        raise ValueError("token '0' at position 2 is not legal after the tokens before it")

    monkeypatch.setattr(Scene, "read", illegal)
    widget = studio(*rrxor)
    assert widget.state.position == 1
    assert "not legal" in alerts(widget)["world"] + widget.panels["world"].words
    widget.close()


def in_sight(made: Studio) -> list[str]:
    return [name for name, panel in made.panels.items() if panel.shown]


def test_the_arrangement_is_kept_per_world(rrxor: list[AnnData], mess3: list[AnnData]) -> None:
    widget = studio({"rrxor": rrxor, "mess3": mess3})
    state, panels = widget.state, widget.panels
    widget._tabs.value = "pairs"
    panels["space"].view.value = "pca"
    panels["world"]._fold.click()
    panels["pairs"]._enlarge.click()
    assert state.arrangement == {"rrxor": {"detail": "pairs", "view": "pca", "folded": ("world",), "large": "pairs"}}
    assert in_sight(widget) == ["pairs"]
    state.world = "mess3"
    assert in_sight(widget) == ["world", "space", "next", "knows"]
    assert (panels["space"].view.value, panels["world"].folded, panels["pairs"].large) == ("belief", False, False)
    assert list(state.arrangement) == ["rrxor"]
    widget._swap.click()
    assert "nlv-at-beside" in panels["knows"]._dom_classes
    assert widget._tabs.value == "next"
    state.world = "rrxor"
    assert in_sight(widget) == ["pairs"]
    panels["pairs"]._enlarge.click()
    assert in_sight(widget) == ["world", "space", "next", "pairs"]
    assert panels["world"].folded
    assert alerts(widget) == {}
    widget.close()


def test_an_arrangement_of_unknown_panels_is_refused(opened: Studio) -> None:
    with pytest.raises(UnknownNameError, match=r"choice of the arrangement 'detial'\. Did you mean 'detail'"):
        opened.state.arrange(detial="pairs")
    with pytest.raises(UnknownNameError, match="world 'mess3'"):
        opened.state.arrangement = {"mess3": {}}
    opened.state.arrange(detail="piars")
    assert "panel 'piars'. Did you mean 'pairs'" in opened._alert.value.replace("&#x27;", "'").replace("&#39;", "'")


def test_a_new_world_does_not_choose_a_pair(rrxor: list[AnnData], mess3: list[AnnData]) -> None:
    widget = studio({"rrxor": rrxor, "mess3": mess3})
    widget.state.arrange(detail="pairs")
    widget.state.go_to(3, 5)
    before = widget.state.episode, widget.state.selection
    widget.state.world = "mess3"
    widget.state.arrange(detail="pairs")
    widget.state.world = "rrxor"
    widget.state.arrange(detail="pairs")
    assert (widget.state.episode, widget.state.selection) == before
    assert widget.state.position == widget.state.scene.opening_position(3)
    assert widget.panels["pairs"].list.chosen == -1
    widget.close()


def test_a_hidden_panel_computes_nothing(opened: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    knows, calls = opened.panels["knows"], []
    draw = type(knows)._figure
    monkeypatch.setattr(type(knows), "_figure", lambda self: calls.append(self) or draw(self))
    opened._tabs.value = "pairs"
    opened.state.position = 3
    assert not calls
    # The figure of a hidden panel is drawn on request, for the present cursor.
    assert knows.plot.data
    assert "after position 3" in knows.about.value
    assert len(calls) == 1


def test_the_camera_names_a_file_after_world_and_panel(rrxor: list[AnnData], mess3: list[AnnData]) -> None:
    made = studio({"rrxor": rrxor, "mess3": mess3})
    for world in ("rrxor", "mess3"):
        made.state.show(world)
        for name in ("world", "space", "next", "knows"):
            plot = made.panels[name].plot
            assert plot.layout.meta["file"] == f"{world}_{name}"
            assert configuration(plot)["toImageButtonOptions"]["filename"] == f"{world}_{name}"
    made.close()


def test_models_in_words_have_the_hatching_of_their_bars(opened: Studio) -> None:
    for words in (opened.panels["next"].about.value, opened.panels["knows"].about.value):
        marks = [mark for mark, _ in re.findall(r">(.)</span>&nbsp;(exact|truth|NextLat|next-token)", words)]
        assert marks == ["■", "▨", "▧"]


def test_a_question_that_does_not_apply_is_one_line(opened: Studio) -> None:
    assert opened.panels["ahead"].why_not == "No model here has latent dynamics psi that could be rolled out."
    names = [name for _, name in opened._tabs.options]
    assert opened._tabs.tooltips[names.index("ahead")] == opened.panels["ahead"].question
    opened._tabs.value = "ahead"
    assert "nlv-slim" in opened.panels["ahead"]._dom_classes
    assert "nlv-slim" not in opened.panels["knows"]._dom_classes


def test_tabs_of_questions_that_do_not_apply_come_last(opened: Studio, shipped: Studio) -> None:
    tabs = [label for label, _ in opened._tabs.options]
    assert tabs == ["Probe", "Pairs", "What if", "Differences", "Rollout", "Read", "Task", "Training", "Steps"]
    assert set(opened.panels.made) == {"world", "space", "next", "knows"}
    assert [label for label, _ in shipped._tabs.options][-1] == "Steps"


def test_the_cursor_is_visible_in_any_selection(opened: Studio) -> None:
    assert {trace.unselected.marker.opacity for trace in cursor_of(opened)} == {1}


def test_the_tokens_read_and_held_out_are_shown(opened: Studio) -> None:
    opened.state.select([0, 9])
    table = opened.selection
    names = opened.state.scene.vocabulary
    assert table["tokens read"].iloc[1] == " ".join(names[token] for token in opened.state.scene.tokens[1][:2])
    held_out = sum(episode in opened.state.scene.held_out_episodes for episode in (0, 1))
    assert f"2 selected, {held_out} held out from the probes" in opened.filter.summary.value


def test_every_world_opens_with_its_question(shipped: Studio) -> None:
    assert in_sight(shipped) == ["world", "space", "next", "knows"]
    widget = studio("s3/next_token", "s3/nextlat")
    assert in_sight(widget) == ["world", "space", "next", "task"]
    assert widget.panels["task"].measure == "state_tracking"
    assert widget.panels["task"].drawn
    assert alerts(widget) == {}
    widget.close()


def test_two_studios_on_one_state(opened: Studio) -> None:
    other = Studio(state=opened.state)
    explorer = LatentExplorer(state=opened.state)
    other.cursor.controls.position.value = 6
    assert opened.cursor.controls.position.value == 6
    touch(explorer.plot, "select", {traces(explorer.plot, "points")[0]: [3]})
    assert opened.selection.equals(other.selection)
    plots = [result.panels["space"].plot for result in (opened, other)]
    assert [plot.data[traces(plot, "points")[0]].selectedpoints for plot in plots] == [(3,), (3,)]
    other.close()
    explorer.close()
    opened.state.position = 2
    assert alerts(opened) == {}
    assert {len(trace.x) for trace in cursor_of(opened) if trace.x is not None and len(trace.x)} == {2}


def test_a_closed_studio_leaves_no_widgets(rrxor: list[AnnData]) -> None:
    before = living_plots()
    state = ViewState(*rrxor)
    widget = Studio(state=state)
    widget.close()
    widget.close()
    state.position = 4
    del widget
    assert living_plots() == before


def test_a_folded_panel_computes_nothing(opened: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    knows, calls = opened.panels["knows"], []
    draw = type(knows)._figure
    monkeypatch.setattr(type(knows), "_figure", lambda self: calls.append(self) or draw(self))
    knows._fold.click()
    assert knows.folded
    assert knows._fold.description.startswith("▸")
    opened.state.position = 3
    assert not calls
    knows._fold.click()
    assert len(calls) == 1
    assert "after position 3" in knows.about.value


@pytest.mark.parametrize(
    ("name", "prompt"), [("taxi", 2), ("countdown", 13), ("path_star", 27), ("rrxor", 0), ("story", 21)]
)
def test_a_scene_knows_which_tokens_are_given(name: str, prompt: int) -> None:
    assert Scene.prompt.func(SimpleNamespace(world=worlds.get(name))) == prompt


def test_a_position_in_the_prompt_says_that_it_was_not_trained(opened: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(opened.state.scene), "prompt", 3)
    card = opened.panels["next"]
    for position, told in ((2, True), (3, False)):
        opened.state.position = position
        assert card.drawn
        told_now = f"Position {position} lies in the prompt, which the model is not trained to predict"
        assert (told_now in card.notes) == told


def test_latents_without_models_name_what_is_missing(opened: Studio) -> None:
    for name in ("ahead", "what_if"):
        card = opened.panels[name]
        assert not card.drawn
        assert "NextLat was given as latents" in card.words
        assert "open the studio with its checkpoint" in card.words
        assert card._stage.layout.display == "none"


def test_latents_of_no_known_world(rrxor: list[AnnData]) -> None:
    tables = []
    for trace in rrxor:
        other = trace.copy()
        other.uns["nextlat_viz"] = {key: v for key, v in other.uns["nextlat_viz"].items() if key != "world"}
        del other.obsm["belief"], other.obsm["next_token_probs_exact"], other.obs["state"]
        tables.append(other)
    widget = studio(*tables, state=None)
    widget.state.position = 4
    assert alerts(widget) == {}
    assert "no known world" in widget.panels["world"].words
    assert "This world has no ground-truth state" in widget.panels["pairs"].words
    assert widget.panels["next"].drawn
    assert {len(trace.x) for trace in cursor_of(widget) if trace.x is not None and len(trace.x)} == {4}
    widget.close()


def test_a_world_without_a_picture(opened: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(opened.state.scene.world), "pictures", ())
    other = Studio(state=opened.state)
    assert "has no picture" in other.panels["world"].words
    assert alerts(other) == {}
    other.close()


def test_models_that_do_not_match_are_refused(rrxor: list[AnnData], mess3: list[AnnData]) -> None:
    with pytest.raises(LatentsError, match="same episodes"):
        studio(rrxor[0], make_latents(label="other", n=N, length=LENGTH, seed=5))
    with pytest.raises(ValueError, match="not both"):
        studio(rrxor[0], state=ViewState(*rrxor))


def test_models_of_several_worlds_are_sorted_by_world(rrxor: list[AnnData], mess3: list[AnnData]) -> None:
    widget = studio(rrxor[0], mess3[0], rrxor[1], mess3[1])
    assert widget.state.worlds == ["rrxor", "mess3"]
    assert widget.state.labels == [table.uns["nextlat_viz"]["label"] for table in rrxor]
    widget.state.show("mess3")
    assert widget.state.labels == [table.uns["nextlat_viz"]["label"] for table in mess3]
    assert alerts(widget) == {}
    widget.close()


def test_a_chosen_pair_moves_the_cursor(opened: Studio) -> None:
    pairs, state = opened.panels["pairs"], opened.state
    state.arrange(detail="pairs")
    assert state.selection == ()
    assert pairs.list.heads == [*state.labels, "history", "other history", "belief"]
    table = pairs.table
    assert (table["prefix_a"] != table["prefix_b"]).all()
    assert not set(table["prefix_a"]) & set(table["prefix_b"])
    assert table["relative"].is_monotonic_decreasing
    first = table[f"relative, {state.labels[0]}"]
    assert np.allclose(first, table["relative"])
    pairs.list.chosen = 2
    ends = [tuple(int(table[f"{name}_{end}"].iloc[2]) for name in ("episode", "position")) for end in "ab"]
    assert set(state.selection) == set(ends)
    assert (state.episode, state.position) == ends[0]
    pairs.other.click()
    assert (state.episode, state.position) == ends[1]
    pairs.other.click()
    assert (state.episode, state.position) == ends[0]
    assert "lead to the same belief" in pairs._about.value
    pairs.by.value = "state"
    assert pairs.list.chosen == -1
    pairs.model.value = 1
    ranked = pairs.table
    assert np.allclose(ranked[f"relative, {state.labels[1]}"], ranked["relative"])
    assert alerts(opened) == {}


def test_export_writes_provenance_and_never_overwrites(opened: Studio, tmp_path: Path) -> None:
    opened.state.go_to(3, 5)
    path = opened.export("next", tmp_path / "next.html")
    about = json.loads(path.with_name(f"{path.name}.json").read_text())["parameters"]
    assert (about["panel"], about["episode"], about["position"]) == ("next", 3, 5)
    assert [item["label"] for item in about["models"]] == opened.state.labels
    assert "after position 5" in path.read_text()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        opened.export("space", path)
    opened.export("space", path, overwrite=True)
    path.unlink()
    with pytest.raises(FileExistsError, match=r"next\.html\.json exists"):
        opened.export("next", path)
    assert about["size"] == "as shown"
    with pytest.raises(UnknownNameError, match=r"panel 'nxt'\. Did you mean 'next'"):
        opened.export("nxt", tmp_path / "a.html")
    with pytest.raises(ValueError, match=r"'ahead' shows no figure now: .*given as latents"):
        opened.export("ahead", tmp_path / "b.html")
    with pytest.raises(ValueError, match=r"'pairs' shows a table: .*\.table"):
        opened.export("pairs", tmp_path / "c.html")


def test_export_fits_a_paper_or_a_slide(opened: Studio, tmp_path: Path) -> None:
    for size, width in {"column": 374, "single": 634, "text": 778, "slide": 640, "poster": 576}.items():
        path = opened.export("next", tmp_path / f"{size}.html", size=size)
        about = json.loads(path.with_name(f"{path.name}.json").read_text())["parameters"]
        assert about["size"] == size
        assert "Models trained on rrxor" in about["caption"]
        assert f'"width":{width}' in path.read_text()


def test_export_refuses_bad_sizes(opened: Studio, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"print size 'colum'\. Did you mean 'column'"):
        opened.export("next", tmp_path / "a.html", size="colum")
    assert not list(tmp_path.iterdir())


def test_shipped_models_look_ahead_and_take_injections(shipped: Studio) -> None:
    state = shipped.state
    state.go_to(3, 5)
    ahead, what_if = shipped.panels["ahead"], shipped.panels["what_if"]
    assert ahead.drawn
    assert alerts(shipped) == {}
    assert "has no latent dynamics psi" in ahead._without.value
    assert len(ahead.plot.data[0].x) == LENGTH
    assert len(traces(what_if.plot, "after")) == 2
    before = [what_if.plot.data[i].y for i in traces(what_if.plot, "after")]
    what_if.to.value = "first 0"
    assert not np.array_equal(before, [what_if.plot.data[i].y for i in traces(what_if.plot, "after")])
    # The plane of readings is part of the figure.
    figure = shipped.figure("what_if", size=(500, 300))
    assert "Target (marker)" in " ".join(note.text for note in figure.layout.annotations)
    assert figure.layout.width > 800
    assert any(trace.type == "scattergl" and len(trace.x) > 100 for trace in figure.data)
    what_if.metric.value = "covariance"
    what_if.to.value = what_if.to.options[-1][1]
    assert "No row is selected" in what_if.words
    state.select([17])
    assert what_if.drawn
    state.position = 12
    assert "there is nothing to look ahead to" in ahead.words
    assert what_if.drawn
    state.target = "state"
    assert what_if.to.options[0] == ("start", "start")
    assert alerts(shipped) == {}
    state.target, state.selection = "belief", ()


def test_an_earlier_step_runs_the_model_of_that_step(shipped: Studio) -> None:
    shipped.state.go_to(3, 5)
    shipped.state.show(step=200)
    assert alerts(shipped) == {}
    assert shipped.panels["ahead"].drawn
    assert shipped.state.scene.checkpoint(1).step == 200
    shipped.state.step = None
    assert alerts(shipped) == {}


def test_a_caption_with_quotes_stays_text() -> None:
    figure = go.Figure(layout={"title": {"text": '<b>a "quoted" name</b>'}})
    assert take_words(figure) == '<span title="a &quot;quoted&quot; name"><b>a "quoted" name</b></span>'
