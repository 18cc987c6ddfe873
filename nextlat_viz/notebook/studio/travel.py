"""Going to another training step or world: at once where its latents are there, else when they have been extracted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nextlat_viz.notebook.state import ViewState
from nextlat_viz.notebook.studio.beside import Beside, Cancelled, Waiting

Place = tuple[str, int | None]


class Travel:
    """Where the reader wants to go. Until it can be seen the state stays where it is, and can be used.

    Parameters
    ----------
    state : ViewState
    beside : Beside
        Where latents are extracted.
    say : callable taking a str
        Told, in words, why the state did not go where the reader wanted.
    guarded : callable
        Wraps what is called when the latents are there, so that an error is shown.
    """

    def __init__(
        self,
        state: ViewState,
        beside: Beside,
        say: Callable[[str], None],
        guarded: Callable[[Callable[[], None]], Callable[[], None]],
    ) -> None:
        self._state, self._beside, self._say = state, beside, say
        self._arrived = guarded(self._go)
        self._wanted: Place | None = None
        state.observe(self._moved, ["world", "step"])

    def to(self, world: str, step: int | None) -> None:
        """Go to a world at a training step, in place of wherever the reader wanted to go before."""
        self._stay()
        self._wanted = world, step
        self._go()

    def close(self) -> None:
        """Go nowhere."""
        self._stay()
        self._state.unobserve(self._moved, ["world", "step"])

    def _go(self) -> None:
        if self._wanted is None:
            return
        state, (world, step) = self._state, self._wanted
        where = world if step is None else f"step {step:,}"
        if state.lacks(world, step):
            try:
                self._beside.ask(
                    self._wanted,
                    where,
                    lambda: state.extract(world, step, self._beside.report),
                    self._arrived,
                    first=True,
                )
            except Waiting:
                return
            except Cancelled:
                self._stay()
                self._say(f"Going to {where} was cancelled: choose it again to go there.")
                return
            except Exception:
                self._stay()
                raise
        self._stay()
        if state.world != world:
            state.world = world
        state.step = step

    def _moved(self, change: Any) -> None:
        """Whoever was led elsewhere is not taken away from there later."""
        self._stay()

    def _stay(self) -> None:
        if self._wanted is not None:
            # Where it is known or under way it is in the sources; a refusal must not outlast this wish.
            self._beside.drop(self._wanted)
            self._wanted = None
