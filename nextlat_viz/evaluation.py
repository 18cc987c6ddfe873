"""Evaluation: what checkpoints score and know, one row each, with the floors and controls beside every number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from nextlat_viz import analysis, latents
from nextlat_viz.paths import checkpoints_dir
from nextlat_viz.training.checkpoint import Checkpoint, load, shipped_folders

RESULTS = "results.csv"


def evaluate(
    checkpoints: Iterable[Checkpoint | str | Path] | None = None,
    *,
    min_position: int = 1,
    n_bootstrap: int = 200,
    progress: bool = True,
) -> pd.DataFrame:
    """Score checkpoints: loss against the Bayes floor, and how much of the belief a linear map recovers.

    Parameters
    ----------
    checkpoints : checkpoints, names or folders
        All shipped ones when not given.
    min_position : int
        First position (tokens read) the probe is fitted and scored on.
    n_bootstrap : int
        Bootstrap resamples of held-out episodes behind `belief_r2_low` and `belief_r2_high`.
    progress : bool
        Show a progress bar.

    Returns
    -------
    DataFrame
        One row per checkpoint: `world, objective, seed, steps`; `loss, floor, excess` in nats per token;
        `belief_r2` of a ridge probe from the final hidden state on held-out episodes with its 95% interval
        `belief_r2_low, belief_r2_high` and its controls `belief_r2_shuffled` (labels of other episodes) and
        `belief_r2_untrained` (the same model before training); `belief_r2_all_sites`, read from every site together;
        `effective_rank` of the hidden states (not centred); `weights_sha256`.

    Examples
    --------
    >>> row = evaluate(["rrxor/nextlat"], n_bootstrap=10, progress=False).iloc[0]
    >>> bool(row["loss"] >= row["floor"]), bool(row["belief_r2"] > row["belief_r2_untrained"])
    (True, True)
    """
    chosen: Sequence[Checkpoint | str | Path] = list(shipped_folders() if checkpoints is None else checkpoints)
    rows = []
    for item in tqdm(chosen, desc="evaluate", unit="checkpoint", disable=not progress):
        checkpoint = item if isinstance(item, Checkpoint) else load(item)
        rows.append(_evaluate_one(checkpoint, min_position, n_bootstrap))
    return pd.DataFrame(rows)


def results() -> pd.DataFrame:
    """The table of the shipped checkpoints as it was measured before shipping; :func:`evaluate` measures it again.

    Examples
    --------
    >>> table = results()
    >>> bool((table["loss"] >= table["floor"]).all())
    True
    """
    return pd.read_csv(checkpoints_dir() / RESULTS)


def _evaluate_one(checkpoint: Checkpoint, min_position: int, n_bootstrap: int) -> dict[str, object]:
    trained = latents.extract(checkpoint, progress=False)
    untrained = latents.extract(checkpoint.untrained(), progress=False)
    belief = analysis.probe(trained, "belief", untrained=untrained, min_position=min_position, n_bootstrap=n_bootstrap)
    every_site = analysis.probe(trained, "belief", site="all", min_position=min_position, n_bootstrap=1)
    metrics = checkpoint.card.metrics
    return {
        "world": checkpoint.card.world["name"],
        "objective": checkpoint.card.objective,
        "seed": checkpoint.card.seed,
        "steps": checkpoint.step,
        "loss": metrics["loss"],
        "floor": metrics["floor"],
        "excess": metrics["excess"],
        "belief_r2": belief.score,
        "belief_r2_low": belief.interval[0],
        "belief_r2_high": belief.interval[1],
        "belief_r2_shuffled": belief.shuffled,
        "belief_r2_untrained": belief.untrained,
        "belief_r2_all_sites": every_site.score,
        "effective_rank": analysis.effective_rank(trained.X),
        "weights_sha256": checkpoint.weights_sha256,
    }


def by_objective(results: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds for each world and objective, with how many seeds and the worst and best of them.

    Examples
    --------
    >>> results = pd.DataFrame({"world": ["w", "w"], "objective": ["nextlat"] * 2, "belief_r2": [0.75, 0.25],
    ...                         "excess": [0.01, 0.02]})
    >>> by_objective(results)["belief_r2"].tolist()
    [0.5]
    """
    grouped = results.groupby(["world", "objective"], sort=False)
    return grouped.agg(
        seeds=("belief_r2", "size"),
        excess=("excess", "mean"),
        worst_excess=("excess", "max"),
        belief_r2=("belief_r2", "mean"),
        lowest_belief_r2=("belief_r2", "min"),
        highest_belief_r2=("belief_r2", "max"),
    ).reset_index()


def markdown(results: pd.DataFrame) -> str:
    """The README's table: a row per world and objective, every seed in it.

    Examples
    --------
    >>> print(markdown(results()).splitlines()[0])
    | world | objective | loss above the floor | belief R², mean | every seed | untrained | shuffled |
    """
    lines = [
        "| world | objective | loss above the floor | belief R², mean | every seed | untrained | shuffled |",
        "|---|---|---|---|---|---|---|",
    ]
    for (world, objective), its in results.groupby(["world", "objective"], sort=False):
        cells = [
            str(world),
            str(objective),
            f"{its['excess'].min():.4f} to {its['excess'].max():.4f}",
            f"**{its['belief_r2'].mean():.3f}**",
            ", ".join(f"{score:.3f}" for score in its.sort_values("seed")["belief_r2"]),
            f"{its['belief_r2_untrained'].mean():.3f}",
            f"{its['belief_r2_shuffled'].mean():.3f}".replace("-0.000", "0.000"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
