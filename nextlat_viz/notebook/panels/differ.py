"""Differences panel: the rows at which two models differ most, and how similar their layers are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ipywidgets
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from anndata import AnnData
from jaxtyping import Float, Int

from nextlat_viz.analysis.differences import largest, layer_similarity, prediction_differences
from nextlat_viz.analysis.prediction import exact_probs, model_probs, token_names
from nextlat_viz.display import escape, shorten
from nextlat_viz.errors import LatentsError
from nextlat_viz.figures.layout import Layout, column_domains
from nextlat_viz.figures.theme import Theme
from nextlat_viz.latents import column, site, sites
from nextlat_viz.latents.table import PROBS
from nextlat_viz.notebook.box import choice, text_line
from nextlat_viz.notebook.controls import Table
from nextlat_viz.notebook.panel import Panel
from nextlat_viz.notebook.panels.answers import sentence
from nextlat_viz.notebook.panels.pairs import tail
from nextlat_viz.notebook.plot import Plot, Points
from nextlat_viz.notebook.state import ViewState
from nextlat_viz.plotting import CURSOR, SEQUENTIAL, Figure

_MOST = 50
# Letters of a model's name beside a heat map, and most layers for which numbers fit into the cells.
_LONGEST_NAME, _MOST_NUMBERS = 22, 8
_LAWS, _ERRORS = "prediction", "error"
_ABOUT = {
    _LAWS: "Bits: Jensen-Shannon divergence of the two next-token distributions (0: equal, 1: disjoint), beside the "
    "likeliest tokens.",
    _ERRORS: "Difference of the probes' squared errors, or of their shares of wrong classes.",
}
_CLICK = "Held-out rows, one for each history. Click a row to go there, a layer to show it everywhere."


@dataclass(frozen=True, eq=False)
class _Ranking:
    """Rows of the table, the most different first, their cells to show, and whether the models' latents are equal."""

    rows: Int[np.ndarray, " ranked"]
    heads: list[str]
    cells: list[list[str]] = field(repr=False)
    same: bool


class DifferPanel(Panel):
    """Held-out rows ranked by the difference of the two compared models, and the similarity of their layers.

    A click on a row moves the cursor there; a click on a layer shows it everywhere.
    """

    name, question, tab = "differ", "Where do the models differ most?", "Differences"
    follows = ("compared", "site", "target", "dark")

    def __init__(self, *models: Any, state: ViewState | None = None, theme: Theme | None = None) -> None:
        super().__init__(*models, state=state, theme=theme)
        options = [("prediction", _LAWS), ("probe error", _ERRORS)]
        self.by = choice("Rank by", "What the difference of the models is measured by", options)
        self.list = Table(histories=["tokens read"])
        self.about, self._why_no_map = text_line(), text_line()
        self._map = ipywidgets.VBox()
        self._ranking: _Ranking | None = None
        both = ipywidgets.HBox([self.list, ipywidgets.VBox([self._map, self._why_no_map])])
        both.add_class("nlv-differ")
        self._show(beside=[self.by], stage=[both], below=[self.about], on_click=self._choose_layer)
        self._link(self.by, lambda change: self._ask())
        self._link(self.list, lambda change: self._fly(), "chosen")

    @property
    def table(self) -> pd.DataFrame:
        """The ranked rows as shown, with their episode and position."""
        ranking = self._rank()
        first = self.state.latents[0]
        places = {name: column(first, name)[ranking.rows] for name in ("episode", "position")}
        return pd.DataFrame(ranking.cells, columns=ranking.heads).assign(**places)

    @classmethod
    def unsuited(cls, state: ViewState) -> str:
        """Why nothing can differ."""
        if len(state.scene.latents) > 1:
            return ""
        return "There is one model here, so there is nothing that differs: open a second one."

    def _depends_on(self) -> tuple[Any, ...]:
        return self.by.value, self.state.jobs.changes

    def _place(self, plot: Plot) -> None:
        self._map.children = (plot,)

    def _draw(self, looks: Any) -> None:
        if self.why_not:
            self._say(self.why_not)
            return
        similarity = self._answer(self._similarity)
        ranking = self._answer(self._rank)
        if isinstance(ranking, str) and isinstance(similarity, str):
            self._say(ranking)
            return
        if isinstance(ranking, _Ranking) and ranking.same:
            self._say("They do not differ.")
            return
        self._fill(ranking)
        if isinstance(similarity, str):
            self._why_no_map.value = escape(similarity)
        else:
            # This draws the map.
            super()._draw(looks)
            control = similarity[1]
            self._why_no_map.value = control if isinstance(control, str) else ""
        self._map.layout.display = "none" if isinstance(similarity, str) else None
        self._say("")

    def _answer(self, ask: Any) -> Any:
        try:
            return ask()
        except ValueError as error:
            return sentence(str(error))

    def _fill(self, ranking: _Ranking | str) -> None:
        """Show the ranked rows, or say why there are none."""
        before, self._ranking = self._ranking, None if isinstance(ranking, str) else ranking
        known = self._ranking is not None and len(self._ranking.rows) > 0
        self.list.layout.display = None if known else "none"
        if self._ranking is None:
            self.about.value = escape(str(ranking))
        elif not known:
            self.about.value = "No held-out row differs in this."
        else:
            self.about.value = f"{_ABOUT[self.by.value]} {_CLICK}"
            if before is not self._ranking:
                with self.list.hold_trait_notifications():
                    self.list.heads, self.list.rows = self._ranking.heads, self._ranking.cells
                    self.list.chosen = -1

    def _figure(self) -> Any:
        state = self.state
        similarity, control = self._similarity()
        labels = [state.labels[model] for model in state.pair]
        control = None if isinstance(control, str) else control
        return layer_map(similarity, control, labels=labels, site=state.site, theme=state.theme)

    def _pair_names(self) -> str:
        return " and ".join(self.state.labels[model] for model in self.state.pair)

    def _rank(self) -> _Ranking:
        """Return the ranking from the job queue; raises as `Jobs.ask` until it is computed."""
        state, by = self.state, self.by.value
        key: tuple[Any, ...] = ("differ", by, *state.pair)
        if by == _ERRORS:
            key += (state.target, state.site)
            for model in state.pair:
                self._probe(model, state.target, state.site)
        rank = self._by_error if by == _ERRORS else self._by_prediction
        pair, target, where = list(state.pair), state.target, state.site
        ranking: _Ranking = self._computed(
            key, f"The rows at which {self._pair_names()} differ", lambda: rank(pair, target, where)
        )
        return ranking

    def _held_out(self) -> Int[np.ndarray, " rows"]:
        scene = self.state.scene
        return np.flatnonzero(np.isin(column(scene.latents[0], "episode"), scene.held_out_episodes))

    def _by_prediction(self, pair: list[int], target: str, where: str) -> _Ranking:
        scene, rows = self.state.scene, self._held_out()
        a, b = tables = [scene.latents[model] for model in pair]
        if scene.recursive:
            raise LatentsError("these models answer whole puzzles, not token by token: rank by the error of the probe")
        # The models are not trained to predict a prompt.
        rows = rows[column(a, "position")[rows] >= scene.prompt]
        heads = [self._head(model) for model in pair]
        bits = prediction_differences(a, b, rows, (heads[0], heads[1]))
        top = largest(tables[0], rows, bits, _MOST)
        laws = [model_probs(table, rows[top], head) for table, head in zip(tables, heads, strict=True)]
        exact = exact_probs(tables[0], rows[top], laws[0].shape[1])
        columns = [scene.labels[model] for model in pair] + ["exact"] * (exact is not None)
        likely = [_likeliest(law, token_names(tables[0], law.shape[1])) for law in (*laws, exact) if law is not None]
        cells = [[f"{bits[at]:.3f}", *row] for at, row in zip(top, zip(*likely, strict=True), strict=True)]
        return self._ranked(pair, rows[top], ["bits", *map(shorten, columns)], cells)

    def _by_error(self, pair: list[int], target: str, where: str) -> _Ranking:
        scene, rows = self.state.scene, self._held_out()
        first, second = (scene.mistakes(model, target, where)[rows] for model in pair)
        top = largest(scene.latents[0], rows, np.abs(first - second), _MOST)
        cells = [[f"{abs(first[at] - second[at]):.3g}", f"{first[at]:.3g}", f"{second[at]:.3g}"] for at in top]
        return self._ranked(pair, rows[top], ["difference", *(shorten(scene.labels[m]) for m in pair)], cells)

    def _ranked(
        self, pair: list[int], rows: Int[np.ndarray, " rows"], heads: list[str], cells: list[list[str]]
    ) -> _Ranking:
        scene = self.state.scene
        same = _equal(*(scene.latents[model] for model in pair))
        read = [[*line, tail(scene.reads(int(row)))] for line, row in zip(cells, rows, strict=True)]
        return _Ranking(rows, [*heads, "tokens read"], read, same)

    def _head(self, model: int) -> Float[np.ndarray, "V D"] | None:
        """Return the output head of a model whose table holds no probabilities, else None."""
        scene = self.state.scene
        if PROBS in scene.latents[model].obsm:
            return None
        checkpoint = scene.checkpoint(model)
        if checkpoint is None:
            raise LatentsError(
                f"the latents of {scene.labels[model]} hold no next-token probabilities: open its checkpoint, or rank "
                "by the error of the probe"
            )
        return np.asarray(checkpoint.network.backbone.head.weight.detach().cpu().numpy())

    def _similarity(self) -> tuple[pd.DataFrame, pd.DataFrame | str]:
        """Return the similarity of the layers, and that of untrained models or why there is none, from the queue."""
        scene, pair, jobs = self.state.scene, list(self.state.pair), self.state.jobs

        def compute() -> tuple[pd.DataFrame, pd.DataFrame | str]:
            def report(done: int, total: int) -> None:
                jobs.report(done, total, "Similarity of the layers")

            trained = layer_similarity(*(scene.latents[model] for model in pair), report=report)
            first, second = (scene.untrained(model) for model in pair)
            if first is None or second is None:
                return trained, "Without checkpoints there are no untrained models to compare with."
            if _equal(first, second):
                return trained, "Both began from the same weights, so the untrained models are no control."
            return trained, layer_similarity(first, second)

        title = f"The similarity of the layers of {self._pair_names()}"
        similarity: tuple[pd.DataFrame, pd.DataFrame | str] = self._computed(("layers", *pair), title, compute)
        return similarity

    def _fly(self) -> None:
        if self._ranking is not None and 0 <= self.list.chosen < len(self._ranking.rows):
            self.state.go_to_row(int(self._ranking.rows[self.list.chosen]))

    def _choose_layer(self, points: Points) -> None:
        """Show the layer of the clicked row of the map."""
        for trace, cell in self.plot.points(points, "layers"):
            heat: Any = self.plot.data[trace]
            name = str(heat.y[cell // len(heat.x)])
            if name not in self.state.scene.sites:
                layers = ", ".join(self.state.scene.sites)
                raise ValueError(
                    f"not every model here has the layer {name!r}, so it cannot be shown; all have {layers}"
                )
            self.state.site = name


def _equal(a: AnnData, b: AnnData) -> bool:
    """Whether two tables hold the same latents at every layer."""
    return sites(a) == sites(b) and all(np.array_equal(site(a, name), site(b, name)) for name in sites(a))


def _likeliest(law: Float[np.ndarray, "rows V"], names: Any) -> list[str]:
    best = law.argmax(axis=1)
    return [f"{shorten(str(names[token]), 10)} {law[row, token]:.2f}" for row, token in enumerate(best)]


def layer_map(
    similarity: pd.DataFrame,
    control: pd.DataFrame | None = None,
    *,
    labels: Sequence[str] = ("reference", "compared"),
    site: str | None = None,
    theme: Theme = "auto",
) -> Figure:
    """Draw how similar every layer of one model is to every layer of another, with a control at the right.

    Parameters
    ----------
    similarity : DataFrame
        As `analysis.layer_similarity` returns it.
    control : DataFrame, optional
        The same for the untrained models.
    labels : (str, str)
        Names of the models: of the rows and of the columns.
    site : str, optional
        A layer to frame.
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure
        Heat maps with ``meta["role"]`` "layers" and "control". The names of the layers are the axes' values.

    Examples
    --------
    >>> table = pd.DataFrame([[1.0, 0.4], [0.4, 0.9]], index=["embed", "hidden"], columns=["embed", "hidden"])
    >>> figure = layer_map(table, labels=["next-token", "NextLat"], site="hidden")
    >>> figure.data[0].y, figure.layout.yaxis.title.text
    (('embed', 'hidden'), 'layer of next-token')
    """
    down, across = (escape(shorten(label, _LONGEST_NAME)) for label in labels)
    parts = [("layers", "CKA, trained", similarity)]
    parts += [] if control is None else [("control", "CKA, untrained", control)]
    layout, traces = Layout(), []
    numbered = max(similarity.shape) <= _MOST_NUMBERS
    for (role, name, table), place in zip(parts, column_domains(len(parts), 0.04), strict=True):
        axes = layout.view(
            place, [0.0, 1.0], title=name,
            x={"title": {"text": f"layer of {across}"}, "type": "category", "showgrid": False, "automargin": "height",
               "range": [-0.5, table.shape[1] - 0.5], "fixedrange": True},
            y={"title": {"text": f"layer of {down}" if role == "layers" else ""}, "type": "category",
               "showgrid": False, "range": [-0.5, len(table) - 0.5], "fixedrange": True,
               "showticklabels": role == "layers"},
        )  # fmt: skip
        numbers = np.vectorize(lambda value: "" if np.isnan(value) else f"{value:.2f}")(table.to_numpy(dtype=float))
        traces.append(
            go.Heatmap(
                x=list(map(str, table.columns)), y=list(map(str, table.index)), z=table.to_numpy(dtype=float),
                zmin=0, zmax=1, colorscale=[[i / (len(SEQUENTIAL) - 1), shade] for i, shade in enumerate(SEQUENTIAL)],
                text=numbers, texttemplate="%{text}" if numbered else None, xgap=1, ygap=1,
                showscale=role == "layers" and not numbered, colorbar={"thickness": 10, "outlinewidth": 0},
                hovertemplate=f"{down}, layer %{{y}}<br>{across}, layer %{{x}}<br>CKA %{{z:.3f}}"
                "<br>click: show the layer %{y}<extra></extra>",
                meta={"role": role}, **axes,
            )
        )  # fmt: skip
        if site in table.index and role == "layers":
            at = list(table.index).index(site)
            frame = {"x0": -0.5, "x1": table.shape[1] - 0.5, "y0": at - 0.5, "y1": at + 0.5}
            line = {"color": CURSOR, "width": 3}
            layout.lines.append({"type": "rect", "xref": axes["xaxis"], "yref": axes["yaxis"], "line": line, **frame})
    margin = {"l": 66, "r": 20 if numbered else 70, "t": 24, "b": 46}
    return layout.finish(traces, theme, height=300, margin=margin, dragmode=False, meta={"least": 190})
