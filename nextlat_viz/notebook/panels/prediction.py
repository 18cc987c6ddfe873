"""What each model predicts next: its next-token distribution at the cursor with the exact one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nextlat_viz.analysis.prediction import Prediction, prediction
from nextlat_viz.figures.prediction import prediction_bars
from nextlat_viz.figures.theme import Theme
from nextlat_viz.latents.table import PROBS
from nextlat_viz.notebook.panel import ModelPanel

# More bars than this cannot be told apart in a narrow panel.
_MOST = 12


class NextPanel(ModelPanel):
    """Bars of the likeliest tokens, and the distance of each model from the exact distribution in nats."""

    name, question = "next", "What does the model predict next?"

    def _answer(self, model: int, row: int) -> Prediction:
        latents = self.state.scene.latents[model]
        head = None
        if PROBS not in latents.obsm:
            head = self._checkpoint(model).model.backbone.head.weight.detach().cpu().numpy()
        return prediction(latents, row, head)

    def _draw_answers(self, answers: Mapping[str, Any], theme: Theme) -> Any:
        figure = prediction_bars(answers, most=_MOST, theme=theme)
        # A line for each model, or the heading would be wider than the panel.
        heading = figure.layout.annotations[0]
        text = heading.text.replace(" nats, ", " nats,<br>")
        position = self.state.position
        if position < self.state.scene.prompt:
            text += f"<br>Position {position} lies in the prompt, which the<br>model is not trained to predict"
        lines = text.count("<br>") - heading.text.count("<br>")
        heading.text = text
        figure.update_layout(
            height=figure.layout.height + 15 * lines, margin={"t": figure.layout.margin.t + 15 * lines}
        )
        return figure
