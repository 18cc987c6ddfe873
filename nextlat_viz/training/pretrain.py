"""Train a model on a world, from scratch: `train`."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any, SupportsIndex

import torch

from nextlat_viz import io, worlds
from nextlat_viz.errors import at_least, one_of, require_callable
from nextlat_viz.models import OBJECTIVES
from nextlat_viz.models.torch_state import torch_defaults
from nextlat_viz.training.card import CARD, Card, command_of, device_name, sha256_of, versions
from nextlat_viz.training.checkpoint import (
    DTYPES,
    METRICS,
    TOKENIZER,
    WEIGHTS,
    Checkpoint,
    build_model,
    load,
    stored_bytes,
    weights_bytes,
)
from nextlat_viz.training.config import TrainConfig, resolve_config
from nextlat_viz.training.data import Feed, Validation, training_episodes
from nextlat_viz.training.engine import Engine, start_fabric
from nextlat_viz.training.loggers import check_logger
from nextlat_viz.training.resume import Identity, RunState, identify, refuse_another, saved_snapshots
from nextlat_viz.training.run import Callback, Task, run_task
from nextlat_viz.worlds import outside

# Warn of runs that are expected to take longer on a CPU.
_HOURS = 2.0
# Limits of the snapshots that are kept in a notebook: how many, and their size together.
_MOST_SNAPSHOTS, _MOST_BYTES = 12, 200_000_000
STRATEGIES = ("auto", "ddp", "fsdp")


@torch_defaults()
def train(
    world: str | worlds.World,
    objective: str = "nextlat",
    preset: str = "tiny",
    *,
    seed: SupportsIndex = 0,
    out: str | os.PathLike[str] | None = None,
    accelerator: str = "auto",
    devices: int | str = 1,
    strategy: str = "auto",
    progress: bool = True,
    on_validation: Callback | None = None,
    logger: Any = "tensorboard",
    **overrides: Any,
) -> Checkpoint:
    """Train a model on a world and return its checkpoint.

    Repeating the call continues an interrupted run, which on CPU ends with the weights of an uninterrupted one; a
    finished run is loaded.

    In a notebook up to 12 snapshots of the weights are kept, at steps that are the same in all runs and dense early in
    training (:func:`default_snapshots`), so that the studio can show how a model learns: 5 MB for a model of the preset
    "tiny", never more than 200 MB. ``snapshots=(...)`` chooses the steps, ``snapshots=()`` keeps none. A run that is
    continued or loaded keeps those it has.

    With ``devices=2`` or more a script starts its other processes itself, and the whole script runs in each;
    ``torchrun --nproc-per-node 2 -m nextlat_viz.cli train rrxor --devices 2`` starts them from outside. The batch is
    divided among devices (and `accumulate` pieces on each), and the loss is the mean over the whole batch, as on one
    device; sums are rounded in another order, so weights agree closely and not to the last bit.

    Parameters
    ----------
    world : name of a world, with parameters or without (``"mess3:x=0.15"``), or a World.
    objective : ``"next_token"``, ``"nextlat"``, ``"mtp"``, ``"jtp"`` or ``"bst"``; ``"trm"``, ``"dis"``, ``"one_pass"``
        or ``"equal_depth"`` for puzzles; see :mod:`nextlat_viz.models`.
    preset : name of a set of hyperparameters, see :mod:`nextlat_viz.training.config`.
    seed : initialises the weights and, with the step, draws the episodes.
    out : folder of the run; ``runs/<world>/<objective>/seed<seed>`` when not given.
    accelerator, devices : as in Lightning Fabric; ``"auto"`` takes a GPU if there is one.
    strategy : ``"auto"``, ``"ddp"`` or ``"fsdp"``. FSDP spreads weights over GPUs, for models too large for one.
    progress : show a progress bar with the loss and its floor.
    on_validation : called with each row of metrics as it is measured, and with the model (an
        :class:`nextlat_viz.models.Objective`) if it takes two arguments.
    logger : where rows of metrics go too: ``"tensorboard"`` or ``"csv"``, in the folder of the run; None; or a logger
        of Lightning, such as ``WandbLogger(project="beliefs")``.
    **overrides : any field of :class:`TrainConfig`, e.g. ``steps=200``.

    Raises
    ------
    UnknownNameError
        If the world, objective, preset, strategy or a hyperparameter does not exist.
    ValueError
        If a value is out of range, or the accelerator or the devices are not available.
    CheckpointError
        If `out` holds another run.
    TrainingError
        If the loss is NaN or infinite, or the device's memory is full. The last saved state is kept.
    OSError
        If `out` cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> checkpoint = train("z1r", "next_token", steps=2, layers=1, validation_episodes=8, progress=False,
    ...                    out=tempfile.mkdtemp())
    >>> checkpoint.step, checkpoint.card.metrics["loss"] > checkpoint.card.metrics["floor"]
    (2, True)
    """
    world = worlds.get(world)
    # From now on a card may build this world with its files: the user asked for it.
    outside.ask(world.spec, remember=True)
    one_of("objective", objective, OBJECTIVES)
    one_of("strategy", strategy, STRATEGIES)
    require_callable("on_validation", on_validation)
    check_logger(logger)
    # The card and the saved state are JSON, which cannot hold numpy numbers.
    seed, overrides = at_least("seed", seed, 0), {name: io.plain(value) for name, value in overrides.items()}
    config = resolve_config(preset, world, overrides)
    folder = io.resolve(Path("runs", folder_name(world), objective, f"seed{seed}") if out is None else out, "out")
    if (result := finished(folder, identify(world.spec, objective, config, seed))) is not None:
        return result
    # Refuse wrong settings before the folder of the run is created.
    model = build_model(objective, config, world, seed)
    if "snapshots" not in overrides:
        snapshots = saved_snapshots(folder)
        if snapshots is None:
            size = stored_bytes(model, config.storage)
            snapshots = default_snapshots(config.steps, size) if in_notebook() else config.snapshots
        if snapshots != config.snapshots:
            config = config.model_copy(update={"snapshots": snapshots})
            overrides["snapshots"] = snapshots
    identity = identify(world.spec, objective, config, seed)
    if config.ema and strategy == "fsdp":
        raise ValueError(f"ema={config.ema} averages whole weights, and strategy='fsdp' spreads them: use 'ddp'")
    precision: Any = config.precision
    fabric = start_fabric(accelerator=accelerator, devices=devices, strategy=strategy, precision=precision)
    if config.batch_size < fabric.world_size * config.accumulate:
        raise ValueError(
            f"batch_size={config.batch_size} cannot be divided among {fabric.world_size} devices with "
            f"accumulate={config.accumulate} pieces on each: every piece needs at least one episode"
        )
    if model.updates > 1 and (fabric.world_size > 1 or config.accumulate > 1):
        raise ValueError(
            f"objective={objective!r} takes several optimiser steps on each batch, which is done with one device and "
            f"one piece: got devices={fabric.world_size} and accumulate={config.accumulate}. Lower batch_size instead"
        )
    validation = Validation(world, config)
    validation.require_headline(config.stop_at)
    io.claim(folder)
    fabric.launch()
    draw = partial(training_episodes, world, config, seed)

    def measure(engine: Engine) -> dict[str, float]:
        return validation(model) | {f"train/{name}": value for name, value in engine.losses().items()}

    def finish(state: RunState) -> None:
        stored = DTYPES[config.storage]
        with torch.no_grad():
            for parameter in model.parameters():
                # The metrics of the card are those of the weights as they are stored.
                parameter.copy_(parameter.to(stored))
        content = weights_bytes(model, config.storage)
        data = validation.episodes.sha256 + draw(0, states=True).sha256
        card = Card(
            name=f"{folder_name(world)}/{objective}/seed{seed}",
            world=world.spec,
            objective=objective,
            preset=preset,
            config=config,
            seed=seed,
            steps=state.step,
            command=command_of(world, objective, preset, seed, overrides),
            data_sha256=hashlib.sha256(data.encode()).hexdigest(),
            weights_sha256=hashlib.sha256(content).hexdigest(),
            snapshots=state.snapshots,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            versions=versions(),
            device=device_name(fabric.device),
            metrics=validation(model) | {"train_seconds": round(state.seconds, 1)},
            metrics_sha256=sha256_of(folder / METRICS),
        ).signed()
        if world.tokenizer:
            io.write(folder / TOKENIZER, world.tokenizer)
        io.write(folder / WEIGHTS, content)
        io.write(folder / CARD, card.model_dump_json(indent=2))

    if fabric.device.type == "cpu" and fabric.is_global_zero:
        _warn_of_hours(config, preset, model.passes * sum(parameter.numel() for parameter in model.parameters()))
    can_split = 2 * config.accumulate * fabric.world_size <= config.batch_size
    task = Task(
        name=f"{world.name}/{objective}",
        identity=identity,
        config=config,
        model=model,
        optimizer=torch.optim.AdamW(
            model.parameters(),
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            weight_decay=config.weight_decay,
            fused=True,
        ),
        kept=model,
        feed=Feed(draw, model, config.accumulate, fabric.global_rank, fabric.world_size, fabric.device),
        measure=measure,
        finish=finish,
        memory_advice=(
            f"Set accumulate={2 * config.accumulate}, which trains the same way with less memory, or lower batch_size"
            if can_split
            else "Lower layers, dim or context"
        ),
    )
    run_task(task, folder, fabric, progress=progress, on_validation=on_validation, logger=logger)
    return load(folder)


def finished(folder: Path, identity: Identity) -> Checkpoint | None:
    """Load the finished run in a folder; None if there is none. Raises CheckpointError if it is another run.

    If the identity lists no snapshots, the run may have any.
    """
    if not (folder / CARD).exists():
        return None
    checkpoint = load(folder)
    card = checkpoint.card
    in_folder = identify(card.world, card.objective, card.config, card.seed)
    if not identity["config"]["snapshots"]:
        in_folder["config"]["snapshots"] = []
    refuse_another(folder, in_folder, identity)
    return checkpoint


def _warn_of_hours(config: TrainConfig, preset: str, parameters: int) -> None:
    """Warn of a run that takes hours on this CPU, by its arithmetic and the speed of a matrix product.

    A training step takes about 6 operations for each parameter and token (Kaplan et al. 2020, section 2.1), each time
    the parameters are applied. Per operation, a matrix product of this size is about twice as fast as a whole step.
    """
    operations = 6.0 * parameters * config.steps * config.batch_size * config.context
    size = 512
    square = torch.ones(size, size)
    started = time.perf_counter()
    for _ in range(3):
        square = square @ square / size
    rate = 3 * 2 * size**3 / (time.perf_counter() - started)
    hours = 2 * operations / rate / 3600
    if hours > _HOURS and (config.minutes is None or config.minutes > 60 * _HOURS):
        warnings.warn(
            f"preset {preset!r} with these settings takes about {hours:,.0f} hours on this CPU: use a GPU, fewer "
            "steps or a smaller preset. Ctrl-C stops it, the same call continues it, and minutes= limits its time.",
            stacklevel=4,
        )


def in_notebook() -> bool:
    """Tell whether a Jupyter kernel runs this code.

    Examples
    --------
    >>> in_notebook()
    False
    """
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


def default_snapshots(steps: int, size: int) -> tuple[int, ...]:
    """Steps at which a run in a notebook keeps its weights: 100 and 150 times powers of 2, the last 12 before its end.

    The length of a run only decides where the steps begin and end, so that runs of different lengths, or runs that
    stopped early, have steps in common.

    Parameters
    ----------
    steps : of the whole run.
    size : of a snapshot, in bytes. If 12 of them take more than 200 MB, 6, 3 or none are kept.

    Returns
    -------
    tuple of int
        Ascending.

    Examples
    --------
    >>> default_snapshots(4000, 400_000)
    (75, 100, 150, 200, 300, 400, 600, 800, 1200, 1600, 2400, 3200)
    >>> default_snapshots(4000, 50_000_000)
    (200, 800, 3200)
    """
    grid = {int(start * 2.0**power) for start in (100, 150) for power in range(-6, steps.bit_length())}
    last = sorted(step for step in grid if step < steps)[-_MOST_SNAPSHOTS:]
    for stride in (1, 2, 4):
        snapshots = last[::-stride][::-1]
        if len(snapshots) * size <= _MOST_BYTES:
            return tuple(snapshots)
    return ()


def folder_name(world: worlds.World) -> str:
    """Turn a world's title into the name of a folder; worlds with different parameters get different names.

    Examples
    --------
    >>> folder_name(worlds.get("mess3:x=0.1"))
    'mess3-x=0.1'
    """
    return io.file_name(re.sub(r"[^\w=.]+", "-", worlds.title(world)))
