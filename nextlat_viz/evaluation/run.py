"""Taking measures of checkpoints: each is kept as soon as it is known, so that a killed evaluation goes on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from nextlat_viz import io
from nextlat_viz.analysis._report import html_table
from nextlat_viz.analysis.measure import Measure
from nextlat_viz.errors import unknown
from nextlat_viz.evaluation.battery import BATTERY
from nextlat_viz.training.checkpoint import Checkpoint, load, shipped_folders

PARTS = "parts"
_FIELDS = ("name", "by", "unit", "better", "references", "solved", "note")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What every measure found.

    Attributes
    ----------
    measures : dict
        A `Measure` by its name in `BATTERY` and its world, such as ``("detour_robustness", "taxi")``.
    table : DataFrame
        All of them, one row per model, measure and setting: ``measure, model, world, objective, seed``, the settings
        of any of them (empty where a measure has no such setting), ``value, unit, error, trials``, and
        ``weights_sha256``.
    """

    measures: Mapping[tuple[str, str], Measure]
    table: pd.DataFrame

    def __getitem__(self, name: str | tuple[str, str]) -> Measure:
        """The measure of a name; of several worlds give ``(name, world)``."""
        found = [key for key in self.measures if name in (key, key[0])]
        if not found:
            raise unknown("measure", name, dict.fromkeys(one for one, _ in self.measures))
        if len(found) > 1:
            raise ValueError(
                f"{name!r} was taken of several worlds: ask for [{name!r}, world], where world is "
                f"one of {', '.join(world for _, world in found)}"
            )
        return self.measures[found[0]]

    def _ipython_key_completions_(self) -> list[str]:
        return list(dict.fromkeys(name for name, _ in self.measures))

    def __repr__(self) -> str:
        return f"<Evaluation: {len(self.measures)} measures, {self.table['model'].nunique()} models>"

    def _repr_html_(self) -> str:
        rows = {f"{name} · {world}": f"{len(found.table)} rows" for (name, world), found in self.measures.items()}
        return html_table(f"Evaluation of {self.table['model'].nunique()} models", rows)


def evaluate(
    checkpoints: Iterable[Checkpoint | str | Path] | None = None,
    measures: Sequence[str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Evaluation:
    """Take every measure that fits of every checkpoint.

    Parameters
    ----------
    checkpoints : checkpoints, names or folders
        All shipped ones when not given.
    measures : names in `BATTERY`, optional
        All that fit when not given. One that fits none of the checkpoints is refused.
    out : folder, optional
        Where each result is kept as soon as it is known: run again after a cut, the evaluation goes on from there.
    progress : bool

    Returns
    -------
    Evaluation

    Raises
    ------
    UnknownNameError
        A measure or a checkpoint that does not exist.
    ValueError
        No checkpoint, or a measure that can be taken of none of them.

    Examples
    --------
    >>> found = evaluate(["rrxor/nextlat", "rrxor/next_token"], ["loss"], progress=False)
    >>> found["loss"].compare()["quantity"].tolist()
    ['loss', 'floor', 'excess']
    """
    chosen = list(shipped_folders() if checkpoints is None else checkpoints)
    if not chosen:
        raise ValueError("checkpoints is empty: give at least one, such as 'rrxor/nextlat'")
    loaded = [one if isinstance(one, Checkpoint) else load(one) for one in chosen]
    for name in measures or ():
        if name not in BATTERY:
            raise unknown("measure", name, BATTERY)
        if not any(BATTERY[name].fits(one) for one in loaded):
            worlds = ", ".join(dict.fromkeys(one.world.name for one in loaded))
            raise ValueError(f"measures: {name!r} can be taken of none of these checkpoints (worlds: {worlds})")
    jobs = [
        (name, one)
        for name in (BATTERY if measures is None else dict.fromkeys(measures))
        for one in loaded
        if BATTERY[name].fits(one)
    ]
    found: dict[tuple[str, str], Measure] = {}
    frames = []
    with tqdm(jobs, desc="evaluate", unit="measure", disable=not progress) as bar:
        for name, one in bar:
            bar.set_postfix_str(f"{name} of {one.name}", refresh=False)
            part = _part(name, one, None if out is None else Path(out, PARTS))
            key = (name, one.world.name)
            found[key] = found[key] + part if key in found else part
            frames.append(part.to_frame().assign(measure=name, weights_sha256=one.weights_sha256))
    return Evaluation(found, _stacked(frames))


def _stacked(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """One table under another: who, then every setting, then what was found."""
    columns = dict.fromkeys(name for frame in frames for name in frame.columns)
    first = ["measure", "model", "world", "objective", "seed"]
    last = ["value", "unit", "error", "trials", "weights_sha256"]
    records = [row for frame in frames for row in frame.to_dict("records")]
    table = pd.DataFrame(records, columns=[*first, *(name for name in columns if name not in (*first, *last)), *last])
    return table.astype({"seed": "Int64"})


def _part(name: str, checkpoint: Checkpoint, folder: Path | None) -> Measure:
    if folder is None:
        return BATTERY[name](checkpoint)
    asked = {
        "measure": name,
        "version": metadata.version("nextlat-viz"),
        "options": BATTERY[name].options,
        "weights_sha256": checkpoint.weights_sha256,
        "world": checkpoint.card.world,
    }
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"{name}-{digest}.json"
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["asked"] == json.loads(json.dumps(asked)):
            return _from_plain(kept["found"])
    found = BATTERY[name](checkpoint)
    text = json.dumps({"asked": asked, "found": _plain(found)}, default=_number)
    io.write(path, text)
    return found


def _plain(found: Measure) -> dict[str, Any]:
    rows = found.table.astype(object).where(found.table.notna(), None).to_dict("records")
    return {name: getattr(found, name) for name in _FIELDS} | {
        "references": dict(found.references),
        "columns": list(found.table.columns),
        "table": rows,
    }


def _from_plain(kept: dict[str, Any]) -> Measure:
    table = pd.DataFrame(kept["table"], columns=kept["columns"])
    table = table.astype({"value": float, "error": float})
    options = {name: kept[name] for name in _FIELDS if name != "name"} | {"by": tuple(kept["by"])}
    return Measure(kept["name"], table, **options)


def write(
    evaluation: Evaluation,
    out: str | os.PathLike[str],
    *,
    table: str = "results.csv",
    images: Sequence[str] = (),
) -> list[Path]:
    """Write the table, and a page that works offline with a figure of every measure.

    Parameters
    ----------
    evaluation : Evaluation
    out : folder
    table : name of the table, ending in ``.csv`` or ``.parquet``.
    images : kinds of image to write of each figure too, such as ``"svg"``; they need a Chromium-based browser.

    Returns
    -------
    list of Path
        What was written: the table, ``report.html``, the images.

    Raises
    ------
    ValueError
        A table of another kind.
    ImportError
        A ``.parquet`` table without pyarrow.
    """
    from nextlat_viz import figures

    folder = Path(out)
    kind = Path(table).suffix
    if kind not in (".csv", ".parquet"):
        raise ValueError(f"table={table!r} must end in .csv or .parquet")
    content = csv_bytes(evaluation.table) if kind == ".csv" else _parquet_bytes(evaluation.table)
    written = [folder / table, folder / "report.html"]
    io.write(written[0], content)
    drawn = {f"{found.name}, {world}": found for (_, world), found in evaluation.measures.items()}
    models = evaluation.table[["model", "weights_sha256"]].drop_duplicates().to_dict("records")
    provenance = {"command": "nextlat-viz evaluate", "models": models}
    figures.report(
        {heading: found.plot() for heading, found in drawn.items()},
        {},
        "What was measured",
        written[1],
        provenance,
        {heading: found.note for heading, found in drawn.items()},
    )
    with figures.one_browser():
        for (name, world), found in evaluation.measures.items():
            for image in images:
                path = folder / f"{name}_{world}.{image}"
                written.append(figures.write(found.plot(theme="light"), path, provenance | {"note": found.note}))
    return written


def csv_bytes(table: pd.DataFrame) -> bytes:
    """The table as CSV, six digits to a number."""
    return table.to_csv(index=False, float_format="%.6g").encode()


def _parquet_bytes(table: pd.DataFrame) -> bytes:
    try:
        import pyarrow  # type: ignore[import-untyped] # noqa: F401
    except ImportError as error:
        raise ImportError("a .parquet table needs pyarrow: pip install pyarrow, or take .csv") from error
    # A setting may be a number in one measure and a word in another.
    settings = table.select_dtypes(object).columns
    data: bytes = table.astype(dict.fromkeys(settings, "string")).to_parquet(index=False)
    return data


def _number(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} has no place in JSON")
