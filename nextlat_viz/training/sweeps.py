"""Train every combination of objectives, settings and seeds, with one table of the results."""

from __future__ import annotations

import inspect
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

from nextlat_viz import io, worlds
from nextlat_viz.errors import at_least, listed, one_of, shown
from nextlat_viz.models import OBJECTIVES
from nextlat_viz.training.checkpoint import load
from nextlat_viz.training.config import resolve_config
from nextlat_viz.training.launch import Resources, Run, choose_launcher, train_all
from nextlat_viz.training.pretrain import folder_name, train
from nextlat_viz.training.resume import identify
from nextlat_viz.worlds.registry import everywhere

if TYPE_CHECKING:
    import pandas as pd

TABLE = "sweep.csv"
METRICS = ("loss", "floor", "excess", "unigram")


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep: objective, values of the grid, seed."""

    objective: str
    settings: tuple[tuple[str, Any], ...]
    seed: int

    @property
    def folder(self) -> Path:
        """Path inside the sweep's folder, such as ``nextlat/horizon=2/seed0``."""
        settings = ",".join(f"{name}={_word(value)}" for name, value in self.settings)
        return Path(self.objective, io.file_name(settings) if settings else "", f"seed{self.seed}")


def sweep(
    world: str | worlds.World,
    objectives: Sequence[str] = ("next_token", "nextlat"),
    seeds: Iterable[SupportsIndex] = (0, 1, 2),
    preset: str = "tiny",
    *,
    grid: Mapping[str, Iterable[Any]] | None = None,
    out: str | os.PathLike[str] | None = None,
    accelerator: str = "auto",
    devices: int | str = 1,
    strategy: str = "auto",
    launcher: str | None = None,
    workers: SupportsIndex | None = None,
    resources: Resources | Mapping[str, Any] | None = None,
    progress: bool = True,
    **overrides: Any,
) -> pd.DataFrame:
    """Train every combination of objectives, settings and seeds, and return their table.

    Each run has its own folder. Making the same call again loads the runs that are finished, continues those that
    were interrupted and retries those that failed. If a run fails, the table has its error, and the others go on.
    The table is saved as ``sweep.csv`` in the sweep's folder after every run.

    Runs are trained one after another in this process, or by `launcher` several at once in separate processes, with the
    same result.

    Parameters
    ----------
    world : name of a world, with parameters or without, or a World.
    objectives, seeds : what to train; every objective with every seed.
    preset : name of a set of hyperparameters, see :mod:`nextlat_viz.training.config`.
    grid : values of any fields of :class:`TrainConfig`, e.g. ``{"horizon": [1, 2]}``; all combinations are trained. An
        objective that does not read a field is trained once, without it.
    out : folder of the sweep; ``runs/sweeps/<world>`` when not given.
    accelerator, devices, strategy : as in :func:`train`.
    launcher : ``"local"``, processes of this machine, each with one thread and, if there are any, one GPU; or
        ``"slurm"``, a job of the cluster for each run. Both need ``pip install "nextlat-viz[cluster]"``. At Ctrl-C
        local processes save their state and end; jobs stay in the queue, and the same call comes back to them.
    workers : how many runs at once; by default as many as there are GPUs or cores here, and all on a cluster.
    resources : what a SLURM job asks for: ``partition``, ``time``, ``gpus``, ``cpus``, ``memory``, and ``sbatch``, a
        list of further options such as ``["account=mine"]``.
    progress : show a progress bar.
    **overrides : fields of :class:`TrainConfig` that are the same in all runs.

    Returns
    -------
    DataFrame
        One row per run: objective, seed, the grid's fields, loss, floor, excess and unigram in nats per token (where
        the world has them), seconds, folder, and error, empty for runs that succeeded; with a launcher also the log of
        runs that failed.

    Raises
    ------
    UnknownNameError
        If the world, an objective, the preset or a hyperparameter does not exist.
    ValueError
        If a value is out of range, there is nothing to train, or SLURM is missing.
    ImportError
        If a launcher is asked for and submitit is not installed.
    KeyboardInterrupt
        At Ctrl-C; says how to go on.

    Examples
    --------
    >>> import tempfile
    >>> table = sweep("z1r", ["nextlat"], seeds=[0, 1], grid={"horizon": [1]}, out=tempfile.mkdtemp(), progress=False,
    ...               steps=2, layers=1, validation_episodes=8)
    >>> table[["objective", "seed", "horizon", "error"]].values.tolist()
    [['nextlat', 0, 1, ''], ['nextlat', 1, 1, '']]
    """
    world = worlds.get(world)
    objectives = [objectives] if isinstance(objectives, str) else listed("objectives", objectives, "['nextlat']")
    seeds = listed("seeds", seeds, "[0, 1, 2]")
    if grid is not None and not isinstance(grid, Mapping):
        raise TypeError(f"grid must be a dict of fields and values, such as {{'horizon': [1, 2]}}, got {shown(grid)}")
    grid = {
        name: [values] if isinstance(values, str) or not isinstance(values, Iterable) else list(values)
        for name, values in (grid or {}).items()
    }
    entries = _entries(world, objectives, seeds, preset, grid, overrides)
    home = io.resolve(Path("runs", "sweeps", folder_name(world)) if out is None else out, "out")
    processes = choose_launcher(launcher, workers, resources, accelerator, devices)
    arguments = {"preset": preset, "accelerator": accelerator, "devices": devices, "strategy": strategy}
    rows: dict[int, dict[str, Any]] = {}

    def ended(number: int, error: str, log: str = "") -> None:
        entry = entries[number]
        row: dict[str, Any] = {"objective": entry.objective, "seed": entry.seed, **dict(entry.settings)}
        if not error:
            metrics = load(home / entry.folder).card.metrics
            row |= {name: metrics[name] for name in METRICS if name in metrics} | {"seconds": metrics["train_seconds"]}
        row |= {"error": error, "folder": str(home / entry.folder)}
        rows[number] = row if processes is None else row | {"log": log}
        if os.environ.get("LOCAL_RANK", "0") == "0":
            io.write(home / TABLE, _in_order(rows, list(grid)).to_csv(index=False))

    if processes is not None:
        if not everywhere(world.name):
            raise ValueError(
                f"world {world.name!r} is defined in this session, and launcher={launcher!r} trains in others: "
                "announce it in a package's entry points, group 'nextlat_viz.worlds', or omit the launcher"
            )
        runs = [_run(world, entry, home, arguments, overrides) for entry in entries]
        train_all(runs, processes, ended, progress=progress)
        return _in_order(rows, list(grid))
    for number, entry in enumerate(entries):
        if progress:
            print(f"{number + 1} of {len(entries)}: {entry.folder.as_posix()}")
        settings: dict[str, Any] = {**arguments, **overrides, **dict(entry.settings)}
        try:
            train(world, entry.objective, seed=entry.seed, out=home / entry.folder, progress=progress, **settings)
        except Exception as error:
            # Any error: the other runs do not depend on this one.
            ended(number, f"{type(error).__name__}: {error}")
        else:
            ended(number, "")
    return _in_order(rows, list(grid))


def _run(
    world: worlds.World, entry: SweepRun, home: Path, arguments: Mapping[str, Any], overrides: Mapping[str, Any]
) -> Run:
    """Describe a run for another process."""
    changes: dict[str, Any] = io.plain({**overrides, **dict(entry.settings)})
    config = resolve_config(arguments["preset"], world, changes)
    return Run(
        name=entry.folder.as_posix(),
        folder=home / entry.folder,
        logs=home / "jobs" / entry.folder,
        identity=identify(world.spec, entry.objective, config, entry.seed),
        arguments={
            **arguments,
            **{"world": world.spec, "objective": entry.objective, "seed": entry.seed},
            **{"out": str(home / entry.folder), "overrides": changes},
        },
    )


def _entries(
    world: worlds.World,
    objectives: Sequence[str],
    seeds: Iterable[SupportsIndex],
    preset: str,
    grid: Mapping[str, Iterable[Any]],
    overrides: dict[str, Any],
) -> list[SweepRun]:
    """List every run of the sweep once. Raises on wrong arguments before anything is trained."""
    for objective in objectives:
        one_of("objective", objective, OBJECTIVES)
    if shared := sorted(grid.keys() & overrides.keys()):
        raise ValueError(f"{shared[0]} is in the grid and also given for all runs: give it in one place")
    resolve_config(preset, world, overrides)
    # Converted to the field's type, 2 and not "2": the value names the folder.
    values = {
        name: [getattr(resolve_config(preset, world, overrides | {name: io.plain(value)}), name) for value in options]
        for name, options in grid.items()
    }
    entries = [
        SweepRun(objective, tuple(zip(names, chosen, strict=True)), at_least("seed", seed, 0))
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
    """Whether a field matters to an objective: its class takes the field, or no objective's class does."""
    arguments = {name: set(inspect.signature(kind).parameters) for name, kind in OBJECTIVES.items()}
    return field in arguments[objective] or not any(field in fields for fields in arguments.values())


def _in_order(rows: Mapping[int, dict[str, Any]], grid: list[str]) -> pd.DataFrame:
    """Return the table of the runs that have ended: in the order of the sweep, without columns that no run has."""
    import pandas as pd

    table = pd.DataFrame([rows[number] for number in sorted(rows)])
    order = ["objective", "seed", *grid, *METRICS, "seconds", "error", "log", "folder"]
    return table[[name for name in order if name in table]]


def _word(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)
