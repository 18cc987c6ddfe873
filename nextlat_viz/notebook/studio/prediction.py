"""What comes next: each model's next-token distribution at the cursor, beside the exact one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nextlat_viz.analysis.prediction import Prediction, prediction
from nextlat_viz.figures.prediction import prediction_bars
from nextlat_viz.figures.theme import Theme
from nextlat_viz.latents.table import PROBS
from nextlat_viz.notebook.studio.asked import AskedCard

# The card is narrow: more bars than this are no longer told apart.
_MOST = 12


class NextCard(AskedCard):
    """Bars of the likeliest tokens, and how many nats each model is from the exact distribution."""

    name, question = "next", "What comes next?"

    def _answer(self, model: int, row: int) -> Prediction:
        latents = self.state.scene.latents[model]
        head = None
        if PROBS not in latents.obsm:
            head = self._checkpoint(model).model.backbone.head.weight.detach().cpu().numpy()
        return prediction(latents, row, head)

    def _picture(self, answers: Mapping[str, Any], theme: Theme) -> Any:
        figure = prediction_bars(answers, most=_MOST, theme=theme)
        # In a narrow card a line for each model, or the heading runs out of it.
        heading = figure.layout.annotations[0]
        text = heading.text.replace(" nats, ", " nats,<br>")
        at = self.state.position
        if at < self.state.scene.prompt:
            text += f"<br>Position {at} lies in the prompt, which the<br>model is not trained to predict"
        lines = text.count("<br>") - heading.text.count("<br>")
        heading.text = text
        figure.update_layout(
            height=figure.layout.height + 15 * lines, margin={"t": figure.layout.margin.t + 15 * lines}
        )
        return figure
