"""The card of a checkpoint: configuration, training run and metrics, sealed by a hash of its fields."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from nextlat_viz import io, worlds
from nextlat_viz.errors import CheckpointError
from nextlat_viz.training.config import TrainConfig

CARD = "card.json"
FORMAT = "nextlat_viz.checkpoint/1"
PACKAGES = ("nextlat-viz", "torch", "lightning-fabric", "numpy", "safetensors")


class SignedCard(BaseModel):
    """A card with the hash of its own fields, ``card_sha256``, which its subclasses declare last."""

    model_config = ConfigDict(extra="forbid")

    def signed(self: CardType) -> CardType:
        """Return the card with every field set and its hash in `card_sha256`."""
        complete = type(self).model_validate(self.model_dump())
        return complete.model_copy(update={"card_sha256": digest(complete.model_dump(mode="json"))})


def digest(fields: dict[str, Any]) -> str:
    """Hash of every field of a card's file, except `card_sha256`."""
    content = {name: value for name, value in fields.items() if name != "card_sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


CardType = TypeVar("CardType", bound=SignedCard)


class Card(SignedCard):
    """Description of a checkpoint. Written as `card.json` after the weights, so a folder with a card is complete.

    Attributes
    ----------
    name : default folder of the run, such as ``rrxor/nextlat/seed0``.
    world : the world's spec, enough to build it again.
    objective, preset, config, seed, steps : what was trained, and with which hyperparameters.
    command : the command that makes this checkpoint again.
    data_sha256 : hash of the validation episodes and of the first training batch.
    weights_sha256, snapshots : hash of the weights file, and of each snapshot's by its step.
    parameters : number of trained parameters, psi included.
    versions : Python and library versions it was trained with.
    device : kind of device it was trained on.
    metrics : losses in nats per token, each with its floor; and `train_seconds`, over all sessions of the run.
    metrics_sha256 : hash of ``metrics.csv``; empty in cards of earlier versions.
    note : what a reader should know of its data, such as the source of a text and its licence.
    card_sha256 : hash of all of the above.
    """

    format: str = FORMAT
    name: str
    world: dict[str, Any]
    objective: str
    preset: str
    config: TrainConfig
    seed: int
    steps: int
    command: str
    data_sha256: str
    weights_sha256: str
    snapshots: dict[int, str] = Field(default_factory=dict)
    parameters: int
    versions: dict[str, str]
    device: str
    metrics: dict[str, float]
    metrics_sha256: str = ""
    note: str = ""
    card_sha256: str = ""

    @field_validator("config", mode="before")
    @classmethod
    def _without_start_token(cls, config: Any) -> Any:
        # A card written before this field existed describes a model without a start token.
        return {"start_token": False} | config if isinstance(config, dict) else config


def read_card(folder: Path, kind: type[CardType]) -> CardType:
    """Read the card in a folder and check it against its own hash.

    Raises
    ------
    CheckpointError
        If it is missing, truncated, altered, incomplete or of another format.
    """
    path = folder / CARD
    try:
        content = io.parse_json(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is truncated or is not JSON ({error})") from error
    stated, expected = content.get("format") if isinstance(content, dict) else None, kind.model_fields["format"].default
    if stated != expected:
        raise CheckpointError(f"{path}: format {stated!r} is not {expected!r}, the one this version reads")
    try:
        card = kind.model_validate(content)
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, problem["loc"])) for problem in error.errors())
        raise CheckpointError(f"{path} is not a complete card. Missing or wrong: {fields}") from error
    if content.get("card_sha256") != digest(content):
        raise CheckpointError(f"{path} was altered: its contents do not match card_sha256. Restore the original.")
    return card


def sha256_of(path: Path) -> str:
    """Hash of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def device_name(device: torch.device) -> str:
    """Display name of a device: the model of a GPU, or ``"cpu"``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a run's numbers depend on."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return installed


def command_of(world: worlds.World, objective: str, preset: str, seed: int, overrides: dict[str, Any]) -> str:
    """Return the command line that trains this run."""
    words = ["nextlat-viz", "train", worlds.title(world), objective, "--preset", preset, "--seed", str(seed)]
    for name, value in overrides.items():
        values = value if isinstance(value, tuple | list) else [value]
        words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return shlex.join(words)
