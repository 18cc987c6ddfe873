"""Controls that set one part of the state and show it when it is set elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets

from nextlat_viz.figures.rows import color_options
from nextlat_viz.widgets.base import View

END = "end"


class Choice(ipywidgets.Dropdown):
    """A dropdown bound to one trait of the state.

    Parameters
    ----------
    view : View
        Whose state it sets, and where errors are shown.
    trait : str
        Which part of the state.
    description, tooltip : str
    options : callable
        Returns what there is to choose from now, as ipywidgets takes it.
    refresh_on : sequence of str
        Parts of the state that the options depend on.
    hide_single : bool
        Do not show the control while there is nothing to choose.
    """

    def __init__(
        self,
        view: View,
        trait: str,
        description: str,
        options: Callable[[], Sequence[Any]],
        tooltip: str = "",
        refresh_on: Sequence[str] = ("world",),
        hide_single: bool = False,
    ) -> None:
        self._offered = list(options())
        super().__init__(
            options=self._offered,
            value=getattr(view.state, trait),
            description=description,
            tooltip=tooltip or description,
            style={"description_width": "auto"},
            layout={"width": "auto", "max_width": "260px", "margin": "2px 12px 2px 0"},
        )
        self._view, self._trait, self._options, self._hide = view, trait, options, hide_single
        self._follow(None)
        view._link(self, self._lead)
        for name in dict.fromkeys((*refresh_on, trait)):
            view._link(view.state, self._follow, name)

    def _lead(self, change: Any) -> None:
        try:
            setattr(self._view.state, self._trait, self.value)
        finally:
            # What the state refused must not stay on show.
            self._follow(None)

    def _follow(self, change: Any) -> None:
        options, value = list(self._options()), getattr(self._view.state, self._trait)
        with self.hold_trait_notifications():
            if options != self._offered:
                self.options = self._offered = options
            self.value = value
        self.layout.display = "none" if self._hide and len(options) < 2 else None


def world(view: View) -> Choice:
    """Which world's models are shown."""
    return Choice(view, "world", "World", lambda: view.state.worlds, "The world the models were trained on", (), True)


def color(view: View) -> Choice:
    """What the points are coloured by."""
    return Choice(
        view,
        "color",
        "Colour by",
        lambda: list(color_options(view.state.latents[0]).items()),
        "What colours the points",
    )


def site(view: View) -> Choice:
    """Which layer is looked at."""
    return Choice(view, "site", "Layer", lambda: view.state.scene.sites, "Which layer the latents are taken from")


def target(view: View) -> Choice:
    """What a probe reads."""
    return Choice(view, "target", "Probe reads", lambda: view.state.scene.targets, "What the linear probe is asked for")


def step(view: View) -> Choice:
    """Which training step is looked at."""

    def options() -> list[tuple[str, int | None]]:
        steps = view.state.steps
        named: list[tuple[str, int | None]] = [(f"{one:,}" if one else "0 (untrained)", one) for one in steps[:-1]]
        return [*named, (f"{steps[-1]:,} ({END})" if steps else END, None)]

    return Choice(view, "step", "Training step", options, "See the models at an earlier step", ("world",), True)


def theme(view: View) -> Choice:
    """Whether figures are painted light or dark."""
    options = [("as the page", None), ("light", False), ("dark", True)]
    return Choice(view, "dark", "Theme", lambda: options, "Colours of the figures", ())


def row(*controls: Any) -> ipywidgets.HBox:
    """Controls beside each other, wrapped where the page is narrow."""
    return ipywidgets.HBox(list(controls), layout={"flex_flow": "row wrap", "align_items": "center", "width": "100%"})
