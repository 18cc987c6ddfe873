"""What an evaluation's table says of losses and beliefs, one row per run, and as the README shows it."""

from __future__ import annotations

import pandas as pd

from nextlat_viz.paths import checkpoints_dir

RESULTS = "results.csv"
_RUN = ["world", "objective", "seed", "weights_sha256"]
_BELIEF = {
    "hidden state": "belief_r2",
    "all sites": "belief_r2_all_sites",
    "untrained model": "belief_r2_untrained",
    "shuffled labels": "belief_r2_shuffled",
}


def results() -> pd.DataFrame:
    """The tidy table of the shipped checkpoints as it was measured before shipping; `evaluate` measures it again.

    Examples
    --------
    >>> table = results()
    >>> bool((table[table["measure"] == "belief"]["value"] < 1).all())
    True
    """
    return pd.read_csv(checkpoints_dir() / RESULTS, dtype={"seed": "Int64"}, low_memory=False)


def belief_table(table: pd.DataFrame) -> pd.DataFrame:
    """Losses and beliefs from a tidy table, one row per run of a world with hidden states.

    Returns
    -------
    DataFrame
        ``world, objective, seed``; ``loss, floor, excess`` in nats per token; ``belief_r2`` of a ridge probe from the
        final hidden state on held-out episodes with its standard error ``belief_r2_error`` (of the bootstrap over
        episodes), its controls ``belief_r2_shuffled`` (labels of other episodes) and ``belief_r2_untrained`` (the
        same model before training), and ``belief_r2_all_sites``, read from every site together; ``weights_sha256``.

    Examples
    --------
    >>> row = belief_table(results()).iloc[0]
    >>> bool(row["loss"] >= row["floor"]), bool(row["belief_r2"] > row["belief_r2_untrained"])
    (True, True)
    """
    read = table[table["measure"] == "belief"]
    wide = read.pivot(index=_RUN, columns="reader", values="value").rename(columns=_BELIEF)[list(_BELIEF.values())]
    error = read[read["reader"] == "hidden state"].set_index(_RUN)["error"].rename("belief_r2_error")
    losses = table[table["measure"] == "loss"].pivot(index=_RUN, columns="quantity", values="value")
    joined = losses[["loss", "floor", "excess"]].join([wide, error], how="inner").reset_index().astype({"seed": int})
    # In the order in which the runs were measured.
    order = {run: i for i, run in enumerate(dict.fromkeys(read[_RUN].itertuples(index=False, name=None)))}
    place = [order[run] for run in joined[_RUN].itertuples(index=False, name=None)]
    joined.columns.name = None
    return joined.iloc[sorted(range(len(joined)), key=place.__getitem__)].reset_index(drop=True)


def by_objective(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds for each world and objective, with how many seeds and the worst and best of them.

    Examples
    --------
    >>> table = pd.DataFrame({"world": ["w", "w"], "objective": ["nextlat"] * 2, "belief_r2": [0.75, 0.25],
    ...                       "excess": [0.01, 0.02]})
    >>> by_objective(table)["belief_r2"].tolist()
    [0.5]
    """
    grouped = table.groupby(["world", "objective"], sort=False)
    return grouped.agg(
        seeds=("belief_r2", "size"),
        excess=("excess", "mean"),
        worst_excess=("excess", "max"),
        belief_r2=("belief_r2", "mean"),
        lowest_belief_r2=("belief_r2", "min"),
        highest_belief_r2=("belief_r2", "max"),
    ).reset_index()


def markdown(table: pd.DataFrame) -> str:
    """The README's table: a row per world and objective, every seed in it.

    Examples
    --------
    >>> print(markdown(belief_table(results())).splitlines()[0])
    | world | objective | loss above the floor | belief R², mean | every seed | untrained | shuffled |
    """
    lines = [
        "| world | objective | loss above the floor | belief R², mean | every seed | untrained | shuffled |",
        "|---|---|---|---|---|---|---|",
    ]
    for (world, objective), its in table.groupby(["world", "objective"], sort=False):
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
