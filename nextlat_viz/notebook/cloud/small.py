"""Small clouds in a row, one for each of many models, to choose one from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from traitlets import Bytes, Int, List, Unicode

from nextlat_viz.notebook.live import LiveWidget, javascript

_HERE = Path(__file__).parent
# Places are sent as bytes, which is finer than the pixels of a small cloud.
_SIDE = 255


@dataclass(frozen=True, eq=False)
class Small:
    """One small cloud: what stands below it, its tooltip, its part in the comparison, and its points, if there are any.

    `role` is "reference", "compared" or empty.
    """

    name: str
    note: str
    role: str
    places: Float[np.ndarray, "rows 2"]
    codes: UInt8[np.ndarray, " rows"]


class SmallClouds(LiveWidget):
    """Small clouds in a row, which scrolls; `on_choose` is called with the number of the one clicked.

    Examples
    --------
    >>> row = SmallClouds(print)
    >>> small = Small("seed 0", "", "reference", np.array([[0.0, 0.0], [2.0, 1.0]]), np.zeros(2, np.uint8))
    >>> row.show([small], ["#0072B2"])
    >>> row.names, row.counts, list(row._places)
    (['seed 0'], [2], [0, 64, 255, 191])
    >>> row.close()
    """

    _esm = javascript(_HERE / "small.js")
    _css = (_HERE / "cloud.css").read_text(encoding="utf-8")
    names = List(Unicode()).tag(sync=True)
    notes = List(Unicode()).tag(sync=True)
    roles = List(Unicode()).tag(sync=True)
    counts = List(Int()).tag(sync=True)
    _places = Bytes().tag(sync=True)
    _codes = Bytes().tag(sync=True)
    _palette = Bytes().tag(sync=True)

    def __init__(self, on_choose: Callable[[int], None]) -> None:
        self._on_choose = on_choose
        super().__init__()

    def show(
        self, clouds: Sequence[Small], palette: Sequence[str], frame: Float[np.ndarray, "corners 2"] | None = None
    ) -> None:
        """Show clouds, coloured by a palette of ``#rrggbb``; each fills its square, or all show the frame's part."""
        squares = [_bytes(cloud.places, cloud.places if frame is None else frame) for cloud in clouds]
        shades = bytes(int(color[i : i + 2], 16) for color in palette for i in (1, 3, 5))
        with self.hold_sync():
            for trait, values in {
                "names": [cloud.name for cloud in clouds], "notes": [cloud.note for cloud in clouds],
                "roles": [cloud.role for cloud in clouds], "counts": [len(cloud.places) for cloud in clouds],
                "_places": b"".join(square.tobytes() for square in squares),
                "_codes": b"".join(cloud.codes.tobytes() for cloud in clouds), "_palette": shades,
            }.items():  # fmt: skip
                self.set_trait(trait, values)

    def _hear(self, widget: Any, message: Mapping[str, Any], buffers: Any) -> None:
        super()._hear(widget, message, buffers)
        if message.get("kind") == "choose":
            self._on_choose(int(message["model"]))


def _bytes(places: Float[np.ndarray, "rows 2"], frame: Float[np.ndarray, "corners 2"]) -> UInt8[np.ndarray, "rows 2"]:
    """Scale places to bytes, both axes alike, so that the frame fills the square; what is outside lies on its edge."""
    if not len(places):
        return np.zeros((0, 2), np.uint8)
    low, high = frame.min(axis=0), frame.max(axis=0)
    scale = _SIDE / (float((high - low).max()) or 1.0)
    return np.asarray(np.clip(np.rint((places - (low + high) / 2) * scale + _SIDE / 2), 0, _SIDE).astype(np.uint8))
