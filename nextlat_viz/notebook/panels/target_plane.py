"""A plane of a probe's readings: of every row, at the cursor (a ring), and the target (a marker to drag)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ipywidgets
import numpy as np
from jaxtyping import Float, Int

from nextlat_viz.display import escape, shorten
from nextlat_viz.notebook.cloud import Cloud, paint
from nextlat_viz.notebook.state import ViewState

if TYPE_CHECKING:
    from nextlat_viz.analysis import InjectionPlane, JointProbe, ProbeResult

_HEIGHT, _MOST_NAMES = 380, 6
_NARROW = {"flex": "1 1 300px", "min_width": "0", "max_width": "460px", "margin": "0 10px 0 0"}


class TargetPlane:
    """One cloud, made anew for another model or plane; only what changed in it is sent.

    Parameters
    ----------
    state : ViewState
    on_move : callable taking x and y
        Called while the handle is dragged.

    Attributes
    ----------
    box : widget
        The cloud with its caption.
    cloud : Cloud or None
    """

    def __init__(self, state: ViewState, on_move: Callable[[float, float], None]) -> None:
        self._state, self._on_move = state, on_move
        self._caption = ipywidgets.HTML()
        self._caption.add_class("nlv-words")
        self.box = ipywidgets.VBox([self._caption], layout=_NARROW | {"display": "none"})
        self.cloud: Cloud | None = None
        self._of: tuple[Any, ...] = ()
        self._painted: Any = None
        self._highlighted: Any = None

    def show(
        self, plane: InjectionPlane, probe: ProbeResult | JointProbe, model: int, wanted: np.ndarray | None
    ) -> None:
        """Show the state, with the marker at the target, or where it was while there is no target."""
        scene = self._state.scene
        of = scene, plane, *getattr(probe, "probes", (probe,))
        if len(of) != len(self._of) or any(new is not old for new, old in zip(of, self._of, strict=True)):
            self._make(plane, probe, model)
            self._of = of
        assert self.cloud is not None
        self.cloud.ring = _pair(plane.coordinates(self.now))
        if wanted is not None:
            self.cloud.handle = _pair(plane.coordinates(wanted))
        self._paint(model)
        self._select()
        self._caption.value = _caption(plane, probe.names, self.now, wanted)
        self.box.layout.display = None

    def hide(self) -> None:
        """Show nothing."""
        self.box.layout.display = "none"

    def close(self) -> None:
        """Take the cloud off the page."""
        if self.cloud is not None:
            self.cloud.close()

    @property
    def now(self) -> Float[np.ndarray, " k"]:
        """The reading at the cursor."""
        state = self._state
        (row,) = state.scene.rows([(state.episode, state.position)])
        reading: Float[np.ndarray, " k"] = self._readings[row]
        return reading

    def _make(self, plane: InjectionPlane, probe: ProbeResult | JointProbe, model: int) -> None:
        scene = self._state.scene
        self.close()
        self._painted = self._highlighted = None
        self._readings = probe.predict(scene.latents[model])
        here = _pair(plane.coordinates(self.now))
        self.cloud = Cloud(
            plane.coordinates(self._readings[scene.shown]),
            labels=lambda point: self._label(probe.names, int(scene.shown[point])),
            on_select=lambda points: self._state.select(scene.shown[points]),
            on_click=lambda point: self._state.go_to(*scene.keys(scene.shown[[point]].tolist())[0]),
            on_move=self._on_move,
            height=_HEIGHT,
            handle=here,
            axes=plane.axes,
            outline=plane.outline,
            landmarks=plane.landmarks,
        )
        self.box.children = [self.cloud, self._caption]

    def _paint(self, model: int) -> None:
        scene, color = self._state.scene, self._state.color
        if self.cloud is not None and self._painted != color:
            colors = paint(scene.latents[model], color)
            self.cloud.recolor(colors["codes"][scene.shown], colors["palette"], colors["key"])
            self._painted = color

    def _select(self) -> None:
        """Highlight the selected rows, or those that the filter keeps."""
        state, scene = self._state, self._state.scene
        looks = state.selection, state.filter
        if self.cloud is None or looks == self._highlighted:
            return
        rows: Int[np.ndarray, " rows"] = np.zeros(0, np.int64)
        if state.selection:
            rows = state.rows
        elif state.filter:
            rows = np.flatnonzero(state.kept)
        self.cloud.select(np.flatnonzero(np.isin(scene.shown, rows)))
        self._highlighted = looks

    def _label(self, names: tuple[str, ...], row: int) -> str:
        ((episode, position),) = self._state.scene.keys([row])
        return f"episode {episode}, position {position}\nreads {_numbers(names, self._readings[row])}"


def _caption(plane: InjectionPlane, names: tuple[str, ...], now: np.ndarray, wanted: np.ndarray | None) -> str:
    sentences = [f"Reading at the cursor (ring): {escape(_numbers(names, now))}."]
    if wanted is not None:
        where = [name for name, place in plane.places.items() if np.array_equal(place, wanted)]
        there = f" ({escape(shorten(where[0]))})" if where else ""
        sentences.append(f"Target (marker): <b>{escape(_numbers(names, wanted))}</b>{there}.")
    return f"{' '.join(sentences)}<br><small>{escape(plane.caption)}</small>"


def _numbers(names: tuple[str, ...], values: np.ndarray) -> str:
    """Numbers with their names, the largest where there are many."""
    digits = 0 if np.abs(values).max() >= 20 else 2
    most = np.sort(np.argsort(-values, kind="stable")[:_MOST_NAMES])
    shown = ", ".join(f"{shorten(names[i])}: {values[i]:.{digits}f}" for i in most).replace("-", "−")
    return shown + ", …" * (len(names) > _MOST_NAMES)


def _pair(place: np.ndarray) -> tuple[float, float]:
    return float(place[0]), float(place[1])
