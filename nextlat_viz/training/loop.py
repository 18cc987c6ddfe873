"""The training loop, on Lightning Fabric: any device, killed at any point it goes on."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import platform
import re
import shlex
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from nextlat_viz import worlds
from nextlat_viz.errors import CheckpointError, unknown
from nextlat_viz.models import OBJECTIVES, Batch, Objective
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
    write_atomically,
)
from nextlat_viz.training.presets import TrainConfig, episode_length, resolve
from nextlat_viz.training.resume import TRAIN_STATE, Progress
from nextlat_viz.training.validation import Validation
from nextlat_viz.worlds import Episodes

Callback = Callable[[dict[str, float]], None]


def train(
    world: str | worlds.World,
    objective: str = "nextlat",
    preset: str = "tiny",
    *,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    accelerator: str = "auto",
    devices: int | str = 1,
    progress: bool = True,
    on_validation: Callback | None = None,
    **overrides: Any,
) -> Checkpoint:
    """Train a model on a world and return its checkpoint.

    A run that was killed goes on from where it was when the same call is made again, and on CPU ends with the
    same weights as one that was not; a run that is finished is loaded.

    Parameters
    ----------
    world : name of a world, with parameters or without (``"mess3:x=0.15"``), or a World.
    objective : ``"next_token"``, ``"nextlat"``, ``"mtp"``, ``"jtp"`` or ``"bst"``; see :mod:`nextlat_viz.models`.
    preset : name of a set of hyperparameters, see :mod:`nextlat_viz.training.presets`.
    seed : initialises the weights and, with the step, draws the episodes.
    out : folder of the run; ``runs/<world>/<objective>/seed<seed>`` when not given.
    accelerator, devices : as in Lightning Fabric; ``"auto"`` takes a GPU where there is one.
    progress : show a progress bar with the loss and its floor.
    on_validation : called with each row of metrics as it is measured.
    **overrides : any field of :class:`TrainConfig`, e.g. ``steps=200``.

    Raises
    ------
    UnknownNameError
        If the world, objective, preset or a hyperparameter does not exist.
    CheckpointError
        If `out` holds another run.
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
    config = resolve(preset, world, overrides)
    # Every world with parameters of its own gets a folder, in words that any file system takes.
    home = re.sub(r"[^\w=.]+", "-", worlds.title(world))
    folder = Path(out) if out is not None else Path("runs", home, objective, f"seed{seed}")
    run = _Run(world, objective, preset, config, seed, folder, overrides)
    if (folder / CARD).exists():
        return run.finished()
    # What cannot be trained is refused before there is a folder for it.
    model = build_model(objective, config, world, seed)
    fabric = Fabric(accelerator=accelerator, devices=devices, precision=config.precision)  # type: ignore[arg-type]
    run.claim()
    if fabric.world_size > 1:
        fabric.launch()
    return run.fit(model, fabric, progress, on_validation)


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

    @property
    def identity(self) -> dict[str, Any]:
        """What makes two runs the same run."""
        return {
            "world": self.world.spec,
            "objective": self.objective,
            "config": self.config.model_dump(mode="json"),
            "seed": self.seed,
        }

    def finished(self) -> Checkpoint:
        checkpoint = load(self.folder)
        card = checkpoint.card
        found = {
            "world": card.world,
            "objective": card.objective,
            "config": card.config.model_dump(mode="json"),
            "seed": card.seed,
        }
        self._check_same(found)
        return checkpoint

    def claim(self) -> None:
        """Make the folder ours, or fail before any work is done."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe = self.folder / ".writable"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise type(error)(
                f"out={str(self.folder)!r} cannot be written ({error}). Choose another folder."
            ) from error

    def fit(self, raw_model: Objective, fabric: Fabric, show_bar: bool, on_validation: Callback | None) -> Checkpoint:
        config = self.config
        raw_optimizer = torch.optim.AdamW(
            raw_model.parameters(),
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            weight_decay=config.weight_decay,
            fused=True,
        )
        done = self._resume(raw_model, raw_optimizer)
        model, optimizer = fabric.setup(raw_model, raw_optimizer)
        validation = Validation(self.world, config)
        board = _tensorboard(self.folder) if fabric.is_global_zero else None
        bar = _progress_bar(
            config.steps, done.step, show_bar and fabric.is_global_zero, f"{self.world.name}/{self.objective}"
        )
        started = time.monotonic() - done.seconds

        while done.step < config.steps:
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * schedule(done.step, config)
            losses = model(self._batch(done.step, fabric))
            fabric.backward(losses["loss"])
            if config.grad_clip:
                fabric.clip_gradients(model, optimizer, max_norm=config.grad_clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            done.step += 1
            bar.update()

            step, last = done.step, done.step == config.steps
            if step % config.validate_every == 0 or last:
                row = {"step": float(step), **validation(raw_model)}
                row |= {f"train/{name}": float(value.detach()) for name, value in losses.items()}
                done.history.append(row)
                beside = "floor" if "floor" in row else "unigram"
                bar.set_postfix({"loss": f"{row['loss']:.4f}", beside: f"{row[beside]:.4f}"})
                if board is not None:
                    for name, value in row.items():
                        board.add_scalar(name, value, step)
                if on_validation is not None:
                    on_validation(row)
            if fabric.is_global_zero:
                if step in config.snapshots:
                    done.snapshots[step] = self._write_snapshot(raw_model, step)
                if step % config.save_every == 0 and not last:
                    done.seconds = time.monotonic() - started
                    resume.write(self.folder, self.identity, done, raw_model, raw_optimizer)
        bar.close()
        if board is not None:
            board.close()
        if fabric.is_global_zero:
            done.seconds = time.monotonic() - started
            self._finish(raw_model, validation, done, fabric)
        fabric.barrier()
        return load(self.folder)

    def _resume(self, model: Objective, optimizer: torch.optim.Optimizer) -> Progress:
        saved = resume.read(self.folder)
        if saved is None:
            return Progress()
        self._check_same(saved.identity)
        saved.restore(model, optimizer)
        return saved.progress

    def _episodes(self, step: int, *, states: bool = False) -> Episodes:
        seed = int(np.random.SeedSequence([self.seed, step]).generate_state(1, np.uint64)[0])
        length = episode_length(self.world, self.config.context)
        return self.world.sample(self.config.batch_size, length, seed=seed, states=states)

    def _batch(self, step: int, fabric: Fabric) -> Batch:
        episodes = self._episodes(step)
        if fabric.world_size > 1:
            episodes = episodes[fabric.global_rank :: fabric.world_size]
        return Batch.from_episodes(episodes, fabric.device, seed=step)

    def _check_same(self, found: dict[str, Any]) -> None:
        if found == self.identity:
            return
        flat_found = {**found, **found["config"]}
        flat_asked = {**self.identity, **self.identity["config"]}
        differences = [
            f"{key} {flat_found.get(key)!r} there, {value!r} asked for"
            for key, value in flat_asked.items()
            if key != "config" and flat_found.get(key) != value
        ]
        raise CheckpointError(
            f"out={str(self.folder)!r} holds another run: {'; '.join(differences)}. "
            "Choose another folder, or delete this one."
        )

    def _write_snapshot(self, model: Objective, step: int) -> str:
        content = weights_bytes(model, self.config.storage)
        write_atomically(self.folder / "snapshots" / f"step{step:06d}.safetensors", content)
        return hashlib.sha256(content).hexdigest()

    def _finish(
        self,
        model: Objective,
        validation: Validation,
        done: Progress,
        fabric: Fabric,
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
            data_sha256=self._data_hash(validation),
            weights_sha256=hashlib.sha256(content).hexdigest(),
            snapshots=done.snapshots,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            versions=_versions(),
            device=_device_name(fabric.device),
            metrics=validation(model) | {"train_seconds": round(done.seconds, 1)},
        ).signed()
        write_atomically(self.folder / WEIGHTS, content)
        write_atomically(self.folder / METRICS, _csv(done.history))
        write_atomically(self.folder / CARD, card.model_dump_json(indent=2).encode())
        (self.folder / TRAIN_STATE).unlink(missing_ok=True)

    def _data_hash(self, validation: Validation) -> str:
        return hashlib.sha256((validation.episodes.sha256 + self._episodes(0, states=True).sha256).encode()).hexdigest()

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


def schedule(step: int, config: TrainConfig) -> float:
    """Learning-rate factor: linear warm-up, constant, linear decay to zero.

    Examples
    --------
    >>> config = TrainConfig(steps=10, warmup_steps=2, decay_steps=4)
    >>> [schedule(step, config) for step in (0, 1, 5, 8)]
    [0.5, 1.0, 1.0, 0.5]
    """
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    decay = min(1.0, (config.steps - step) / config.decay_steps) if config.decay_steps else 1.0
    return warm * decay


def _csv(rows: list[dict[str, float]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _progress_bar(steps: int, done: int, show: bool, label: str) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=steps, initial=done, disable=not show, desc=label, unit="step", leave=True)


def _tensorboard(folder: Path) -> Any:
    """A TensorBoard writer, or None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder / "tensorboard")


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _versions() -> dict[str, str]:
    packages = ("nextlat-viz", "torch", "lightning-fabric", "numpy", "safetensors")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
