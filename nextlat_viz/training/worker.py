"""Train one run of a sweep in a process of its own, which submitit starts."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from nextlat_viz import io

if TYPE_CHECKING:
    from nextlat_viz.training.launch import Run

ERROR = "error.json"
# Seconds in which a process of a killed sweep saves its state and ends.
_ORPHAN = 120.0


def call_for(run: Run, *, threads: int, parent: int | None) -> str:
    """Return the argument of `train_run`, JSON, and remove the error of an earlier try."""
    run.logs.mkdir(parents=True, exist_ok=True)
    (run.logs / ERROR).unlink(missing_ok=True)
    return json.dumps(
        {"arguments": run.arguments, "logs": str(run.logs), "threads": threads, "parent": parent}, allow_nan=False
    )


def train_run(call: str) -> None:
    """Train one run in a process of its own; submitit calls this. Errors are kept as text beside the log."""
    given = json.loads(call)
    # First: submitit ignores SIGTERM, and what follows takes seconds to import.
    _end_with(given["parent"])

    import torch

    from nextlat_viz import worlds
    from nextlat_viz.training.pretrain import train

    logs, arguments = Path(given["logs"]), given["arguments"]
    torch.set_num_threads(given["threads"])
    lock = FileLock(logs / ".lock") if given["parent"] else None
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
    """What submitit queues again when a job's time is over or it is preempted: the same call, which continues."""
    from submitit.helpers import DelayedSubmission

    return DelayedSubmission(train_run, call)


train_run.checkpoint = _again  # type: ignore[attr-defined]


def _print(row: Mapping[str, float]) -> None:
    values = "  ".join(f"{name} {value:.4f}" for name, value in row.items() if name != "step")
    print(f"step {row['step']:,.0f}: {values}", flush=True)


def _end_with(parent: int | None) -> None:
    """End at SIGTERM as at Ctrl-C, after the state is saved; and so when the process `parent` is gone."""
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
    """Tell whether a process has ended, also where its parent has not asked for its exit status.

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
