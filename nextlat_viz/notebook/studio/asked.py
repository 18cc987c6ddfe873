"""Cards that ask every model the same at the cursor, and draw the answers of those that have one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import ipywidgets

from nextlat_viz.display import escape
from nextlat_viz.errors import LatentsError
from nextlat_viz.figures.theme import Theme
from nextlat_viz.notebook.state import ViewState
from nextlat_viz.notebook.studio.card import Card

if TYPE_CHECKING:
    from nextlat_viz.training import Checkpoint


class AskedCard(Card):
    """Subclasses write `_answer`, which may raise a ValueError that says why a model has none, and `_picture`.

    A model without an answer is named under the figure, with the reason; where none has one, the reasons stand in
    place of the figure.
    """

    def __init__(self, state: ViewState) -> None:
        super().__init__(state)
        self._without = ipywidgets.HTML()
        self._without.add_class("nlv-words")
        self._ready()

    def _ready(self) -> None:
        """Make controls and call `_show`, with what says who has no answer last."""
        self._show(below=[self._without])

    def _answer(self, model: int, row: int) -> Any:
        """What one model says at a row."""
        raise NotImplementedError

    def _picture(self, answers: Mapping[str, Any], theme: Theme) -> Any:
        """The figure of the answers, by label."""
        raise NotImplementedError

    def _looks_at(self) -> Any:
        state = self.state
        return id(state.scene), state.episode, state.position, state.dark, *self._more()

    def _more(self) -> tuple[Any, ...]:
        """What else the answers depend on."""
        return ()

    def _figure(self) -> Any:
        state, scene = self.state, self.state.scene
        row = int(scene.rows([(state.episode, state.position)])[0])
        answers, without = {}, {}
        for model, label in enumerate(scene.labels):
            try:
                answers[label] = self._answer(model, row)
            except (LatentsError, ValueError) as error:
                without[label] = _sentence(str(error))
        reasons = list(dict.fromkeys(without.values()))
        self._without.value = ""
        if not answers:
            return " ".join(reasons)
        if reasons:
            self._without.value = "<br>".join(escape(reason) for reason in reasons)
        return _fitted(self._picture(answers, state.theme))

    def _checkpoint(self, model: int) -> Checkpoint:
        """The model itself, or a ValueError that says it is not here."""
        scene = self.state.scene
        checkpoint = scene.checkpoint(model)
        if checkpoint is None:
            raise ValueError(
                f"{scene.labels[model]} is here as latents alone, and this needs the model itself: open the studio "
                "with its checkpoint"
            )
        return checkpoint


def _fitted(figure: Any) -> Any:
    """A figure for a narrow card: its headings begin at its edge."""
    for note in figure.layout.annotations:
        if note.xref == "paper" and note.x == 0 and note.xanchor == "left":
            note.xshift = 10 - figure.layout.margin.l
    return figure


def _sentence(text: str) -> str:
    """An error's text as a sentence of its own."""
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith((".", "…")) else ".")
