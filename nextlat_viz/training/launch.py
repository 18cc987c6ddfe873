"""Train the runs of a sweep in other processes, by submitit: several on this machine, or each as a SLURM job.

No list of started runs is kept. A run's folder shows whether it is finished, SLURM's queue shows whether it is running
(the name of its job is made from folder and settings), and every other run is started, from its last saved state. So a
repeated call continues the sweep, however it ended. The folder ``jobs`` holds the logs, and files that submitit pickles
for its own process; these are not read here.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

from nextlat_viz import io
from nextlat_viz.errors import at_least, one_of, shown
from nextlat_viz.training.config import validated

if TYPE_CHECKING:
    from nextlat_viz.training.launchers import Local, Slurm

LAUNCHERS = ("local", "slurm")
# Looks for the result of a job that has left the queue, before it counts as ended without one: files written on another
# machine can take some seconds to appear here.
_LOOKS = 3


class Resources(BaseModel):
    """Resources that each SLURM job asks for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    partition: str | None = Field(None, description="SLURM partition (default: the cluster's)")
    time: str | None = Field(
        None, description="longest time of a SLURM job: minutes, 2:30:00 or 1-12:00:00 (default: 1-00:00:00)"
    )
    gpus: NonNegativeInt | None = Field(None, description="GPUs of a SLURM job")
    cpus: PositiveInt | None = Field(None, description="CPU cores of each process of a SLURM job (default: 1)")
    memory: str | None = Field(None, description="memory of a SLURM job, such as 16GB")
    sbatch: tuple[str, ...] = Field(
        (), description="further options of sbatch, such as account=mine qos=high exclusive"
    )

    @property
    def minutes(self) -> int:
        """The time in whole minutes, rounded up. ValueError if sbatch would not read it."""
        match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d\d?))?(?::(\d\d?))?", self.time or "1-00:00:00")
        if match is None:
            raise ValueError(f"time={self.time!r} must be minutes, hours:minutes:seconds or days-hours:minutes:seconds")
        days, first, second, third = (int(part or 0) for part in match.groups())
        if match[1] or match[4]:
            hours, minutes, seconds = first, second, third
        else:
            hours, minutes, seconds = 0, first, second
        return max(1, ((days * 24 + hours) * 60 + minutes) + (seconds > 0))


@dataclass(frozen=True)
class Run:
    """One run to be trained in another process.

    Attributes
    ----------
    name : its place in the sweep, such as ``"nextlat/seed0"``.
    folder : of the run.
    logs : folder of its logs, and of submitit's files.
    identity : everything its weights depend on, see `training.resume.identify`.
    arguments : of :func:`train`, as JSON; the world is its spec.
    """

    name: str
    folder: Path
    logs: Path
    identity: dict[str, Any]
    arguments: dict[str, Any]

    @property
    def title(self) -> str:
        """Name of its SLURM job: readable, and one for each folder and settings."""
        settings = json.dumps(self.identity, sort_keys=True).encode()
        return f"{io.file_name(self.name.replace('/', '-'))}.{_digest(str(self.folder).encode())}.{_digest(settings)}"


Ended: TypeAlias = Callable[[int, str, str], object]


def choose_launcher(
    launcher: str | None,
    workers: Any,
    resources: Resources | Mapping[str, Any] | None,
    accelerator: str,
    devices: int | str,
) -> Local | Slurm | None:
    """Return the launcher with its options; None trains in this process.

    Raises
    ------
    UnknownNameError
        Another launcher, or a resource that does not exist.
    ValueError
        Options of another launcher, values out of range, or a machine without SLURM.
    ImportError
        Without submitit.
    """
    requested = _resources(resources)
    if launcher is None:
        if workers is not None or requested != Resources():
            raise ValueError("workers and resources are for runs in other processes: give launcher='local' or 'slurm'")
        return None
    one_of("launcher", launcher, LAUNCHERS)
    workers = None if workers is None else at_least("workers", workers)
    names = sorted(name for name, value in requested if value not in (None, ()))
    if launcher == "local" and names:
        raise ValueError(
            f"{', '.join(names)} cannot be given with launcher='local', whose processes share this machine: use "
            "workers, or launcher='slurm'"
        )
    from nextlat_viz.training.launchers import Local, Slurm

    if importlib.util.find_spec("submitit") is None:
        raise ImportError(
            f'launcher={launcher!r} needs the package submitit: pip install "nextlat-viz[cluster]"', name="submitit"
        )
    if launcher == "local":
        if devices not in (1, "1", "auto"):
            raise ValueError(
                f"launcher='local' trains each run on one device, got devices={devices!r}: use launcher='slurm', or no "
                "launcher, for runs on several"
            )
        return Local(workers, accelerator)
    return Slurm(workers, requested, accelerator, at_least("devices", devices))


def _resources(options: Resources | Mapping[str, Any] | None) -> Resources:
    if options is None or isinstance(options, Resources):
        return options or Resources()
    if not isinstance(options, Mapping):
        raise TypeError(f"resources must be a dict, such as {{'partition': 'gpu', 'gpus': 1}}, got {shown(options)}")
    texts = {name: str(options[name]) for name in ("time", "memory") if options.get(name) is not None}
    return validated(Resources, {**options, "sbatch": options.get("sbatch") or (), **texts}, "resource")


def train_all(runs: Sequence[Run], launcher: Local | Slurm, ended: Ended, *, progress: bool) -> None:
    """Train runs, and call ``ended(number, error, log)`` as each ends; the error is empty for a finished run.

    Raises
    ------
    KeyboardInterrupt
        At Ctrl-C; says how to go on.
    TrainingError
        If SLURM refuses a job.
    """
    from tqdm.auto import tqdm

    waiting, running, absent = deque[int](), dict[int, str](), dict[int, int]()
    failed, done, shown_counts = 0, 0, ""
    bar = tqdm(total=len(runs), desc="sweep", unit="run", disable=not progress)

    def report(number: int, error: str, log: str = "") -> None:
        nonlocal failed, done
        done, failed = done + 1, failed + bool(error)
        ended(number, error, log)
        if progress:
            tqdm.write(f"{runs[number].name}: {error or 'finished'}" + (f" (log: {log})" if log else ""))
        bar.update()

    with bar:
        for number, run in enumerate(runs):
            try:
                if _finished(run):
                    report(number, "")
                elif job := launcher.attach(run):
                    running[number] = job
                else:
                    waiting.append(number)
            except Exception as error:
                report(number, f"{type(error).__name__}: {error}")
        try:
            while waiting or running:
                while waiting and (launcher.workers is None or len(running) < launcher.workers):
                    running[waiting[0]] = launcher.start(runs[waiting[0]])
                    waiting.popleft()
                # Only if it has changed: some outputs keep every line.
                counts = f"running={len(running)}, waiting={len(waiting)}, failed={failed}"
                if counts != shown_counts:
                    bar.set_postfix_str(shown_counts := counts)
                time.sleep(launcher.pause)
                alive = launcher.alive(running.values())
                for number, job in list(running.items()):
                    if job in alive:
                        continue
                    result = _result(runs[number])
                    if result is None:
                        absent[number] = absent.get(number, 0) + 1
                        if absent[number] < _LOOKS:
                            continue
                        result = launcher.reason(job)
                    del running[number]
                    report(number, result, str(runs[number].logs / f"{job}_0_log.out") if result else "")
        except BaseException as error:
            text = launcher.leave(list(running.values()))
            if isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt(f"interrupted with {done} of {len(runs)} runs ended. {text}") from None
            raise


def _finished(run: Run) -> bool:
    from nextlat_viz.training.pretrain import finished

    return finished(run.folder, run.identity) is not None


def _result(run: Run) -> str | None:
    """Return the error of a run whose process has ended, empty if it is finished, None if it left nothing."""
    from nextlat_viz.training.launchers import ERROR

    try:
        if _finished(run):
            return ""
        return str(io.read_json(run.logs / ERROR)["error"])
    except FileNotFoundError:
        return None
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:10]
