"""Where the studio looks: which episode, after how many tokens; stepped by hand, by key, or by itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from nextlat_viz.notebook import controls
from nextlat_viz.notebook.base import Linked
from nextlat_viz.notebook.episodes import EpisodeControls
from nextlat_viz.notebook.state import ViewState
from nextlat_viz.notebook.studio.strip import Strip, clipped

_LONGEST_NOTE = 200


class Cursor(Linked):
    """Episode, position, play, and the tokens of the episode with what is true after each."""

    def __init__(self, state: ViewState) -> None:
        super().__init__(state=state)
        self.controls = EpisodeControls(self)
        self.strip = Strip()
        self._read: Any = None
        self._follow(None)
        self.children = [controls.row(*self.controls.row), self._alert, self.strip]
        self._link(self.strip, self._go, "position")
        for name in ("world", "step", "episode", "position", "selection"):
            self._link(state, self._follow, name)

    def _follow(self, change: Any) -> None:
        """Show where the state is."""
        state, scene = self.state, self.state.scene
        places = scene.positions(state.episode)
        self.controls.follow()
        if self._read != (id(scene), state.episode):
            self._read = (id(scene), state.episode)
            self._write(places)
        own = scene.rows([(state.episode, place) for place in places])
        self.strip.selected = [place for place, is_in in zip(places, np.isin(own, state.rows), strict=True) if is_in]
        self.strip.position = state.position

    def _write(self, places: list[int]) -> None:
        """The tokens of the episode, with what is true after each."""
        state, scene = self.state, self.state.scene
        line = scene.tokens[int(scene.episodes.searchsorted(state.episode))]
        names = [scene.vocabulary[line[place - 1]] if line[place - 1] >= 0 else "?" for place in places]
        rows = scene.latents[0].obs.iloc[scene.rows([(state.episode, place) for place in places])]
        facts = [name for name in map(str, rows) if name not in ("episode", "position", "token", "token_id")]
        with self.strip.hold_trait_notifications():
            self.strip.tokens = [clipped(name) for name in names]
            self.strip.notes = [
                clipped(", ".join([f"token {name}", *(f"{fact} {row[fact]}" for fact in facts)]), _LONGEST_NOTE)
                for name, (_, row) in zip(names, rows.iterrows(), strict=True)
            ]
            self.strip.places = places

    def _go(self, change: Any) -> None:
        self.state.position = change["new"]

    def close(self) -> None:
        """Take the controls off the page and out of memory."""
        if not self._closed:
            self.controls.close()
        super().close()
