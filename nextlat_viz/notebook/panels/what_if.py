"""What-if panel: predictions after an edit of the hidden state, chosen so that a probe reads a given target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets
import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import ArrayLike

from nextlat_viz.analysis.interventions.inject import Injector
from nextlat_viz.analysis.interventions.plane import JointProbe, injection_plane
from nextlat_viz.display import escape, shorten, words
from nextlat_viz.errors import LatentsError
from nextlat_viz.figures.injection import injection_figure
from nextlat_viz.figures.theme import Theme
from nextlat_viz.latents import column
from nextlat_viz.latents.table import HIDDEN
from nextlat_viz.notebook import controls
from nextlat_viz.notebook.box import ROOM, choice, text_line
from nextlat_viz.notebook.cloud.figure import cloud_figure
from nextlat_viz.notebook.cloud.latents import RowCloud
from nextlat_viz.notebook.panels.answers import ModelPanel, in_a_row
from nextlat_viz.notebook.scene import Scene
from nextlat_viz.notebook.state import ViewState

if TYPE_CHECKING:
    from nextlat_viz.analysis import InjectionPlane, ProbeResult

_MOST, _STEPS, _NOTCHES = 12, 3, 200
_HEIGHT, _MOST_NAMES = 380, 6
_NARROW = {"flex": "1 1 300px", "min_width": "0", "max_width": "460px", "margin": "0 10px 0 0"}
# Entries of the list that stand for the truth at the first selected row, and for the last dragged target.
_SELECTED, _DRAGGED = "\0selected", "\0dragged"


class WhatIfPanel(ModelPanel):
    """The smallest edit of the hidden state after which the probe reads the target, and the predictions after it.

    The target is an entry of a list, a point dragged in the world's plane if it has one, or a number on a slider. All
    models get the same target, which stays while the cursor moves.
    """

    name, question, tab = "what_if", "What if the model believed something else?", "What if"
    follows = (*ModelPanel.follows, "target")
    watches = ("color", "selection", "filter")

    def _build(self) -> None:
        change = controls.target(self, "Change", "Which reading of the probe to change")
        self.to = choice("to", "The target: what the probe reads after the edit")
        self.slider = ipywidgets.FloatSlider(
            tooltip="The target: what the probe reads after the edit",
            readout_format=".4g",
            layout=ROOM | {"width": "220px"},
        )
        metrics = [("scaled by latent covariance", "covariance"), ("Euclidean", "euclidean")]
        self.metric = choice("Distance", "How the size of the edit is measured", metrics)
        self.model = choice("Readings of", "The model whose readings the plane shows")
        self.plane = TargetPlane(self.state, self._guarded(self._drag))
        self._chosen: InjectionPlane | None = None
        self._held: Any = None
        self._offer(None)
        row = controls.row(change, self.to, self.slider, self.metric, self.model)
        self._show(above=[row], below=[self.about, self._without])
        for name in ("world", "target"):
            self._link(self.state, self._offer, name)
        for control in (self.to, self.metric, self.model):
            self._link(control, lambda change: self._ask())
        self._link(self.slider, self._slide)

    @property
    def views(self) -> list[Any]:
        """The plane of readings, if there is one, and the figure."""
        figure, plane = super().views, self.plane
        return [cloud_figure(plane.cloud), *figure] if plane.cloud and plane.box.layout.display is None else figure

    @property
    def probes(self) -> list[ProbeResult]:
        names = (self.state.target,) if self._chosen is None else self._chosen.targets
        return [probe for name in names for probe in self._fitted(name, HIDDEN)]

    @property
    def held(self) -> list[float] | None:
        """The dragged target's numbers; None if the target was chosen from the list."""
        return np.ravel(self._held).tolist() if self.to.value == _DRAGGED and self._held is not None else None

    def _arrange(self, stage: ipywidgets.VBox) -> Sequence[Any]:
        """Put the plane to the left of the figure."""
        stage.layout.width, stage.layout.flex, stage.layout.min_width = "auto", "3 1 420px", "0"
        return [ipywidgets.HBox([self.plane.box, stage], layout={"flex_flow": "row wrap", "width": "100%"})]

    def _offer(self, change: Any) -> None:
        """Offer the targets: certainties, places, classes or values, the dragged target, and the truth at a row."""
        scene, target = self.state.scene, self.state.target
        self._chosen = _plane(scene, target)
        self._held = None
        named = self._named()
        drawn = self._chosen is not None or self.slider.layout.display is None
        self.to.options = [
            *named, *([("the marker", _DRAGGED)] if drawn else []),
            ("the truth at the selected row", _SELECTED),
        ]  # fmt: skip
        # Choose the last: many episodes begin in the first state, which would often change nothing.
        self.to.value = named[-1][1] if named else _SELECTED
        able = [(shorten(label), i) for i, label in enumerate(scene.labels) if scene.checkpoint(i) is not None]
        before = self.model.value
        self.model.options = able
        places = [place for _, place in able]
        self.model.value = before if before in places else next(iter(places), None)
        self.model.layout.display = None if self._chosen is not None and len(able) > 1 else "none"

    @property
    def chosen(self) -> tuple[Any, ...] | None:
        """Target, distance and model of the readings, to restore them later; None restores the first choice."""
        return self._held, self.to.value, self.metric.value, self.model.value

    @chosen.setter
    def chosen(self, choice: tuple[Any, ...] | None) -> None:
        if choice is None:
            self._offer(None)
            self.metric.value = "covariance"
        else:
            self._held, self.to.value, self.metric.value, self.model.value = choice
        self._ask()

    def _named(self) -> list[tuple[str, Any]]:
        """Return the named targets; if they are numbers, give the slider their range."""
        scene, target = self.state.scene, self.state.target
        self.slider.layout.display = "none"
        if self._chosen is None and target in scene.latents[0].obs:
            known = scene.values(target)
            if _is_numeric(known):
                self._range(float(known[0]), float(known[-1]), isinstance(known[0], int))
        return named_targets(scene, target)

    def _range(self, low: float, high: float, whole: bool) -> None:
        with self._still():
            with self.slider.hold_trait_notifications():
                self.slider.min, self.slider.max = low, high
            self.slider.step = 1.0 if whole else (high - low) / _NOTCHES
        self.slider.layout.display = None

    def _drag(self, x: float, y: float) -> None:
        """Take the reading at the marker as the target, or the nearest possible reading."""
        plane, cloud = self._chosen, self.plane.cloud
        if plane is None or cloud is None:
            return
        self.hold(plane.reading((x, y), self.plane.now))
        cloud.handle = tuple(plane.coordinates(self._held).tolist())

    def _slide(self, change: Any) -> None:
        if not self._following:
            self.hold([change["new"]])

    def hold(self, numbers: ArrayLike) -> None:
        """Take numbers as the target, as many as the probe reads."""
        self._held = np.asarray(numbers, dtype=float)
        self.to.value = _DRAGGED
        self._ask()

    def _prepare(self) -> None:
        try:
            target = self._target()
        except ValueError:
            target = None
        if self.slider.layout.display is None and target is not None:
            with self._still():
                self.slider.value = float(np.ravel(target)[0])
        if self._chosen is None or self.model.value is None:
            self.plane.hide()
            return
        try:
            probe = self._reader(self.model.value)
        except ValueError:
            # The message in place of the figure says why there is no probe.
            self.plane.hide()
            return
        self.plane.show(self._chosen, probe, self.model.value, target)

    def _depends_on(self) -> tuple[Any, ...]:
        chosen = self.state.selection[:1] if self.to.value == _SELECTED else ()
        held = np.ravel(self._held).tolist() if self.to.value == _DRAGGED and self._held is not None else ()
        return self.to.value, held, self.metric.value, chosen, self.state.jobs.changes

    def _reader(self, model: int) -> ProbeResult | JointProbe:
        """Return the probe of the target, or the probes of the plane as one."""
        if self._chosen is None or len(self._chosen.targets) == 1:
            return self._probe(model, self.state.target, HIDDEN)
        return JointProbe(tuple(self._probe(model, target, HIDDEN) for target in self._chosen.targets))

    def _answer(self, model: int, row: int) -> Any:
        checkpoint, scene, metric = self._checkpoint(model), self.state.scene, self.metric.value
        probe, target = self._reader(model), self._target()
        target = str(target) if probe.metric == "accuracy" else np.atleast_1d(np.asarray(target, dtype=float))
        left = scene.positions(self.state.episode)[-1] - self.state.position
        injector: Injector = scene.results.get(
            ("injector", model, probe.target, metric),
            lambda: Injector(checkpoint, scene.latents[model], probe, metric),
        )
        return injector.inject(row, target, steps=max(0, min(_STEPS, left)))

    def _target(self) -> Any:
        """Return the target, the same for every model."""
        state, plane, chosen = self.state, self._chosen, self.to.value
        if chosen == _SELECTED:
            if not state.selection:
                raise ValueError("No row is selected: drag over points, or click a pair, to choose a target")
            names = (state.target,) if plane is None else plane.targets
            true = [column(state.scene.latents[0], name)[state.rows[0]] for name in names]
            if np.any(pd.isna(np.concatenate([np.ravel(value) for value in true]))):
                raise ValueError(f"The selected row has no {words(state.target)}: select another one")
            self._held = true[0] if len(true) == 1 else np.array(true)
        elif chosen != _DRAGGED:
            self._held = chosen if plane is None else plane.places[chosen]
        if self._held is None:
            raise ValueError("No target yet: drag the marker, or choose one from the list")
        return self._held

    def _figure(self) -> Any:
        figure = super()._figure()
        if not isinstance(figure, str) and not any(trace.meta["role"] == "rollout_after" for trace in figure.data):
            position, last = self.state.position, self.state.scene.positions(self.state.episode)[-1]
            why = "the episode ends here" if position == last else "no model here has psi"
            self._without.value = "<br>".join(filter(None, [self._without.value, f"No rollout is drawn: {why}."]))
        return figure

    def _draw_answers(self, answers: Mapping[str, Any], theme: Theme) -> Any:
        figure = injection_figure(answers, most=_MOST, theme=theme)
        about, *others = figure.layout.annotations
        text = about.text.replace("<br>", " ")
        for label in map(escape, map(shorten, answers)):
            text = text.replace(f" {label}: edit", f"<br>{label}: edit")
        figure.layout.annotations = others
        self.about.value = f"{text}<br>{in_a_row(figure)}"
        return figure


def named_targets(scene: Scene, target: str) -> list[tuple[str, Any]]:
    """Return the named targets as (label, target): places of the world's plane, or values of a column."""
    plane = _plane(scene, target)
    if plane is not None:
        form = "certainty of {}" if plane.landmarks else "{}"
        return [(form.format(shorten(name)), name) for name in plane.places]
    if target not in scene.latents[0].obs:
        return []
    known = scene.values(target)
    if _is_numeric(known) and len(known) > _MOST:
        known = np.unique(np.quantile(known, np.linspace(0, 1, 5), method="nearest")).tolist()
    return [(shorten(value), value) for value in known]


def _plane(scene: Scene, target: str) -> InjectionPlane | None:
    try:
        return injection_plane(scene.world, target)
    except LatentsError:
        # The latents have no known world.
        return None


def _is_numeric(values: Sequence[Any]) -> bool:
    return len(values) > 1 and not isinstance(values[0], (str, bool))


class TargetPlane:
    """A plane of a probe's readings: of every row (points), at the cursor (a ring), and the target (a marker to drag).

    Another model or plane gets a new cloud; otherwise only changes are sent. `on_move` is called with x and y while
    the marker is dragged; `box` holds the cloud and its caption.
    """

    def __init__(self, state: ViewState, on_move: Callable[[float, float], None]) -> None:
        self._state, self._on_move = state, on_move
        self._caption = text_line()
        self.box = ipywidgets.VBox([self._caption], layout=_NARROW | {"display": "none"})
        self.cloud: RowCloud | None = None
        self._of: tuple[Any, ...] = ()
        self._highlighted: Any = None
        self._target: np.ndarray | None = None

    def show(
        self, plane: InjectionPlane, probe: ProbeResult | JointProbe, model: int, target: np.ndarray | None
    ) -> None:
        """Show the state, with the marker at the target; without a target, the marker stays."""
        scene = self._state.scene
        of = scene, plane, *getattr(probe, "probes", (probe,))
        if len(of) != len(self._of) or any(new is not old for new, old in zip(of, self._of, strict=True)):
            self._make(plane, probe, model)
            self._of = of
        assert self.cloud is not None
        self.cloud.ring = tuple(self._places[self._row].tolist())
        if target is not None and target is not self._target:
            self.cloud.handle = tuple(plane.coordinates(target).tolist())
        self._target = target
        color = self._state.coloring(model)
        if self.cloud.color != color:
            self.cloud.paint(color)
        self._highlight()
        self._caption.value = _caption(plane, probe.names, self.now, target)
        self.box.layout.display = None

    def hide(self) -> None:
        self.box.layout.display = "none"

    def close(self) -> None:
        if self.cloud is not None:
            self.cloud.close()

    @property
    def now(self) -> Float[np.ndarray, " k"]:
        """The reading at the cursor."""
        reading: Float[np.ndarray, " k"] = self._readings[self._row]
        return reading

    @property
    def _row(self) -> int:
        (row,) = self._state.scene.rows([(self._state.episode, self._state.position)])
        return int(row)

    def _make(self, plane: InjectionPlane, probe: ProbeResult | JointProbe, model: int) -> None:
        scene = self._state.scene
        self.close()
        self._highlighted = self._target = None
        self._readings = probe.predict(scene.latents[model])
        self._places = plane.coordinates(self._readings)
        self.cloud = RowCloud(
            scene.latents[model],
            scene.shown,
            self._places[scene.shown],
            self._state.coloring(model),
            describe=lambda row: self._label(probe.names, row),
            on_select=self._state.select,
            on_click=self._state.go_to_row,
            on_move=self._on_move,
            height=_HEIGHT,
            handle=self._places[self._row],
            axes=plane.axes,
            outline=plane.outline,
            landmarks=plane.landmarks,
        )
        self.box.children = [self.cloud, self._caption]

    def _highlight(self) -> None:
        state, looks = self._state, (self._state.selection, self._state.filter)
        if self.cloud is not None and looks != self._highlighted:
            self.cloud.highlight(state.highlighted)
            self._highlighted = looks

    def _label(self, names: tuple[str, ...], row: int) -> str:
        ((episode, position),) = self._state.scene.keys([row])
        return f"episode {episode}, position {position}\nreads {_numbers(names, self._readings[row])}"


def _caption(plane: InjectionPlane, names: tuple[str, ...], now: np.ndarray, target: np.ndarray | None) -> str:
    sentences = [f"Reading at the cursor (ring): {escape(_numbers(names, now))}."]
    if target is not None:
        where = [name for name, place in plane.places.items() if np.array_equal(place, target)]
        there = f" ({escape(shorten(where[0]))})" if where else ""
        sentences.append(f"Target (marker): <b>{escape(_numbers(names, target))}</b>{there}.")
    return f"{' '.join(sentences)}<br><small>{escape(plane.caption)}</small>"


def _numbers(names: tuple[str, ...], values: np.ndarray) -> str:
    """Write numbers with their names; of many, the largest."""
    digits = 0 if np.abs(values).max() >= 20 else 2
    most = np.sort(np.argsort(-values, kind="stable")[:_MOST_NAMES])
    text = ", ".join(f"{shorten(names[i])}: {values[i]:.{digits}f}" for i in most).replace("-", "−")
    return text + ", …" * (len(names) > _MOST_NAMES)
