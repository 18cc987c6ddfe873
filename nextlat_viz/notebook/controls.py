"""Controls that set one part of the state and show it when it is set elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets

from nextlat_viz.figures.rows import color_options
from nextlat_viz.notebook.base import Linked

# ipywidgets takes the value None for "nothing chosen", so it cannot be one of the choices.
_NONE = "none"


def bound(
    kind: type[ipywidgets.Widget],
    view: Linked,
    trait: str,
    description: str,
    options: Callable[[], Sequence[Any]],
    tooltip: str,
    hide_single: bool = False,
    choose: Callable[[Any], None] | None = None,
    **more: Any,
) -> Any:
    """Make a selection control that follows and leads one trait of a view's state.

    Parameters
    ----------
    kind : ipywidgets.Dropdown, ipywidgets.SelectionSlider, ...
    view : Linked
        Whose state it sets, and where errors are shown.
    trait : str
        Which part of the state.
    description, tooltip : str
    options : callable
        Returns what there is to choose from in the present world: values, or (label, value).
    hide_single : bool
        Do not show the control while there is nothing to choose.
    choose : callable, optional
        Called with what the reader chooses, in place of setting the state; the control follows the state all the same.
    **more
        Handed to the control.
    """

    def offers() -> list[tuple[str, Any]]:
        pairs = [one if isinstance(one, tuple) else (str(one), one) for one in options()]
        return [(label, _NONE if value is None else value) for label, value in pairs]

    def wanted() -> Any:
        value = getattr(view.state, trait)
        return _NONE if value is None else value

    offered, following = offers(), False
    control = kind(
        options=offered,
        value=wanted(),
        description=description,
        tooltip=tooltip,
        style={"description_width": "auto"},
        layout={"width": "auto", "max_width": "300px", "margin": "2px 12px 2px 0"},
        **more,
    )

    def follow(change: Any) -> None:
        nonlocal offered, following
        now, following = offers(), True
        try:
            if now != offered:
                control.options = offered = now
            control.value = wanted()
        finally:
            following = False
        control.layout.display = "none" if hide_single and len(now) < 2 else None

    def lead(change: Any) -> None:
        # New options put the first of them on show for a moment, which nobody chose.
        if following:
            return
        value = None if change["new"] == _NONE else change["new"]
        try:
            if choose is None:
                setattr(view.state, trait, value)
            else:
                choose(value)
        finally:
            # What the state refused must not stay on show.
            follow(None)

    follow(None)
    view._link(control, lead)
    for name in dict.fromkeys(("world", trait)):
        view._link(view.state, follow, name)
    return control


def world(view: Linked, choose: Callable[[Any], None] | None = None) -> Any:
    """Which world's models are shown; `choose` as in `bound`."""
    return bound(
        ipywidgets.Dropdown,
        view,
        "world",
        "World",
        lambda: view.state.worlds,
        "The world the models were trained on",
        True,
        choose,
    )


def color(view: Linked) -> Any:
    """What the points are coloured by."""

    def options() -> list[tuple[str, str]]:
        return list(color_options(view.state.latents[0]).items())

    return bound(ipywidgets.Dropdown, view, "color", "Colour by", options, "What colours the points")


def site(view: Linked) -> Any:
    """Which layer is looked at."""
    return bound(
        ipywidgets.Dropdown,
        view,
        "site",
        "Layer",
        lambda: view.state.scene.sites,
        "Which layer the latents are taken from",
    )


def target(view: Linked) -> Any:
    """What a probe reads."""
    return bound(
        ipywidgets.Dropdown,
        view,
        "target",
        "Probe reads",
        lambda: view.state.scene.targets,
        "What the linear probe is asked for",
    )


def step(view: Linked, choose: Callable[[Any], None] | None = None) -> Any:
    """Which training step is looked at; `choose` as in `bound`."""

    def options() -> list[tuple[str, int | None]]:
        steps = view.state.steps
        earlier: list[tuple[str, int | None]] = [(f"{one:,}", one) for one in steps[:-1]]
        return [*earlier, (f"{steps[-1]:,}" if steps else "last", None)]

    kind = ipywidgets.SelectionSlider
    slider = bound(
        kind, view, "step", "Training step", options, "See the models earlier", True, choose, continuous_update=False
    )
    # Unlike a dropdown it has no width of its own: the track would be a point.
    slider.layout.width = "300px"
    return slider


def theme(view: Linked) -> Any:
    """Whether figures are painted light or dark."""
    options = [("as the page", None), ("light", False), ("dark", True)]
    return bound(ipywidgets.Dropdown, view, "dark", "Theme", lambda: options, "Colours of the figures")


def row(*controls: Any) -> ipywidgets.HBox:
    """Controls beside each other, wrapped where the page is narrow."""
    return ipywidgets.HBox(list(controls), layout={"flex_flow": "row wrap", "align_items": "center", "width": "100%"})
