"""Make the shipped checkpoints again: train, copy, project, evaluate.

    python checkpoints/build.py                     all of them; the same as `make checkpoints`
    python checkpoints/build.py path_star s3/nextlat rrxor/next_token/seed0
    python checkpoints/build.py --list              what there is, with the minutes each took
    python checkpoints/build.py --no-train          only measures what is not in the results; with --again, any measure

Trains the models in `runs/shipped` with the commands on their cards: finished runs are used as they are, and an
interrupted one continues. Then copies weights, cards and curves here, lays out the projections that the quickstart
shows, and adds what is missing to `results.csv`: all measures of new weights, and new measures of all models.
"""

from __future__ import annotations

import io as text_io
import shutil
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

if TYPE_CHECKING:
    import pandas as pd

    from nextlat_viz.training.checkpoint import Checkpoint

HERE = Path(__file__).resolve().parent
RUNS = HERE.parent / "runs" / "shipped"
OBJECTIVES = ("next_token", "nextlat")
KEPT = ("card.json", "model.safetensors", "metrics.csv", "tokenizer.json", "snapshots/*.safetensors")
# The option is --list; a variable of that name would hide Python's own.
Show = Annotated[bool, tyro.conf.arg(name="list")]
# Worlds whose UMAPs are kept: True for those of every layer and snapshot, False for the final hidden state alone.
PROJECTED = {"rrxor": True, "mess3": True, "z1r": False, "path_star": False, "s3": False, "taxi_grid": False}


@dataclass(frozen=True)
class Recipe:
    """How the models of a folder are trained, each of the `objectives` with `seeds` seeds.

    `title` is the world's, if it is not the name of the folder. `overrides` change the preset `tiny` for all
    objectives, `own` for one. `snapshots` are those of seed 0, by objective. `variants` are further models by the name
    of their folder: an objective and its changes, such as the horizon. `note` describes the data on the card. `file`
    must be in the current folder.
    """

    title: str = ""
    seeds: int = 5
    objectives: tuple[str, ...] = OBJECTIVES
    overrides: dict[str, Any] = field(default_factory=dict)
    own: dict[str, dict[str, Any]] = field(default_factory=dict)
    snapshots: dict[str, tuple[int, ...]] = field(default_factory=dict)
    variants: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    note: str = ""
    file: str = ""

    @property
    def models(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """Objective and hyperparameters of every model, by the name of its folder."""
        models = {name: (name, self.own.get(name, {})) for name in self.objectives} | self.variants
        return {name: (objective, self.overrides | own) for name, (objective, own) in models.items()}


# Closer together at the beginning, where the picture emerges.
EMERGENCE = (200, 600, 1200, 2400)
# NextLat jumps from chance to the right arm, and stops, at one of these steps or between two.
JUMP = tuple(range(500, 8000, 500))
WEAK = {"lambda_h": 0.1, "lambda_kl": 0.1}
RECIPES = {
    "rrxor": Recipe(snapshots=dict.fromkeys(OBJECTIVES, EMERGENCE)),
    "mess3": Recipe(),
    "z1r": Recipe(),
    "path_star": Recipe(
        "path_star:arms=2,nodes_per_arm=4,node_ids=12",
        snapshots={"nextlat": JUMP},
    ),
    "s3": Recipe("s3:generators=true", seeds=3),
    "taxi_grid": Recipe("taxi:width=8,height=8"),
    "story": Recipe(seeds=3),
    # With targets 10 to 50, a tenth of them held out, a trial with seed 100 solved 4 % of the problems with a target it
    # had never read, and 80 % of the others. With one target, hands of inputs are held out.
    "countdown": Recipe(
        "countdown:numbers=3,largest=50,targets=[24,24],limit=100,pause_tokens=2",
        seeds=3,
        # The rate and the horizon were tried with seed 100.
        overrides={
            **{"batch_size": 64, "learning_rate": 2e-3, "horizon": 4, "lambda_h": 1.0},
            **{"steps": 1200, "decay_steps": 600, "validate_every": 300},
        },
    ),
    # NextLat's weights were chosen with seed 100: at the usual weights, 1, its loss was 0.42 nats higher.
    "othello": Recipe(
        seeds=3,
        overrides={"learning_rate": 2e-3, "steps": 1600, "decay_steps": 800, "validate_every": 200},
        own={"nextlat": WEAK},
    ),
    # Central Helsinki needs the extra "city".
    "taxi": Recipe("taxi:city=helsinki", seeds=2, overrides={"steps": 6000}),
    # The projections that attention shares. A folder deeper than the others: its models compare with
    # story/next_token alone, and are no further seeds of it in the table of results and in the gallery.
    "sharing/story": Recipe(
        "story",
        seeds=3,
        objectives=(),
        variants={
            "k=v": ("next_token", {"sharing": "k=v"}),
            "k=v-gqa": ("next_token", {"sharing": "k=v", "kv_heads": 2}),
            "k=v-mqa": ("next_token", {"sharing": "k=v", "kv_heads": 1}),
            "mqa": ("next_token", {"kv_heads": 1}),
            "q=k": ("next_token", {"sharing": "q=k"}),
            "q=k=v": ("next_token", {"sharing": "q=k=v"}),
        },
    ),
    # The learning rate and NextLat's weights were chosen with seed 100: at the published weights, 1, its loss was 0.35 nats
    # higher.
    "text": Recipe(
        "text:source=stories.txt",
        seeds=3,
        overrides={
            **{"context": 128, "batch_size": 16, "learning_rate": 3e-3},
            **{"steps": 1000, "warmup_steps": 70, "decay_steps": 500},
            **{"validate_every": 250, "validation_episodes": 256, "save_every": 500},
        },
        own={"nextlat": WEAK},
        variants={
            "nextlat_d4": ("nextlat", {"horizon": 4} | WEAK),
            "mtp_d4": ("mtp", {"horizon": 4}),
            "jtp_d4": ("jtp", {"horizon": 4}),
        },
        note="stories.txt is 4.9 MB of children's stories, sampled from the MIT-licensed model stories15M (15 million "
        "weights, trained on TinyStories) at temperature 0.9 among the 256 likeliest tokens. It is not distributed.",
        file="stories.txt",
    ),
    "queens": Recipe(
        "queens:size=7",
        seeds=3,
        objectives=("dis", "trm", "one_pass", "equal_depth"),
        own={
            # The published n = 6 and S = 16 would take four times as long. The rate was chosen with seed 100.
            "trm": {"latent_updates": 2, "recursion_steps": 8, "learning_rate": 1e-3},
            # As many forward passes in training as DIS; the snapshot has read as many boards.
            "one_pass": {
                **{"steps": 3200, "warmup_steps": 160, "decay_steps": 1600, "validate_every": 400, "save_every": 800},
                **{"snapshots": (400,)},
            },
            # An average over as many batches as that of DIS, which takes eight optimiser steps for each.
            "equal_depth": {"ema": 0.96},
        },
    ),
}


def runs() -> list[str]:
    """Names of all models, such as ``rrxor/nextlat/seed0``; the objectives of a seed follow each other."""
    return [
        f"{folder}/{model}/seed{seed}"
        for folder, recipe in RECIPES.items()
        for seed in range(recipe.seeds)
        for model in recipe.models
    ]


def select(names: tuple[str, ...]) -> list[str]:
    """The models with these names, or in these folders; all without names."""
    models = runs()
    for name in names:
        if not any(f"{run}/".startswith(f"{name.strip('/')}/") for run in models):
            raise SystemExit(f"no shipped model is called {name!r}: see python checkpoints/build.py --list")
    return [run for run in models if not names or any(f"{run}/".startswith(f"{n.strip('/')}/") for n in names)]


def minutes(run: str) -> float | None:
    """Minutes that the shipped model took to train, on one core; None if it is not shipped yet."""
    from nextlat_viz.errors import CheckpointError
    from nextlat_viz.training.card import Card, read_card

    try:
        return read_card(HERE / run, Card).metrics["train_seconds"] / 60
    except CheckpointError:
        return None


def train_one(run: str) -> str:
    import torch

    import nextlat_viz as nlv

    torch.set_num_threads(1)
    folder, model, name = run.rsplit("/", 2)
    recipe, seed = RECIPES[folder], int(name.removeprefix("seed"))
    objective, options = recipe.models[model]
    if seed == 0 and model in recipe.snapshots:
        options["snapshots"] = recipe.snapshots[model]
    title = recipe.title or folder
    nlv.train(title, objective, "tiny", seed=seed, out=RUNS / run, accelerator="cpu", progress=False, **options)
    return run


def copy(run: str) -> None:
    from nextlat_viz import io
    from nextlat_viz.training.card import CARD, Card, read_card

    target = HERE / run
    shutil.rmtree(target, ignore_errors=True)
    for pattern in KEPT:
        for source in sorted((RUNS / run).glob(pattern)):
            destination = target / source.relative_to(RUNS / run)
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, destination)
    recipe = RECIPES[run.rsplit("/", 2)[0]]
    if recipe.variants or recipe.note:
        # The card of a run has the same name for all variants of an objective, and no note about the data.
        card = read_card(target, Card).model_copy(update={"name": run, "note": recipe.note})
        io.write(target / CARD, card.signed().model_dump_json(indent=2))


def lay_out() -> None:
    """Compute and keep the UMAPs that notebooks show: those of seed 0 of both objectives of each world."""
    import nextlat_viz as nlv
    from nextlat_viz import latents
    from nextlat_viz.analysis import ProjectionCache, project
    from nextlat_viz.errors import LatentsError

    shutil.rmtree(HERE / "projections", ignore_errors=True)
    cache = ProjectionCache((), HERE / "projections")
    for world, whole in PROJECTED.items():
        for objective in OBJECTIVES:
            checkpoint = nlv.load(f"{world}/{objective}")
            last = checkpoint.card.steps
            for step in (0, *checkpoint.snapshots) if whole and checkpoint.card.snapshots else (last,):
                table = latents.extract(checkpoint.at(step), progress=False)
                for site in latents.sites(table) if whole and step == last else ["hidden"]:
                    print("umap", checkpoint.name, step, site, flush=True)
                    try:
                        project(table, "umap", site=site, cache=cache)
                    except LatentsError as error:
                        print("  left out:", error)


def missing(results: pd.DataFrame, models: Sequence[Checkpoint], again: Sequence[str]) -> dict[str, list[Checkpoint]]:
    """Models that each measure must be taken of: those without results, and all models for the measures `again`."""
    from nextlat_viz.analysis import measure

    done = set(zip(results["measure"], results["weights_sha256"], strict=True))
    names = {model.weights_sha256: measure.battery(model) for model in models}
    if unknown := set(again).difference(*names.values()):
        raise SystemExit(f"--again: {min(unknown)!r} is no measure of a shipped model: see nextlat-viz evaluate --help")
    models_of = {
        name: [
            model
            for model in models
            if name in names[model.weights_sha256] and (name in again or (name, model.weights_sha256) not in done)
        ]
        for name in measure.battery()
    }
    return {name: lacking for name, lacking in models_of.items() if lacking}


def measured(results: pd.DataFrame, models: Sequence[Checkpoint], again: Sequence[str] = ()) -> pd.DataFrame:
    """The results as text, with those that were missing and without those of models that no longer exist."""
    import pandas as pd

    from nextlat_viz.analysis import measure
    from nextlat_viz.analysis.measure.evaluation import world_labels
    from nextlat_viz.analysis.measure.tables import table_bytes

    def pairs(table: pd.DataFrame) -> list[tuple[str, str]]:
        return list(zip(table["measure"], table["weights_sha256"], strict=True))

    models_of = missing(results, models, again)
    replaced = {(name, model.weights_sha256) for name, lacking in models_of.items() for model in lacking}
    tables = [results[[pair not in replaced for pair in pairs(results)]]]
    for name, lacking in models_of.items():
        evaluation = measure.evaluate(lacking, [name], out=None if name in again else RUNS / "evaluation")
        tables.append(as_text(table_bytes(evaluation.table, measure.RESULTS)))
    table = pd.concat(tables, ignore_index=True).fillna("")
    # The order of rows and the names of worlds are those of one evaluation of all models.
    weights = [model.weights_sha256 for model in models]
    order = {pair: place for place, pair in enumerate((name, sha) for name in measure.battery() for sha in weights)}
    labels = dict(zip(weights, world_labels(models), strict=True))
    places = {row: order[pair] for row, pair in enumerate(pairs(table)) if pair in order}
    table = table.iloc[sorted(places, key=places.__getitem__)]
    last = ["value", "unit", "error", "trials", "weights_sha256"]
    columns = [*(name for name in table.columns if name not in last), *last]
    return table.assign(world=table["weights_sha256"].map(labels))[columns]


def as_text(content: bytes) -> pd.DataFrame:
    """Read a table of results without converting it: kept results must stay the same to the last digit."""
    import pandas as pd

    return pd.read_csv(text_io.BytesIO(content), dtype=str, keep_default_na=False)


def main(
    names: tyro.conf.Positional[tuple[str, ...]] = (),
    *,
    workers: int = 2,
    again: tuple[str, ...] = (),
    train: bool = True,
    show: Show = False,
) -> None:
    """Train all or some of the shipped models again, and measure what is not in the results.

    Parameters
    ----------
    names
        models, such as path_star or rrxor/nextlat/seed0; all by default
    workers
        models trained at a time, one thread each
    again
        measures to take again of all models because their code has changed, such as path_accuracy
    train
        train the models and copy them here; otherwise only measure those that are here
    show
        only show the models, with the minutes each took
    """
    selected = select(names)
    durations = {run: minutes(run) for run in selected}
    for run, time in durations.items():
        done = " (finished)" if (RUNS / run / "card.json").exists() else ""
        print(f"{run:32} {'not shipped yet' if time is None else f'{time:5.1f} min'}{done}")
    total = sum(filter(None, durations.values())) / workers
    print(f"{len(selected)} models, about {total:.0f} min with {workers} workers")
    if show:
        return
    for folder in dict.fromkeys(run.rsplit("/", 2)[0] for run in selected):
        file = RECIPES[folder].file
        if train and file and not Path(file).is_file():
            raise SystemExit(f"{folder} is trained on {file}, which must be in the current folder: see its cards")
    if train:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for number, run in enumerate(pool.map(train_one, selected), start=1):
                print(f"trained {run} ({number} of {len(selected)})", flush=True)
                copy(run)

    from nextlat_viz.analysis import measure
    from nextlat_viz.training.checkpoint import load, shipped_folders

    measure.results()  # refuses a damaged table
    table = as_text((HERE / measure.RESULTS).read_bytes())
    measure.write_results(measured(table, [load(folder) for folder in shipped_folders()], again), HERE)
    if train and any(run.split("/")[0] in PROJECTED for run in selected):
        lay_out()


if __name__ == "__main__":
    tyro.cli(main)
