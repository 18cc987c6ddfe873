"""Can it see ahead: psi's rollout from the cursor, beside the states the transformer itself comes to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nextlat_viz.analysis.lookahead import look_ahead
from nextlat_viz.figures.lookahead import look_ahead_path
from nextlat_viz.figures.theme import Theme
from nextlat_viz.latents.table import HIDDEN
from nextlat_viz.notebook.studio.asked import AskedCard

_STEPS = 8


class AheadCard(AskedCard):
    """The rollout as a path through the plane of PCA, the true states beside it, and how far apart they come."""

    name, question = "ahead", "Can it see ahead?"

    def _answer(self, model: int, row: int) -> Any:
        state, scene = self.state, self.state.scene
        ahead = look_ahead(self._checkpoint(model), scene.latents[model], state.episode, state.position, _STEPS)
        return ahead, scene.pca(HIDDEN)[model].transform

    def _picture(self, answers: Mapping[str, Any], theme: Theme) -> Any:
        figure = look_ahead_path(answers, axes=("PCA 1", "PCA 2"), theme=theme)
        # In a narrow card the title of the last axis would lie on the view beside it.
        *_, last = figure.select_yaxes()
        last.side = "right"
        figure.layout.margin.r = 62
        return figure
