"""Checkpoints: a folder of safetensors and a card, loaded only if every hash matches."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nextlat_viz import io, worlds
from nextlat_viz.display import table
from nextlat_viz.errors import CheckpointError, UnknownNameError, at_least, one_of, unknown
from nextlat_viz.models import OBJECTIVES, Batch, Objective, TransformerConfig
from nextlat_viz.models.torch_state import torch_defaults
from nextlat_viz.paths import checkpoints_dir
from nextlat_viz.training.card import CARD, Card, command_of, read_card, sha256_of
from nextlat_viz.training.config import TrainConfig, resolve_config, validated
from nextlat_viz.training.data import training_episodes
from nextlat_viz.training.resume import TRAIN_STATE, snapshot_path
from nextlat_viz.training.trained import HF_PREFIX, TrainedModel
from nextlat_viz.worlds.text.cache import keep_tokenizer

if TYPE_CHECKING:
    import pandas as pd

WEIGHTS, METRICS, TOKENIZER = "model.safetensors", "metrics.csv", "tokenizer.json"
DTYPES = {"float32": torch.float32, "float16": torch.float16}


class _NoCompiler(TorchFunctionMode):
    """Skip random initialisation on the meta device, for which torch would import its compiler: that takes seconds."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is nn.init.normal_:
            return kwargs["tensor"]
        # The rotation table of the positions is no weight, and small: it is computed.
        return func(*args, **kwargs, **({"device": "cpu"} if func is torch.arange and "device" not in kwargs else {}))


@dataclass(frozen=True)
class Checkpoint(TrainedModel):
    """A trained model with its card.

    Attributes
    ----------
    card : Card
        What it is and how it was made.
    model : Objective
        The objective with its `backbone` (and `psi`, for NextLat), in evaluation mode on the CPU.
    step : int
        Number of optimiser steps taken: `card.steps`, a snapshot's step, or 0 if untrained.
    weights_sha256 : str
        Hash that identifies the weights.
    folder : Path
        Folder of the run.

    Examples
    --------
    >>> checkpoint = load("rrxor/nextlat")
    >>> checkpoint.name, checkpoint.world.name, checkpoint.model.backbone.sites[-1]
    ('rrxor/nextlat/seed0', 'rrxor', 'hidden')
    """

    card: Card
    model: Objective
    step: int
    weights_sha256: str
    folder: Path

    @property
    def name(self) -> str:
        return self.card.name

    @property
    def objective(self) -> str:
        return self.card.objective

    @property
    def seed(self) -> int:
        return self.card.seed

    @property
    def network(self) -> Objective:
        return self.model

    @property
    def command(self) -> str:
        """The command that makes it again, with this version's presets.

        The command on the card relies on the presets of the version that trained it.
        """
        card = self.card
        try:
            defaults = resolve_config(card.preset, self.world, {})
        except UnknownNameError:
            return card.command
        changed = {name: value for name, value in card.config if value is not None and value != getattr(defaults, name)}
        return command_of(self.world, card.objective, card.preset, card.seed, changed)

    @property
    def reads(self) -> int:
        return self.model.backbone.config.context

    @property
    def label(self) -> str:
        """Name in figures: the objective, shared projections and fewer heads of keys, and the step if not the last."""
        config = self.card.config
        label = OBJECTIVES[self.card.objective].label + ("" if config.sharing == "none" else f", {config.sharing}")
        if config.kv_heads not in (None, config.heads):
            label += ", MQA" if config.kv_heads == 1 else f", GQA of {config.kv_heads}"
        if self.step == self.card.steps:
            return label
        return f"{label} (untrained)" if self.step == 0 else f"{label} (step {self.step:,})"

    @cached_property
    def world(self) -> worlds.World:
        """The world it was trained on."""
        return world_of_card(self.card.world, self.folder)

    @property
    def snapshots(self) -> list[int]:
        """Steps whose weights :meth:`at` can load, the last step included."""
        return sorted({*self.card.snapshots, self.card.steps})

    @property
    def metrics(self) -> pd.DataFrame:
        """Losses over training, one row per validation: steps, nats per token, and the floor."""
        import pandas as pd

        path = self.folder / METRICS
        if not path.exists():
            raise CheckpointError(f"{path} does not exist: this checkpoint came without its training curve")
        try:
            # As text: git changes the line ends of a checkout on Windows.
            text = path.read_text(encoding="utf-8")
            if self.card.metrics_sha256 not in ("", hashlib.sha256(text.encode()).hexdigest()):
                raise ValueError("its sha256 is not the one stated for this checkpoint")
            return pd.read_csv(StringIO(text))
        except ValueError as error:
            raise CheckpointError(f"{path} is truncated or altered: {error}. Get it again.") from error

    @cached_property
    def operations(self) -> float:
        """Floating-point operations of one training step: matrix products, forward and backward.

        For comparisons at equal compute, on any machine: a NextLat step costs more than a next-token step.
        """
        from torch.utils.flop_counter import FlopCounterMode

        config = self.card.config
        model = build_model(self.objective, config, self.world, 0)
        batch = Batch.from_episodes(training_episodes(self.world, config, 0, 0), seed=0, start=model.backbone.start)
        with FlopCounterMode(display=False) as counter:
            following: Batch | None = batch
            while following is not None:
                losses = model(following)
                losses["loss"].backward()
                following = model.following(following, losses)
        return float(counter.get_total_flops())

    @torch_defaults()
    def at(self, step: int) -> Checkpoint:
        """The same run at an earlier step; 0 is before training.

        Raises
        ------
        ValueError
            If no snapshot was kept at that step.
        """
        if step == self.card.steps:
            return load(self.folder)
        if step == 0:
            return self.untrained()
        if step not in self.card.snapshots:
            steps = ", ".join(map(str, [0, *self.snapshots]))
            raise ValueError(f"step={step!r}: no snapshot of {self.name} was kept there. Kept: {steps}")
        digest = self.card.snapshots[step]
        state = read_weights(snapshot_path(self.folder, step), digest)
        model = build_model(self.card.objective, self.card.config, self.world, self.card.seed)
        restore(model, state, self.folder)
        return Checkpoint(self.card, model.eval(), step, digest, self.folder)

    @torch_defaults()
    def untrained(self) -> Checkpoint:
        """The same model before its first step: the control for every probe."""
        model = build_model(self.card.objective, self.card.config, self.world, self.card.seed)
        digest = f"untrained-{self.card.objective}-seed{self.card.seed}-{self.card.card_sha256[:16]}"
        return Checkpoint(self.card, model.eval(), 0, digest, self.folder)

    def _repr_html_(self) -> str:
        rows: dict[str, Any] = {
            "world": self.card.world,
            "objective": self.card.objective,
            "preset": self.card.preset,
            "seed": self.card.seed,
            "step": f"{self.step:,} of {self.card.steps:,}",
            "parameters": f"{self.card.parameters:,}",
            **{key: f"{value:.4f}" for key, value in self.card.metrics.items()},
            "made by": self.command,
        }
        return table(self.name, rows)

    def __repr__(self) -> str:
        return f"Checkpoint({self.name!r}, step={self.step}, metrics={self.card.metrics})"


def build_model(objective: str, config: TrainConfig, world: worlds.World, seed: int) -> Objective:
    """A freshly initialised model; with the same seed all objectives have the same backbone weights."""
    one_of("objective", objective, OBJECTIVES)
    OBJECTIVES[objective].require_world(world, config.start_token)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return new_model(objective, config, len(world.vocabulary))


def new_model(objective: str, config: TrainConfig, vocabulary: int) -> Objective:
    """A model for this many tokens, initialised by torch's generator."""
    kind: Any = OBJECTIVES[objective]
    sizes = config.model_dump(include=set(TransformerConfig.model_fields))
    shape = validated(TransformerConfig, {"vocabulary_size": vocabulary, **sizes}, "size")
    # An objective's own hyperparameters are the arguments of its class.
    options = config.model_dump(include=set(inspect.signature(kind).parameters))
    model: Objective = kind(kind.network(shape), **options)
    return model


def load(name: str | os.PathLike[str], seed: int = 0) -> Any:
    """Load a shipped checkpoint by name, any by its folder, or a model of the Hugging Face Hub by ``"hf:<name>"``.

    Parameters
    ----------
    name : ``"rrxor/nextlat"``, ``"rrxor/nextlat/seed1"``, the path of a run's folder, ``"hf:user/name"`` of a
        checkpoint that :func:`nextlat_viz.push` has published, or ``"hf:gpt2"``. A folder of
        :func:`nextlat_viz.finetune` after ``hf:`` is loaded with its psi.
    seed : seed of the run, if the name does not contain it.

    Raises
    ------
    UnknownNameError
        If there is no such checkpoint.
    CheckpointError
        If weights, card or hashes do not match, the format is unknown, or the world cannot be built without files
        or servers that you did not ask for: see :func:`nextlat_viz.worlds.from_spec`.

    Examples
    --------
    >>> load("rrxor/nextlat").card.objective
    'nextlat'
    """
    if isinstance(name, str) and name.startswith(HF_PREFIX):
        # By name: modules of training must not import hf, which imports training.
        return importlib.import_module("nextlat_viz.hf.finetuned").load_by_name(name)
    return read_folder(find(name, seed))


def find(name: str | os.PathLike[str], seed: int = 0) -> Path:
    """Folder of a checkpoint given by name or path."""
    seed = at_least("seed", seed, 0)
    candidates = [io.as_path(name, "name of a checkpoint")]
    if isinstance(name, str):
        shipped = checkpoints_dir() / name
        candidates += [shipped, shipped / f"seed{seed}"]
    for folder in candidates:
        if (folder / CARD).is_file():
            return folder
    for folder in candidates:
        if (folder / WEIGHTS).is_file() or (folder / TRAIN_STATE).is_file():
            raise CheckpointError(
                f"{folder} holds weights but no {CARD}: the run is unfinished or its card was lost. "
                "Run the same training command again to finish it."
            )
    if isinstance(name, os.PathLike) or candidates[0].is_dir():
        raise CheckpointError(f"{os.fspath(name)} is not a checkpoint: it has no {CARD}")
    names = [str(path.relative_to(checkpoints_dir()).as_posix()) for path in shipped_folders()]
    shortened = {path.rsplit("/", 1)[0] for path in names}
    if str(name) in shortened:
        raise unknown("checkpoint", f"{name}/seed{seed}", [path for path in names if path.startswith(f"{name}/")])
    raise unknown("checkpoint", name, sorted(shortened) if str(name).count("/") < 2 else names)


def shipped_folders() -> Iterator[Path]:
    """Folders of the shipped checkpoints, sorted by name."""
    yield from sorted(path.parent for path in checkpoints_dir().glob(f"*/*/*/{CARD}"))


def world_of_card(spec: dict[str, Any], folder: Path) -> worlds.World:
    """Build the world of a card from its spec. It may use a file or a server only if the user asked for that world.

    The tokenizer of a world of text is in the folder of the checkpoint, so that the text itself is not needed.

    Raises
    ------
    CheckpointError
        If it cannot be built, or needs a file, a server or a size that the user did not ask for, or if the tokenizer
        is not the one of the card.
    """
    path = folder / TOKENIZER
    # Folders of earlier versions do not have the file.
    if "tokenizer_sha256" in spec and path.is_file():
        if sha256_of(path) != spec["tokenizer_sha256"]:
            raise CheckpointError(f"{path} is truncated or altered: its sha256 is not that of the card. Get it again.")
        keep_tokenizer(path.read_text(encoding="utf-8"))
    try:
        return worlds.from_spec(spec, trusted=False)
    except ImportError:
        raise
    # Parameters from a file may make a factory fail with any error.
    except Exception as error:
        reason = f"{error}" if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{folder / CARD} describes a world that cannot be built here: {reason}") from error


@torch_defaults()
def read_folder(folder: Path) -> Checkpoint:
    """Load the checkpoint in a folder, checking its card and its weights."""
    card = read_card(folder, Card)
    state = read_weights(folder / WEIGHTS, card.weights_sha256)
    world = world_of_card(card.world, folder)
    try:
        # First without memory for the weights: an untrusted card may describe a model larger than memory.
        _check_counts(card, state, folder)
        with torch.device("meta"), _NoCompiler():
            check_shapes(build_model(card.objective, card.config, world, card.seed), state, folder)
        model = build_model(card.objective, card.config, world, card.seed)
    except CheckpointError:
        raise
    except (ValueError, TypeError, RuntimeError, MemoryError, OverflowError) as error:
        raise CheckpointError(f"{folder / CARD} describes a model that cannot be built here: {error}") from error
    restore(model, state, folder)
    return Checkpoint(card, model.eval(), card.steps, card.weights_sha256, folder)


def read_weights(path: Path, expected_sha256: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing although the card names it. Get the checkpoint again.")
    digest = sha256_of(path)
    if digest != expected_sha256:
        raise CheckpointError(
            f"{path} is truncated, altered or of another run: its sha256 is {digest[:12]}..., the card says "
            f"{expected_sha256[:12]}.... Get the checkpoint again."
        )
    try:
        return load_tensors(path.read_bytes())
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file: {error}") from error


def restore(model: Objective, state: dict[str, Tensor], folder: Path) -> None:
    """Put stored weights into a model, which must have exactly these names and shapes."""
    check_shapes(model, state, folder)
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()})


def _check_counts(card: Card, state: dict[str, Tensor], folder: Path) -> None:
    """Raise CheckpointError if the card has more layers than the stored weights."""
    for name in ("layers", *{"nextlat": ("psi_layers",), "mtp": ("horizon",)}.get(card.objective, ())):
        if (count := getattr(card.config, name)) > len(state):
            raise CheckpointError(f"{folder}: weights and card disagree about {name}={count}")


def check_shapes(model: Objective, state: dict[str, Tensor], folder: Path) -> None:
    """Raise CheckpointError unless stored weights have exactly the names and shapes of a model's."""
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    stored = {name: tensor.shape for name, tensor in state.items()}
    if expected != stored:
        wrong = sorted(name for name in expected.keys() | stored.keys() if expected.get(name) != stored.get(name))
        raise CheckpointError(f"{folder}: weights and card disagree about {', '.join(wrong[:5])}")


def weights_bytes(model: torch.nn.Module, storage: str) -> bytes:
    """The model's weights as a safetensors file of the given precision."""
    dtype = DTYPES[storage]
    return save_tensors({name: tensor.detach().cpu().to(dtype) for name, tensor in model.state_dict().items()})


def stored_bytes(model: torch.nn.Module, storage: str) -> int:
    """Bytes of the model's weights in a file of the given precision."""
    return sum(tensor.numel() for tensor in model.state_dict().values()) * DTYPES[storage].itemsize
