"""Many runs and one table: objectives, settings and seeds of a world, every one shown."""

from __future__ import annotations

import inspect
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextlat_viz import io, worlds
from nextlat_viz.errors import unknown
from nextlat_viz.models import OBJECTIVES
from nextlat_viz.training.loop import folder_name, train
from nextlat_viz.training.presets import resolve

if TYPE_CHECKING:
    import pandas as pd

TABLE = "sweep.csv"
METRICS = ("loss", "floor", "excess", "unigram")


@dataclass(frozen=True)
class Entry:
    """One run of a sweep: its objective, its own settings, its seed."""

    objective: str
    settings: tuple[tuple[str, Any], ...]
    seed: int

    @property
    def folder(self) -> Path:
        """Where it lies in the sweep's folder, such as ``nextlat/horizon=2/seed0``."""
        said = ",".join(f"{name}={_word(value)}" for name, value in self.settings)
        return Path(self.objective, said, f"seed{self.seed}")


def sweep(
    world: str | worlds.World,
    objectives: Sequence[str] = ("next_token", "nextlat"),
    seeds: Sequence[int] = (0, 1, 2),
    preset: str = "tiny",
    *,
    grid: Mapping[str, Iterable[Any]] | None = None,
    out: str | os.PathLike[str] | None = None,
    accelerator: str = "auto",
    devices: int | str = 1,
    strategy: str = "auto",
    progress: bool = True,
    **overrides: Any,
) -> pd.DataFrame:
    """Train every combination of objectives, settings and seeds, one after another, and return their table.

    Each run has its own folder. The same call made again loads the runs that are finished, goes on with the one that
    was killed and tries again those that failed. A run that fails says why in the table; the others go on. The table
    is also kept as ``sweep.csv`` in the sweep's folder, after every run.

    Parameters
    ----------
    world : name of a world, with parameters or without, or a World.
    objectives, seeds : what to train, and how often.
    preset : name of a set of hyperparameters, see :mod:`nextlat_viz.training.presets`.
    grid : values to try of any fields of :class:`TrainConfig`, e.g. ``{"horizon": [1, 2]}``; all combinations are. An
        objective that does not read a field of another objective's is trained without it, once.
    out : folder of the sweep; ``runs/sweeps/<world>`` when not given.
    accelerator, devices, strategy, progress : as in :func:`train`.
    **overrides : fields of :class:`TrainConfig` that are the same in all runs.

    Returns
    -------
    DataFrame
        One row per run: objective, seed, the grid's fields, loss, floor, excess and unigram in nats per token (where
        the world has them), seconds, folder, and error, empty for runs that ended well.

    Raises
    ------
    UnknownNameError
        If the world, an objective, the preset or a hyperparameter does not exist.
    ValueError
        If a value is out of range, or there is nothing to train.

    Examples
    --------
    >>> import tempfile
    >>> table = sweep("z1r", ["nextlat"], seeds=[0, 1], grid={"horizon": [1]}, out=tempfile.mkdtemp(), progress=False,
    ...               steps=2, layers=1, validation_episodes=8)
    >>> table[["objective", "seed", "horizon", "error"]].values.tolist()
    [['nextlat', 0, 1, ''], ['nextlat', 1, 1, '']]
    """
    import pandas as pd

    if isinstance(world, str):
        world = worlds.get(world)
    entries = _entries(world, objectives, seeds, preset, grid or {}, overrides)
    home = Path(out) if out is not None else Path("runs", "sweeps", folder_name(world))
    rows: list[dict[str, Any]] = []
    for number, entry in enumerate(entries, start=1):
        if progress:
            print(f"{number} of {len(entries)}: {entry.folder.as_posix()}")
        row: dict[str, Any] = {"objective": entry.objective, "seed": entry.seed, **dict(entry.settings)}
        try:
            checkpoint = train(
                world,
                entry.objective,
                preset,
                seed=entry.seed,
                out=home / entry.folder,
                accelerator=accelerator,
                devices=devices,
                strategy=strategy,
                progress=progress,
                **overrides | dict(entry.settings),
            )
        except Exception as error:
            # Whatever it is, the runs after it are not to blame.
            row["error"] = f"{type(error).__name__}: {error}"
        else:
            metrics = checkpoint.card.metrics
            row |= {name: metrics[name] for name in METRICS if name in metrics}
            row |= {"seconds": metrics["train_seconds"], "error": ""}
        rows.append(row | {"folder": str(home / entry.folder)})
        table = _in_order(pd.DataFrame(rows), list(grid or {}))
        if os.environ.get("LOCAL_RANK", "0") == "0":
            io.write(home / TABLE, table.to_csv(index=False))
    return table


def _entries(
    world: worlds.World,
    objectives: Sequence[str],
    seeds: Sequence[int],
    preset: str,
    grid: Mapping[str, Iterable[Any]],
    overrides: dict[str, Any],
) -> list[Entry]:
    """Every run there is to be, each once; what is mistaken is said before any of them is trained."""
    for objective in objectives:
        if objective not in OBJECTIVES:
            raise unknown("objective", objective, OBJECTIVES)
    if both := sorted(grid.keys() & overrides.keys()):
        raise ValueError(f"{both[0]} is in the grid and has one value for all runs too: give it in one place")
    resolve(preset, world, overrides)
    # As the field has it, 2 and not "2": it names the folder.
    values = {
        name: [getattr(resolve(preset, world, overrides | {name: value}), name) for value in several]
        for name, several in grid.items()
    }
    entries = [
        Entry(objective, tuple(zip(names, chosen, strict=True)), seed)
        for objective in objectives
        for names in [[name for name in values if _reads(objective, name)]]
        for chosen in itertools.product(*(values[name] for name in names))
        for seed in seeds
    ]
    if not entries:
        raise ValueError(
            f"nothing to train: objectives={list(objectives)}, seeds={list(seeds)} and grid={dict(grid)} must each "
            "hold at least one value"
        )
    return list(dict.fromkeys(entries))


def _reads(objective: str, field: str) -> bool:
    """Whether a field matters to an objective: its own, or one that is nobody's own."""
    own = {name: set(inspect.signature(kind).parameters) for name, kind in OBJECTIVES.items()}
    return field in own[objective] or not any(field in fields for fields in own.values())


def _in_order(table: pd.DataFrame, grid: list[str]) -> pd.DataFrame:
    """Columns in the order they are read in, those that no run has left out."""
    order = ["objective", "seed", *grid, *METRICS, "seconds", "error", "folder"]
    return table[[name for name in order if name in table]]


def _word(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)
