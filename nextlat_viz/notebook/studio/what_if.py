"""What follows when a state is moved so that a probe reads something else, chosen by name or by dragging."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets
import numpy as np

from nextlat_viz.analysis.interventions.inject import inject
from nextlat_viz.analysis.interventions.plane import injection_plane
from nextlat_viz.analysis.probes.joint import JointProbe
from nextlat_viz.errors import LatentsError
from nextlat_viz.figures.injection import injection_figure
from nextlat_viz.figures.theme import Theme
from nextlat_viz.latents import column
from nextlat_viz.latents.table import HIDDEN
from nextlat_viz.notebook import controls
from nextlat_viz.notebook.studio.probing import ProbingCard
from nextlat_viz.notebook.studio.strip import clipped
from nextlat_viz.notebook.studio.target_plane import TargetPlane

if TYPE_CHECKING:
    from nextlat_viz.analysis import InjectionPlane, ProbeResult

_MOST, _STEPS, _NOTCHES = 12, 3, 200
_LABEL = {"description_width": "auto"}
_ROOM = {"width": "auto", "max_width": "280px", "margin": "2px 10px 2px 0"}
# Stand for what is true at the first selected row, and for what was chosen by dragging last.
_SELECTED, _DRAGGED = "\0selected", "\0dragged"


class WhatIfCard(ProbingCard):
    """The least edit of the last hidden state after which the probe reads what was chosen, and what follows.

    What it is to read is dragged in a plane where the world has one for it, else along a slider where it is a number,
    or chosen from a list; it is the same for all models, and stays while the cursor moves.
    """

    name, question = "what_if", "What if it believed something else?"

    def _ready(self) -> None:
        change = controls.bound(
            ipywidgets.Dropdown, self, "target", "Change", lambda: self.state.scene.targets,
            "What the probe is to read otherwise",
        )  # fmt: skip
        self.to = ipywidgets.Dropdown(
            description="to", tooltip="What it is to read instead", style=_LABEL, layout=_ROOM
        )
        self.slider = ipywidgets.FloatSlider(
            tooltip="What it is to read instead", readout_format=".4g", layout=_ROOM | {"width": "220px"}
        )
        self.metric = ipywidgets.Dropdown(
            options=[("along directions states differ in", "covariance"), ("by the least distance", "euclidean")],
            description="moving", tooltip="Which edit of the state is the smallest", style=_LABEL, layout=_ROOM,
        )  # fmt: skip
        self.model = ipywidgets.Dropdown(
            description="dragged in", tooltip="Whose readings the plane shows", style=_LABEL, layout=_ROOM
        )
        self.plane = TargetPlane(self.state, self._guarded(self._drag))
        self._chosen: InjectionPlane | None = None
        self._held: Any = None
        self._following = False
        self._offer(None)
        self._show(above=[controls.row(change, self.to, self.slider, self.metric, self.model)], below=[self._without])
        for name in ("world", "target"):
            self._link(self.state, self._offer, name)
        for control in (self.to, self.metric, self.model):
            self._link(control, lambda change: self._ask())
        self._link(self.slider, self._slide)

    def _open(self, above: Sequence[Any], below: Sequence[Any] = (), answer: Sequence[Any] = ()) -> None:
        super()._open(above, below, answer)
        self._stage.layout.width, self._stage.layout.flex, self._stage.layout.min_width = "auto", "3 1 420px", "0"
        beside = ipywidgets.HBox([self.plane.box, self._stage], layout={"flex_flow": "row wrap", "width": "100%"})
        self._body.children = [beside if one is self._stage else one for one in self._body.children]

    def _offer(self, change: Any) -> None:
        """What the probe can be made to read: certainties, places, classes, values; what is true, what was dragged."""
        scene, target = self.state.scene, self.state.target
        try:
            self._chosen = injection_plane(scene.world, target)
        except LatentsError:
            # Latents of a world that is not known.
            self._chosen = None
        self._held = None
        named = self._named()
        drawn = self._chosen is not None or self.slider.layout.display is None
        self.to.options = [
            *named, *([("where it was dragged", _DRAGGED)] if drawn else []),
            ("what is true at the selected row", _SELECTED),
        ]  # fmt: skip
        # Of a few states the first is where many episodes begin, and would change nothing.
        self.to.value = named[-1][1] if named else _SELECTED
        able = [(clipped(label), i) for i, label in enumerate(scene.labels) if scene.checkpoint(i) is not None]
        before = self.model.value
        self.model.options = able
        places = [place for _, place in able]
        self.model.value = before if before in places else next(iter(places), None)
        self.model.layout.display = None if self._chosen is not None and len(able) > 1 else "none"

    def _named(self) -> list[tuple[str, Any]]:
        """What can be chosen by name; where that is numbers, the slider goes from the least to the greatest."""
        scene, target, plane = self.state.scene, self.state.target, self._chosen
        self.slider.layout.display = "none"
        if plane is not None:
            form = "certainty of {}" if plane.landmarks else "{}"
            return [(form.format(clipped(name)), name) for name in plane.places]
        if target not in scene.latents[0].obs:
            return []
        known = scene.values(target)
        if not isinstance(known[0], (str, bool)) and len(known) > 1:
            self._range(float(known[0]), float(known[-1]), isinstance(known[0], int))
            if len(known) > _MOST:
                known = np.unique(np.quantile(known, np.linspace(0, 1, 5), method="nearest")).tolist()
        return [(clipped(str(one)), one) for one in known]

    def _range(self, low: float, high: float, whole: bool) -> None:
        self._following = True
        try:
            with self.slider.hold_trait_notifications():
                self.slider.min, self.slider.max = low, high
            self.slider.step = 1.0 if whole else (high - low) / _NOTCHES
        finally:
            self._following = False
        self.slider.layout.display = None

    def _drag(self, x: float, y: float) -> None:
        """Hear of the handle: what is to be read is the reading there, or at the nearest place that has one."""
        plane, cloud = self._chosen, self.plane.cloud
        if plane is None or cloud is None:
            return
        self._hold(plane.reading((x, y), self.plane.now))
        across, up = plane.coordinates(self._held).tolist()
        cloud.handle = across, up

    def _slide(self, change: Any) -> None:
        if not self._following:
            self._hold(np.array([change["new"]]))

    def _hold(self, wanted: np.ndarray) -> None:
        self._held = wanted
        self.to.value = _DRAGGED
        self._ask()

    def _prepare(self) -> None:
        try:
            wanted = self._wanted()
        except ValueError:
            wanted = None
        if self.slider.layout.display is None and wanted is not None:
            self._following = True
            try:
                self.slider.value = float(np.ravel(wanted)[0])
            finally:
                self._following = False
        if self._chosen is None or self.model.value is None:
            self.plane.hide()
            return
        try:
            probe = self._reader(self.model.value)
        except (LatentsError, ValueError):
            # Why there is no probe, or none yet, is said in place of the figure.
            self.plane.hide()
            return
        self.plane.show(self._chosen, probe, self.model.value, wanted)

    def _more(self) -> tuple[Any, ...]:
        chosen = self.state.selection[:1] if self.to.value == _SELECTED else ()
        held = np.ravel(self._held).tolist() if self.to.value == _DRAGGED and self._held is not None else ()
        return self.to.value, held, self.metric.value, chosen, *super()._more()

    def _reader(self, model: int) -> ProbeResult | JointProbe:
        """The probe, or those of the plane as one."""
        if self._chosen is None or len(self._chosen.targets) == 1:
            return self._probe(model, self.state.target, HIDDEN)
        return JointProbe(tuple(self._probe(model, target, HIDDEN) for target in self._chosen.targets))

    def _answer(self, model: int, row: int) -> Any:
        checkpoint, scene = self._checkpoint(model), self.state.scene
        probe, wanted = self._reader(model), self._wanted()
        wanted = str(wanted) if probe.metric == "accuracy" else np.atleast_1d(np.asarray(wanted, dtype=float))
        left = len(scene.positions(self.state.episode)) - self.state.position
        return inject(
            checkpoint, scene.latents[model], probe, row, wanted, steps=max(0, min(_STEPS, left)),
            metric=self.metric.value,
        )  # fmt: skip

    def _wanted(self) -> Any:
        """What is to be read; the same for every model."""
        state, plane, chosen = self.state, self._chosen, self.to.value
        if chosen == _SELECTED:
            if not state.selection:
                raise ValueError(
                    "No row is selected: drag over points, or click a pair, to choose what it is to believe"
                )
            names = (state.target,) if plane is None else plane.targets
            true = [column(state.scene.latents[0], name)[state.rows[0]] for name in names]
            self._held = true[0] if len(true) == 1 else np.array(true)
        elif chosen != _DRAGGED:
            self._held = chosen if plane is None else plane.places[chosen]
        if self._held is None:
            raise ValueError("Nothing was dragged yet: drag the marker, or choose what it is to read")
        return self._held

    def _picture(self, answers: Mapping[str, Any], theme: Theme) -> Any:
        return injection_figure(answers, most=_MOST, theme=theme)

    def close(self) -> None:
        """Take the card off the page and out of memory."""
        if not self._closed:
            self.plane.close()
        super().close()
