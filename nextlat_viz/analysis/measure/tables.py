"""Tables of an evaluation: its files, the results of the shipped checkpoints, and losses and beliefs by run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from nextlat_viz import display, io
from nextlat_viz.analysis.measure.result import QUANTITY, Measure
from nextlat_viz.errors import optional
from nextlat_viz.paths import checkpoints_dir

if TYPE_CHECKING:
    from nextlat_viz.analysis.measure.evaluation import Evaluation

RESULTS = "results.csv"
"""Name of the file of results, in the folder of the shipped checkpoints."""
_SEAL = "results.json"
_RUN = ["world", "objective", "seed", "weights_sha256"]
_BELIEF = {
    "hidden state": "belief_r2",
    "all sites": "belief_r2_all_sites",
    "untrained model": "belief_r2_untrained",
    "shuffled labels": "belief_r2_shuffled",
}
_LOSS = ["loss", "floor", "excess"]


def results() -> pd.DataFrame:
    """Return the tidy table of the shipped checkpoints, as measured before shipping; `evaluate` measures it again.

    Raises
    ------
    ValueError
        If the file is damaged.

    Examples
    --------
    >>> table = results()
    >>> bool((table[table["measure"] == "belief"]["value"] <= 1).all())
    True
    """
    path = checkpoints_dir() / RESULTS
    try:
        sealed = io.read_json(path.with_name(_SEAL))["sha256"] == _sha256(path)
    except (OSError, io.SealError, KeyError, UnicodeDecodeError):
        sealed = False
    if not sealed:
        raise ValueError(
            f"{path} is damaged: it does not match the hash in {_SEAL}. Install the package again, or measure the "
            "table with nlv.evaluate()"
        )
    return pd.read_csv(path, dtype={"seed": "Int64"}, low_memory=False)


def write_results(table: pd.DataFrame, folder: Path) -> None:
    """Write the table of `results` to a folder, with its hash in a sealed file."""
    io.write(folder / RESULTS, table_bytes(table, RESULTS))
    io.write_json(folder / _SEAL, {"sha256": _sha256(folder / RESULTS)})


def _sha256(path: Path) -> str:
    # Of the text, because git changes the line ends of a checkout on Windows.
    return hashlib.sha256(path.read_text(encoding="utf-8").encode()).hexdigest()


def require_table(name: str) -> None:
    """Check the file name of a table, before anything is measured for it."""
    if not name.endswith((".csv", ".parquet")) or set(name) & set("/\\"):
        raise ValueError(f"table={name!r} must be a file name that ends in .csv or .parquet")
    if name.endswith(".parquet"):
        optional("pyarrow", "a .parquet table needs pyarrow: pip install pyarrow, or take .csv")


def table_bytes(table: pd.DataFrame, name: str) -> bytes:
    """Return the content of a table's file, by its ending: CSV with six digits to a number, or Parquet."""
    require_table(name)
    if name.endswith(".csv"):
        return table.to_csv(index=False, float_format="%.6g").encode()
    # A setting may be a number in one measure and a word in another.
    settings = table.select_dtypes(object).columns
    return table.astype(dict.fromkeys(settings, "string")).to_parquet(index=False)


def write_evaluation(
    evaluation: Evaluation,
    out: str | os.PathLike[str],
    *,
    table: str = "results.csv",
    images: Sequence[str] = (),
) -> list[Path]:
    """Write the table, and an offline page with a figure of every measure.

    Parameters
    ----------
    table : str
        Name of the table, ending in ``.csv`` or ``.parquet``.
    images : strs
        Kinds of image to write of each figure too, such as ``"svg"``; they need a Chromium-based browser.

    Returns
    -------
    list of Path
        The files written: the table, ``report.html``, the images.

    Raises
    ------
    ValueError
        A table of another kind.
    ImportError
        A ``.parquet`` table without pyarrow.
    """
    folder = io.resolve(out, "out")
    content = table_bytes(evaluation.table, table)
    io.write(folder / table, content)
    pages: list[Path] = display.drawer("evaluation", "nextlat_viz.pages.report")(evaluation, folder, images)
    return [folder / table, *pages]


def belief_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return losses and beliefs of a tidy table, one row per run that has both.

    Returns
    -------
    DataFrame
        ``world, objective, seed``; ``loss, floor, excess`` in nats per token; ``belief_r2`` of a ridge probe from the
        final hidden state on held-out episodes with its standard error ``belief_r2_error`` (of the bootstrap over
        episodes), its controls ``belief_r2_shuffled`` (labels of other episodes) and ``belief_r2_untrained`` (the
        same model before training), and ``belief_r2_all_sites``, read from every site together; ``weights_sha256``. No
        rows where the loss or the belief was not measured.

    Examples
    --------
    >>> row = belief_table(results()).iloc[0]
    >>> bool(row["loss"] >= row["floor"]), bool(row["belief_r2"] > row["belief_r2_untrained"])
    (True, True)
    """
    beliefs, losses = (table[table["measure"] == name] for name in ("belief", "loss"))
    wide = _wide(beliefs, "reader", list(_BELIEF)).rename(columns=_BELIEF)
    error = _wide(beliefs, "reader", ["hidden state"], "error").rename(columns={"hidden state": "belief_r2_error"})
    joined = _wide(losses, "quantity", _LOSS).join([wide, error], how="inner").reset_index()
    # In the order in which the runs were measured.
    return beliefs[_RUN].drop_duplicates().merge(joined, on=_RUN).astype({"seed": int})


def _wide(rows: pd.DataFrame, setting: str, names: list[str], score: str = "value") -> pd.DataFrame:
    """Return a row per run and a column per value of a setting; empty columns for a measure that was not taken."""
    if setting not in rows:
        rows = rows.assign(**{setting: None})
    return rows.pivot(index=_RUN, columns=setting, values=score).reindex(columns=names)


def as_measure(rows: pd.DataFrame, name: str, by: tuple[str, ...] = (), **options: object) -> Measure:
    """Return rows of a table of results as a `Measure`, which compares and draws them.

    Parameters
    ----------
    rows : DataFrame
        Rows of one measure in the table of `evaluate` or `results`.
    name : str
    by : tuple of str
        Settings of the measure.
    **options
        ``better``, ``references``, ``solved`` and ``note`` of the `Measure`.

    Examples
    --------
    >>> rows = results().query("measure == 'next_token_test' and world == 'rrxor'")
    >>> as_measure(rows, "next-token test").unit
    'share'
    """
    units = rows["unit"].unique()
    unit = units[0] if len(units) == 1 else rows.drop_duplicates(QUANTITY).set_index(QUANTITY)["unit"].to_dict()
    table = rows.drop(columns=["measure", "unit", "weights_sha256"]).dropna(axis="columns", how="all")
    return Measure(name, table, by, unit, **options)  # type: ignore[arg-type]
