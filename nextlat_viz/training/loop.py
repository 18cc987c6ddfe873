"""The training loop, on Lightning Fabric: any device, killed at any point it goes on."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from nextlat_viz import io, worlds
from nextlat_viz.errors import TrainingError, unknown
from nextlat_viz.models import OBJECTIVES, Objective
from nextlat_viz.training import resume
from nextlat_viz.training.card import Card
from nextlat_viz.training.checkpoint import (
    CARD,
    DTYPES,
    METRICS,
    WEIGHTS,
    Checkpoint,
    build_model,
    load,
    weights_bytes,
)
from nextlat_viz.training.engine import Engine
from nextlat_viz.training.feed import Feed
from nextlat_viz.training.identity import claim, differences, identity, refuse_another
from nextlat_viz.training.presets import TrainConfig, resolve
from nextlat_viz.training.reporting import Reporter, csv_bytes, device_name, versions
from nextlat_viz.training.resume import TRAIN_STATE, Progress
from nextlat_viz.training.validation import Validation

Callback = Callable[[dict[str, float]], None]
STRATEGIES = ("auto", "ddp", "fsdp")


def train(
    world: str | worlds.World,
    objective: str = "nextlat",
    preset: str = "tiny",
    *,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    accelerator: str = "auto",
    devices: int | str = 1,
    strategy: str = "auto",
    progress: bool = True,
    on_validation: Callback | None = None,
    **overrides: Any,
) -> Checkpoint:
    """Train a model on a world and return its checkpoint.

    A run that was killed goes on from where it was when the same call is made again, and on CPU ends with the
    same weights as one that was not; a run that is finished is loaded.

    With ``devices=2`` or more a script starts its other processes itself, and the whole script runs in each;
    ``torchrun --nproc-per-node 2 -m nextlat_viz.cli train rrxor --devices 2`` starts them from outside. The batch is
    shared out among devices (and `accumulate` pieces on each), and the loss is the mean over all that it scores,
    as on one device; sums are rounded in another order, so weights agree closely and not to the last bit.

    Parameters
    ----------
    world : name of a world, with parameters or without (``"mess3:x=0.15"``), or a World.
    objective : ``"next_token"``, ``"nextlat"``, ``"mtp"``, ``"jtp"`` or ``"bst"``; see :mod:`nextlat_viz.models`.
    preset : name of a set of hyperparameters, see :mod:`nextlat_viz.training.presets`.
    seed : initialises the weights and, with the step, draws the episodes.
    out : folder of the run; ``runs/<world>/<objective>/seed<seed>`` when not given.
    accelerator, devices : as in Lightning Fabric; ``"auto"`` takes a GPU where there is one.
    strategy : ``"auto"``, ``"ddp"`` or ``"fsdp"``. FSDP spreads weights over GPUs, for models that one cannot hold;
        it has not been tried here, and keeps nothing that a killed run could go on from.
    progress : show a progress bar with the loss and its floor.
    on_validation : called with each row of metrics as it is measured.
    **overrides : any field of :class:`TrainConfig`, e.g. ``steps=200``.

    Raises
    ------
    UnknownNameError
        If the world, objective, preset, strategy or a hyperparameter does not exist.
    CheckpointError
        If `out` holds another run.
    TrainingError
        If the loss stops being finite, or the device's memory is full. What was saved before is kept.
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
    if isinstance(world, str):
        world = worlds.get(world)
    if objective not in OBJECTIVES:
        raise unknown("objective", objective, OBJECTIVES)
    if strategy not in STRATEGIES:
        raise unknown("strategy", strategy, STRATEGIES)
    config = resolve(preset, world, overrides)
    folder = Path(out) if out is not None else Path("runs", folder_name(world), objective, f"seed{seed}")
    run = _Run(world, objective, preset, config, seed, folder, overrides)
    if (folder / CARD).exists():
        return run.finished()
    # What cannot be trained is refused before there is a folder for it.
    model = build_model(objective, config, world, seed)
    precision: Any = config.precision
    fabric = Fabric(accelerator=accelerator, devices=devices, strategy=strategy, precision=precision)
    if config.batch_size < fabric.world_size * config.accumulate:
        raise ValueError(
            f"batch_size={config.batch_size} cannot be shared out among {fabric.world_size} devices with "
            f"accumulate={config.accumulate} pieces on each: at least one episode must be in a piece"
        )
    claim(folder)
    fabric.launch()
    try:
        return run.fit(model, fabric, progress, on_validation)
    except torch.OutOfMemoryError as error:
        raise run.out_of_memory(fabric) from error


def folder_name(world: worlds.World) -> str:
    """A world's title in words that any file system takes; every world with parameters of its own has another.

    Examples
    --------
    >>> folder_name(worlds.get("mess3:x=0.1"))
    'mess3-x=0.1'
    """
    return re.sub(r"[^\w=.]+", "-", worlds.title(world))


class _Run:
    """One run: its identity, its folder, and the steps between."""

    def __init__(
        self,
        world: worlds.World,
        objective: str,
        preset: str,
        config: TrainConfig,
        seed: int,
        folder: Path,
        overrides: dict[str, Any],
    ) -> None:
        self.world, self.objective, self.preset, self.config = world, objective, preset, config
        self.seed, self.folder, self.overrides = seed, folder, overrides
        self.identity = identity(world.spec, objective, config, seed)

    def finished(self) -> Checkpoint:
        checkpoint = load(self.folder)
        card = checkpoint.card
        refuse_another(
            self.folder, differences(identity(card.world, card.objective, card.config, card.seed), self.identity)
        )
        return checkpoint

    def fit(self, model: Objective, fabric: Fabric, show_bar: bool, on_validation: Callback | None) -> Checkpoint:
        config = self.config
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            weight_decay=config.weight_decay,
            fused=True,
        )
        saved = self._saved()
        if saved is not None:
            model.load_state_dict(saved.weights)
        engine = Engine(model, optimizer, config, fabric)
        if saved is not None:
            engine.restore(saved.moments)
        done = Progress() if saved is None else saved.progress
        feed = Feed(self.world, model, config, self.seed, fabric.global_rank, fabric.world_size, fabric.device)
        validation = Validation(self.world, config)
        main = fabric.is_global_zero
        label = f"{self.world.name}/{self.objective}"
        started = time.monotonic() - done.seconds

        with (
            Reporter(self.folder, label, config.steps, done.step, bar=show_bar and main, board=main) as reporter,
            closing(feed.ahead(done.step, config.steps)) as batches,
        ):
            for pieces in batches:
                engine.step(done.step, pieces)
                done.step += 1
                reporter.step()
                step, last = done.step, done.step == config.steps
                measures = step % config.validate_every == 0 or last
                saves = step % config.save_every == 0 and not last
                if not (measures or saves or step in config.snapshots):
                    continue
                # Nothing is measured or kept of a run that has failed.
                self._check(engine, step)
                moments = engine.moments() if saves else {}
                with engine.whole():
                    if measures:
                        row = {"step": float(step), **validation(model)}
                        row |= {f"train/{name}": value for name, value in engine.losses().items()}
                        done.history.append(row)
                        reporter.row(row)
                        if on_validation is not None:
                            on_validation(row)
                    if main and step in config.snapshots:
                        done.snapshots[step] = self._write_snapshot(model, step)
                    if main and saves:
                        done.seconds = time.monotonic() - started
                        resume.write(self.folder, self.identity, done, model, moments)
        with engine.whole():
            if main:
                done.seconds = time.monotonic() - started
                self._finish(model, validation, done, feed, fabric.device)
        fabric.barrier()
        return load(self.folder)

    def out_of_memory(self, fabric: Fabric) -> TrainingError:
        """What to do where the device's memory is full."""
        config = self.config
        fits = 2 * config.accumulate * fabric.world_size <= config.batch_size
        advice = (
            f"Set accumulate={2 * config.accumulate}, which trains alike with less memory, or lower batch_size"
            if fits
            else "Lower layers, dim or context"
        )
        return TrainingError(
            f"{device_name(fabric.device)} ran out of memory with batch_size={config.batch_size}, "
            f"accumulate={config.accumulate}. {advice}; train that in another folder than {str(self.folder)!r}."
        )

    def _check(self, engine: Engine, step: int) -> None:
        """Stop where the loss or the weights are not finite, before they get into any file."""
        ago = engine.first_failure()
        if ago is None:
            return
        config = self.config
        where = f"The loss of step {step - ago + 1}" if ago else f"The weights after step {step}"
        saved = resume.read(self.folder)
        kept = "No state was saved before" if saved is None else f"The state of step {saved.progress.step} is kept"
        clip = f"a grad_clip below {config.grad_clip}" if config.grad_clip else "grad_clip=1.0 (it is off)"
        raise TrainingError(
            f"{where} of {self.world.name}/{self.objective} is not a finite number. Train with a learning_rate below "
            f"{config.learning_rate} or {clip}, in another folder. {kept} in {str(self.folder)!r}."
        )

    def _saved(self) -> resume.Saved | None:
        saved = resume.read(self.folder)
        if saved is not None:
            refuse_another(self.folder, differences(saved.identity, self.identity))
        return saved

    def _write_snapshot(self, model: Objective, step: int) -> str:
        content = weights_bytes(model, self.config.storage)
        io.write(self.folder / "snapshots" / f"step{step:06d}.safetensors", content)
        return hashlib.sha256(content).hexdigest()

    def _finish(
        self,
        model: Objective,
        validation: Validation,
        done: Progress,
        feed: Feed,
        device: torch.device,
    ) -> None:
        """Write weights, curve and, last, the card; what was needed to go on is not needed any more."""
        stored = DTYPES[self.config.storage]
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(parameter.to(stored))
        content = weights_bytes(model, self.config.storage)
        card = Card(
            name=f"{self.world.name}/{self.objective}/seed{self.seed}",
            world=self.world.spec,
            objective=self.objective,
            preset=self.preset,
            config=self.config,
            seed=self.seed,
            steps=self.config.steps,
            command=self._command(),
            data_sha256=_data_hash(validation, feed),
            weights_sha256=hashlib.sha256(content).hexdigest(),
            snapshots=done.snapshots,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            versions=versions(),
            device=device_name(device),
            metrics=validation(model) | {"train_seconds": round(done.seconds, 1)},
        ).signed()
        io.write(self.folder / WEIGHTS, content)
        io.write(self.folder / METRICS, csv_bytes(done.history))
        io.write(self.folder / CARD, card.model_dump_json(indent=2))
        (self.folder / TRAIN_STATE).unlink(missing_ok=True)

    def _command(self) -> str:
        words = [
            "nextlat-viz",
            "train",
            worlds.title(self.world),
            self.objective,
            "--preset",
            self.preset,
            "--seed",
            str(self.seed),
        ]
        for field, value in self.overrides.items():
            values = value if isinstance(value, tuple | list) else [value]
            words += [f"--{field.replace('_', '-')}", *map(str, values)]
        return shlex.join(words)


def _data_hash(validation: Validation, feed: Feed) -> str:
    both = validation.episodes.sha256 + feed.episodes(0, states=True).sha256
    return hashlib.sha256(both.encode()).hexdigest()
