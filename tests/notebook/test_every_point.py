"""The studio draws every row of a large table, and each event sends only its changes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from anndata import AnnData

from nextlat_viz.notebook import ViewState
from nextlat_viz.notebook.cloud import Cloud, paint
from nextlat_viz.notebook.cloud.latents import VIEWS
from nextlat_viz.notebook.studio import Studio
from tests.notebook.conftest import LENGTH, FakeUmap, N, until

FEW = 10 * LENGTH


@pytest.fixture
def opened(rrxor: list[AnnData]) -> Iterator[Studio]:
    """A studio whose figures show a sample of the rows."""
    widget = Studio(state=ViewState(*rrxor, max_points=FEW))
    yield widget
    widget.close()


@pytest.fixture
def clouds(opened: Studio) -> list[Cloud]:
    opened.panels["space"].points.value = True
    return list(opened.panels["space"].clouds)


def test_a_sample_is_drawn_until_all_rows_are_requested(opened: Studio) -> None:
    space = opened.panels["space"]
    assert [label for label, _ in space.points.options] == [
        f"{FEW} of {N * LENGTH} rows",
        f"all {N * LENGTH} rows",
    ]
    assert space.clouds == []
    space.view.value = "pca"
    assert len(space.plot.data[0].x) == FEW
    space.points.value = True
    assert [len(cloud.positions) for cloud in space.clouds] == [N * LENGTH] * 2
    space.points.value = False
    assert space.clouds == []
    assert space.drawn


def test_no_choice_if_a_figure_shows_all_rows(rrxor: list[AnnData]) -> None:
    widget = Studio(*rrxor)
    assert widget.panels["space"].points.layout.display == "none"
    widget.close()


def test_all_of_very_many_rows_are_drawn(rrxor: list[AnnData], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nextlat_viz.notebook.panels.space._MANY", N * LENGTH - 1)
    widget = Studio(state=ViewState(*rrxor, max_points=FEW))
    assert len(widget.panels["space"].clouds) == 2
    widget.close()


def test_cursor_and_selection_are_in_every_cloud(opened: Studio, clouds: list[Cloud]) -> None:
    state = opened.state
    last = N - 1
    state.go_to(last, 3)
    state.select([5, 6, N * LENGTH - 1])
    opened.state.loop.flush()
    for cloud in clouds:
        assert cloud.cursor == [last * LENGTH, last * LENGTH + 1, last * LENGTH + 2]
        assert cloud.selection.tolist() == [5, 6, N * LENGTH - 1]
    clouds[0]._on_click(17)
    assert (state.episode, state.position) == state.scene.keys([17])[0]
    clouds[1]._on_select(np.array([8, 9]))
    assert state.selection == state.scene.keys([8, 9])
    assert clouds[0].selection.tolist() == [8, 9]


def test_a_filter_emphasises_rows(opened: Studio, clouds: list[Cloud]) -> None:
    opened.state.filter = {"position": (2,)}
    assert clouds[0].selection.tolist() == list(range(1, N * LENGTH, LENGTH))
    clouds[0]._on_select(np.arange(4))
    assert opened.state.rows.tolist() == [1]


def test_an_event_sends_only_its_changes(opened: Studio, clouds: list[Cloud], monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    for cloud in clouds:
        cloud.observe(lambda change: sent.append(change["name"]))
    state = opened.state
    state.position = 3
    assert set(sent) == {"cursor"}
    sent.clear()
    state.color = "position"
    assert set(sent) <= {"_codes", "_palette", "_key"}
    sent.clear()
    state.select([1])
    assert set(sent) == {"_selection"}
    sent.clear()
    state.site = "embed"
    assert "_places" in sent
    assert "_codes" not in sent
    assert opened.panels["space"].clouds == clouds


def test_another_world_with_as_many_rows_is_sent(
    rrxor: list[AnnData], mess3: list[AnnData], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nextlat_viz.notebook.panels.space._MANY", N * LENGTH - 1)
    widget = Studio(state=ViewState({"rrxor": rrxor, "mess3": mess3}, max_points=FEW))
    before = widget.panels["space"].clouds
    widget.state.world = "mess3"
    after = widget.panels["space"].clouds
    assert not set(before) & set(after)
    assert after[0]._labels(0).endswith(f"true state {mess3[0].obs['state'].iloc[0]}")
    widget.close()


def test_a_layer_and_a_colour_change_at_once(opened: Studio, clouds: list[Cloud]) -> None:
    with opened.state.hold_trait_notifications():
        opened.state.site, opened.state.color = "embed", "position"
    (first, _) = opened.panels["space"].clouds
    assert first is clouds[0]
    assert first.codes.tolist() == paint(opened.state.latents[0], "position")["codes"].tolist()


@pytest.mark.parametrize("wrong", [[(0, 1, 2), (3, 4, 5)], ["e0p1"], [7]])
def test_a_selection_of_no_pairs_is_refused(opened: Studio, wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"selection must hold \(episode, position\) pairs"):
        opened.state.selection = wrong
    assert opened.state.selection == ()


def test_every_view_has_its_own_coordinates(opened: Studio, clouds: list[Cloud]) -> None:
    space = opened.panels["space"]
    assert [value for _, value in space.view.options] == ["pca", "umap", "belief"]
    space.view.value = "pca"
    assert np.allclose(clouds[0].positions[:FEW, 0], space.plot.data[0].x, atol=1e-4)
    space.view.value = "belief"
    belief = next(trace for trace in space.plot.data if (trace.meta or {}).get("role") == "points")
    assert np.allclose(clouds[0].positions[:FEW, 0], belief.x, atol=1e-4)
    assert ": R²" in clouds[0].title
    assert "shuffled" in clouds[0].title
    assert "Fitted on" in space._points._note.value


def test_a_umap_keeps_the_rows_it_was_made_of(rrxor: list[AnnData], umaps: list[FakeUmap]) -> None:
    async def run() -> None:
        widget = Studio(state=ViewState(*rrxor, max_points=FEW))
        space = widget.panels["space"]
        space.points.value = True
        space.view.value = "umap"
        assert space.clouds == []
        assert "UMAP is being computed" in space._points._row.children[0].value
        for i in range(2):
            await until(lambda i=i: len(umaps) > i)
            umaps[i].finish()
        await until(lambda: len(space.clouds) == 2)
        first, second = space.clouds
        assert len(first.positions) == len(second.positions) == FEW
        widget.state.select([0, FEW + 3])
        widget.state.go_to(N - 1, 2)
        widget.state.loop.flush()
        assert first.selection.tolist() == [0]
        assert first.cursor == []
        widget.close()

    asyncio.run(run())


def test_an_export_of_clouds_is_a_figure(opened: Studio, clouds: list[Cloud], tmp_path: Any) -> None:
    path = opened.export("space", tmp_path / "space.html")
    assert path.stat().st_size > 1000


def test_clouds_are_painted_as_the_figures(opened: Studio) -> None:
    painted = []
    for dark in (None, True, False):
        opened.state.dark = dark
        painted.append([name for name in opened._dom_classes if name.startswith("nlv-on")])
    assert painted == [[], ["nlv-on-dark"], ["nlv-on-light"]]


def test_a_closed_studio_closes_its_clouds(opened: Studio, clouds: list[Cloud]) -> None:
    opened.close()
    assert all(cloud.comm is None for cloud in clouds)


def test_views_have_names() -> None:
    assert set(VIEWS) == {"pca", "umap", "belief", "place"}
