"""What a model predicts after its hidden state is edited so that a probe reads a chosen target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets
import numpy as np

from nextlat_viz.analysis.interventions.inject import inject
from nextlat_viz.analysis.interventions.plane import injection_plane
from nextlat_viz.analysis.probes.joint import JointProbe
from nextlat_viz.display import shorten
from nextlat_viz.errors import LatentsError
from nextlat_viz.figures.injection import injection_figure
from nextlat_viz.figures.theme import Theme
from nextlat_viz.latents import column
from nextlat_viz.latents.table import HIDDEN
from nextlat_viz.notebook import controls
from nextlat_viz.notebook.panel import LABEL, ROOM, ModelPanel
from nextlat_viz.notebook.panels.target_plane import TargetPlane

if TYPE_CHECKING:
    from nextlat_viz.analysis import InjectionPlane, ProbeResult

_MOST, _STEPS, _NOTCHES = 12, 3, 200
# Stand for the truth at the first selected row, and for the last dragged target.
_SELECTED, _DRAGGED = "\0selected", "\0dragged"


class WhatIfPanel(ModelPanel):
    """The smallest edit of the hidden state after which the probe reads the target, and the predictions that follow.

    The target is a point dragged in a plane where the world has one, else a number on a slider, or an entry of a list.
    All models get the same target, and it stays while the cursor moves.
    """

    name, question = "what_if", "What if the model believed something else?"

    def _build(self) -> None:
        change = controls.bound(
            ipywidgets.Dropdown, self, "target", "Change", lambda: self.state.scene.targets,
            "Which reading of the probe to change",
        )  # fmt: skip
        self.to = ipywidgets.Dropdown(
            description="to", tooltip="The target: what the probe reads after the edit", style=LABEL, layout=ROOM
        )
        self.slider = ipywidgets.FloatSlider(
            tooltip="The target: what the probe reads after the edit",
            readout_format=".4g",
            layout=ROOM | {"width": "220px"},
        )
        self.metric = ipywidgets.Dropdown(
            options=[("scaled by latent covariance", "covariance"), ("Euclidean", "euclidean")],
            description="Distance", tooltip="How the size of the edit is measured", style=LABEL, layout=ROOM,
        )  # fmt: skip
        self.model = ipywidgets.Dropdown(
            description="Readings of", tooltip="The model whose readings the plane shows", style=LABEL, layout=ROOM
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

    def _arrange(self, stage: ipywidgets.VBox) -> Sequence[Any]:
        """The plane to the left of the figure."""
        stage.layout.width, stage.layout.flex, stage.layout.min_width = "auto", "3 1 420px", "0"
        return [ipywidgets.HBox([self.plane.box, stage], layout={"flex_flow": "row wrap", "width": "100%"})]

    def _offer(self, change: Any) -> None:
        """Offer the targets: certainties, places, classes or values, the dragged one, and the truth at a row."""
        scene, target = self.state.scene, self.state.target
        try:
            self._chosen = injection_plane(scene.world, target)
        except LatentsError:
            # The latents have no known world.
            self._chosen = None
        self._held = None
        named = self._named()
        drawn = self._chosen is not None or self.slider.layout.display is None
        self.to.options = [
            *named, *([("the marker", _DRAGGED)] if drawn else []),
            ("the truth at the selected row", _SELECTED),
        ]  # fmt: skip
        # Many episodes begin in the first state, so choosing it would often change nothing.
        self.to.value = named[-1][1] if named else _SELECTED
        able = [(shorten(label), i) for i, label in enumerate(scene.labels) if scene.checkpoint(i) is not None]
        before = self.model.value
        self.model.options = able
        places = [place for _, place in able]
        self.model.value = before if before in places else next(iter(places), None)
        self.model.layout.display = None if self._chosen is not None and len(able) > 1 else "none"

    def _named(self) -> list[tuple[str, Any]]:
        """The targets with names. Where they are numbers, the slider spans them."""
        scene, target, plane = self.state.scene, self.state.target, self._chosen
        self.slider.layout.display = "none"
        if plane is not None:
            form = "certainty of {}" if plane.landmarks else "{}"
            return [(form.format(shorten(name)), name) for name in plane.places]
        if target not in scene.latents[0].obs:
            return []
        known = scene.values(target)
        if not isinstance(known[0], (str, bool)) and len(known) > 1:
            self._range(float(known[0]), float(known[-1]), isinstance(known[0], int))
            if len(known) > _MOST:
                known = np.unique(np.quantile(known, np.linspace(0, 1, 5), method="nearest")).tolist()
        return [(shorten(value), value) for value in known]

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
        """Take the reading at the marker as the target, or the nearest reading there is."""
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
            # The message in place of the figure says why there is no probe, or none yet.
            self.plane.hide()
            return
        self.plane.show(self._chosen, probe, self.model.value, wanted)

    def _depends_on(self) -> tuple[Any, ...]:
        chosen = self.state.selection[:1] if self.to.value == _SELECTED else ()
        held = np.ravel(self._held).tolist() if self.to.value == _DRAGGED and self._held is not None else ()
        return self.to.value, held, self.metric.value, chosen, self.state.target, self.state.jobs.changes

    def _reader(self, model: int) -> ProbeResult | JointProbe:
        """The probe of the target, or the probes of the plane together."""
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
        """The target, the same for every model."""
        state, plane, chosen = self.state, self._chosen, self.to.value
        if chosen == _SELECTED:
            if not state.selection:
                raise ValueError("No row is selected: drag over points, or click a pair, to choose a target")
            names = (state.target,) if plane is None else plane.targets
            true = [column(state.scene.latents[0], name)[state.rows[0]] for name in names]
            self._held = true[0] if len(true) == 1 else np.array(true)
        elif chosen != _DRAGGED:
            self._held = chosen if plane is None else plane.places[chosen]
        if self._held is None:
            raise ValueError("No target yet: drag the marker, or choose one from the list")
        return self._held

    def _draw_answers(self, answers: Mapping[str, Any], theme: Theme) -> Any:
        return injection_figure(answers, most=_MOST, theme=theme)

    def close(self) -> None:
        """Take the panel off the page and out of memory."""
        if not self._closed:
            self.plane.close()
        super().close()
