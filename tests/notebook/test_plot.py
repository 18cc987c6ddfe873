"""The live figure: what it sends, what it keeps, and what of plotly's own it leaves out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from anndata import AnnData

from nextlat_viz.errors import LatentsError
from nextlat_viz.notebook import LatentExplorer, ViewState, bundle
from nextlat_viz.notebook.plot import Plot, changes
from tests.notebook.conftest import FakeJob, touch


def picture(x: list[float], color: str = "red", **meta: str) -> go.Figure:
    scatter = go.Scatter(x=np.array(x), y=np.array(x), marker={"color": color}, meta=meta or None)
    return go.Figure(scatter).update_layout(dragmode="select")


@pytest.fixture
def plot() -> Iterator[Plot]:
    made = Plot(picture([0, 1]))
    yield made
    made.close()


@pytest.fixture
def sent(plot: Plot, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What differs, every time it is sent to a page that has drawn the figure."""
    messages: list[Any] = []
    plot._drawn = True
    monkeypatch.setattr(
        plot,
        "_send_update_msg",
        lambda restyle_data, relayout_data, **_: messages.append((restyle_data, relayout_data)),
    )
    return messages


def test_only_what_differs_is_sent_and_at_once(plot: Plot, sent: list[Any]) -> None:
    plot.become(picture([0, 1]))
    assert sent == []
    plot.become(picture([0, 1], "blue").update_layout(title="Two"))
    ((style, layout),) = sent
    assert list(style) == ["marker.color"]
    assert list(layout) == ["title.text"]


def test_zoom_and_tool_stay_until_the_points_move(plot: Plot, sent: list[Any]) -> None:
    plot.layout.xaxis.range, plot.layout.dragmode = [0, 0.1], "lasso"
    plot.become(picture([0, 1], "blue"))
    assert (plot.layout.xaxis.range, plot.layout.dragmode) == ((0, 0.1), "lasso")
    plot.become(picture([0, 5], "blue"))
    assert (plot.layout.xaxis.autorange, plot.layout.dragmode) == (True, "lasso")


def test_other_traces_have_a_range_of_their_own(plot: Plot) -> None:
    plot.layout.xaxis.range = [0, 900]
    plot.become(go.Figure(go.Bar(x=[1, 2], y=[3, 4])).update_layout(xaxis_range=[0, 3], yaxis_title="y"))
    assert plot.layout.xaxis.range == (0, 3)
    assert (plot.layout.xaxis.autorange, plot.layout.yaxis.autorange) == (False, True)
    plot.become(picture([0, 1]))
    assert plot.layout.xaxis.autorange is True


def test_a_cursor_that_moves_does_not_reset_the_zoom() -> None:
    plot = Plot(picture([0, 1], role="cursor"))
    plot.layout.xaxis.range = [0, 0.1]
    plot.become(picture([0, 5], role="cursor"))
    assert (plot.layout.xaxis.range, plot.layout.xaxis.autorange) == ((0, 0.1), None)
    plot.close()


def test_other_kinds_of_traces_replace_all(plot: Plot) -> None:
    plot.become(go.Figure([go.Bar(x=["a"], y=[1]), go.Scatter(x=[1], y=[2])]))
    assert [trace.type for trace in plot.data] == ["bar", "scatter"]
    assert plot.data[0].x == ("a",)


def test_what_a_trace_is_about_can_change() -> None:
    plot = Plot(picture([0, 1], column="Place"))
    plot.become(picture([0, 1], column="Place: R² 0.9"))
    assert plot.data[0].meta == {"column": "Place: R² 0.9"}
    plot.close()


def test_changes_compare_arrays_and_see_what_is_gone() -> None:
    nan = np.array([1.0, np.nan])
    assert list(changes({"x": nan}, {"x": nan.copy()}, skip=set())) == []
    assert list(changes({"x": [1, 2], "y": 1}, {"x": (1, 2)}, skip=set())) == [("y", None)]
    assert list(changes({"a": {"b": 1}}, {"a": {"b": 2}}, skip=set(), whole={"a"})) == [("a", {"b": 2})]
    assert list(changes({"a": 1}, {"a": 2}, skip={"a"})) == []


def test_a_figure_is_announced_complete_and_light(monkeypatch: pytest.MonkeyPatch) -> None:
    announced: list[dict[str, Any]] = []
    open_ = Plot.__mro__[1].open
    monkeypatch.setattr(Plot.__mro__[1], "open", lambda self: (announced.append(self.get_state()), open_(self)))
    plot = Plot(picture([0, 1]))
    (state,) = announced
    assert len(state["_widget_data"]) == 1
    assert state["_config"]["showSendToCloud"] is False
    assert len(state["_esm"]) < 5_000
    assert state["_library"] == bundle.Library._shared.model_id
    plot.close()


def test_the_bundle_is_carried_once_and_not_longer_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle.Library, "_shared", None)
    monkeypatch.setattr(bundle.Library, "_users", 0)
    one, two = Plot(picture([0])), Plot(picture([1]))
    assert one._library == two._library
    one.close()
    library = bundle.Library._shared
    assert library is not None
    assert library.comm is not None
    two.close()
    two.close()
    assert bundle.Library._shared is None
    assert library.comm is None


def test_the_bundle_is_patched_where_the_page_will_find_it() -> None:
    text = bundle.bundle()
    (name,) = re.findall(r"\}\)\(([\w$]+)\.prototype\);\s*$", text)
    assert re.search(rf"{re.escape(name)} as FigureView\b", text)
    for method in re.findall(r"view\.(\w+) =", bundle._PATCH):
        assert text.count(method) > bundle._PATCH.count(method), f"plotly's view has no {method} any more"


def test_touching_is_one_call(plot: Plot) -> None:
    heard: list[Any] = []
    plot._on_click = plot._on_select = heard.append
    touch(plot, "selected", {0: [0, 1]})
    touch(plot, "hover", {0: [0]})
    touch(plot, "click", {0: [1]})
    touch(plot, "deselect")
    assert heard == [{0: [0, 1]}, {0: [1]}, None]


def test_a_umap_that_cannot_be_is_not_offered(state: ViewState, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise LatentsError("2 different rows")

    monkeypatch.undo()
    monkeypatch.setattr("nextlat_viz.analysis.project_in_background", refuse, raising=False)
    explorer = LatentExplorer(state=state)
    assert sum("2 different rows" in note.text for note in explorer.plot.layout.annotations) == 2
    assert explorer._umap_button.layout.display == "none"
    explorer.close()


def test_a_view_is_drawn_again_only_for_what_it_shows(
    rrxor: list[AnnData], jobs: list[FakeJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    explorer = LatentExplorer(*rrxor)
    while explorer._umaps.running:
        jobs[-1].finish()
    drawn: list[int] = []
    draw = explorer._figure
    monkeypatch.setattr(explorer, "_figure", lambda: (drawn.append(1), draw())[1])
    explorer.state.target = "state"
    assert drawn == []
    explorer.state.color = "token"
    assert drawn == [1]
    explorer.close()


def test_what_the_page_set_to_fit_stays(plot: Plot) -> None:
    """A figure that fits itself to its cell says so, and no redraw may take it back."""
    plot._js2py_relayout = {"relayout_data": {"autosize": True}, "source_view_id": "view"}
    assert plot.layout.autosize
    plot.become(go.Figure(plot.data, {**plot.layout.to_plotly_json(), "autosize": None, "title": "another"}))
    assert plot.layout.title.text == "another"
    assert plot.layout.autosize
