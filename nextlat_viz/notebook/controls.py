"""Controls that set the state and follow it, the cursor with its tokens, and the status line of a job queue."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
from traitlets import Bool, Int, List, Unicode

from nextlat_viz.display import escape, shorten, words
from nextlat_viz.notebook import colors
from nextlat_viz.notebook.box import LABEL, ROOM, Box, styled
from nextlat_viz.notebook.jobs import Jobs
from nextlat_viz.notebook.live import LiveWidget, javascript
from nextlat_viz.notebook.panel import Panel
from nextlat_viz.notebook.state import ViewState

# Stands for None: ipywidgets takes the value None for "nothing chosen", so it cannot be one of the choices.
_NONE = "none"
_LONGEST_NOTE, _LONGEST_OPTION = 200, 60
# A position past every token.
_ALL = 2**31 - 1
# Milliseconds for each training step while steps are played; more if a step takes longer to compute and draw.
_BEAT = 900
_HERE = Path(__file__).parent


def bound(
    view: Box,
    trait: str,
    description: str,
    options: Callable[[], Sequence[Any]],
    tooltip: str,
    hide_single: bool = False,
    choose: Callable[[Any], None] | None = None,
    kind: type[ipywidgets.Widget] = ipywidgets.Dropdown,
    **more: Any,
) -> Any:
    """Make a selection control for one trait of a view's state: it sets the trait and follows its changes.

    `options` returns the options in the present world: values, or (label, value). `hide_single` hides the control
    if there are fewer than two options. `choose` is called with the chosen value instead of assigning the trait.
    """

    def offers() -> list[tuple[str, Any]]:
        pairs = [option if isinstance(option, tuple) else (str(option), option) for option in options()]
        return [(shorten(label, _LONGEST_OPTION), _NONE if value is None else value) for label, value in pairs]

    def current() -> Any:
        value = getattr(view.state, trait)
        return _NONE if value is None else value

    offered, following = offers(), False
    control = kind(
        options=offered,
        value=current(),
        description=description,
        tooltip=tooltip,
        style=LABEL,
        layout=ROOM,
        **more,
    )

    def follow(change: Any) -> None:
        nonlocal offered, following
        now, following = offers(), True
        try:
            if now != offered:
                control.options = offered = now
            control.value = current()
        finally:
            following = False
        control.layout.display = "none" if hide_single and len(now) < 2 else None

    def lead(change: Any) -> None:
        # Setting new options selects the first one for a moment; that is not the user's choice.
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
    """Make a control to choose the world; the job queue loads it first if necessary."""
    return bound(
        view, "world", "World", lambda: view.state.worlds, "The world the models were trained on", True,
        lambda name: view.state.request(name, None, view._complain),
    )  # fmt: skip


def color(view: Box) -> Any:
    def options() -> list[tuple[str, str]]:
        return list(colors.options(view.state.scene).items())

    return bound(view, "color", "Colour by", options, "What colours the points")


def layer(view: Box) -> Any:
    return bound(view, "site", "Layer", lambda: view.state.scene.sites, "Which layer the latents are taken from")


def target(view: Box, description: str = "Probe target", tooltip: str = "What the linear probes predict") -> Any:
    return bound(
        view, "target", description, lambda: [(words(name), name) for name in view.state.scene.targets], tooltip
    )


def step(view: Box) -> Any:
    """Make a control to choose the training step; the job queue loads it first if necessary."""
    slider = bound(
        view, "step", "Training step", lambda: view.state.step_choices, "Show the models earlier in training", True,
        lambda number: view.state.request(view.state.world, number, view._complain),
        ipywidgets.SelectionSlider, continuous_update=False,
    )  # fmt: skip
    # A slider has no natural width, unlike a dropdown: without this its track has length zero.
    slider.layout.width = "300px"
    return slider


class StepPlay:
    """Plays through the training steps: shows the next one at each beat of the page's clock.

    Beats are skipped while a step is being loaded, or panels are being computed or drawn. So every step is shown, and
    steps do not pile up.
    """

    def __init__(self, view: Box) -> None:
        self._view = view
        # The last step requested; None is the end of training, False is none yet.
        self._requested: int | bool | None = False
        self.play = ipywidgets.Play(
            interval=_BEAT,
            min=0,
            max=2**30,
            show_repeat=False,
            tooltip="Step through training",
            layout={"margin": "2px"},
        )
        view._link(self.play, self._beat)
        view._link(self.play, self._begin, "playing")
        view._link(view.state, self._offer, "world")
        self._offer(None)

    def _steps(self) -> list[int | None]:
        return [step for _, step in self._view.state.step_choices]

    def _offer(self, change: Any) -> None:
        """Stop, because the world has changed; hide the button if only the end of training is saved."""
        self.play.playing = False
        self.play.layout.display = None if self._view.state.steps else "none"

    def _begin(self, change: Any) -> None:
        """Start again from the first step if the end of training is shown."""
        self._requested = False
        if change["new"] and self._view.state.step is None:
            self._go(self._steps()[0])

    def _beat(self, change: Any) -> None:
        state, steps = self._view.state, self._steps()
        if change["new"] == self.play.min:
            # The stop button.
            self._go(steps[0])
        elif self.play.playing and not state.busy:
            if self._requested is not False and state.step != self._requested:
                # The step was cancelled or failed, or the user has gone elsewhere.
                self.play.playing = False
            else:
                self._go(steps[min(steps.index(state.step) + 1, len(steps) - 1)])

    def _go(self, step: int | None) -> None:
        self._requested = step
        self._view.state.request(self._view.state.world, step, self._view._complain)
        if step is None:
            self.play.playing = False


def play_steps(view: Box) -> Any:
    """Make a button that plays through the training steps."""
    return StepPlay(view).play


def theme(view: Box) -> Any:
    options = [("like the page", None), ("light", False), ("dark", True)]
    return bound(view, "dark", "Theme", lambda: options, "Colours of the figures")


def own(panel: Panel, *more: Any) -> list[Any]:
    """Make controls of world, layer, step, `more` and theme; `more` alone for a panel that shares its state."""
    return list(more) if panel._shares else [
        world(panel), layer(panel), play_steps(panel), step(panel), *more, theme(panel),
    ]  # fmt: skip


def row(*controls: Any, style: str = "") -> Any:
    """Put controls in a row that wraps on a narrow page; `style` are CSS classes."""
    return styled(ipywidgets.HBox, style, *controls, flex_flow="row wrap", align_items="center", width="100%")


class PositionControls:
    """A play button and a slider of the position: how many tokens of an episode have been read."""

    def __init__(self) -> None:
        self.play = ipywidgets.Play(interval=800, min=1, show_repeat=False, tooltip="Step through the episode")
        self.position = ipywidgets.IntSlider(
            description="Position", tooltip="How many tokens have been read; arrow keys step", min=1,
            continuous_update=False, style=LABEL, layout={"width": "340px"},
        )  # fmt: skip
        # Link them on the page, so that playing does not wait for the kernel.
        self._jslink = ipywidgets.jslink((self.play, "value"), (self.position, "value"))

    def show(self, position: int, first: int, last: int) -> None:
        """Show a position, in the range from the first to the last."""
        for control in (self.position, self.play):
            # In one message: a slider whose value exceeds its new end would change it, and report the change.
            with control.hold_sync(), control.hold_trait_notifications():
                # Set the larger bound first: ipywidgets rejects a range that is empty for a moment.
                control.max = max(last, control.max)
                control.min, control.max = first, last
                control.value = position

    def close(self) -> None:
        """Undo the link in the page; the box that shows the controls closes them."""
        self._jslink.unlink()


class EpisodeControls(PositionControls):
    """Episode, next held-out episode, play and position, in a `row`; they set the state of a box and follow it."""

    def __init__(self, box: Box) -> None:
        super().__init__()
        self._box = box
        self.episode = ipywidgets.BoundedIntText(
            description="Episode", tooltip="The episode shown", style=LABEL,
            layout={"width": "130px", "margin": "2px 6px 2px 0"},
        )  # fmt: skip
        about = "Go to the next episode that is not used to train the probes"
        self.next = box._button("Next held-out", about, self._go_on)
        self.side = ipywidgets.HTML(_dom_classes=["nlv-side"])
        self.row = [self.episode, self.next, self.side, self.play, self.position]
        self.follow()
        box._link(self.episode, self._set_episode)
        box._link(self.position, lambda change: setattr(box.state, "position", change["new"]))
        for name in ("world", "step", "episode", "position"):
            box._link(box.state, self.follow, name)

    def follow(self, change: Any = None) -> None:
        state, scene = self._box.state, self._box.state.scene
        places = scene.positions(state.episode)
        self.episode.description, self.position.description = (
            ("Puzzle", "Recursion step") if scene.recursive else ("Episode", "Position")
        )
        with self.episode.hold_trait_notifications():
            self.episode.min, self.episode.max = int(scene.episodes[0]), int(scene.episodes[-1])
            self.episode.value = state.episode
        self.show(state.position, places[0], places[-1])
        held_out = state.episode in scene.held_out_episodes
        text = "held out from the probes" if held_out else "training episode of the probes"
        self.side.value = f'<span style="margin:0 14px">{text}</span>'

    def _set_episode(self, change: Any) -> None:
        try:
            self._box.state.episode = self.episode.value
        finally:
            # Show the state again, which may have refused the number.
            self.follow()

    def _go_on(self) -> None:
        held_out = self._box.state.scene.held_out_episodes
        later = held_out[held_out > self._box.state.episode]
        self._box.state.episode = int(later[0] if later.size else held_out[0])


class TokenStrip(LiveWidget):
    """Tokens in a row: read, current and later ones. A click on a token moves the cursor there.

    `notes` are the tooltips of the tokens, `places` their positions, ascending. Texts are not read as HTML. Tokens
    past the position `last` are struck through. With `leads` False, a click does not move the cursor, but calls
    `on_click` with the position of the token.
    """

    _esm = javascript(_HERE / "tokens.js")
    _css = (_HERE / "studio.css").read_text(encoding="utf-8")
    tokens = List(Unicode()).tag(sync=True)
    notes = List(Unicode()).tag(sync=True)
    places = List(Int()).tag(sync=True)
    position = Int(1).tag(sync=True)
    selected = List(Int()).tag(sync=True)
    last = Int(_ALL).tag(sync=True)
    leads = Bool(True).tag(sync=True)
    on_click: Callable[[int], None] | None = None

    def _hear(self, widget: Any, message: Mapping[str, Any], buffers: Any) -> None:
        super()._hear(widget, message, buffers)
        if message.get("kind") == "click" and self.on_click is not None and message.get("place") in self.places:
            self.on_click(message["place"])


class Table(LiveWidget):
    """A table to choose a row of, by click or key; `chosen` is its number, or -1. Texts are not read as HTML.

    `histories` are the heads of columns that are cut at their start: the newest tokens, at the end, stay in sight.
    """

    _esm = javascript(_HERE / "table.js")
    heads = List(Unicode()).tag(sync=True)
    histories = List(Unicode()).tag(sync=True)
    rows = List(List(Unicode())).tag(sync=True)
    chosen = Int(-1).tag(sync=True)


class Cursor(Box):
    """The tokens of the episode, each with the truth after it as a tooltip; `controls` choose episode and position.

    Its JavaScript makes the studio around it as high as the visible part of the page.
    """

    def __init__(self, state: ViewState) -> None:
        super().__init__(state)
        self.controls = EpisodeControls(self)
        self.strip = TokenStrip()
        self._shown: Any = None
        self._follow(None)
        self.children = [self._alert, self.strip]
        self._link(self.strip, lambda change: setattr(state, "position", change["new"]), "position")
        for name in ("world", "step", "episode", "position", "selection"):
            self._link(state, self._follow, name)

    def _follow(self, change: Any) -> None:
        state, scene = self.state, self.state.scene
        places = scene.positions(state.episode)
        if self._shown != (id(scene), state.episode):
            self._shown = (id(scene), state.episode)
            self._write(places)
        own = scene.rows([(state.episode, place) for place in places])
        selected = np.isin(own, state.rows)
        self.strip.selected = [place for place, inside in zip(places, selected, strict=True) if inside]
        self.strip.position = state.position

    def _write(self, places: list[int]) -> None:
        state, scene = self.state, self.state.scene
        rows = scene.latents[0].obs.iloc[scene.rows([(state.episode, place) for place in places])]
        if scene.recursive:
            names = rows["token"].tolist()
        else:
            line = scene.tokens[int(scene.episodes.searchsorted(state.episode))]
            read = [line[place - 1] if place else len(scene.vocabulary) for place in places]
            # The start token has the id after all others; -1 is a token missing in the table.
            named = [*scene.vocabulary, "start", "?"]
            names = [named[token] for token in read]
        columns = [name for name in map(str, rows) if name not in ("episode", "position", "token", "token_id")]
        with self.strip.hold_trait_notifications():
            self.strip.tokens = [shorten(name) for name in names]
            notes = []
            for name, (_, row) in zip(names, rows[columns].iterrows(), strict=True):
                known = [f"{words(column)} {value}" for column, value in row.dropna().items()]
                first = name if scene.recursive else f"token {name}"
                notes.append(shorten(", ".join([first, *known]), _LONGEST_NOTE))
            self.strip.notes = notes
            self.strip.places = places

    def close(self) -> None:
        if not self._closed:
            self.controls.close()
        super().close()


class StatusLine(Box):
    """The running job of a queue and its progress, with a button that cancels it.

    While the queue is empty the line has no width; it keeps its height, so that nothing below it moves. `then` is a
    listener of the queue: if a job that it asked for was cancelled or failed, a button tries it again. The widgets of
    the line are made when it is first shown.
    """

    def __init__(self, jobs: Jobs, then: Callable[[], None] | None = None) -> None:
        super().__init__(None, "nlv-status", width="0", min_height="36px")
        self._jobs, self._then = jobs, then
        jobs.watch(self.follow)
        self.follow()

    def _build(self) -> None:
        self.text = ipywidgets.HTML(layout={"max_width": "75%"})
        self.bar = ipywidgets.FloatProgress(min=0, max=1, layout={"width": "160px", "margin": "0 10px"})
        self.cancel = self._button("Cancel", "Cancel this and the computations that wait", self._jobs.cancel)
        self.again = self._button("Compute again", "Compute what was cancelled or failed", self._jobs.again)
        line = ipywidgets.HBox(
            [self.text, self.bar, self.cancel, self.again], layout={"min_height": "36px", "align_items": "center"}
        )
        self.children = [line, self._alert]

    def follow(self) -> None:
        """Show the present state of the queue."""
        if self._closed:
            return
        job = self._jobs.running
        share: float | None = None
        if job is None:
            text = self._jobs.note
        elif job.stopping:
            text = f"Cancelled. Stopping after this step: {job.text or job.title}"
        else:
            number, total = self._jobs.place
            count = f" {number} of {total}" if total > 1 else ""
            text = job.text or f"{job.title} is being computed …{count}"
            share = (number - 1) / total if job.share is None and total > 1 else job.share
        retry = job is None and self._then is not None and self._jobs.can_retry(self._then)
        if not self.children:
            if not text and not retry:
                return
            self._build()
        self.text.value = f'<span role="status" aria-live="polite">{escape(text)}</span>'
        self.bar.value = share or 0.0
        self.bar.layout.visibility = "hidden" if share is None else None
        self.cancel.layout.visibility = "hidden" if job is None or job.stopping else None
        self.again.layout.display = None if retry else "none"
        shown = bool(text or retry or self._alert.value)
        self.layout.width, self.layout.visibility = ("auto", None) if shown else ("0", "hidden")

    def close(self) -> None:
        """Take the line off the page and out of memory; the queue continues."""
        self._jobs.unwatch(self.follow)
        super().close()
