"""What a linear probe reads from each model at the cursor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nextlat_viz.analysis.probes.result import read_out
from nextlat_viz.figures.readout import read_out_figure
from nextlat_viz.figures.theme import Theme
from nextlat_viz.notebook import controls
from nextlat_viz.notebook.panel import ModelPanel

_MOST = 12


class KnowsPanel(ModelPanel):
    """The probe's reading and the truth; the heading has the probe's score and its controls."""

    name, question = "knows", "What can a linear probe read from the model?"

    def _build(self) -> None:
        self._show(above=[controls.row(controls.target(self))], below=[self._without])

    def _depends_on(self) -> tuple[Any, ...]:
        return self.state.site, self.state.target, self.state.jobs.changes

    def _answer(self, model: int, row: int) -> Any:
        return read_out(self.state.scene.latents[model], self._probe(model, self.state.target, self.state.site), row)

    def _draw_answers(self, answers: Mapping[str, Any], theme: Theme) -> Any:
        return read_out_figure(answers, most=_MOST, theme=theme)
