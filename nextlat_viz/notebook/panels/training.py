"""Training: the panel of measures and latents over training steps, and `LossMonitor`, which draws losses live."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets
import numpy as np
import pandas as pd

from nextlat_viz.display import distinct, escape, shorten
from nextlat_viz.errors import shown
from nextlat_viz.figures.emergence import clouds_over_training
from nextlat_viz.figures.layout import heading
from nextlat_viz.figures.theme import Theme
from nextlat_viz.figures.training import loss_curves, training_curves
from nextlat_viz.notebook import colors, controls
from nextlat_viz.notebook.box import Box, text_line
from nextlat_viz.notebook.jobs import Cancelled, Waiting
from nextlat_viz.notebook.panel import Panel, take_legend
from nextlat_viz.notebook.panels.answers import sentence
from nextlat_viz.notebook.plot import Plot, Points
from nextlat_viz.notebook.state import ViewState
from nextlat_viz.notebook.threads import Results
from nextlat_viz.plotting import name_file
from nextlat_viz.worlds.headline import headline

# Most pictures in a row, and most rows, at which the pictures are large enough.
_PICTURES, _ROWS = 6, 3
_HEADING = 20  # letters of a line above a curve in a small panel
_KEEP = "nlv.train keeps some in a notebook, and snapshots=(100, 200, …) chooses which"


class TrainingPanel(Panel):
    """Curves of the losses and of the world's headline measure, or small clouds; a click goes to that training step.

    The curves are from the log of training. Values at step 0 and at snapshots between log entries are measured here.
    """

    name, question, tab = "training", "When in training does the model learn this?", "Training"
    follows = ("color", "site", "dark")

    def __init__(self, *models: Any, state: ViewState | None = None, theme: Theme | None = None) -> None:
        super().__init__(*models, state=state, theme=theme)
        self.view = ipywidgets.ToggleButtons(
            options=["Curves", "Pictures"], tooltip="What is drawn over training", style={"button_width": "auto"},
            tooltips=["The losses and what the models know of their world", "The latents, in the axes of the end"],
        )  # fmt: skip
        self.view.add_class("nlv-tabs")
        self.status = controls.StatusLine(self.state.history, self._ask)
        self.about = text_line()
        self._requested: set[tuple[Results, Any]] = set()
        self._show(beside=[self.view, self.status], below=[self.about], on_click=self._click)
        self._link(self.view, lambda change: self._ask())

    @classmethod
    def unsuited(cls, state: ViewState) -> str:
        """Why there is nothing to draw over training."""
        reasons = [reason for _, reason in _histories(state) if reason]
        return sentence(reasons[0]) if len(reasons) == len(state.sources) else ""

    def _depends_on(self) -> tuple[Any, ...]:
        return self.view.value, self.state.history.changes

    @property
    def _labels(self) -> list[str]:
        """The models' labels, without their training step."""
        return distinct(source.label for source in self.state.sources)

    def _look(self, change: Any = None) -> None:
        super()._look(change)
        if (self.folded or not self.shown) and self._requested:
            # Compute nothing while the panel is out of sight.
            self._requested, self._drawn = set(), None
            self.state.history.withdraw(self._ask)

    def _figure(self) -> Any:
        if self.why_not:
            return self.why_not
        self._requested = set()
        figure = self._curves() if self.view.value == "Curves" else self._pictures()
        self.state.history.withdraw(self._ask, self._requested)
        return figure

    def _computed_later(self, results: Results, key: Any, title: str, compute: Callable[[], Any]) -> Any:
        """Return a result of the queue, or a text that says why it is missing."""
        self._requested.add((results, key))
        try:
            return self.state.history.ask(results, key, title, compute, self._ask)
        except Waiting:
            return "…"
        except Cancelled:
            return "cancelled"
        except Exception as error:
            self._complain(error)
            return "failed"

    def _curves(self) -> Any:
        state, tables, waits = self.state, {}, 0
        for source, label, (logged, _) in zip(state.sources, self._labels, _histories(state), strict=True):
            if logged is None:
                continue
            for step in sorted({0, *state.steps} & set(source.steps) - set(logged["step"])):
                title = f"The measures of {label} at step {step:,}"
                compute = lambda source=source, step=step: source.validate(step)  # noqa: E731
                waits += isinstance(self._computed_later(source.results, ("validated", step), title, compute), str)
            tables[label] = source.measured
        figure = training_curves(tables, step=state.step, snapshots=state.steps, theme=state.theme)
        marks = take_legend(figure)
        numbers = [f"{mark} {self._numbers(table)}" for mark, table in zip(marks, tables.values(), strict=False)]
        floors = sorted({f"{level:.4f}" for table in tables.values() if "floor" in table for level in table["floor"]})
        lines = [" &ensp;".join([*numbers, *(f"{mark} {', '.join(floors)}" for mark in marks[len(tables) :])])]
        if waits:
            asked = len(self._requested)
            lines.append(f"{asked - waits} of {asked} values that training did not log have been measured.")
        self.about.value = "<br>".join([*lines, *self._gaps()])
        return _low(figure)

    def _numbers(self, table: pd.DataFrame) -> str:
        """Write a model's measures at the step shown, and that of the untrained model."""
        rows = table[table["step"] == (table["step"].max() if self.state.step is None else self.state.step)]
        if rows.empty:
            return f"was not measured at step {self.state.step:,}"
        row, name = rows.iloc[-1], headline(table)
        untrained = table.loc[table["step"] == 0, name or "loss"]
        control = f" (untrained {untrained.iloc[0]:.2f})" if len(untrained) else ""
        return (
            f"at step {int(row['step']):,}: "
            + (f"<b>{row[name]:.2f}</b>{control}, " if name else "")
            + f"loss {row['loss']:.4f}"
        )

    def _gaps(self) -> list[str]:
        """Say which models lack training steps that others have, and how to keep them."""
        sources, labels = self.state.sources, self._labels
        lines = [sentence(reason) for _, reason in _histories(self.state) if reason]
        every = sorted(set().union(*(source.steps[1:-1] for source in sources)))
        if not every:
            return [*lines, f"There are no snapshots of earlier training steps: {_KEEP}."]
        for source, label in zip(sources, labels, strict=True):
            # A run that ended earlier does not lack the steps after its end.
            lacks = [f"{step:,}" for step in every if step not in source.steps and step < max(source.steps)]
            if lacks:
                some = ", ".join(lacks[:6]) + (f", … ({len(lacks)} in all)" if len(lacks) > 6 else "")
                lines.append(
                    f"{escape(label)} has no snapshot at step {some}; steps that all models have can be chosen."
                )
        return lines

    def _pictures(self) -> Any:
        state = self.state
        if not state.steps:
            return " ".join([*self._gaps(), "Without snapshots that all models have there are no pictures."])
        rows: dict[str, dict[int, Any]] = {label: {} for label in distinct(map(shorten, self._labels[:_ROWS]))}
        end, color = max(max(source.steps) for source in state.sources), colors.shared(state.scene, state.color)
        for step in self._chosen():
            number = end if step is None else step
            planes = self._planes(step, f"step {number:,}")
            for model, by_step in enumerate(rows.values()):
                by_step[number] = planes if isinstance(planes, str) else planes[model]
        done = sum(not isinstance(plane, str) for plane in next(iter(rows.values())).values())
        words = [] if done == len(self._chosen()) else [f"{done} of {len(self._chosen())} pictures are ready."]
        words.append("Planes of PCA, aligned with the end of training, all in the same axes.")
        if color != state.color:
            words.append(f"Coloured by {escape(color)}: the chosen colour differs from step to step.")
        if len(self._labels) > _ROWS:
            words.append(f"The first {_ROWS} of {len(self._labels)} models are drawn.")
        self.about.value = " ".join([*words, *self._gaps()])
        shown = end if state.step is None else state.step
        return clouds_over_training(rows, state.scene.latents[0], color, step=shown, theme=state.theme)

    def _planes(self, step: int | None, when: str) -> Any:
        """Return the PCA of every model at a training step, or a text that says why it is missing."""
        state = self.state

        def load() -> Any:
            return state.load(state.world, step, state.history.report)

        scene = self._computed_later(state.scenes, (state.world, step), f"The latents at {when}", load)
        if isinstance(scene, str):
            return scene
        compute = lambda: scene.pca(state.site)  # noqa: E731
        return self._computed_later(scene.results, ("pca", state.site), f"The PCA at {when}", compute)

    def _chosen(self) -> list[int | None]:
        """Return a few evenly spaced training steps, with the step that is shown."""
        steps = [step for _, step in self.state.step_choices]
        chosen = np.unique(np.linspace(0, len(steps) - 1, _PICTURES).round().astype(int))
        shown = steps.index(self.state.step)
        if shown not in chosen:
            inner = chosen[1:-1]
            inner[np.abs(inner - shown).argmin()] = shown
        return [steps[i] for i in chosen]

    def _click(self, points: Points) -> None:
        """Go to the nearest training step that can be chosen."""
        state = self.state
        if not state.steps:
            return
        traces: Any = self.plot.data
        places = self.plot.points(points, "curve", "points")
        if places:
            trace, point = places[0]
            at = traces[trace].meta.get("step", None)
            at = traces[trace].x[point] if at is None else at
            end = max(max(source.steps) for source in state.sources)
            nearest = min(
                (step for _, step in state.step_choices), key=lambda step: abs((end if step is None else step) - at)
            )
            state.request(state.world, nearest, self._complain)


def _histories(state: ViewState) -> list[tuple[pd.DataFrame | None, str]]:
    """Return the metrics of every model, or None and the reason."""
    histories: list[tuple[pd.DataFrame | None, str]] = []
    for source in state.sources:
        try:
            histories.append((source.history, ""))
        except ValueError as error:
            histories.append((None, str(error)))
    return histories


def _low(figure: Any) -> Any:
    """Turn the titles of the vertical axes into headings, because a panel is wide and low."""
    most = 1
    for x, y in zip(figure.select_xaxes(), figure.select_yaxes(), strict=True):
        lines = textwrap.wrap(y.title.text, _HEADING)
        most = max(most, len(lines))
        figure.add_annotation(heading("<br>".join(lines), x=x.domain[0], font={"size": 11}))
        y.title.text = ""
        # More numbers would be slanted, over the title of the axis.
        x.nticks = 4
    return figure.update_layout(margin={"t": 12 + 14 * most, "b": 36, "l": 40})


class LossMonitor(Box):
    """Validation losses, drawn while models train, with the Bayes floor if it is known.

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
        """The measurements so far, a table per model."""
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
        waiting = {"waiting": pd.DataFrame({"step": [], "loss": []})}
        figure = loss_curves(measured or waiting, title="Loss while training", theme=self._theme)
        name_file(figure, "loss_while_training")
        if not measured:
            figure.update_layout(title="Loss while training: nothing measured yet", showlegend=False)
        return figure
