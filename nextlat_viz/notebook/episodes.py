"""The controls that say which episode is followed, after how many tokens."""

from __future__ import annotations

from typing import Any

import ipywidgets

from nextlat_viz.notebook.base import Linked

_LABEL = {"description_width": "auto"}


class EpisodeControls:
    """Episode, next held-out episode, play and position, leading the state of a view and following it.

    Attributes
    ----------
    row : list of widgets
        The controls, in the order in which they are shown.
    """

    def __init__(self, view: Linked) -> None:
        self._view = view
        self.episode = ipywidgets.BoundedIntText(
            description="Episode", tooltip="Which episode is followed", style=_LABEL,
            layout={"width": "130px", "margin": "2px 6px 2px 0"},
        )  # fmt: skip
        self.next = ipywidgets.Button(
            description="Next held-out", tooltip="Go to the next episode that no probe was fitted on",
            layout={"width": "auto"},
        )  # fmt: skip
        self.next.on_click(view._guarded(self._go_on))
        self.side = ipywidgets.HTML()
        self.play = ipywidgets.Play(interval=800, min=1, tooltip="Step through the episode")
        self.position = ipywidgets.IntSlider(
            description="Position", tooltip="How many tokens have been read; arrow keys step", min=1,
            continuous_update=False, style=_LABEL, layout={"width": "340px"},
        )  # fmt: skip
        self.row = [self.episode, self.next, self.side, self.play, self.position]
        self.follow()
        # Linked in the page, so that playing does not wait for the kernel.
        self._jslink = ipywidgets.jslink((self.play, "value"), (self.position, "value"))
        view._link(self.episode, self._set_episode)
        view._link(self.position, self._set_position)

    def follow(self) -> None:
        """Show where the state is."""
        state, scene = self._view.state, self._view.state.scene
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
        self.side.value = f'<span style="margin:0 14px">{said}</span>'

    def close(self) -> None:
        """Undo the link in the page; the view closes the controls themselves."""
        self._jslink.unlink()

    def _set_episode(self, change: Any) -> None:
        try:
            self._view.state.episode = self.episode.value
        finally:
            # What the state refused must not stay on show.
            self.follow()

    def _set_position(self, change: Any) -> None:
        self._view.state.position = self.position.value

    def _go_on(self, button: Any) -> None:
        its = self._view.state.scene.held_out_episodes
        later = its[its > self._view.state.episode]
        self._view.state.episode = int(later[0] if later.size else its[0])
