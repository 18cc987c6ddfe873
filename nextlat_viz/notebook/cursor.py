"""The cursor: which episode is shown and after how many tokens, set by controls, by keys, or by playing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
from traitlets import Int, List, Unicode

from nextlat_viz.display import shorten
from nextlat_viz.notebook import controls
from nextlat_viz.notebook.live import LiveWidget, javascript
from nextlat_viz.notebook.panel import LABEL, Box
from nextlat_viz.notebook.state import ViewState

_LONGEST_NOTE = 200
_HERE = Path(__file__).parent


class EpisodeControls:
    """Episode, next held-out episode, play and position; they set the state of a box and follow it.

    Attributes
    ----------
    row : list of widgets
        The controls, in the order in which they are shown.
    """

    def __init__(self, box: Box) -> None:
        self._box = box
        self.episode = ipywidgets.BoundedIntText(
            description="Episode", tooltip="The episode shown", style=LABEL,
            layout={"width": "130px", "margin": "2px 6px 2px 0"},
        )  # fmt: skip
        self.next = ipywidgets.Button(
            description="Next held-out", tooltip="Go to the next episode that is not used to train the probes",
            layout={"width": "auto"},
        )  # fmt: skip
        self.next.on_click(box._guarded(self._go_on))
        self.side = ipywidgets.HTML()
        self.play = ipywidgets.Play(interval=800, min=1, tooltip="Step through the episode")
        self.position = ipywidgets.IntSlider(
            description="Position", tooltip="How many tokens have been read; arrow keys step", min=1,
            continuous_update=False, style=LABEL, layout={"width": "340px"},
        )  # fmt: skip
        self.row = [self.episode, self.next, self.side, self.play, self.position]
        self.follow()
        # Linked in the page, so that playing does not wait for the kernel.
        self._jslink = ipywidgets.jslink((self.play, "value"), (self.position, "value"))
        box._link(self.episode, self._set_episode)
        box._link(self.position, self._set_position)
        for name in ("world", "step", "episode", "position"):
            box._link(box.state, self.follow, name)

    def follow(self, change: Any = None) -> None:
        """Show the episode and position of the state."""
        state, scene = self._box.state, self._box.state.scene
        places = scene.positions(state.episode)
        with self.episode.hold_trait_notifications():
            self.episode.min, self.episode.max = int(scene.episodes[0]), int(scene.episodes[-1])
            self.episode.value = state.episode
        for control in (self.position, self.play):
            with control.hold_trait_notifications():
                # The larger bound first: ipywidgets refuses a range that is empty for a moment.
                control.max = max(places[-1], control.max)
                control.min, control.max = places[0], places[-1]
                control.value = state.position
        held_out = state.episode in scene.held_out_episodes
        text = "held out from the probes" if held_out else "training episode of the probes"
        self.side.value = f'<span style="margin:0 14px">{text}</span>'

    def close(self) -> None:
        """Undo the link in the page; the box closes the controls."""
        self._jslink.unlink()

    def _set_episode(self, change: Any) -> None:
        try:
            self._box.state.episode = self.episode.value
        finally:
            # The control shows the state, also where the state refused the number.
            self.follow()

    def _set_position(self, change: Any) -> None:
        self._box.state.position = self.position.value

    def _go_on(self, button: Any) -> None:
        held_out = self._box.state.scene.held_out_episodes
        later = held_out[held_out > self._box.state.episode]
        self._box.state.episode = int(later[0] if later.size else held_out[0])


class TokenStrip(LiveWidget):
    """Tokens in a row: those read, the current one, those to come. A click on one goes there.

    Attributes
    ----------
    tokens, notes : list of str
        The text of each token, and the tooltip over it; both are shown as text, never as markup.
    places : list of int
        Their positions, ascending.
    position : int
        The cursor.
    selected : list of int
        Positions that are selected.
    """

    _esm = javascript(_HERE / "tokens.js")
    _css = (_HERE / "studio.css").read_text(encoding="utf-8")
    tokens = List(Unicode()).tag(sync=True)
    notes = List(Unicode()).tag(sync=True)
    places = List(Int()).tag(sync=True)
    position = Int(1).tag(sync=True)
    selected = List(Int()).tag(sync=True)


class Cursor(Box):
    """Episode, position, play, and the tokens of the episode; a tooltip over a token has the truth after it."""

    def __init__(self, state: ViewState) -> None:
        super().__init__(state)
        self.controls = EpisodeControls(self)
        self.strip = TokenStrip()
        self._shown: Any = None
        self._follow(None)
        self.children = [controls.row(*self.controls.row), self._alert, self.strip]
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
        """Show the tokens of the episode."""
        state, scene = self.state, self.state.scene
        line = scene.tokens[int(scene.episodes.searchsorted(state.episode))]
        names = [scene.vocabulary[line[place - 1]] if line[place - 1] >= 0 else "?" for place in places]
        rows = scene.latents[0].obs.iloc[scene.rows([(state.episode, place) for place in places])]
        columns = [name for name in map(str, rows) if name not in ("episode", "position", "token", "token_id")]
        with self.strip.hold_trait_notifications():
            self.strip.tokens = [shorten(name) for name in names]
            self.strip.notes = [
                shorten(", ".join([f"token {name}", *(f"{column} {row[column]}" for column in columns)]), _LONGEST_NOTE)
                for name, (_, row) in zip(names, rows.iterrows(), strict=True)
            ]
            self.strip.places = places

    def close(self) -> None:
        """Take the controls off the page and out of memory."""
        if not self._closed:
            self.controls.close()
        super().close()
