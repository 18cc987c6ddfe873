"""Panels of answers at the cursor: each model's next token, its rollout of next states, and a probe's reading."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from nextlat_viz.analysis.lookahead import look_ahead
from nextlat_viz.analysis.prediction import Prediction, prediction
from nextlat_viz.analysis.probes.result import read_out
from nextlat_viz.display import escape
from nextlat_viz.figures.bars import prediction_bars, read_out_figure
from nextlat_viz.figures.layout import column_domains
from nextlat_viz.figures.layout import note as note_at
from nextlat_viz.figures.lookahead import look_ahead_path
from nextlat_viz.figures.theme import Theme
from nextlat_viz.latents.table import HIDDEN, PROBS
from nextlat_viz.latents.thinking import is_recursive
from nextlat_viz.notebook import controls
from nextlat_viz.notebook.box import text_line
from nextlat_viz.notebook.panel import Panel, take_legend
from nextlat_viz.notebook.state import ViewState

if TYPE_CHECKING:
    from nextlat_viz.analysis import ProbeResult
    from nextlat_viz.training import Checkpoint

# Letters that fit over one of three views in a row.
_HEADING = 30
# More bars than this cannot be told apart in a narrow panel.
_BARS = 12
_STEPS = 8


class ModelPanel(Panel):
    """A panel that asks the compared models the same question at the cursor, and draws the answers.

    A subclass defines `_draw_answers` and `_answer`, which may raise a ValueError that says why a model has no answer.
    Such a reason is shown below the figure, or in place of the figure if no model has an answer.
    """

    follows: ClassVar[tuple[str, ...]] = ("episode", "position", "compared", "dark")

    def __init__(self, *models: Any, state: ViewState | None = None, theme: Theme | None = None) -> None:
        super().__init__(*models, state=state, theme=theme)
        self.about, self._without = text_line(), text_line()
        self._build()

    def _build(self) -> None:
        """Make the controls and call `_show`."""
        self._show(below=[self.about, self._without])

    def _answer(self, model: int, row: int) -> Any:
        raise NotImplementedError

    def _draw_answers(self, answers: Mapping[str, Any], theme: Theme) -> Any:
        raise NotImplementedError

    def _figure(self) -> Any:
        state, scene = self.state, self.state.scene
        row = int(scene.rows([(state.episode, state.position)])[0])
        answers, without = {}, {}
        for model in state.pair:
            label = scene.labels[model]
            try:
                answers[label] = self._answer(model, row)
            except ValueError as error:
                without[label] = sentence(str(error))
        reasons = list(dict.fromkeys(without.values()))
        self._without.value = ""
        if not answers:
            self.about.value = ""
            return " ".join(reasons)
        self._without.value = "<br>".join(escape(reason) for reason in reasons)
        figure = self._draw_answers(answers, state.theme)
        for note in figure.layout.annotations:
            # Headings begin at the edge of the panel, which may be narrow.
            if note.xref == "paper" and note.x == 0 and note.xanchor == "left":
                note.xshift = 4 - figure.layout.margin.l
        return figure

    def _take_heading(self, figure: Any) -> str:
        """Take the heading off compact bars, and return it as HTML.

        HTML wraps, and when it changes at a step of the cursor, plotly need not lay out the figure again.
        """
        (heading,) = figure._layout.pop("annotations")
        figure._layout["margin"]["t"] = 8
        text: str = heading["text"]
        # A mark stays on the line of its name.
        return text.replace("</b><br>", "</b> ", 1).replace("</span> ", "</span>&nbsp;")

    def _fitted(self, target: str, site: str) -> list[ProbeResult]:
        """Return the probes of a target that have been fitted already, of all models."""
        results = self.state.scene.results
        known = [results.peek(("probe", model, target, site)) for model in range(len(self.state.latents))]
        return [probe for probe in known if probe is not None]

    def _checkpoint(self, model: int) -> Checkpoint:
        """Return the model's checkpoint; raise ValueError if it was given as latents or is recursive."""
        scene = self.state.scene
        checkpoint = scene.checkpoint(model)
        if checkpoint is None:
            raise ValueError(
                f"{scene.labels[model]} was given as latents, and this panel runs the model: open the studio with "
                "its checkpoint"
            )
        if is_recursive(checkpoint):
            raise ValueError(
                f"{scene.labels[model]} answers whole puzzles in recursion steps, and this panel asks for a next token"
            )
        return checkpoint


class NextPanel(ModelPanel):
    """Bars of the likeliest tokens, and the distance of each model from the exact distribution in nats."""

    name, question, tab = "next", "What does the model predict next?", "Next token"

    def _build(self) -> None:
        self._prompt = text_line()
        self._show(above=[self.about], below=[self._prompt, self._without])

    def _answer(self, model: int, row: int) -> Prediction:
        latents = self.state.scene.latents[model]
        head = None
        if PROBS not in latents.obsm:
            head = self._checkpoint(model).network.backbone.head.weight.detach().cpu().numpy()
        return prediction(latents, row, head)

    def _draw_answers(self, answers: Mapping[str, Any], theme: Theme) -> Any:
        position = self.state.position
        about = f"Position {position} lies in the prompt, which the model is not trained to predict."
        self._prompt.value = about if position < self.state.scene.prompt else ""
        figure = prediction_bars(answers, most=_BARS, compact=True, theme=theme)
        self.about.value = self._take_heading(figure)
        return figure


class AheadPanel(ModelPanel):
    """Psi's rollout and the true states as paths in the plane of PCA, and their distance by step."""

    name, question, tab = "ahead", "Can the model predict its own next states?", "Rollout"

    @classmethod
    def unsuited(cls, state: ViewState) -> str:
        """Why no model can be rolled out, at any cursor."""
        rolled = any(hasattr(checkpoint.network, "psi") for checkpoint in state.scene.opened)
        return "" if rolled else "No model here has latent dynamics psi that could be rolled out."

    def _answer(self, model: int, row: int) -> Any:
        state, scene = self.state, self.state.scene
        ahead = look_ahead(self._checkpoint(model), scene.latents[model], state.episode, state.position, _STEPS)
        return ahead, scene.pca(HIDDEN)[model].transform

    def _draw_answers(self, answers: Mapping[str, Any], theme: Theme) -> Any:
        figure = look_ahead_path(answers, axes=("PCA 1", "PCA 2"), theme=theme)
        self.about.value = in_a_row(figure)
        return figure


class KnowsPanel(ModelPanel):
    """The probe's reading and the truth; the heading has the probe's score and its controls."""

    name, question, tab = "knows", "What can a linear probe read from the model?", "Probe"
    follows = (*ModelPanel.follows, "site", "target")

    def _build(self) -> None:
        self._show(beside=[controls.target(self)], below=[self.about, self._without])

    def _depends_on(self) -> tuple[Any, ...]:
        return (self.state.jobs.changes,)

    def _answer(self, model: int, row: int) -> Any:
        return read_out(self.state.scene.latents[model], self._probe(model, self.state.target, self.state.site), row)

    @property
    def probes(self) -> list[ProbeResult]:
        return self._fitted(self.state.target, self.state.site)

    def _draw_answers(self, answers: Mapping[str, Any], theme: Theme) -> Any:
        figure = read_out_figure(answers, most=_BARS, compact=True, theme=theme)
        self.about.value = self._take_heading(figure)
        return figure


def in_a_row(figure: Any) -> str:
    """Place the views of a figure side by side: a panel is wide and low.

    Titles of vertical axes become headings. Returns the texts without room, the legend and long lines, as HTML.
    """
    words = take_legend(figure)
    columns = column_domains(len(list(figure.select_xaxes())), 0.085)
    headings = {(note.x, note.y): note for note in figure.layout.annotations if note.xref == "paper"}
    notes, most = [], 1
    for across, x, y in zip(columns, figure.select_xaxes(), figure.select_yaxes(), strict=True):
        note = headings.get((x.domain[0], y.domain[1]))
        lines = [] if note is None else note.text.split("<br>")
        words += [line for line in lines if len(line) > _HEADING]
        lines = [line for line in lines if len(line) <= _HEADING] + textwrap.wrap(y.title.text or "", _HEADING // 2)
        most = max(most, len(lines))
        place = {"xanchor": "left", "yanchor": "bottom", "align": "left", "yshift": 4, "font": {"size": 11}}
        notes.append(note_at(across[0], 1.0, "<br>".join(lines), **place))
        # Let plotly slant names of tokens that would touch.
        x.update(domain=across, title_text="", tickangle=None, automargin="height")
        y.update(domain=[0, 1], title_text="")
    margin = {"t": 10 + 14 * most, "b": 24, "l": 34}
    figure.update_layout(annotations=notes, showlegend=False, margin=margin, height=320)
    return " &ensp;".join(words)


def sentence(text: str) -> str:
    """Return an error's text as a sentence."""
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith((".", "…")) else ".")
