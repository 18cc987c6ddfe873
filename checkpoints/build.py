"""Make the shipped checkpoints again: train, copy, project, evaluate.

    make checkpoints

Trains every pair with the commands their cards state (runs that are finished are taken as they are, so this can be
stopped and goes on), copies weights, cards and curves here, lays out the projections that the quickstart shows, and
measures `results.csv`.
"""

from __future__ import annotations

import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RUNS = HERE.parent / "runs" / "shipped"
SEEDS = {"rrxor": range(5), "mess3": range(3), "taxi": range(2)}
# What is trained where a world's name does not say it all; central Helsinki needs the extra "city".
TITLES = {"taxi": "taxi:city=helsinki"}
STEPS = {"taxi": 10_000}
OBJECTIVES = ("next_token", "nextlat")
# Closer together at the beginning, where the picture emerges.
SNAPSHOTS = {("rrxor", 0): (200, 600, 1200, 2400)}
KEPT = ("card.json", "model.safetensors", "metrics.csv", "snapshots/*.safetensors")


def train_one(world: str, objective: str, seed: int) -> Path:
    import torch

    import nextlat_viz as nlv

    torch.set_num_threads(1)
    snapshots = SNAPSHOTS.get((world, seed))
    # The results beside these weights, and the sentences about them, are of models without a start token.
    options: dict[str, Any] = {"start_token": False}
    if snapshots is not None:
        options["snapshots"] = snapshots
    if world in STEPS:
        options["steps"] = STEPS[world]
    folder = RUNS / world / objective / f"seed{seed}"
    title = TITLES.get(world, world)
    nlv.train(title, objective, "tiny", seed=seed, out=folder, accelerator="cpu", progress=False, **options)
    return folder


def copy(run: Path) -> None:
    target = HERE / run.relative_to(RUNS)
    shutil.rmtree(target, ignore_errors=True)
    for pattern in KEPT:
        for source in sorted(run.glob(pattern)):
            destination = target / source.relative_to(run)
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, destination)


def lay_out() -> None:
    """Keep the UMAPs the quickstart shows: of every layer of the first pair, and every snapshot's final hidden state."""
    import nextlat_viz as nlv
    from nextlat_viz import latents
    from nextlat_viz.analysis import ProjectionCache, project
    from nextlat_viz.errors import LatentsError

    shutil.rmtree(HERE / "projections", ignore_errors=True)
    cache = ProjectionCache((), HERE / "projections")
    for world in ("rrxor", "mess3"):
        for objective in OBJECTIVES:
            checkpoint = nlv.load(f"{world}/{objective}")
            for step in (0, *checkpoint.snapshots) if checkpoint.card.snapshots else checkpoint.snapshots:
                table = latents.extract(checkpoint.at(step), progress=False)
                for site in latents.sites(table) if step == checkpoint.card.steps else ["hidden"]:
                    print("umap", checkpoint.name, step, site, flush=True)
                    try:
                        project(table, "umap", site=site, cache=cache)
                    except LatentsError as error:
                        print("  left out:", error)


def main() -> None:
    jobs = [(world, objective, seed) for world, seeds in SEEDS.items() for seed in seeds for objective in OBJECTIVES]
    workers = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for run in pool.map(train_one, *zip(*jobs, strict=True)):
            print("trained", run.relative_to(RUNS), flush=True)
            copy(run)

    from nextlat_viz.analysis import measure

    evaluation = measure.evaluate(out=RUNS / "evaluation")
    measure.write_results(evaluation.table, HERE)
    print(measure.by_objective(measure.belief_table(evaluation.table)).to_string(index=False))
    lay_out()


if __name__ == "__main__":
    main()
