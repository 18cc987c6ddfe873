"""The live figure: the messages that it sends, the state that it keeps, and its copy of plotly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from anndata import AnnData
from ipywidgets import Widget

from nextlat_viz.errors import LatentsError
from nextlat_viz.notebook import LatentExplorer, ViewState
from nextlat_viz.notebook.panel import Panel
from nextlat_viz.notebook.panels.space import SpacePanel
from nextlat_viz.notebook.plot import Plot, PlotlyLibrary
from nextlat_viz.notebook.serve import studio
from nextlat_viz.plotting import changes
from tests.notebook.conftest import touch


def picture(x: list[float], color: str = "red", **meta: str) -> go.Figure:
    scatter = go.Scatter(x=np.array(x), y=np.array(x), marker={"color": color}, meta=meta or None)
    return go.Figure(scatter).update_layout(dragmode="select")


@pytest.fixture
def plot() -> Iterator[Plot]:
    result = Plot(picture([0, 1]))
    yield result
    result.close()


@pytest.fixture
def sent(plot: Plot, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Record every message sent to a page."""
    messages: list[dict[str, Any]] = []
    page_sends(plot, "start", number=0)
    monkeypatch.setattr(plot, "send", lambda content, buffers=None: messages.append({**content, "buffers": buffers}))
    return messages


def page_sends(plot: Plot, kind: str, **message: Any) -> None:
    plot._handle_custom_msg({"kind": kind, **message}, [])


def test_only_the_differences_are_sent_in_one_message(plot: Plot, sent: list[Any]) -> None:
    plot.become(picture([0, 1]))
    assert sent == []
    plot.become(picture([0, 1], "blue").update_layout(title="Two"))
    (message,) = sent
    assert (message["kind"], message["number"], message["buffers"]) == ("edits", 1, [])
    assert message["edits"] == [[0, ["marker", "color"], "blue"], [None, ["title", "text"], "Two"]]
    assert (plot.data[0].marker.color, plot.layout.title.text) == ("blue", "Two")


def test_the_page_reports_the_size_of_the_figure(plot: Plot) -> None:
    page_sends(plot, "size", width=400, height=300)
    assert plot.shown == (400, 300)


def test_the_camera_names_the_file_after_the_figure(plot: Plot) -> None:
    plot.layout.title = "<b>Loss</b>"
    assert plot._state()["config"]["toImageButtonOptions"] == {"format": "svg", "filename": "Loss"}


def test_an_array_that_changed_travels_as_bytes(plot: Plot, sent: list[Any]) -> None:
    plot.become(picture([0, 5]))
    (message,) = sent
    edits = {(trace, *path): value for trace, path, value in message["edits"]}
    packed = edits[0, "y"]
    assert (packed["dtype"], packed["shape"]) == ("int32", [2])
    assert np.frombuffer(message["buffers"][packed["buffer"]], np.int32).tolist() == [0, 5]
    assert edits[None, "xaxis", "range"] is None


def test_a_property_set_by_hand_is_sent_too(plot: Plot, sent: list[Any]) -> None:
    plot.data[0].marker.size = 9
    plot.layout.annotations = [{"text": "here", "x": 0, "y": 0}]
    plot.layout.annotations[0].text = "there"
    plot.data[0].marker.size = None
    assert [message["edits"] for message in sent] == [
        [[0, ["marker", "size"], 9]],
        [[None, ["annotations"], [{"text": "here", "x": 0, "y": 0}]]],
        [[None, ["annotations", 0, "text"], "there"]],
        [[0, ["marker", "size"], None]],
    ]
    assert [message["number"] for message in sent] == [1, 2, 3, 4]


def test_nan_and_infinity_are_sent_as_none(plot: Plot, sent: list[Any]) -> None:
    plot.data[0].meta = [1.0, float("nan")]
    plot.data[0].customdata = np.array([["a", 1], ["b", 2]], dtype=object)
    plot.data[0].x = np.array([2**40, 1])
    assert sent[0]["edits"][0][2] == [1.0, None]
    assert sent[1]["edits"][0][2] == [["a", 1], ["b", 2]]
    assert sent[2]["edits"][0][2]["dtype"] == "float64"
    json.dumps([message["edits"] for message in sent], allow_nan=False)


def test_a_page_that_missed_an_update_gets_the_figure(plot: Plot, sent: list[Any]) -> None:
    plot.layout.title = "Two"
    page_sends(plot, "start", number=1)
    assert len(sent) == 1
    page_sends(plot, "start", number=0)
    message = sent[-1]
    assert (message["kind"], message["number"], message["layout"]["title"]["text"]) == ("figure", 1, "Two")
    assert len(message["buffers"]) == 2


def test_before_a_page_listens_changes_are_sent_as_state(plot: Plot, monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[Any] = []
    monkeypatch.setattr(plot, "send_state", keys.append)
    plot.layout.title = "Two"
    assert keys == ["_figure"]


def zoom(plot: Plot, low: float, high: float) -> None:
    page_sends(plot, "layout", edits={"xaxis.range": [low, high], "xaxis.autorange": False}, view="one")


def test_zoom_and_tool_stay_until_the_points_move(plot: Plot, sent: list[Any]) -> None:
    zoom(plot, 0, 0.1)
    page_sends(plot, "layout", edits={"dragmode": "lasso"}, view="one")
    plot.become(picture([0, 1], "blue"))
    assert (plot.layout.xaxis.range, plot.layout.dragmode) == ((0, 0.1), "lasso")
    plot.become(picture([0, 5], "blue"))
    assert (plot.layout.xaxis.autorange, plot.layout.dragmode) == (True, "lasso")
    zoom(plot, 0, 0.2)
    plot.become(picture([0, 6], "blue"))
    assert [None, ["xaxis", "autorange"], True] in sent[-1]["edits"]


def test_a_zoom_is_sent_to_the_other_pages(plot: Plot, sent: list[Any]) -> None:
    zoom(plot, 0, 0.1)
    assert [(message["view"], message["edits"][0]) for message in sent] == [
        ("one", [None, ["xaxis", "range"], [0, 0.1]])
    ]


def test_a_trace_switched_off_in_the_legend_stays_off(plot: Plot) -> None:
    page_sends(plot, "traces", edits={"visible": ["legendonly"]}, traces=[0], view="one")
    plot.become(picture([0, 1], "blue"))
    assert plot.data[0].visible == "legendonly"


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


def test_other_kinds_of_traces_replace_the_figure(plot: Plot) -> None:
    plot.become(go.Figure([go.Bar(x=["a"], y=[1]), go.Scatter(x=[1], y=[2])]))
    assert [trace.type for trace in plot.data] == ["bar", "scatter"]
    assert plot.data[0].x == ("a",)


def test_the_meta_of_a_trace_can_change() -> None:
    plot = Plot(picture([0, 1], column="Place"))
    plot.become(picture([0, 1], column="Place: R² 0.9"))
    assert plot.data[0].meta == {"column": "Place: R² 0.9"}
    plot.close()


def test_changes_compare_arrays_and_notice_removals() -> None:
    nan = np.array([1.0, np.nan])
    assert list(changes({"x": nan}, {"x": nan.copy()}, skip=set())) == []
    assert list(changes({"x": [1, 2], "y": 1}, {"x": (1, 2)}, skip=set())) == [("y", None)]
    assert list(changes({"a": {"b": 1}}, {"a": {"b": 2}}, skip=set(), whole={"a"})) == [("a", {"b": 2})]
    assert list(changes({"a": 1}, {"a": 2}, skip={"a"})) == []


def test_a_new_figure_is_sent_complete_and_small(monkeypatch: pytest.MonkeyPatch) -> None:
    announced: list[dict[str, Any]] = []
    widget_open = Widget.open
    monkeypatch.setattr(Widget, "open", lambda self: (announced.append(self.get_state()), widget_open(self)))
    plot = Plot(picture([0, 1]))
    (state,) = [state for state in announced if "_figure" in state]
    assert len(state["_figure"]["data"]) == 1
    assert state["_figure"]["config"]["showSendToCloud"] is False
    assert len(state["_esm"]) < 18_000
    assert state["_library"] == PlotlyLibrary._shared.model_id
    plot.close()


def test_a_studio_sends_plotly_before_its_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Widget] = []
    widget_open = Widget.open
    monkeypatch.setattr(Widget, "open", lambda self: (opened.append(self), widget_open(self)))
    monkeypatch.setattr(PlotlyLibrary, "_shared", None)
    monkeypatch.setattr(PlotlyLibrary, "_users", 0)
    opened_studio = studio("rrxor/next_token", "rrxor/nextlat")
    sent = [widget for widget in opened if isinstance(widget, (PlotlyLibrary, Panel))]
    assert isinstance(sent[0], PlotlyLibrary)
    # The latents are drawn with WebGL after their probes are fitted: they may not hold up the others.
    assert isinstance(sent[-1], SpacePanel)
    opened_studio.close()
    assert PlotlyLibrary._shared is None


def test_plotly_is_sent_once_for_a_studio_whose_plots_are_drawn_later(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Widget] = []
    widget_open = Widget.open
    monkeypatch.setattr(Widget, "open", lambda self: (sent.append(self), widget_open(self)))
    monkeypatch.setattr(PlotlyLibrary, "_shared", None)
    monkeypatch.setattr(PlotlyLibrary, "_users", 0)

    async def run() -> None:
        opened = studio("rrxor/next_token", "rrxor/nextlat")
        assert not any(isinstance(widget, Plot) for widget in sent)
        opened.state.loop.flush()
        assert any(isinstance(widget, Plot) for widget in sent)
        opened.close()

    asyncio.run(run())
    assert len([widget for widget in sent if isinstance(widget, PlotlyLibrary)]) == 1


def test_plotly_is_sent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PlotlyLibrary, "_shared", None)
    monkeypatch.setattr(PlotlyLibrary, "_users", 0)
    first, second = Plot(picture([0])), Plot(picture([1]))
    assert first._library == second._library
    first.close()
    library = PlotlyLibrary._shared
    assert library is not None
    assert library.comm is not None
    second.close()
    second.close()
    assert PlotlyLibrary._shared is None
    assert library.comm is None


def test_a_touch_is_one_call_with_an_answer(plot: Plot, sent: list[Any]) -> None:
    heard: list[Any] = []
    plot._on_click = plot._on_select = heard.append
    touch(plot, "select", {0: [0, 1]})
    touch(plot, "click", {0: [1]})
    touch(plot, "select")
    assert heard == [{0: [0, 1]}, {0: [1]}, None]
    assert [message["kind"] for message in sent] == ["answered", "answered"]


def test_an_impossible_umap_is_not_offered(state: ViewState, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise LatentsError("2 different rows")

    monkeypatch.setattr("nextlat_viz.analysis.project_in_process", refuse, raising=False)
    explorer = LatentExplorer(state=state)
    assert sum("2 different rows" in note.text for note in explorer.plot.layout.annotations) == 2
    assert explorer.status.children == ()
    explorer.close()


def test_a_view_is_drawn_again_only_for_what_it_shows(rrxor: list[AnnData], monkeypatch: pytest.MonkeyPatch) -> None:
    explorer = LatentExplorer(*rrxor)
    drawn: list[int] = []
    draw = explorer._figure
    monkeypatch.setattr(explorer, "_figure", lambda: (drawn.append(1), draw())[1])
    explorer.state.target = "state"
    assert drawn == []
    explorer.state.color = "token"
    assert drawn == [1]
    explorer.close()


def test_a_widget_may_be_opened_before_its_constructor_is_done() -> None:
    """marimo opens every widget as soon as it is made."""
    sent: list[dict[str, Any]] = []

    class Comm:
        comm_id = "given"

        def send(self, data: dict[str, Any], **_: Any) -> None:
            sent.append(data)

        def close(self, **_: Any) -> None:
            pass

        def on_msg(self, receive: Any) -> None:
            pass

    def connect(widget: Widget) -> None:
        widget._model_id = "given"
        widget.get_state()  # what marimo announces
        widget.comm = Comm()  # type: ignore[assignment]

    Widget.on_widget_constructed(connect)
    try:
        plot = Plot(go.Figure(go.Scatter(y=[1.0, 2.0])))
    finally:
        Widget.on_widget_constructed(None)
    announced = [message["state"] for message in sent if message.get("method") == "update"]
    assert any(state.get("_own_id") == "given" for state in announced)
    assert [len(state["_figure"]["data"]) for state in announced if state.get("_figure")][-1] == 1
    plot.close()
