"""What a probe reads at the cursor, and what follows when a state is moved so that it reads something else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import ipywidgets
import numpy as np

from nextlat_viz.analysis.injection import belief_target, inject
from nextlat_viz.analysis.readout import read_out as read
from nextlat_viz.figures.injection import injection_figure
from nextlat_viz.figures.readout import read_out
from nextlat_viz.figures.rows import BELIEF
from nextlat_viz.figures.theme import Theme
from nextlat_viz.latents import column
from nextlat_viz.latents.table import HIDDEN
from nextlat_viz.widgets import controls
from nextlat_viz.widgets.studio.asked import AskedCard
from nextlat_viz.widgets.studio.strip import clipped

if TYPE_CHECKING:
    from nextlat_viz.analysis import ProbeResult

_MOST, _STEPS = 12, 3
_LABEL = {"description_width": "auto"}
_ROOM = {"width": "auto", "max_width": "280px", "margin": "2px 10px 2px 0"}
# Stands for what is true at the first selected row.
_SELECTED = "\0selected"


class ProbingCard(AskedCard):
    """Fits the probes it needs beside the kernel's thread; until they are there, says so."""

    def _probe(self, model: int, site: str) -> ProbeResult:
        state, scene, turns = self.state, self.state.scene, self._turns
        result: ProbeResult = turns.beside.ask(
            (scene, model, state.target, site),
            f"The probe of {scene.labels[model]} for {state.target}",
            lambda: scene.probe(model, state.target, site),
            self._ask,
        )
        return result

    def _more(self) -> tuple[Any, ...]:
        return self.state.target, self._turns.beside.finished


class KnowsCard(ProbingCard):
    """What a linear probe reads at the cursor, beside the truth; its score, and what it is worth, in the heading."""

    name, question = "knows", "What does it know?"

    def _ready(self) -> None:
        self._show(above=[controls.row(controls.target(self))], below=[self._without])

    def _more(self) -> tuple[Any, ...]:
        return self.state.site, *super()._more()

    def _answer(self, model: int, row: int) -> Any:
        return read(self.state.scene.latents[model], self._probe(model, self.state.site), row)

    def _picture(self, answers: Mapping[str, Any], theme: Theme) -> Any:
        return read_out(answers, most=_MOST, theme=theme)


class WhatIfCard(ProbingCard):
    """The least edit of the last hidden state after which the probe reads what was chosen, and what follows."""

    name, question = "what_if", "What if it believed something else?"

    def _ready(self) -> None:
        change = controls.bound(
            ipywidgets.Dropdown, self, "target", "Change", lambda: self.state.scene.targets,
            "What the probe is to read otherwise",
        )  # fmt: skip
        self.to = ipywidgets.Dropdown(
            description="to", tooltip="What it is to read instead", style=_LABEL, layout=_ROOM
        )
        self.metric = ipywidgets.Dropdown(
            options=[("along directions states differ in", "covariance"), ("by the least distance", "euclidean")],
            description="moving", tooltip="Which edit of the state is the smallest", style=_LABEL, layout=_ROOM,
        )  # fmt: skip
        self._offer(None)
        self._show(above=[controls.row(change, self.to, self.metric)], below=[self._without])
        for name in ("world", "target"):
            self._link(self.state, self._offer, name)
        for control in (self.to, self.metric):
            self._link(control, lambda change: self._ask())

    def _offer(self, change: Any) -> None:
        """What the probe can be made to read: certainties, classes, values; or what is true at the selected row."""
        scene, target = self.state.scene, self.state.target
        obs = scene.latents[0].obs
        options: list[tuple[str, Any]] = []
        if target == BELIEF:
            options = [(f"certainty of {clipped(name)}", name) for name in scene.world.state_names]
        elif target in obs:
            known = scene.values(target)
            if len(known) > _MOST and not isinstance(known[0], str):
                known = np.unique(np.quantile(known, np.linspace(0, 1, 5), method="nearest")).tolist()
            options = [(clipped(str(one)), one) for one in known]
        self.to.options = [*options, ("what is true at the selected row", _SELECTED)]
        # Of a few states the first is where many episodes begin, and would change nothing.
        self.to.value = options[-1][1] if options else _SELECTED

    def _more(self) -> tuple[Any, ...]:
        chosen = self.state.selection[:1] if self.to.value == _SELECTED else ()
        return self.to.value, self.metric.value, chosen, *super()._more()

    def _answer(self, model: int, row: int) -> Any:
        checkpoint, scene = self._checkpoint(model), self.state.scene
        probe, wanted = self._probe(model, HIDDEN), self._wanted()
        if probe.metric == "accuracy":
            wanted = str(wanted)
        elif probe.target == BELIEF:
            wanted = belief_target(scene.world, wanted)
        else:
            wanted = np.atleast_1d(np.asarray(wanted, dtype=float))
        left = len(scene.positions(self.state.episode)) - self.state.position
        return inject(
            checkpoint, scene.latents[model], probe, row, wanted, steps=max(0, min(_STEPS, left)),
            metric=self.metric.value,
        )  # fmt: skip

    def _wanted(self) -> Any:
        state, first = self.state, self.state.scene.latents[0]
        if self.to.value != _SELECTED:
            return self.to.value
        if not state.selection:
            raise ValueError("No row is selected: drag over points, or click a pair, to choose what it is to believe")
        return column(first, state.target)[state.rows[0]]

    def _picture(self, answers: Mapping[str, Any], theme: Theme) -> Any:
        return injection_figure(answers, most=_MOST, theme=theme)
