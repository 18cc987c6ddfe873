"""How far psi's predicted latents follow the states that the transformer comes to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nextlat_viz.analysis.lookahead import look_ahead
from nextlat_viz.figures.lookahead import look_ahead_path
from nextlat_viz.figures.theme import Theme
from nextlat_viz.latents.table import HIDDEN
from nextlat_viz.notebook.panel import ModelPanel

_STEPS = 8


class AheadPanel(ModelPanel):
    """Psi's rollout as a path in the plane of PCA, the true states with it, and their distance by step."""

    name, question = "ahead", "Can the model predict its own next states?"

    def _answer(self, model: int, row: int) -> Any:
        state, scene = self.state, self.state.scene
        ahead = look_ahead(self._checkpoint(model), scene.latents[model], state.episode, state.position, _STEPS)
        return ahead, scene.pca(HIDDEN)[model].transform

    def _draw_answers(self, answers: Mapping[str, Any], theme: Theme) -> Any:
        figure = look_ahead_path(answers, axes=("PCA 1", "PCA 2"), theme=theme)
        # In a narrow panel the title of the last axis would cover the view left of it.
        *_, last = figure.select_yaxes()
        last.side = "right"
        figure.layout.margin.r = 62
        return figure
