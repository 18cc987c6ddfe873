"""The whole road without a browser: two models, their latents, probes and paths, a report and its figures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from anndata import AnnData
from tqdm.auto import tqdm

from nextlat_viz import analysis, figures, latents, worlds
from nextlat_viz.analysis import measure
from nextlat_viz.training import Checkpoint, load, train
from nextlat_viz.training.pretrain import folder_name

OBJECTIVES = ("next_token", "nextlat")


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
    """Train a pair (or take the shipped one), extract, project, probe and compare; write a report with its figures.

    Parameters
    ----------
    world : name of a world.
    shipped : use the shipped checkpoints in place of training.
    seed, preset, **overrides : of the pair, as in :func:`nextlat_viz.train`.
    out : folder for ``report.html``, the figures with their provenance, and the runs.
    formats : kinds of figure file to write; drawing png, svg and pdf needs a Chromium-based browser.

    Returns
    -------
    DataFrame
        One row per model, as :func:`nextlat_viz.analysis.measure.belief_table` gives it.

    Raises
    ------
    ValueError
        If the world has no hidden states, and so no beliefs to compare.
    """
    folder = Path(out)
    if not worlds.get(world).state_names:
        raise ValueError(
            f"world={world!r} has no hidden states, so there are no beliefs to compare; choose one that has, such as "
            f"rrxor, or train on it with nextlat-viz train {world}"
        )
    if shipped:
        pair = [load(f"{world}/{objective}", seed=seed) for objective in OBJECTIVES]
    else:
        runs = folder / "runs" / folder_name(worlds.get(world))
        pair = [
            train(world, objective, preset, seed=seed, out=runs / objective / f"seed{seed}", **overrides)
            for objective in OBJECTIVES
        ]
    folder.mkdir(parents=True, exist_ok=True)
    table = measure.belief_table(measure.evaluate(pair, ["loss", "belief"]).table)
    tables, drawn, notes = {"What they score and what they know": table.drop(columns="weights_sha256")}, {}, {}
    notes["What they score and what they know"] = (
        "Losses in nats per token. belief_r2: share of the exact belief's variance that a linear map recovers from the "
        "final hidden state on held-out episodes, beside the same with shuffled labels and on the untrained model."
    )
    read = [latents.extract(one, progress=False) for one in pair]
    for heading, figure, note in pictures(pair, read):
        drawn[heading], notes[heading] = figure, note
    if shipped:
        everyone = measure.belief_table(measure.results()).query("world == @world")
        drawn["Every seed"] = figures.every_seed(everyone)
        notes["Every seed"] = "Every shipped model of this world; bad seeds stay in."

    provenance = {"command": "nextlat-viz demo", "world": world, "shipped": shipped, **figures.provenance_of(*read)}
    with figures.one_browser():
        for number, (heading, figure) in enumerate(tqdm(drawn.items(), desc="figures", unit="figure"), start=1):
            name = f"{number}_{heading.lower().replace(' ', '_')}"
            for kind in formats:
                paper = go.Figure(figure).update_layout(template=figures.template("light"))
                about = provenance | {"figure": heading, "note": notes[heading]}
                figures.write(paper, folder / f"{name}.{kind}", about)
    title = f"What two transformers believe about {world}"
    figures.report(drawn, tables, title, folder / "report.html", provenance, notes)
    return table


def pictures(pair: Sequence[Checkpoint], read: Sequence[AnnData]) -> list[tuple[str, go.Figure, str]]:
    """Heading, figure and a sentence for everything the demo shows of models side by side."""
    world = pair[0].world
    controls = [latents.extract(one.untrained(), progress=False) for one in pair]
    probes = [analysis.probe(one, "belief", untrained=control) for one, control in zip(read, controls, strict=True)]
    planes = [{method: analysis.project(one, method) for method in ("pca", "umap")} for one in read]
    by_site = [
        analysis.probe_sites(one, "belief", untrained=control) for one, control in zip(read, controls, strict=True)
    ]
    by_position = [analysis.probe_positions(one, probe) for one, probe in zip(read, probes, strict=True)]
    episode = int(probes[0].test_episodes[0])
    paths = [analysis.read_trajectory(one, probe, episode) for one, probe in zip(read, probes, strict=True)]
    shown = [
        ("The world", world.draw(), "States and the tokens written between them, with their probabilities."),
        (
            "Loss",
            figures.loss_curves({one.label: one.metrics for one in pair}, log_steps=True),
            "Validation loss over training; the floor is the loss of the ideal observer.",
        ),
        (
            "Latents",
            figures.clouds(read, planes, probes),
            "Final hidden states of held-out episodes: PCA, UMAP, and the belief as a linear probe reads it.",
        ),
        (
            "Probes",
            figures.probe_overview(probes, by_site, by_position, site="hidden"),
            "Held-out R2 of a ridge probe to the exact belief, with its controls, by layer and by position.",
        ),
        (
            "One episode",
            figures.trajectories(read, paths, int(paths[0].positions[-1])),
            f"Episode {episode}, held out from the probes: the exact belief's path and each model's.",
        ),
    ]
    if isinstance(world, worlds.HiddenMarkovWorld):
        shown.insert(1, ("Beliefs", world.draw("beliefs"), "Every belief an ideal observer can come to hold."))
    return shown


def readme_figures(out: str | os.PathLike[str]) -> list[Path]:
    """Write the README's pictures from the shipped checkpoints, each with its provenance.

    Parameters
    ----------
    out : folder to write to.
    """
    pair = [load(f"rrxor/{objective}") for objective in OBJECTIVES]
    read = [latents.extract(one, progress=False) for one in pair]
    provenance = {"command": "nextlat-viz figures --readme", **figures.provenance_of(*read)}
    drawn = {heading: figure for heading, figure, _ in pictures(pair, read)}
    chosen = {
        "rrxor": drawn["Latents"],
        "every_seed": figures.every_seed(measure.belief_table(measure.results())),
    }
    written = []
    with figures.one_browser():
        for name, figure in chosen.items():
            paper = go.Figure(figure).update_layout(template=figures.template("light"), paper_bgcolor="white")
            written.append(figures.write(paper, Path(out) / f"{name}.png", provenance | {"figure": name}))
    return written
