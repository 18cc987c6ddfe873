"""The studio: models side by side at one cursor, each panel the answer to one question."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ipywidgets

from nextlat_viz.errors import unknown
from nextlat_viz.figures.theme import Theme
from nextlat_viz.notebook import controls
from nextlat_viz.notebook.base import Linked
from nextlat_viz.notebook.state import ViewState
from nextlat_viz.notebook.studio import export
from nextlat_viz.notebook.studio.ahead import AheadCard
from nextlat_viz.notebook.studio.card import Card
from nextlat_viz.notebook.studio.cursor import Cursor
from nextlat_viz.notebook.studio.export import Export
from nextlat_viz.notebook.studio.filters import Filter
from nextlat_viz.notebook.studio.pairs import PairsCard
from nextlat_viz.notebook.studio.prediction import NextCard
from nextlat_viz.notebook.studio.probing import KnowsCard
from nextlat_viz.notebook.studio.space import SpaceCard
from nextlat_viz.notebook.studio.what_if import WhatIfCard
from nextlat_viz.notebook.studio.world import WorldCard

DEFAULT = ("rrxor/next_token", "rrxor/nextlat")
CARDS: tuple[type[Card], ...] = (
    WorldCard, SpaceCard, NextCard, AheadCard, KnowsCard, PairsCard, WhatIfCard,
)  # fmt: skip


class Studio(Linked):
    """Two or more models at one cursor: a panel for each question one can ask them.

    Click a point, a token or a pair, drag over points, press an arrow key: all panels follow. Every panel folds by
    its question, and computes nothing while it is folded. `studio` is the way in.

    Parameters
    ----------
    *what
        Models of one world: checkpoints, their names, or latents; or one dict ``{world name: models}``.
    state : ViewState, optional
        In place of models, to link the studio with other widgets.
    theme : {"auto", "light", "dark"}, optional

    Attributes
    ----------
    state : ViewState
        Cursor, selection, filter, colour, layer, training step: to read, to set and to share.
    selection : DataFrame
        The selected rows.
    panels : dict of {name: panel}
    """

    def __init__(self, *what: Any, state: ViewState | None = None, theme: Theme | None = None) -> None:
        super().__init__(*what, state=state, theme=theme)
        if state is None and len(self.state.worlds) > 1 and not isinstance(what[0], Mapping):
            raise ValueError(
                f"these models are of several worlds ({', '.join(self.state.worlds)}), which have no episode in "
                "common: give models of one world, or say which belong together: studio({world name: [models]})"
            )
        self._dom_classes = ("nextlat-viz", "nlv-studio")
        self.status = controls.StatusLine(self.state.jobs)
        self.cursor, self.filter = Cursor(self.state), Filter(self.state)
        self.panels: dict[str, Card] = {card.name: card(self.state) for card in CARDS}
        questions = {name: card.question for name, card in self.panels.items() if name != PairsCard.name}
        # Figures that come while a page draws others can be too late for it, so the first of each are made before.
        self.state.loop.flush()
        grid = ipywidgets.GridBox(list(self.panels.values()), layout={"width": "100%"})
        grid.add_class("nlv-grid")
        shared = controls.row(
            controls.world(self), controls.color(self), controls.site(self), controls.step(self), controls.theme(self)
        )
        exports = Export(self.state, questions, self._exported)
        self.children = [shared, self.status, self._alert, self.filter, self.cursor, grid, exports]
        self._link(self.state, self._paint, "dark")
        self._paint(None)

    def __dir__(self) -> list[str]:
        return ["close", "export", "panels", "selection", "state"]

    def __repr__(self) -> str:
        state = self.state
        return f"<Studio of {', '.join(state.labels)} at episode {state.episode}, position {state.position}>"

    def _paint(self, change: Any) -> None:
        """Say to what is no figure, and has no template, on what it is painted."""
        for name, wanted in (("nlv-on-light", False), ("nlv-on-dark", True)):
            (self.add_class if self.state.dark is wanted else self.remove_class)(name)

    def _exported(self, panel: str, path: str, size: str | None, overwrite: bool) -> Path:
        return self.export(panel, path, size=size, overwrite=overwrite)

    def export(
        self, panel: str, path: str | os.PathLike[str], *, size: str | None = None, overwrite: bool = False
    ) -> Path:
        """Write what a panel shows now to a file, with a JSON beside it that says what it was made from.

        Parameters
        ----------
        panel : str
            One of `panels`, such as ``"space"``.
        path : path
            Ends in ``.png``, ``.svg``, ``.pdf`` or ``.html``.
        size : {"column", "text", "slide"}, optional
            As wide as a column, the text of a paper's page or a slide, with text fitted to it, dark on white. As shown
            when not given.
        overwrite : bool
            Whether a file that is there already may be replaced.

        Returns
        -------
        Path
            The file written.

        Raises
        ------
        UnknownNameError
            For a panel, a size or an ending that does not exist.
        FileExistsError
            When a file is there already.
        ValueError
            When the panel shows no figure, or one with more views side by side than the size has room for.
        """
        if panel not in self.panels:
            raise unknown("panel", panel, self.panels)
        self.state.loop.flush()
        return export.write(self.panels[panel], path, overwrite, size)

    def close(self) -> None:
        """Take the studio off the page and out of memory, with every panel."""
        if not self._closed:
            for part in (self.status, self.cursor, self.filter, *self.panels.values()):
                part.close()
        super().close()


def studio(*models: Any, state: ViewState | None = None, theme: Theme | None = None) -> Studio:
    """Open models side by side, with linked panels that each answer one question.

    Where are we? Where does the model think we are? What comes next? Can it see ahead? What does it know? What does
    it keep apart that is the same? What if it believed something else?

    Parameters
    ----------
    *models
        Checkpoints, their names, or latents, all of one world; or one dict ``{world name: models}``. By default the
        shipped pair of RRXOR, with and without next-latent prediction.
    state : ViewState, optional
        In place of models, to link the studio with other widgets.
    theme : {"auto", "light", "dark"}, optional
        "auto" leaves the page's own background.

    Returns
    -------
    Studio

    Raises
    ------
    ValueError
        For models of several worlds that are not sorted by world.
    LatentsError
        For models that did not read the same episodes.

    Examples
    --------
    >>> opened = studio("rrxor/next_token", "rrxor/nextlat")
    >>> opened.state.go_to(3, 5)
    >>> opened
    <Studio of next-token, NextLat at episode 3, position 5>
    >>> opened.state.select(range(2))
    >>> opened.selection["position"].tolist()
    [1, 2]
    >>> opened.close()
    """
    what = models or (DEFAULT if state is None else ())
    return Studio(*what, state=state, theme=theme)
