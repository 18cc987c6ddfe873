"""Controls that set one part of the state and follow it, and the status line of a job queue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets

from nextlat_viz.display import escape
from nextlat_viz.figures.rows import color_options
from nextlat_viz.notebook.jobs import Jobs
from nextlat_viz.notebook.panel import LABEL, Box

# ipywidgets takes the value None for "nothing chosen", so it cannot be one of the choices.
_NONE = "none"
_AUTO = {"width": "auto"}


def bound(
    kind: type[ipywidgets.Widget],
    view: Box,
    trait: str,
    description: str,
    options: Callable[[], Sequence[Any]],
    tooltip: str,
    hide_single: bool = False,
    choose: Callable[[Any], None] | None = None,
    **more: Any,
) -> Any:
    """Make a selection control for one trait of a view's state: it sets the trait and follows its changes.

    Parameters
    ----------
    kind : ipywidgets.Dropdown, ipywidgets.SelectionSlider, ...
    view : Box
        The view of the state; it shows errors.
    trait : str
    description, tooltip : str
    options : callable
        Returns the options in the present world: values, or (label, value).
    hide_single : bool
        Hide the control while there are fewer than two options.
    choose : callable, optional
        Called with the chosen value instead of assigning the trait.
    **more
        Passed to the control.
    """

    def offers() -> list[tuple[str, Any]]:
        pairs = [option if isinstance(option, tuple) else (str(option), option) for option in options()]
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
        style=LABEL,
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
        # New options select the first of them for a moment, which is not the reader's choice.
        if following:
            return
        value = None if change["new"] == _NONE else change["new"]
        try:
            if choose is None:
                setattr(view.state, trait, value)
            else:
                choose(value)
        finally:
            # Show the state, which may have refused the choice or still be loading it.
            follow(None)

    follow(None)
    view._link(control, lead)
    for name in dict.fromkeys(("world", trait)):
        view._link(view.state, follow, name)
    return control


def world(view: Box) -> Any:
    """Which world's models are shown; one that is not loaded is loaded by the job queue first."""
    return bound(
        ipywidgets.Dropdown,
        view,
        "world",
        "World",
        lambda: view.state.worlds,
        "The world the models were trained on",
        True,
        lambda name: view.state.request(name, None, view._complain),
    )


def color(view: Box) -> Any:
    """Which column colours the points."""

    def options() -> list[tuple[str, str]]:
        return list(color_options(view.state.latents[0]).items())

    return bound(ipywidgets.Dropdown, view, "color", "Colour by", options, "What colours the points")


def site(view: Box) -> Any:
    """Which layer is shown."""
    return bound(
        ipywidgets.Dropdown,
        view,
        "site",
        "Layer",
        lambda: view.state.scene.sites,
        "Which layer the latents are taken from",
    )


def target(view: Box) -> Any:
    """The target of the probes."""
    return bound(
        ipywidgets.Dropdown,
        view,
        "target",
        "Probe target",
        lambda: view.state.scene.targets,
        "What the linear probes predict",
    )


def step(view: Box) -> Any:
    """Which training step is shown; one that is not loaded is loaded by the job queue first."""

    def options() -> list[tuple[str, int | None]]:
        steps = view.state.steps
        earlier: list[tuple[str, int | None]] = [(f"{number:,}", number) for number in steps[:-1]]
        return [*earlier, (f"{steps[-1]:,}" if steps else "last", None)]

    slider = bound(
        ipywidgets.SelectionSlider,
        view,
        "step",
        "Training step",
        options,
        "Show the models earlier in training",
        True,
        lambda number: view.state.request(view.state.world, number, view._complain),
        continuous_update=False,
    )
    # A slider has no natural width, unlike a dropdown: without this its track has length zero.
    slider.layout.width = "300px"
    return slider


def theme(view: Box) -> Any:
    """Whether figures are light or dark."""
    options = [("like the page", None), ("light", False), ("dark", True)]
    return bound(ipywidgets.Dropdown, view, "dark", "Theme", lambda: options, "Colours of the figures")


def row(*controls: Any) -> ipywidgets.HBox:
    """Controls in a row, wrapped where the page is narrow."""
    return ipywidgets.HBox(list(controls), layout={"flex_flow": "row wrap", "align_items": "center", "width": "100%"})


class StatusLine(Box):
    """What a job queue computes, how far it is, and a button that cancels it.

    The line keeps its height while the queue is empty, so that nothing below it moves.

    Parameters
    ----------
    jobs : Jobs
    then : callable, optional
        A listener of the queue: while something it asked for was cancelled or failed, a button computes that again.
    """

    def __init__(self, jobs: Jobs, then: Callable[[], None] | None = None) -> None:
        super().__init__()
        self._jobs, self._then = jobs, then
        self.text = ipywidgets.HTML(layout={"max_width": "75%"})
        self.bar = ipywidgets.FloatProgress(min=0, max=1, layout={"width": "160px", "margin": "0 10px"})
        self.cancel = ipywidgets.Button(
            description="Cancel", tooltip="Cancel this and the computations that wait", layout=_AUTO
        )
        self.cancel.on_click(self._guarded(lambda button: jobs.cancel()))
        self.again = ipywidgets.Button(
            description="Compute again", tooltip="Compute what was cancelled or failed", layout=_AUTO
        )
        self.again.on_click(self._guarded(lambda button: jobs.again()))
        line = ipywidgets.HBox(
            [self.text, self.bar, self.cancel, self.again], layout={"min_height": "36px", "align_items": "center"}
        )
        self.children = [line, self._alert]
        # Not "nextlat-viz", which marks a widget of its own.
        self._dom_classes = ("nlv-status",)
        jobs.watch(self.follow)
        self.follow()

    def follow(self) -> None:
        """Show the queue as it is now."""
        if self._closed:
            return
        job = self._jobs.running
        share: float | None = None
        if job is None:
            text = self._jobs.note
        elif job.stopping:
            text = f"Cancelled. Stopping after this step: {job.text or job.title}"
        else:
            count = f" {job.number} of {job.total}" if job.total > 1 else ""
            text = job.text or f"{job.title} is being computed …{count}"
            share = (job.number - 1) / job.total if job.share is None and job.total > 1 else job.share
        retry = job is None and self._then is not None and self._jobs.can_retry(self._then)
        self.text.value = f'<span role="status" aria-live="polite">{escape(text)}</span>'
        self.bar.value = share or 0.0
        self.bar.layout.visibility = "hidden" if share is None else None
        self.cancel.layout.visibility = "hidden" if job is None or job.stopping else None
        self.again.layout.display = None if retry else "none"

    def close(self) -> None:
        """Take the line off the page and out of memory; the queue goes on."""
        self._jobs.unwatch(self.follow)
        super().close()
