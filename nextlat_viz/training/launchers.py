"""Launchers of the runs of a sweep: processes of this machine, or SLURM jobs, both started by submitit."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from nextlat_viz import io
from nextlat_viz.errors import TrainingError

if TYPE_CHECKING:
    from nextlat_viz.training.launch import Resources, Run

# Seconds between two looks at a SLURM queue, which the whole cluster shares, and at processes of this machine.
SLURM_PAUSE, LOCAL_PAUSE = 10.0, 0.2
ERROR = "error.json"
# Seconds in which a process of a killed sweep saves its state and ends.
_ORPHAN = 120.0


class Local:
    """Processes of this machine, as many at once as there are GPUs or else cores, of one thread each.

    Starts processes and watches them, as `Slurm` does. A process is known by the id that submitit gives it.
    """

    pause = LOCAL_PAUSE

    def __init__(self, workers: int | None, accelerator: str) -> None:
        import torch

        count = torch.cuda.device_count() if accelerator not in ("cpu", "mps") else 0
        listed = [int(k) for k in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if k.isdigit()]
        self.gpus = (listed or list(range(count)))[:count]
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.workers: int | None = workers or len(self.gpus) or cores
        self.jobs: dict[str, tuple[int, Any]] = {}

    def attach(self, run: Run) -> str | None:
        """Return the id of the process that trains a run already."""
        # No process outlives its sweep.
        return None

    def start(self, run: Run) -> str:
        from submitit import LocalExecutor

        slot = min(set(range(len(self.jobs) + 1)) - {slot for slot, _ in self.jobs.values()})
        executor = LocalExecutor(run.logs)
        # By default submitit ends processes after some minutes, and hides GPUs that were not requested.
        executor.update_parameters(timeout_min=60 * 24 * 3650, stderr_to_stdout=True)
        if self.gpus:
            executor.update_parameters(gpus_per_node=1, visible_gpus=[self.gpus[slot % len(self.gpus)]])
        call = call_for(run, threads=1, parent=os.getpid())
        # The new process inherits the block: Ctrl-C in a terminal reaches all processes, but only this one may act.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            job = executor.submit(train_run, call)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        self.jobs[job.job_id] = slot, job
        return str(job.job_id)

    def alive(self, ids: Iterable[str]) -> set[str]:
        self.jobs = {number: (slot, job) for number, (slot, job) in self.jobs.items() if not job.done()}
        return self.jobs.keys() & set(ids)

    def reason(self, number: str) -> str:
        """Say why a process ended without a result."""
        return "TrainingError: its process ended without a result: it was killed, or the machine ran out of memory"

    def leave(self, ids: Sequence[str]) -> str:
        """End the processes, or leave them running: say which, and how to go on."""
        for job in self.alive(ids):
            # submitit's process passes the signal on to ours, which saves the state of its run and ends.
            os.kill(int(job), signal.SIGTERM)
        while self.alive(ids):
            time.sleep(self.pause)
        return "The processes of the others have saved their state and ended: the same call continues."


class Slurm:
    """One job of a SLURM cluster for each run. Jobs outlive this process."""

    pause = SLURM_PAUSE

    def __init__(self, workers: int | None, resources: Resources, accelerator: str, devices: int) -> None:
        if missing := [name for name in ("sbatch", "srun", "squeue") if shutil.which(name) is None]:
            raise ValueError(
                f"launcher='slurm': {missing[0]} is not on the path. Work on a login node of the cluster, install "
                "SLURM's client programs (Debian's slurm-client), or use launcher='local'"
            )
        self.workers, self.resources, self.devices = workers, resources, devices
        self.gpus = resources.gpus
        if self.gpus is None and accelerator in ("cuda", "gpu"):
            self.gpus = devices
        self.minutes = resources.minutes
        self.queue: dict[str, str] = {}
        self.alive(())

    def parameters(self, title: str) -> dict[str, Any]:
        """Return the options of a job, as submitit names them."""
        resources = self.resources
        parts = (option.partition("=") for option in resources.sbatch)
        options = {name: value if equals else True for name, equals, value in parts}
        optional = {"partition": resources.partition, "gpus_per_node": self.gpus, "mem": resources.memory}
        return {
            **{name: value for name, value in optional.items() if value},
            **{"job_name": title, "time": self.minutes, "cpus_per_task": resources.cpus or 1},
            **{"ntasks_per_node": self.devices, "srun_args": ["--kill-on-bad-exit"], "stderr_to_stdout": True},
            **({"additional_parameters": options} if options else {}),
        }

    def attach(self, run: Run) -> str | None:
        place = run.title.rpartition(".")[0]
        for job, title in self.queue.items():
            if title == run.title:
                return job
            if title.rpartition(".")[0] == place:
                raise TrainingError(
                    f"SLURM's job {job} trains in {str(run.folder)!r} with other settings: cancel it with "
                    f"`scancel {job}`, or choose another folder"
                )
        return None

    def start(self, run: Run) -> str:
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        executor = SlurmExecutor(run.logs)
        executor.update_parameters(**self.parameters(run.title))
        try:
            job = executor.submit(train_run, call_for(run, threads=self.resources.cpus or 1, parent=None))
        except (FailedJobError, FailedSubmissionError) as error:
            raise TrainingError(
                f"SLURM did not take the job of {run.name}: {' '.join(str(error).split())}. Its script is in {run.logs}"
            ) from error
        self.queue[str(job.job_id)] = run.title
        return str(job.job_id)

    def alive(self, ids: Iterable[str]) -> set[str]:
        command = ["squeue", "--noheader", "--user", str(os.getuid()), "--format", "%i|%j"]
        answer = subprocess.run(command, capture_output=True, text=True)
        if answer.returncode == 0:
            lines = (line.partition("|") for line in answer.stdout.splitlines())
            self.queue = {job.strip(): title.strip() for job, _, title in lines}
        # A controller that does not answer for a while has not lost its jobs: keep its last answer.
        elif not self.queue and not ids:
            raise TrainingError(f"SLURM does not answer: {' '.join(answer.stderr.split())}")
        return self.queue.keys() & set(ids)

    def reason(self, number: str) -> str:
        answer = subprocess.run(["scontrol", "show", "job", number], capture_output=True, text=True)
        state = re.search(r"JobState=(\w+)", answer.stdout)
        return f"TrainingError: SLURM's job {number} ended without a result" + (f": {state[1]}" if state else "")

    def leave(self, ids: Sequence[str]) -> str:
        if not ids:
            return "No job is left in SLURM's queue: the same call continues."
        return (
            f"SLURM keeps {len(ids)} job{'s' * (len(ids) > 1)} running or waiting: the same call comes back to them, "
            f"and `scancel {' '.join(ids)}` cancels them."
        )


def call_for(run: Run, *, threads: int, parent: int | None) -> str:
    """Return the argument of `train_run` as JSON, and remove the error file of an earlier try."""
    run.logs.mkdir(parents=True, exist_ok=True)
    (run.logs / ERROR).unlink(missing_ok=True)
    return json.dumps(
        {"arguments": run.arguments, "logs": str(run.logs), "threads": threads, "parent": parent}, allow_nan=False
    )


def train_run(call: str) -> None:
    """Train one run; submitit calls this in a separate process. An error is written to a JSON file beside the log."""
    options = json.loads(call)
    # First: submitit ignores SIGTERM, and the imports below take seconds.
    _end_with(options["parent"])

    import torch

    from nextlat_viz import worlds
    from nextlat_viz.training.pretrain import train

    logs, arguments = Path(options["logs"]), options["arguments"]
    torch.set_num_threads(options["threads"])
    lock = FileLock(logs / ".lock") if options["parent"] else None
    try:
        if lock is not None:
            # The process of a sweep that was killed may still be saving its state.
            lock.acquire(timeout=_ORPHAN)
        world = worlds.from_spec(arguments.pop("world"))
        train(world, **arguments.pop("overrides"), **arguments, progress=False, on_validation=_print)
    except Timeout:
        io.write_json(logs / ERROR, {"error": f"TrainingError: another process trains {logs.name} of this sweep"})
        raise
    except Exception as error:
        traceback.print_exc()
        io.write_json(logs / ERROR, {"error": f"{type(error).__name__}: {error}"})
        raise
    finally:
        if lock is not None:
            lock.release()


def _again(call: str) -> Any:
    """Return the call that submitit queues when a job is preempted or out of time: the same call, which continues."""
    from submitit.helpers import DelayedSubmission

    return DelayedSubmission(train_run, call)


train_run.checkpoint = _again  # type: ignore[attr-defined]


def _print(row: Mapping[str, float]) -> None:
    values = "  ".join(f"{name} {value:.4f}" for name, value in row.items() if name != "step")
    print(f"step {row['step']:,.0f}: {values}", flush=True)


def _end_with(parent: int | None) -> None:
    """End at SIGTERM, or when the process `parent` is gone, as at Ctrl-C: after the state is saved."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    if parent is None:
        return
    # Ctrl-C in the terminal goes to every process of its session.
    os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def watch() -> None:
        while True:
            time.sleep(0.5)
            if is_gone(parent):
                os.kill(os.getpid(), signal.SIGINT)
                return

    threading.Thread(target=watch, daemon=True).start()


def is_gone(process: int) -> bool:
    """Tell whether a process has ended; a zombie, whose parent has not read its exit status, has.

    Examples
    --------
    >>> is_gone(os.getpid())
    False
    """
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        # There is no /proc on macOS.
        return False
    # The state follows the name, which is in parentheses and may hold any character.
    return stat.rpartition(")")[2].split()[0] in ("Z", "X")
