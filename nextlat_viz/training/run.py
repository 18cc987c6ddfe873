"""One training run, from scratch or fine-tuning: steps, measurements, snapshots, saved states and the final files.

A `Task` holds the model, its batches and the functions that measure and write results; `run_task` trains it. An
interrupted run continues from its last saved state and, on CPU, ends with the same bytes.
"""

from __future__ import annotations

import csv
import hashlib
import inspect
import io as text_io
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout
from lightning_fabric import Fabric
from torch import nn

from nextlat_viz import io
from nextlat_viz.errors import CheckpointError, TrainingError, is_out_of_memory
from nextlat_viz.models import Objective
from nextlat_viz.training.card import device_name
from nextlat_viz.training.checkpoint import METRICS, weights_bytes
from nextlat_viz.training.config import TrainConfig
from nextlat_viz.training.data import Feed
from nextlat_viz.training.engine import Engine
from nextlat_viz.training.loggers import start_logger
from nextlat_viz.training.resume import (
    TRAIN_STATE,
    Identity,
    RunState,
    load_state,
    refuse_another,
    require_moments,
    save_state,
    snapshot_path,
)
from nextlat_viz.worlds.headline import headline

LOCK, SOFT_LOCK = ".lock", ".soft.lock"
Callback: TypeAlias = Callable[..., object]
# Validations in a row at which the headline measure must reach `stop_at`.
_STAYS = 3


@dataclass(frozen=True)
class Task:
    """The model and the batches of a run, and the functions that measure and write its results.

    Attributes
    ----------
    name : shown with the progress bar and in errors, such as ``"rrxor/nextlat"``.
    identity : everything that the weights depend on, as JSON; a state saved by another run is refused.
    config : steps, learning rate, how often to measure and to save.
    model, optimizer : the objective, called with a batch, and its optimiser, in the order of ``kept.parameters()``.
    kept : the module whose weights are saved: the model, or the part of it that is trained.
    feed : the batches of every step.
    measure : returns a row of metrics; called with the engine, inside `Engine.whole`.
    finish : writes the results, the card last; called once, by the main process.
    memory_advice : advice in the error raised when the device's memory is full.
    measure_first : whether to measure before the first step too.
    """

    name: str
    identity: Identity
    config: TrainConfig
    model: Objective
    optimizer: torch.optim.Optimizer
    kept: nn.Module
    feed: Feed
    measure: Callable[[Engine], dict[str, float]]
    finish: Callable[[RunState], None]
    memory_advice: str
    measure_first: bool = False


def run_task(
    task: Task,
    folder: Path,
    fabric: Fabric,
    *,
    progress: bool = True,
    on_validation: Callback | None = None,
    logger: Any = "tensorboard",
) -> None:
    """Take the steps that are left and write the results into the folder.

    Parameters
    ----------
    task : Task
    folder : of the run; holds the saved state if an earlier session was interrupted.
    fabric : launched already; its device and strategy are used.
    progress : show a progress bar.
    on_validation : called with each row of metrics as it is measured, and with the model if it takes two arguments.
    logger : as `nextlat_viz.train` takes it.

    Raises
    ------
    CheckpointError
        If the state in the folder is damaged or of another run, or another process trains in the folder.
    TrainingError
        If the loss or the weights are NaN or infinite, or the device's memory is full.
    KeyboardInterrupt
        At Ctrl-C. On one device the step is finished and its state saved first; a second Ctrl-C stops at once.
    """
    try:
        with _locked(folder, fabric), _interrupts(fabric.world_size) as interrupts:
            _take_steps(task, folder, fabric, progress, on_validation, logger, interrupts)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"{device_name(fabric.device)} ran out of memory with batch_size={task.config.batch_size}, "
            f"accumulate={task.config.accumulate}. {task.memory_advice}; train that in another folder than "
            f"{str(folder)!r}."
        ) from error


@contextmanager
def _locked(folder: Path, fabric: Fabric) -> Iterator[None]:
    """Lock the folder against other runs, and remove temporary files that a killed run left.

    Only the main process holds the lock: the other devices' processes belong to the same run. The operating system
    releases it when the process ends, however it ends.
    """
    if not fabric.is_global_zero:
        yield
        return
    lock: BaseFileLock = FileLock(folder / LOCK)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise
        except (OSError, NotImplementedError):
            # Some network file systems have no locks. There the existence of a file is the lock.
            lock = SoftFileLock(folder / SOFT_LOCK)
            lock.acquire(timeout=0)
    except Timeout:
        raise CheckpointError(
            f"out={str(folder)!r} is in use: another process trains there. Wait for it, or choose another folder. If "
            f"no process trains there, delete {lock.lock_file}, which a killed run has left."
        ) from None
    try:
        io.remove_drafts(folder)
        yield
        (folder / LOCK).unlink(missing_ok=True)
    finally:
        lock.release()


@contextmanager
def _interrupts(devices: int) -> Iterator[list[int]]:
    """Remember Ctrl-C until the state of a run is consistent: yield a list, empty before the first.

    An interrupt in the middle of a step would leave some weights updated and others not. The signal handler is set only
    in the main thread, as Python requires, only if the program has not set its own, and only with one device: with
    several, their processes would stop at different steps, each waiting for the others.
    """
    requests: list[int] = []

    def remember(number: int, frame: Any) -> None:
        if requests:
            raise KeyboardInterrupt
        requests.append(number)

    before, main = signal.getsignal(signal.SIGINT), threading.current_thread() is threading.main_thread()
    if not (devices == 1 and main and before is signal.default_int_handler):
        yield requests
        return
    signal.signal(signal.SIGINT, remember)
    try:
        yield requests
    finally:
        signal.signal(signal.SIGINT, before)
    if requests:
        raise KeyboardInterrupt("interrupted while the results were being written; they are complete")


def _take_steps(
    task: Task,
    folder: Path,
    fabric: Fabric,
    show_bar: bool,
    on_validation: Callback | None,
    logger: Any,
    interrupts: list[int],
) -> None:
    from tqdm.auto import tqdm

    config, main = task.config, fabric.is_global_zero
    saved = load_state(folder)
    if saved is not None:
        refuse_another(folder, saved.identity, task.identity)
        require_moments(folder / TRAIN_STATE, saved.moments, task.optimizer, config.ema > 0)
        # Before the engine moves the weights to their devices, or spreads them over several.
        task.kept.load_state_dict(saved.weights)
    engine = Engine(task.model, task.optimizer, config, fabric)
    if saved is not None:
        engine.restore(saved.moments)
    state = RunState() if saved is None else saved.progress
    started = time.monotonic() - state.seconds
    report = _with_model(on_validation, task.model)
    end = state.step if _reached(config, state) else config.steps

    started_logger = start_logger(logger, folder, task.identity, state.history) if main else None
    shown = {"total": config.steps, "initial": state.step, "desc": task.name, "unit": "step"}
    with (
        _finalized(started_logger),
        tqdm(**shown, disable=not (show_bar and main)) as bar,
        closing(task.feed.ahead(state.step, end)) as batches,
    ):

        def measure() -> None:
            with engine.averaged():
                row = {"step": float(state.step), **task.measure(engine)}
                state.history.append(row)
                bar.set_postfix(_shown(row))
                if started_logger is not None:
                    started_logger.log_metrics(dict(row), int(row["step"]))
                report(row)

        if task.measure_first and not state.history:
            with engine.whole():
                measure()
        for pieces in batches:
            engine.step(state.step, pieces)
            state.step += 1
            bar.update()
            step, late = state.step, config.minutes is not None and time.monotonic() - started >= 60 * config.minutes
            last = step == config.steps or (config.minutes is not None and fabric.broadcast(late))
            measures = step % config.validate_every == 0 or last
            # Read once: if it were read again below, a Ctrl-C in between would save the state without the moments.
            stops = bool(interrupts)
            saves = stops or (step % config.save_every == 0 and not last)
            if not (measures or saves or step in config.snapshots):
                continue
            # Before anything is measured or saved: no file may hold weights of a run that has failed.
            _check_finite(task, engine, step, folder)
            # Outside of `whole`: if weights are spread, every process takes part in gathering the moments.
            moments = engine.moments() if saves else {}
            with engine.whole():
                if measures:
                    measure()
                    last = last or _reached(config, state)
                if main and step in config.snapshots:
                    with engine.averaged():
                        content = weights_bytes(task.model, config.storage)
                    io.write(snapshot_path(folder, step), content)
                    state.snapshots[step] = hashlib.sha256(content).hexdigest()
                # Last: a saved state implies that the metrics and snapshots up to this step are complete.
                if main and saves:
                    state.seconds = time.monotonic() - started
                    save_state(folder, task.identity, state, task.kept, moments)
            if stops:
                raise KeyboardInterrupt(
                    f"interrupted after step {step:,} of {config.steps:,}, which is saved in {str(folder)!r}: the "
                    "same call or command continues from there."
                )
            if last:
                break
    with engine.whole(), engine.averaged():
        if main:
            state.seconds = time.monotonic() - started
            write_metrics(folder / METRICS, state.history)
            task.finish(state)
            (folder / TRAIN_STATE).unlink(missing_ok=True)
    # The other processes read the card only after it is written.
    fabric.barrier()


def _with_model(on_validation: Callback | None, model: Objective) -> Callable[[dict[str, float]], object]:
    """Return the callback as a function of a row of metrics; if it takes two arguments, it gets the model too."""
    if on_validation is None:
        return lambda row: None
    try:
        inspect.signature(on_validation).bind({}, model)
    except (TypeError, ValueError):
        return on_validation
    return lambda row: on_validation(row, model)


def _reached(config: TrainConfig, state: RunState) -> bool:
    """Whether the headline measure was at least `stop_at` at the last validations."""
    if config.stop_at is None or len(state.history) < _STAYS:
        return False
    return all(row[headline(row)] >= config.stop_at for row in state.history[-_STAYS:])


def _check_finite(task: Task, engine: Engine, step: int, folder: Path) -> None:
    """Raise TrainingError if the loss of a recent step or the weights are NaN or infinite."""
    ago = engine.first_failure()
    if ago is None:
        return
    subject = f"The loss of step {step - ago + 1}" if ago else f"The weights after step {step}"
    saved = load_state(folder)
    saved_state = "No state was saved before" if saved is None else f"The state of step {saved.progress.step} is kept"
    clip = task.config.grad_clip
    advice = f"a grad_clip below {clip}" if clip else "grad_clip=1.0 (it is off)"
    raise TrainingError(
        f"{subject} of {task.name} is not a finite number. Train with a learning_rate below "
        f"{task.config.learning_rate} or {advice}, in another folder. {saved_state} in {str(folder)!r}."
    )


@contextmanager
def _finalized(logger: Any) -> Iterator[None]:
    """Close a logger after the block."""
    status = "failed"
    try:
        yield
        status = "success"
    finally:
        if hasattr(logger, "finalize"):
            logger.finalize(status)


def _shown(row: dict[str, float]) -> dict[str, str]:
    """What the bar shows of metrics: the loss, its floor (or the unigram loss) and the world's headline measure."""
    names = ("loss", "floor" if "floor" in row else "unigram", headline(row))
    return {name: f"{row[name]:.4f}" for name in names if name in row}


def write_metrics(path: Path, rows: list[dict[str, float]]) -> None:
    """Write rows of metrics as a CSV file."""
    text = text_io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    io.write(path, text.getvalue())
