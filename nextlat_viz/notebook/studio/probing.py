"""What a probe reads at the cursor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nextlat_viz.analysis.probes.result import read_out
from nextlat_viz.figures.readout import read_out_figure
from nextlat_viz.figures.theme import Theme
from nextlat_viz.notebook import controls
from nextlat_viz.notebook.studio.asked import AskedCard

_MOST = 12


class ProbingCard(AskedCard):
    """Answers by probes: says so until they are there, and asks again when one is."""

    def _more(self) -> tuple[Any, ...]:
        return self.state.target, self.state.jobs.changes


class KnowsCard(ProbingCard):
    """What a linear probe reads at the cursor, beside the truth; its score, and what it is worth, in the heading."""

    name, question = "knows", "What does it know?"

    def _ready(self) -> None:
        self._show(above=[controls.row(controls.target(self))], below=[self._without])

    def _more(self) -> tuple[Any, ...]:
        return self.state.site, *super()._more()

    def _answer(self, model: int, row: int) -> Any:
        return read_out(self.state.scene.latents[model], self._probe(model, self.state.target, self.state.site), row)

    def _picture(self, answers: Mapping[str, Any], theme: Theme) -> Any:
        return read_out_figure(answers, most=_MOST, theme=theme)
