"""The thinking panel: what recursive models solve after each recursion step, and which steps help."""

from __future__ import annotations

from typing import Any

import pandas as pd

from nextlat_viz import analysis
from nextlat_viz.analysis.measure import Measure
from nextlat_viz.figures.recursion import thinking_curves
from nextlat_viz.figures.theme import Theme
from nextlat_viz.notebook.panel import Panel, choice, text_line
from nextlat_viz.notebook.panels.answers import in_a_row, sentence
from nextlat_viz.notebook.state import ViewState


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
        """What the models of the scene and the other shipped runs of its world solve by step, and their margins."""
        scene = self.state.scene
        # Without its checkpoint a model has no answers.
        models = [model for model in map(scene.checkpoint, range(len(scene.labels))) if model is not None]
        own = {model.name for model in models}
        shipped = analysis.measure.results()
        others = shipped[shipped["world"].isin({model.world.name for model in models}) & ~shipped["model"].isin(own)]
        if not own <= set(shipped["model"]):
            # Runs of one's own may be of another size or another number of given queens.
            others = others.iloc[:0]
        measures = []
        for name, mine in zip(
            ("solved_by_step", "advantage_margin"), analysis.step_measures(models, thinkings), strict=True
        ):
            rows = others[others["measure"] == name].reindex(columns=mine.table.columns)
            if "passes" in rows:
                # A run takes as many forward passes in every step.
                taken = others[(others["measure"] == "forward_passes") & (others["quantity"] == "answer")]
                answer = rows["model"].map(taken.set_index("model")["value"])
                rows["passes"] = rows["step"] * answer / rows.groupby("model")["step"].transform("max")
            table = pd.concat([mine.table, rows], ignore_index=True) if len(rows) else mine.table
            measures.append(Measure(mine.name, table, mine.by, mine.unit))
        return measures
