"""Opening a studio: the world is drawn first, and what is not needed for it is made later."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest
from anndata import AnnData
from ipywidgets import Widget

from nextlat_viz.notebook.serve import studio
from nextlat_viz.notebook.state import ViewState
from nextlat_viz.notebook.studio import Studio
from tests.notebook.conftest import living_plots, until


def layout(made: Studio) -> Any:
    """Return which panels are where, in sight and drawn, and the tabs."""
    columns = [[getattr(part, "name", "tabs") for part in column.children] for column in made._columns]
    about = {
        name: (panel.shown, panel._drawn is not None, panel._dom_classes) for name, panel in made.panels.made.items()
    }
    return columns, about, made._tabs.options, made._tabs.value, made.panels["space"].view.value


def in_loop(state: ViewState, act: Callable[[Studio], Any]) -> Any:
    """Open a studio in an event loop, act before the loop has run, and return the layout in the end."""

    async def whole() -> Any:
        widget = Studio(state=state)
        act(widget)
        await until(lambda: not state.busy)
        shown = layout(widget)
        assert not any(panel._alert.value for panel in widget.panels.made.values())
        widget.close()
        return shown

    return asyncio.run(whole())


def test_the_world_is_drawn_before_the_other_panels_are_made(state: ViewState, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[Any] = []
    add = Studio._add

    def added(self: Studio, kind: Any) -> Any:
        world = self.panels.made.get("world")
        order.append((kind.name, world is not None and world._plot is not None))
        return add(self, kind)

    monkeypatch.setattr(Studio, "_add", added)
    shown = in_loop(state, lambda widget: order.append(widget.state.busy))
    assert order == [("world", False), True, ("next", True), ("knows", True), ("space", True)]
    whole = Studio(state=state)
    assert shown == layout(whole)
    whole.close()


@pytest.mark.parametrize(
    ("act", "made"),
    [
        (lambda widget: widget.panels["space"].plot, {"world", "space"}),
        (lambda widget: widget.state.arrange(detail="pairs"), {"world", "space", "next", "pairs"}),
        (lambda widget: widget.figure("knows"), {"world", "space", "next", "knows"}),
    ],
)
def test_a_panel_is_made_at_once_when_it_is_asked_for(
    rrxor: list[AnnData], act: Callable[[Studio], Any], made: set[str]
) -> None:
    def first(widget: Studio) -> None:
        assert set(widget.panels.made) == {"world"}
        act(widget)
        assert set(widget.panels.made) == made

    state = ViewState(*rrxor)
    shown = in_loop(state, first)
    whole = Studio(state=state)
    assert shown[0][0] == layout(whole)[0][0] == ["world", "next"]
    assert shown[2:] == layout(whole)[2:]
    whole.close()


def test_an_arrangement_is_kept_while_a_studio_opens(state: ViewState) -> None:
    for choices in ({"folded": ("world", "next")}, {"large": "pairs", "folded": ()}):
        state.arrange(**choices)
        shown = in_loop(state, lambda widget: None)
        assert state.arrangement["rrxor"].items() >= choices.items()
        whole = Studio(state=state)
        assert shown == layout(whole)
        whole.close()


def test_another_world_has_its_own_view(rrxor: list[AnnData], mess3: list[AnnData]) -> None:
    models = {"mess3": mess3, "rrxor": [table.copy() for table in rrxor]}
    for table in models["rrxor"]:
        del table.obsm["belief"]

    async def whole() -> None:
        widget = Studio(state=ViewState(models))
        await until(lambda: not widget.state.busy)
        for world, views in (("rrxor", ("pca", "umap")), ("mess3", ("pca", "umap", "belief"))):
            widget.state.show(world)
            await until(lambda: not widget.state.busy)
            view: Any = widget.panels["space"].view
            assert (tuple(name for _, name in view.options), view.value) == (
                views,
                {"mess3": "belief"}.get(world, "pca"),
            )
            assert widget._alert.value == ""
        widget.close()

    asyncio.run(whole())


def test_a_studio_closed_before_it_is_complete_leaves_nothing(rrxor: list[AnnData]) -> None:
    before = living_plots()
    state = ViewState(*rrxor)

    async def whole() -> None:
        widget = Studio(state=state)
        widget.close()
        for _ in range(20):
            await asyncio.sleep(0)
        assert set(widget.panels.made) == {"world"}

    asyncio.run(whole())
    assert not state.busy
    assert living_plots() == before


def test_few_widgets_are_made_before_the_world_is_drawn(state: ViewState, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    send = Widget._send

    def count(self: Widget, message: Any, *more: Any, **options: Any) -> Any:
        sent.append(type(self).__name__)
        return send(self, message, *more, **options)

    opened: list[str] = []
    make = Widget.open
    monkeypatch.setattr(Widget, "open", lambda self: opened.append(type(self).__name__) or make(self))
    monkeypatch.setattr(Widget, "_send", count)

    async def whole() -> Studio:
        widget = Studio(state=state)
        while widget.panels["world"]._plot is None:
            await asyncio.sleep(0)
        print(f"{len(opened)} widgets, {len(sent)} messages before the world is drawn")
        assert len(opened) < 130
        assert len(sent) < 60
        await until(lambda: not state.busy)
        print(f"{len(opened)} widgets, {len(sent)} messages in all")
        assert len(opened) < 270
        return widget

    widget = asyncio.run(whole())
    assert not {"Rail", "Filter", "Tray"} & set(opened)
    # Each is made when it is used, in place: the panels are not drawn again.
    grid = widget.children[-1]
    state.select([3])
    assert "1 selected" in widget.filter.summary.value
    assert widget.filter.summary in widget.children[0].children
    widget._more.value = True
    assert widget._drawer.layout.display is None
    widget.rail.start("beliefs") if widget._lesson.layout.display is None else widget.rail
    assert [type(part).__name__ for part in widget._shelf.children] == ["Rail", "VBox"]
    assert widget.children[-1] is grid
    widget.close()


def test_the_garbage_collector_runs_again_when_a_studio_is_open(rrxor: list[AnnData]) -> None:
    studio(*rrxor).close()
    assert gc.isenabled()
    with pytest.raises(ValueError, match="give models or a state"):
        studio(*rrxor, state=ViewState(*rrxor))
    assert gc.isenabled()

    async def whole() -> Studio:
        widget = studio(*rrxor)
        assert not gc.isenabled()
        await until(lambda: widget.panels["world"]._plot is not None)
        await until(gc.isenabled)
        return widget

    asyncio.run(whole()).close()
