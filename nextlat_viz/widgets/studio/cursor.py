"""Where the studio looks: which episode, after how many tokens; stepped by hand, by key, or by itself."""

from __future__ import annotations

from typing import Any

import ipywidgets

from nextlat_viz.widgets import controls
from nextlat_viz.widgets.base import Linked
from nextlat_viz.widgets.state import ViewState
from nextlat_viz.widgets.studio.strip import Strip, clipped

_LABEL = {"description_width": "auto"}
_LONGEST_NOTE = 200


class Cursor(Linked):
    """Episode, position, play, and the tokens of the episode with what is true after each."""

    def __init__(self, state: ViewState) -> None:
        super().__init__(state=state)
        self.episode = ipywidgets.BoundedIntText(
            description="Episode", tooltip="Which episode is followed", style=_LABEL,
            layout={"width": "130px", "margin": "2px 6px 2px 0"},
        )  # fmt: skip
        self.next = ipywidgets.Button(
            description="Next held-out", tooltip="Go to the next episode that no probe was fitted on",
            layout={"width": "auto"},
        )  # fmt: skip
        self.next.on_click(self._guarded(self._go_on))
        self.play = ipywidgets.Play(interval=800, min=1, tooltip="Step through the episode")
        self.position = ipywidgets.IntSlider(
            description="Position", tooltip="How many tokens have been read; arrow keys step", min=1,
            continuous_update=False, style=_LABEL, layout={"width": "340px"},
        )  # fmt: skip
        self._side = ipywidgets.HTML()
        self.strip = Strip()
        self._read: Any = None
        self._follow(None)
        # Linked in the page, so that playing does not wait for the kernel.
        self._jslink = ipywidgets.jslink((self.play, "value"), (self.position, "value"))
        line = controls.row(self.episode, self.next, self._side, self.play, self.position)
        self.children = [line, self._alert, self.strip]
        self._link(self.episode, self._set_episode)
        self._link(self.position, lambda change: self._go(change["new"]))
        self._link(self.strip, lambda change: self._go(change["new"]), "position")
        for name in ("world", "step", "episode", "position", "selection"):
            self._link(state, self._follow, name)

    def _follow(self, change: Any) -> None:
        """Show where the state is."""
        state, scene = self.state, self.state.scene
        places = scene.positions(state.episode)
        with self.episode.hold_trait_notifications():
            self.episode.min, self.episode.max = int(scene.episodes[0]), int(scene.episodes[-1])
            self.episode.value = state.episode
        for control in (self.position, self.play):
            with control.hold_trait_notifications():
                # The larger bound first: at no moment may the range be empty.
                control.max = max(places[-1], control.max)
                control.min, control.max = places[0], places[-1]
                control.value = state.position
        held_out = state.episode in scene.held_out_episodes
        said = "held out from the probes" if held_out else "probes were fitted on it"
        self._side.value = f'<span style="margin:0 14px">{said}</span>'
        if self._read != (id(scene), state.episode):
            self._read = (id(scene), state.episode)
            self._write(places)
        self.strip.selected = [place for episode, place in state.selection if episode == state.episode]
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

    def _set_episode(self, change: Any) -> None:
        try:
            self.state.episode = self.episode.value
        finally:
            # What the state refused must not stay on show.
            self._follow(None)

    def _go(self, position: int) -> None:
        self.state.position = position

    def _go_on(self, button: Any) -> None:
        its = self.state.scene.held_out_episodes
        later = its[its > self.state.episode]
        self.state.episode = int(later[0] if later.size else its[0])

    def close(self) -> None:
        """Take the controls off the page and out of memory."""
        if not self._closed:
            self._jslink.unlink()
        super().close()
