"""Panels of the task: how well each model solves its world's task, and whether more recursion steps help."""

from __future__ import annotations

from typing import Any

import pandas as pd

from nextlat_viz import analysis
from nextlat_viz.analysis.measure import (
    Measure,
    basic,  # noqa: F401  (registers tokens_ahead)
)
from nextlat_viz.analysis.measure.registry import MEASURES
from nextlat_viz.figures.layout import side_by_side
from nextlat_viz.figures.recursion import thinking_curves
from nextlat_viz.figures.regrid import regridded
from nextlat_viz.figures.theme import Theme
from nextlat_viz.notebook.box import choice, text_line
from nextlat_viz.notebook.panel import Panel, take_legend
from nextlat_viz.notebook.panels.answers import in_a_row, sentence
from nextlat_viz.notebook.scene import Scene
from nextlat_viz.notebook.state import ViewState

# A world gets the first measure that fits. The options keep its computation to seconds.
_MEASURES: dict[str, dict[str, Any]] = {
    "state_tracking": {"n": 200}, "path_accuracy": {"n": 200, "decodings": "greedy"}, "valid_trajectories": {"n": 200},
    "equation_validity": {"n": 200}, "tokens_ahead": {"offsets": (1, 2, 4, 8, 16), "episodes": 200},
}  # fmt: skip
_WIDTH = 480  # pixels for which the views are laid out, before they fill the panel


class TaskPanel(Panel):
    """Scores of the world's task: group products past the training length, paths, rides, equations, tokens ahead."""

    name, question, tab = "task", "How well does the model do what its world asks?", "Task"
    follows = ("dark",)

    def __init__(self, *models: Any, state: ViewState | None = None, theme: Theme | None = None) -> None:
        super().__init__(*models, state=state, theme=theme)
        self.about = text_line()
        self._show(below=[self.about])

    def _depends_on(self) -> tuple[Any, ...]:
        return (self.state.jobs.changes,)

    @property
    def measure(self) -> str:
        """Name of the world's measure; empty if there is none, or a model was given as latents."""
        return _measure_of(self.state.scene)

    @classmethod
    def unsuited(cls, state: ViewState) -> str:
        """Why nothing can be measured."""
        suited = _measure_of(state.scene)
        return "" if suited else "These models were given as latents, or their world has no task to measure."

    def _figure(self) -> Any:
        name, checkpoints = self.measure, self.state.scene.opened
        if not name:
            return self.why_not

        def compute() -> Measure:
            take, options = MEASURES[name].take, _MEASURES[name]
            first, *others = (take(checkpoint, progress=False, **options) for checkpoint in checkpoints)
            return sum(others, first)

        title = name.replace("_", " ").capitalize()
        try:
            measure = self._computed(("measure", name), f"{title} of these models", compute)
        except ValueError as error:
            return str(error)
        return self._without_title(measure.plot(theme=self.state.theme))

    def _without_title(self, figure: Any) -> Any:
        """Move the title and the legend to the text below, which wraps, and give their room to the views."""
        if not figure.data:
            self.about.value = ""
            return figure
        # The line breaks are hidden in a low panel.
        lines = [*(figure.layout.title.text or "").split("<br>"), " &ensp;".join(take_legend(figure))]
        self.about.value = " &ensp;<br>".join(lines)
        fitted = regridded(figure, side_by_side(figure), _WIDTH)
        return fitted.update_layout(title_text="", width=None, height=figure.layout.height, margin_t=30, margin_b=40)


def _measure_of(scene: Scene) -> str:
    """Return the first measure that fits all models; empty if there is none, or a model was given as latents."""
    if len(scene.opened) < len(scene.latents):
        return ""
    for name in _MEASURES:
        if name not in MEASURES:
            getattr(analysis, name)  # imports the measure, which registers it
        if all(MEASURES[name].fits(checkpoint) for checkpoint in scene.opened):
            return name
    return ""


class ThinkingPanel(Panel):
    """The share of puzzles solved by step or by forward pass, and the advantage margin of each step.

    Other shipped runs of the same world are drawn too, so that every seed is shown.
    """

    name, question, tab = "thinking", "Does thinking longer help?", "Steps"
    follows = ("position", "dark")

    def __init__(self, *models: Any, state: ViewState | None = None, theme: Theme | None = None) -> None:
        super().__init__(*models, state=state, theme=theme)
        about = "Recursion steps, or forward passes: how often the network is applied"
        self.axis = choice("Compare at equal", about, [("recursion steps", "step"), ("forward passes", "passes")])
        self.about = text_line()
        self._show(beside=[self.axis], below=[self.about])
        self._link(self.axis, lambda change: self._ask())

    @classmethod
    def unsuited(cls, state: ViewState) -> str:
        """Why there are no steps."""
        if state.scene.recursive:
            return ""
        return "These models do not answer in recursion steps: open models trained with 'trm' or 'dis'."

    def _depends_on(self) -> tuple[Any, ...]:
        return self.axis.value, self.state.jobs.changes

    def _figure(self) -> Any:
        state, scene = self.state, self.state.scene
        if self.why_not:
            return self.why_not
        try:
            thinkings = [self._thinking(model) for model in range(len(scene.labels))]
        except ValueError as error:
            return sentence(str(error))
        measures = scene.results.get("step_measures", lambda: self._measures(thinkings))
        figure = thinking_curves(*measures, x=self.axis.value, cursor=state.position, theme=state.theme)
        self.about.value = in_a_row(figure)
        return figure

    def _measures(self, thinkings: list[Any]) -> list[Measure]:
        """Return solved puzzles and margins by step, of the scene's models and of other shipped runs of their world."""
        scene = self.state.scene
        # A model without a checkpoint has no answers.
        models = [model for model in map(scene.checkpoint, range(len(scene.labels))) if model is not None]
        own = {model.name for model in models}
        shipped = analysis.measure.results()
        others = shipped[shipped["world"].isin({model.world.name for model in models}) & ~shipped["model"].isin(own)]
        if not own <= set(shipped["model"]):
            # The user's own runs may have another board size or another number of given queens.
            others = others.iloc[:0]
        measures = []
        for name, mine in zip(
            ("solved_by_step", "advantage_margin"), analysis.step_measures(models, thinkings), strict=True
        ):
            rows = others[others["measure"] == name].reindex(columns=mine.table.columns)
            if "passes" in rows:
                # Every step of a run takes the same number of forward passes.
                taken = others[(others["measure"] == "forward_passes") & (others["quantity"] == "answer")]
                answer = rows["model"].map(taken.set_index("model")["value"])
                rows["passes"] = rows["step"] * answer / rows.groupby("model")["step"].transform("max")
            table = pd.concat([mine.table, rows], ignore_index=True) if len(rows) else mine.table
            measures.append(Measure(mine.name, table, mine.by, mine.unit))
        return measures
