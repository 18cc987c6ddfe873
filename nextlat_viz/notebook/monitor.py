"""A live figure of training: the validation loss of each model, and the Bayes floor where it is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from nextlat_viz.errors import shown
from nextlat_viz.figures.theme import Theme
from nextlat_viz.figures.training import loss_curves
from nextlat_viz.notebook.panel import Box
from nextlat_viz.notebook.plot import Plot


class LossMonitor(Box):
    """Validation losses, drawn while models train, against the Bayes floor where it is known.

    Parameters
    ----------
    theme : {"auto", "light", "dark"}

    Examples
    --------
    >>> monitor = LossMonitor()
    >>> report = monitor.watch("NextLat")
    >>> report({"step": 100, "loss": 0.58, "floor": 0.56})
    >>> monitor.metrics["NextLat"]["loss"].tolist()
    [0.58]
    """

    def __init__(self, theme: Theme = "auto") -> None:
        self._rows: dict[str, list[dict[str, float | int]]] = {}
        self._theme: Theme = theme
        self.plot = Plot(self._figure())
        super().__init__()
        self.children = (self.plot,)

    @property
    def metrics(self) -> dict[str, pd.DataFrame]:
        """What has been measured so far, a table per model."""
        return {label: pd.DataFrame(rows) for label, rows in self._rows.items()}

    def watch(self, label: str) -> Callable[[Mapping[str, float | int]], None]:
        """Return ``on_validation=`` for `nextlat_viz.train` or `nextlat_viz.finetune`: it draws this model's curve."""
        rows = self._rows.setdefault(label, [])

        def add(row: Mapping[str, float | int]) -> None:
            if not isinstance(row, Mapping) or not {"step", "loss"} <= row.keys():
                raise ValueError(f"row must be a dict with 'step' and 'loss', got {shown(row)}")
            rows.append(dict(row))
            self.plot.become(self._figure())

        return add

    def __dir__(self) -> list[str]:
        return ["close", "metrics", "plot", "watch"]

    def _figure(self) -> Any:
        measured = {label: table for label, table in self.metrics.items() if len(table)}
        if measured:
            return loss_curves(measured, title="Loss while training", theme=self._theme)
        figure = loss_curves({"waiting": pd.DataFrame({"step": [], "loss": []})}, theme=self._theme)
        return figure.update_layout(title="Loss while training: nothing measured yet", showlegend=False)
