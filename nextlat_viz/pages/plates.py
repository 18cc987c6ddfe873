"""Figures of a gallery, each with the runs that it needs and a note on how to read it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from anndata import AnnData

from nextlat_viz import analysis, figures, latents, worlds
from nextlat_viz.analysis import measure
from nextlat_viz.analysis.behaviour.reconstruction import reconstruct_map
from nextlat_viz.analysis.measure import Measure, as_measure
from nextlat_viz.display import counted
from nextlat_viz.errors import unknown
from nextlat_viz.figures.reconstruction import maps_side_by_side
from nextlat_viz.figures.theme import Theme
from nextlat_viz.pages.episode import episode_page
from nextlat_viz.training.checkpoint import Checkpoint
from nextlat_viz.worlds import Episodes, World

OVERALL = ("loss", "belief")
"""Measures of the figure of every seed."""
_LENGTH = 16  # tokens of an episode in a world of any length


@dataclass(frozen=True, eq=False)
class Group:
    """The runs of one world; none for a world that is shown without models.

    `name` is the name of the world, with its parameters if several worlds share it. `table` holds results as
    `nextlat_viz.evaluate` returns them; rows of other runs are ignored.
    """

    name: str
    world: World
    runs: Sequence[Checkpoint]
    table: pd.DataFrame

    @cached_property
    def first(self) -> list[Checkpoint]:
        """The run with the lowest seed of each objective, for figures that cannot show all runs."""
        lowest: dict[str, Checkpoint] = {}
        for run in sorted(self.runs, key=lambda run: run.card.seed):
            lowest.setdefault(run.card.objective, run)
        return [lowest[name] for name in dict.fromkeys(run.card.objective for run in self.runs)]

    @cached_property
    def seeds(self) -> str:
        """The number of seeds of each objective, in words."""
        counts = sorted(set(Counter(run.card.objective for run in self.runs).values()))
        if len(counts) > 1:
            return f"{counts[0]} to {counts[-1]} seeds each"
        return f"{counted(counts[0], 'seed')} each"

    @cached_property
    def latents(self) -> list[AnnData]:
        """Latents of the `first` runs on the standard held-out episodes."""
        return [latents.extract(run, progress=False) for run in self.first]

    @cached_property
    def controls(self) -> list[AnnData]:
        """Latents of untrained models of the `first` runs."""
        return [latents.extract(run.untrained(), progress=False) for run in self.first]

    @cached_property
    def probes(self) -> list[analysis.ProbeResult]:
        """Linear probes of the exact belief in the `first` runs, with their controls."""
        pairs = zip(self.latents, self.controls, strict=True)
        return [analysis.probe(table, "belief", untrained=control) for table, control in pairs]

    def episode(self) -> Episodes:
        """Return one episode of the world; if there are runs, one held out from training."""
        if self.first:
            return latents.heldout(self.first[0], 1)
        return self.world.sample(1, _LENGTH if self.world.length is None else None, seed=0)

    def measured(self, *measures: str) -> pd.DataFrame:
        """Return the rows of these runs and measures; raise UnknownNameError if there are none."""
        rows = self.table[self.table["weights_sha256"].isin([run.weights_sha256 for run in self.runs])]
        matches = rows[rows["measure"].isin(measures)]
        if matches.empty:
            known = map(str, rows["measure"].unique())
            raise unknown(f"measure of {self.name} in the table of results", " or ".join(measures), known)
        return matches


def grouped(runs: Sequence[Checkpoint], table: pd.DataFrame) -> list[Group]:
    """Group runs by their worlds, in the order of the runs.

    Examples
    --------
    >>> from nextlat_viz.training.checkpoint import load
    >>> runs = [load(name) for name in ("rrxor/nextlat", "mess3/nextlat", "rrxor/next_token")]
    >>> [(group.name, len(group.runs)) for group in grouped(runs, pd.DataFrame())]
    [('rrxor', 2), ('mess3', 1)]
    """
    by_world: dict[str, list[Checkpoint]] = {}
    for run in runs:
        by_world.setdefault(json.dumps(run.card.world, sort_keys=True), []).append(run)
    shared = Counter(members[0].world.name for members in by_world.values())
    groups = []
    for members in by_world.values():
        world = members[0].world
        name = world.name if shared[world.name] == 1 else worlds.title(world)
        groups.append(Group(name, world, members, table))
    return groups


@dataclass(frozen=True)
class Drawing:
    """A figure of a gallery: the name of its files, its title, a note on how to read it, and the function to draw it.

    `page(provenance)` returns the whole page, if it has more than the figure.
    """

    name: str
    title: str
    note: str
    draw: Callable[[Theme], go.Figure]
    page: Callable[[Mapping[str, Any]], str] | None = None


@dataclass(frozen=True)
class Plate:
    """A kind of figure: a text of the runs it `needs`, its drawings, and its measures or the groups it `suits`."""

    title: str
    needs: str
    drawings: Callable[[Group], Iterator[Drawing]]
    measures: tuple[str, ...] = ()
    suits: Callable[[Group], bool] | None = None

    def fits(self, group: Group) -> bool:
        """Whether it suits a group; by default, whether a run of the group can be measured."""
        if self.suits is not None:
            return self.suits(group)
        return any(name in measure.battery(run) for run in group.runs for name in self.measures)


def seeds_drawing(groups: Sequence[Group]) -> Drawing:
    """Draw every run of the worlds that have beliefs, in one figure."""
    table = measure.belief_table(pd.concat([group.measured(*OVERALL) for group in groups]))
    return Drawing(
        "every_seed",
        "Every seed: loss and belief",
        "Each dot is a run. Left: its loss above the exact Bayes floor. Right: the share of the variance of the exact "
        "belief that a linear probe reads on held-out episodes, with shuffled labels and the untrained model as "
        "controls. If a control scores nearly as high, the probe says little about training.",
        lambda theme: figures.every_seed(table, theme=theme),
    )


def _simplex(group: Group) -> Iterator[Drawing]:
    yield Drawing(
        f"beliefs_{group.name}",
        f"Belief simplex of {group.name}",
        "Every belief that an ideal observer can reach; if there are infinitely many, those within a few tokens.",
        lambda theme: group.world.draw("beliefs"),
    )


def _belief(group: Group) -> Iterator[Drawing]:
    scores = "; ".join(
        f"{run.label} {probe.score:.2f}, shuffled {probe.shuffled:.2f}, untrained {probe.untrained:.2f}"
        for run, probe in zip(group.first, group.probes, strict=True)
    )
    seeds = ", ".join(f"{run.label} seed {run.card.seed}" for run in group.first)
    planes = [{"pca": analysis.project(table, "pca")} for table in group.latents]
    yield Drawing(
        f"belief_read_{group.name}",
        f"Belief read from hidden states, {group.name}",
        "Right: the belief that a linear probe reads, over the exact beliefs (rings). The closer to the rings, the "
        f"better. Held-out R²: {scores}. One seed of each objective ({seeds}); “Every seed” shows the others.",
        lambda theme: figures.clouds(group.latents, planes, group.probes, theme=theme),
    )


def _offsets(group: Group) -> Iterator[Drawing]:
    result = as_measure(group.measured("tokens_ahead"), "tokens ahead", ("offset", "site"), better="lower")
    yield Drawing(
        f"probe_loss_by_offset_{group.name}",
        f"Probe loss by offset, {group.name}",
        "Held-out cross-entropy of linear probes of the final hidden state for the token some steps ahead: lower is "
        f"better. Thin lines are runs ({group.seeds}). Grey lines are the controls: the untrained model, shuffled "
        "targets, and token frequencies only.",
        lambda theme: figures.probe_offsets(result, title="", theme=theme),
    )


def _of_measure(
    group: Group, name: str, title: str, note: str, result: Measure, from_zero: bool = False
) -> Iterator[Drawing]:
    def draw(theme: Theme) -> go.Figure:
        figure = figures.measure_figure(result, title="", theme=theme)
        return figure.update_yaxes(rangemode="tozero") if from_zero else figure

    yield Drawing(f"{name}_{group.name}", f"{title}, {group.name}", note, draw)


def _acceptance(group: Group) -> Iterator[Drawing]:
    length = "draft length (tokens)"
    rows = group.measured("acceptance").rename(columns={"draft": length})
    result = as_measure(rows, "acceptance", (length, "quantity"), better="higher")
    note = (
        "Drafts of some tokens, verified by the model that made them, so that the output stays the same. "
        f"Each mark is a run ({result.table['model'].nunique()} in all). A saved pass saves time only if a pass over "
        "several tokens takes as long as a pass over one."
    )
    return _of_measure(group, "acceptance", "Acceptance by draft length", note, result, from_zero=True)


def _rank(group: Group) -> Iterator[Drawing]:
    rows = group.measured("latent_geometry")
    rows = rows[rows["quantity"].isin(("effective_rank", "merge_distance"))]
    rows = rows.assign(quantity=rows["quantity"].str.replace("_", " "))
    note = (
        "Effective rank of the final hidden states (the number of directions they spread over), and the distance of "
        "states after different histories with the same true state, relative to the distance between different states. "
        f"Lower is more compact for both. Each mark is a run ({group.seeds})."
    )
    result = as_measure(rows, "rank", ("site", "quantity"), better="lower")
    return _of_measure(group, "rank", "Compactness of the states", note, result, from_zero=True)


def _compression(group: Group) -> Iterator[Drawing]:
    tests = {"compression_vafa": "sampled suffixes accepted", "compression_greedy": "greedy continuations identical"}
    rows = group.measured(*tests)
    note = (
        "Pairs of different routes to the same state: the share after which the model continues alike, in two senses "
        "(Vafa et al. 2024; Teoh et al. 2025). Higher is better; the true world has 1. Each mark is a run, with the "
        f"standard error over pairs ({group.seeds})."
    )
    rows = rows.assign(test=rows["measure"].map(tests))
    result = as_measure(rows, "compression", ("test",), references={"true world": 1.0})
    return _of_measure(group, "compression", "Sequence compression", note, result)


def _maps(group: Group) -> Iterator[Drawing]:
    note = (
        "Shares of true streets used and unused, of invented streets, and of rides that no map explains. The control "
        "has true rides with as many errors: only a difference from it is evidence of a wrong map. "
        f"{group.seeds.capitalize()}."
    )
    result = as_measure(group.measured("map_reconstruction"), "map", ("part", "rides"))
    yield from _of_measure(group, "map_shares", "Reconstructed maps, every seed", note, result)
    maps = {run.label: reconstruct_map(run) for run in group.first}
    note = (
        "Streets that the rides of one seed of each objective use and invent, and, on the right, a control: true rides "
        "with as many errors as the last model makes."
    )
    yield Drawing(
        f"map_{group.name}",
        f"Reconstructed maps, {group.name}",
        note,
        lambda theme: maps_side_by_side(maps, group.world, theme=theme),
    )


def _tracking(group: Group) -> Iterator[Drawing]:
    rows, chance = group.measured("state_tracking"), 1 / len(group.world.vocabulary)
    note = (
        "Share of correct products after some elements, by the transformer and by psi alone. Lengths beyond the "
        f"training context test generalisation. {group.seeds.capitalize()}."
    )
    options = {"better": "higher", "references": {"chance": chance}}
    result = as_measure(rows, "state tracking", ("length", "reader"), **options)
    return _of_measure(group, "state_tracking", "Running product by length", note, result)


def _recursion(group: Group) -> Iterator[Drawing]:
    rows = group.measured("solved_by_step").query("quantity != 'changed'")
    note = (
        "Of the answer after each recursion step, on held-out puzzles: the share that is solved, cells that differ "
        f"from the nearest solution, and conflicts. {group.seeds.capitalize()}."
    )
    result = as_measure(rows, "solved by step", ("step", "quantity"))
    return _of_measure(group, "solved_by_step", "Solved puzzles by recursion step", note, result)


def _episode(group: Group) -> Iterator[Drawing]:
    world, episode = group.world, group.episode()
    predictions = {}
    if world.predicts_next_token:
        for run in group.first:
            table = latents.extract(run, episode, ["hidden"], progress=False)
            predictions[run.label] = table.obsm["next_token_probs"]
    title = f"An episode of {group.name} to step through"
    note = "The true state after every token"
    note += f", and the next-token predictions of {', '.join(predictions)}." if predictions else "."

    def page(about: Mapping[str, Any]) -> str:
        return episode_page(world, episode, predictions, title=title, provenance=about, gallery=True)

    def draw(theme: Theme) -> go.Figure:
        return world.draw(world.pictures[0], episode=episode, position=int(episode.length[0]))

    yield Drawing(f"episode_{group.name}", title, note, draw, page)


def _has_beliefs(group: Group) -> bool:
    return bool(group.world.state_names) and "beliefs" in group.world.pictures


PLATES = (
    Plate("Belief simplex", "a world with hidden states", _simplex, suits=_has_beliefs),
    Plate(
        "Belief read from hidden states",
        "runs of a world with hidden states",
        _belief,
        suits=lambda group: _has_beliefs(group) and bool(group.runs),
    ),
    Plate("Probe loss by offset", "runs of a world whose tokens are predicted", _offsets, ("tokens_ahead",)),
    Plate("Acceptance by draft length", "a run of nextlat, mtp or jtp", _acceptance, ("acceptance",)),
    Plate("Compactness of the states", "runs", _rank, ("latent_geometry",)),
    Plate("Sequence compression", "runs of a taxi world", _compression, ("compression_vafa", "compression_greedy")),
    Plate("Reconstructed maps", "runs of a taxi world", _maps, ("map_reconstruction",)),
    Plate("Running product by length", "runs of a group", _tracking, ("state_tracking",)),
    Plate("Solved puzzles by recursion step", "runs of a recursive model", _recursion, ("solved_by_step",)),
    Plate("An episode to step through", "a world", _episode, suits=lambda group: True),
)
