"""What a probe reads at the cursor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nextlat_viz.analysis.readout import read_out as read
from nextlat_viz.figures.readout import read_out
from nextlat_viz.figures.theme import Theme
from nextlat_viz.widgets import controls
from nextlat_viz.widgets.studio.asked import AskedCard

if TYPE_CHECKING:
    from nextlat_viz.analysis import ProbeResult

_MOST = 12


class ProbingCard(AskedCard):
    """Fits the probes it needs beside the kernel's thread; until they are there, says so."""

    def _probe(self, model: int, site: str, target: str | None = None) -> ProbeResult:
        """The probe of a target, by default the one that is looked at."""
        scene, turns = self.state.scene, self._turns
        wanted = self.state.target if target is None else target
        result: ProbeResult = turns.beside.ask(
            (scene, model, wanted, site),
            f"The probe of {scene.labels[model]} for {wanted}",
            lambda: scene.probe(model, wanted, site),
            self._ask,
        )
        return result

    def _more(self) -> tuple[Any, ...]:
        return self.state.target, self._turns.beside.finished


class KnowsCard(ProbingCard):
    """What a linear probe reads at the cursor, beside the truth; its score, and what it is worth, in the heading."""

    name, question = "knows", "What does it know?"

    def _ready(self) -> None:
        self._show(above=[controls.row(controls.target(self))], below=[self._without])

    def _more(self) -> tuple[Any, ...]:
        return self.state.site, *super()._more()

    def _answer(self, model: int, row: int) -> Any:
        return read(self.state.scene.latents[model], self._probe(model, self.state.site), row)

    def _picture(self, answers: Mapping[str, Any], theme: Theme) -> Any:
        return read_out(answers, most=_MOST, theme=theme)
