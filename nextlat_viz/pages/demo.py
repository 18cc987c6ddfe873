"""The demo: train a pair of models, and write a report with projections, probes and paths of their latents."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from nextlat_viz import analysis, figures, io, worlds
from nextlat_viz.analysis import measure
from nextlat_viz.figures.export import NO_BROWSER, browser, drawable, write_images
from nextlat_viz.figures.paper import on_white
from nextlat_viz.pages.plates import Group
from nextlat_viz.pages.report import report
from nextlat_viz.training import train
from nextlat_viz.training.checkpoint import load

OBJECTIVES = ("next_token", "nextlat")
_TABLE = "Loss and belief"
_TABLE_NOTE = (
    "Losses in nats per token. belief_r2: share of the exact belief's variance that a linear probe reads from the "
    "final hidden state on held-out episodes, and the same with shuffled labels and with the untrained model."
)


def demo(
    world: str = "rrxor",
    *,
    shipped: bool = False,
    seed: int = 0,
    preset: str = "tiny",
    out: str | os.PathLike[str] = "demo",
    formats: Sequence[str] = ("png", "svg"),
    **overrides: Any,
) -> pd.DataFrame:
    """Train a pair of models (or load the shipped pair), compare what they believe, and write a report with figures.

    Parameters
    ----------
    world : str
        Name of a world with hidden states.
    shipped : bool
        Load the shipped checkpoints instead of training.
    seed, preset, **overrides
        For training the pair, as in `nextlat_viz.train`.
    out : folder
        For ``report.html``, the images with their provenance, and the runs.
    formats : of {"png", "svg", "pdf"}
        Kinds of image to write of each figure. Without a Chromium-based browser none are written, with a warning.

    Returns
    -------
    DataFrame
        One row per model, as `nextlat_viz.analysis.measure.belief_table` returns it.

    Raises
    ------
    ValueError
        If the world has no hidden states, and so no beliefs to compare.
    """
    folder = io.resolve(out, "out")
    if not worlds.get(world).state_names:
        raise ValueError(
            f"world={world!r} has no hidden states, so there are no beliefs to compare; choose one that has, such as "
            f"rrxor, or train on it with nextlat-viz train {world}"
        )
    kinds = drawable(formats)
    if shipped:
        pair = [load(f"{world}/{objective}", seed=seed) for objective in OBJECTIVES]
    else:
        runs = folder / "runs" / io.file_name(worlds.title(worlds.get(world)))
        pair = [
            train(world, objective, preset, seed=seed, out=runs / objective / f"seed{seed}", **overrides)
            for objective in OBJECTIVES
        ]
    table = measure.belief_table(measure.evaluate(pair, ["loss", "belief"]).table)
    group = Group(pair[0].world.name, pair[0].world, pair, table)
    drawn = pair_figures(group)
    if shipped:
        seeds = measure.belief_table(measure.results()).query("world == @world")
        drawn["Every seed"] = (figures.every_seed(seeds), "Every shipped model of this world.")
    provenance = {"command": "nextlat-viz demo", "world": world, "shipped": shipped}
    provenance |= figures.provenance_of(*group.latents)
    notes = {_TABLE: _TABLE_NOTE, **{heading: note for heading, (_, note) in drawn.items()}}
    report(
        {heading: figure for heading, (figure, _) in drawn.items()},
        {_TABLE: table.drop(columns="weights_sha256")},
        f"What two transformers believe about {world}",
        folder / "report.html",
        provenance,
        notes,
    )
    images = {
        f"{number}_{heading.lower().replace(' ', '_')}": (
            on_white(figure),
            {**provenance, "figure": heading, "note": note},
        )
        for number, (heading, (figure, note)) in enumerate(drawn.items(), start=1)
    }
    write_images(images, folder, kinds)
    return table


def pair_figures(group: Group) -> dict[str, tuple[go.Figure, str]]:
    """Return {heading: (figure, sentence)} of the figures that compare models of one world."""
    world, tables, probes = group.world, group.latents, group.probes
    planes = [{method: analysis.project(table, method) for method in ("pca", "umap")} for table in tables]
    pairs = list(zip(tables, group.controls, strict=True))
    by_site = [analysis.probe_sites(table, "belief", untrained=control) for table, control in pairs]
    by_position = [analysis.probe_positions(table, probe) for table, probe in zip(tables, probes, strict=True)]
    episode = int(probes[0].test_episodes[0])
    paths = [analysis.read_trajectory(table, probe, episode) for table, probe in zip(tables, probes, strict=True)]
    drawn = {"World": (world.draw(), "States, and the tokens emitted between them with their probabilities.")}
    if isinstance(world, worlds.HiddenMarkovWorld):
        drawn["Beliefs"] = (world.draw("beliefs"), "Every belief that an ideal observer can reach.")
    return drawn | {
        "Loss": (
            figures.loss_curves({run.label: run.metrics for run in group.first}, log_steps=True),
            "Validation loss over training; the Bayes floor is the loss of the ideal observer.",
        ),
        "Latents": (
            figures.clouds(tables, planes, probes),
            "Final hidden states of held-out episodes: PCA, UMAP, and the belief read by a linear probe.",
        ),
        "Probes": (
            figures.probe_overview(probes, by_site, by_position, site="hidden"),
            "Held-out R² of a ridge probe of the exact belief, with its controls, by layer and by position.",
        ),
        "One episode": (
            figures.trajectories(tables, paths, int(paths[0].positions[-1])),
            f"Episode {episode}, held out from the probes: the path of the exact belief and of each model's.",
        ),
    }


def readme_figures(out: str | os.PathLike[str]) -> list[Path]:
    """Write the figure of the README from the shipped checkpoints, with its provenance.

    Raises
    ------
    ImportError
        If no browser is found to draw it; raised before anything is computed.
    """
    if browser() is None:
        raise ImportError(f"the README's figures are images: {NO_BROWSER}")
    pair = [load(f"rrxor/{objective}") for objective in OBJECTIVES]
    group = Group("rrxor", pair[0].world, pair, measure.results())
    provenance = {"command": "nextlat-viz figures --readme", **figures.provenance_of(*group.latents)}
    figure = on_white(pair_figures(group)["Latents"][0])
    return write_images({"rrxor": (figure, {**provenance, "figure": "rrxor"})}, out, ["png"])
