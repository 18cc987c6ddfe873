"""Where the runs of a sweep are trained: in processes of this machine, or as SLURM jobs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from nextlat_viz.errors import TrainingError
from nextlat_viz.training.worker import call_for, train_run

if TYPE_CHECKING:
    from nextlat_viz.training.launch import Resources, Run

# Seconds between two looks at a SLURM queue, which the whole cluster shares, and at processes of this machine.
SLURM_PAUSE, LOCAL_PAUSE = 10.0, 0.2


class Local:
    """Processes of this machine, as many at once as there are GPUs or else cores, of one thread each."""

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
        # No process outlives its sweep.
        return None

    def start(self, run: Run) -> str:
        from submitit import LocalExecutor

        slot = min(set(range(len(self.jobs) + 1)) - {slot for slot, _ in self.jobs.values()})
        executor = LocalExecutor(run.logs)
        # submitit hides GPUs that are not asked for, and ends processes after minutes unless it is told otherwise.
        executor.update_parameters(timeout_min=60 * 24 * 3650, stderr_to_stdout=True)
        if self.gpus:
            executor.update_parameters(gpus_per_node=1, visible_gpus=[self.gpus[slot % len(self.gpus)]])
        call = call_for(run, threads=1, parent=os.getpid())
        # Inherited by the new process: Ctrl-C in a terminal goes to all of them, and only this one shall act on it.
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
        return "TrainingError: its process ended without a result: it was killed, or the machine ran out of memory"

    def leave(self, ids: Sequence[str]) -> str:
        for job in self.alive(ids):
            # submitit's process hands it on to ours, which saves the state of its run and ends.
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
        asked = self.resources
        options = {name: value if equals else True for name, equals, value in (w.partition("=") for w in asked.sbatch)}
        own = {"partition": asked.partition, "gpus_per_node": self.gpus, "mem": asked.memory}
        return {
            **{name: value for name, value in own.items() if value},
            **{"job_name": title, "time": self.minutes, "cpus_per_task": asked.cpus or 1},
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
        asked = subprocess.run(command, capture_output=True, text=True)
        if asked.returncode == 0:
            lines = (line.partition("|") for line in asked.stdout.splitlines())
            self.queue = {job.strip(): title.strip() for job, _, title in lines}
        # A controller that does not answer for a while has not lost its jobs: keep what it said last.
        elif not self.queue and not ids:
            raise TrainingError(f"SLURM does not answer: {' '.join(asked.stderr.split())}")
        return self.queue.keys() & set(ids)

    def reason(self, number: str) -> str:
        asked = subprocess.run(["scontrol", "show", "job", number], capture_output=True, text=True)
        state = re.search(r"JobState=(\w+)", asked.stdout)
        return f"TrainingError: SLURM's job {number} ended without a result" + (f": {state[1]}" if state else "")

    def leave(self, ids: Sequence[str]) -> str:
        if not ids:
            return "No job is left in SLURM's queue: the same call continues."
        return (
            f"SLURM keeps {len(ids)} job{'s' * (len(ids) > 1)} running or waiting: the same call comes back to them, "
            f"and `scancel {' '.join(ids)}` cancels them."
        )
