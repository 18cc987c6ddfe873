"""Which figures a gallery has, what each needs, and what there is to see in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from nextlat_viz import analysis, figures
from nextlat_viz.analysis import measure
from nextlat_viz.analysis.behaviour.reconstruction import reconstruct_map
from nextlat_viz.figures.theme import Theme
from nextlat_viz.gallery.runs import Group, as_measure

GROUPS = ("a5", "s5", "a4xz5", "z60")


@dataclass(frozen=True)
class Shown:
    """A figure of a gallery.

    Attributes
    ----------
    name : str
        Of its files, without ending.
    title, note : str
        What it is, and a sentence on what to see.
    draw : callable
        ``draw(theme)`` gives the figure.
    """

    name: str
    title: str
    note: str
    draw: Callable[[Theme], go.Figure]


@dataclass(frozen=True)
class Plate:
    """A kind of figure.

    Attributes
    ----------
    title : str
    needs : str
        What it can be drawn of, in words.
    measures : tuple of str
        Names of the measures it shows.
    fits : callable
        Whether it can be drawn of a group.
    shown : callable
        The figures of a group; for a plate of all groups, of all that fit.
    """

    title: str
    needs: str
    measures: tuple[str, ...]
    fits: Callable[[Group], bool]
    shown: Callable[[Group], Iterator[Shown]]


def every_seed(groups: Sequence[Group]) -> Shown:
    """Every run of the worlds that have beliefs, in one figure."""
    table = measure.belief_table(pd.concat([group.measured("loss", "belief") for group in groups]))
    return Shown(
        "every_seed",
        "Every seed: loss, and the belief that can be read",
        "A dot is a run. Left, how far its loss is above the exact floor; right, the share of the exact belief's "
        "variance that a linear probe reads on held-out episodes, beside shuffled labels and the untrained model. "
        "Where that reads nearly as much, the probe says little about training.",
        lambda theme: figures.every_seed(table, theme=theme),
    )


def _simplex(group: Group) -> Iterator[Shown]:
    world = group.world
    yield Shown(
        f"beliefs_{group.name}",
        f"Belief simplex of {group.name}",
        "Every belief that an ideal observer can come to hold; within a few tokens, where there are endlessly many.",
        lambda theme: world.draw("beliefs"),
    )


def _read(group: Group) -> Iterator[Shown]:
    scores = "; ".join(
        f"{run.label} {probe.score:.2f}, shuffled {probe.shuffled:.2f}, untrained {probe.untrained:.2f}"
        for run, probe in zip(group.first, group.probes, strict=True)
    )
    planes = [{"pca": analysis.project(one, "pca")} for one in group.read]
    yield Shown(
        f"belief_read_{group.name}",
        f"Belief read from hidden states, {group.name}",
        f"Right, what a linear probe reads of the belief, over the exact beliefs (rings): the nearer to the rings the "
        f"better. Held-out R²: {scores}. One seed of each objective ({_seeds(group)}); the others are in “Every seed”.",
        lambda theme: figures.clouds(group.read, planes, group.probes, theme=theme),
    )


def _ahead(group: Group) -> Iterator[Shown]:
    found = as_measure(group.measured("tokens_ahead"), "tokens ahead", ("offset", "site"), better="lower")
    yield Shown(
        f"probe_loss_by_offset_{group.name}",
        f"Probe loss by offset, {group.name}",
        "Held-out cross-entropy of linear probes of the final hidden state to the token so many steps ahead: lower is "
        f"better. Thin lines are runs ({group.seeds}). Grey is what counts as nothing: the untrained model, shuffled "
        "targets, and the tokens' frequencies alone.",
        lambda theme: figures.probe_offsets(found, title="", theme=theme),
    )


def _acceptance(group: Group) -> Iterator[Shown]:
    length = "draft length (tokens)"
    rows = group.measured("acceptance").rename(columns={"draft": length})
    found = as_measure(rows, "acceptance", (length, "quantity"), better="higher")
    yield Shown(
        f"acceptance_{group.name}",
        f"Acceptance by draft length, {group.name}",
        "Drafts of so many tokens, verified by the model that made them, which leaves what comes out unchanged. "
        f"{found.table['model'].nunique()} runs, a mark each. A pass saved is time saved only where a pass over "
        "several tokens takes as long as one over one.",
        lambda theme: figures.measure_figure(found, title="", theme=theme).update_yaxes(rangemode="tozero"),
    )


def _rank(group: Group) -> Iterator[Shown]:
    rows = group.measured("latent_geometry")
    rows = rows[rows["quantity"].isin(("effective_rank", "merge_distance"))]
    rows = rows.assign(quantity=rows["quantity"].str.replace("_", " "))
    found = as_measure(rows, "rank", ("site", "quantity"), better="lower")
    yield Shown(
        f"rank_{group.name}",
        f"How compact the states are, {group.name}",
        "Effective rank of the final hidden states (directions they spread over), and how far states after different "
        "histories that lead to the same true state lie apart, over the distance between different ones: lower is more "
        f"compact for both. A mark is a run ({group.seeds}).",
        lambda theme: figures.measure_figure(found, title="", theme=theme).update_yaxes(rangemode="tozero"),
    )


def _compression(group: Group) -> Iterator[Shown]:
    rows = group.measured("compression_vafa", "compression_greedy")
    said = {"compression_vafa": "sampled suffixes accepted", "compression_greedy": "greedy continuations identical"}
    found = as_measure(
        rows.assign(test=rows["measure"].map(said)), "compression", ("test",), references={"true world": 1.0}
    )
    yield Shown(
        f"compression_{group.name}",
        f"Sequence compression, {group.name}",
        "Of pairs of different routes to the same state, the share after which the model goes on alike, in two senses "
        "(Vafa et al. 2024; Teoh et al. 2025): higher is better, and the true world has 1. A mark is a run, with the "
        f"standard error over pairs ({group.seeds}).",
        lambda theme: figures.measure_figure(found, title="", theme=theme),
    )


def _maps(group: Group) -> Iterator[Shown]:
    rows = group.measured("map_reconstruction")
    found = as_measure(rows, "map", ("part", "rides"))
    yield Shown(
        f"map_shares_{group.name}",
        f"Maps as reconstructed, every seed, {group.name}",
        "Shares of true streets used and unused, of streets that had to be invented, and of rides that no map "
        "explains. The control has true rides with as many errors: only what is beyond it speaks for a wrong map. "
        f"{group.seeds.capitalize()}.",
        lambda theme: figures.measure_figure(found, title="", theme=theme),
    )
    for run in group.first:
        result = reconstruct_map(run)
        for one, kind in ((result, "its rides"), (result.control, "its control")):
            assert one is not None
            yield _map(group, run.label, run.card.seed, run.card.objective, one, kind)


def _map(group: Group, label: str, seed: int, objective: str, result: analysis.MapReconstruction, kind: str) -> Shown:
    control = kind == "its control"
    (used, streets), (invented, _), _, (unplaced, rides) = result.counts.values()
    what = "True rides of which as many are spoilt as the model's are not valid" if control else "Rides of the model"
    return Shown(
        f"map_{group.name}_{objective}_seed{seed}{'_control' * control}",
        f"Map as reconstructed, {label}, seed {seed}: {kind}",
        f"{what}: {used} of {streets} true streets used, {invented} invented (dashed), {unplaced:,} of {rides:,} rides "
        "not placed. Compare the model with its control, and both with the other objective.",
        lambda theme: figures.reconstruction(result, group.world, title="", theme=theme),
    )


def _tracking(group: Group) -> Iterator[Shown]:
    found = as_measure(
        group.measured("state_tracking"), "state tracking", ("length", "reader"), better="higher",
        references={"chance": 1 / len(group.world.vocabulary)},
    )  # fmt: skip
    yield Shown(
        f"state_tracking_{group.name}",
        f"The running product by length, {group.name}",
        "Share of right products after so many elements, by the transformer and by psi alone; lengths beyond the "
        f"training context are a test of generalisation. {group.seeds.capitalize()}.",
        lambda theme: figures.measure_figure(found, title="", theme=theme),
    )


def _has_beliefs(group: Group) -> bool:
    return bool(group.world.state_names) and "beliefs" in group.world.pictures


def _is_taxi(group: Group) -> bool:
    return group.world.name == "taxi" and bool(group.runs)


def _drafts(group: Group) -> bool:
    return any("acceptance" in measure.battery(run) for run in group.runs)


def _looks_ahead(group: Group) -> bool:
    return any("tokens_ahead" in measure.battery(run) for run in group.runs)


PLATES = (
    Plate("Belief simplex", "a world with hidden states", (), _has_beliefs, _simplex),
    Plate("Belief read from hidden states", "runs of a world with hidden states", (),
          lambda group: _has_beliefs(group) and bool(group.runs), _read),
    Plate("Probe loss by offset", "runs of a world of up to 1,000 tokens that are predicted", ("tokens_ahead",),
          _looks_ahead, _ahead),
    Plate("Acceptance by draft length", "a run of nextlat, mtp or jtp", ("acceptance",), _drafts, _acceptance),
    Plate("How compact the states are", "runs", ("latent_geometry",), lambda group: bool(group.runs), _rank),
    Plate("Sequence compression", "runs of a taxi world", ("compression_vafa", "compression_greedy"), _is_taxi,
          _compression),
    Plate("Maps as reconstructed", "runs of a taxi world", ("map_reconstruction",), _is_taxi, _maps),
    Plate("The running product by length", f"runs of a group ({', '.join(GROUPS)}), of which none is shipped: train "
          "with nextlat-viz train a5 nextlat, then nextlat-viz figures RUN", ("state_tracking",),
          lambda group: group.world.name in GROUPS and bool(group.runs), _tracking),
)  # fmt: skip
OVERALL = ("loss", "belief")
"""Measures of `every_seed`."""


def _seeds(group: Group) -> str:
    return ", ".join(f"{run.label} seed {run.card.seed}" for run in group.first)
