"""The cursor: controls of episode and position, and the tokens of the episode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
from traitlets import Bool, Int, List, Unicode

from nextlat_viz.display import shorten, words
from nextlat_viz.notebook.box import LABEL, Box
from nextlat_viz.notebook.live import LiveWidget, javascript
from nextlat_viz.notebook.state import ViewState

_LONGEST_NOTE = 200
# A position past every token.
_ALL = 2**31 - 1
_HERE = Path(__file__).parent


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
