"""The state of an unfinished run on disk, and the comparison of two runs.

The state is one sealed safetensors file: weights, optimiser, metrics so far. It holds no code.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from nextlat_viz import io
from nextlat_viz.errors import CheckpointError
from nextlat_viz.training.card import sha256_of
from nextlat_viz.training.config import TrainConfig

TRAIN_STATE = "train_state.safetensors"
# By the parameter's index in the optimiser: tensors such as "exp_avg".
Moments: TypeAlias = dict[int, dict[str, Tensor]]
# Everything that the weights of a run depend on, as JSON.
Identity: TypeAlias = dict[str, Any]


@dataclass
class RunState:
    """Progress of a run: steps, seconds over all sessions, metrics so far, and hashes of the snapshots by step."""

    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    snapshots: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SavedRun:
    """The content of a state file: which run it belongs to, and the states of the model and of the optimiser."""

    identity: Identity
    progress: RunState
    weights: dict[str, Tensor] = field(default_factory=dict)
    moments: Moments = field(default_factory=dict)


def save_state(folder: Path, identity: Identity, progress: RunState, model: nn.Module, moments: Moments) -> None:
    """Write the state of a run atomically."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, state in moments.items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
    header = {"seal": io.UNSEALED, "run": json.dumps({"identity": identity, "progress": asdict(progress)})}
    content = save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, header)
    io.write(folder / TRAIN_STATE, io.seal(content))


def snapshot_path(folder: Path, step: int) -> Path:
    """File of the weights at a step, in the folder of a run."""
    return folder / "snapshots" / f"step{step:06d}.safetensors"


def saved_snapshots(folder: Path) -> tuple[int, ...] | None:
    """Steps at which the unfinished run in a folder keeps snapshots; None if there is no run that can be read."""
    try:
        with (folder / TRAIN_STATE).open("rb") as file:
            header = _header(file.read(int.from_bytes(file.read(8), "little")))
        return tuple(header["identity"]["config"]["snapshots"])
    except (OSError, KeyError, TypeError, ValueError, OverflowError, MemoryError):
        # `load_state` says what is wrong with it.
        return None


def _header(content: bytes) -> Any:
    """Identity and progress, from the header of a state file, which is JSON."""
    return io.parse_json(io.parse_json(content)["__metadata__"]["run"])


def load_state(folder: Path) -> SavedRun | None:
    """Read the state of a run; None if there is none.

    Raises
    ------
    CheckpointError
        If the file is damaged, or a snapshot that it names is missing or damaged.
    """
    path = folder / TRAIN_STATE
    if not path.exists():
        return None
    try:
        content = path.read_bytes()
        io.check_seal(content)
        # A safetensors file starts with the length of its header. Read from the bytes whose seal was checked.
        header = _header(content[8 : 8 + int.from_bytes(content[:8], "little")])
        progress = header["progress"]
        # JSON turned the steps into strings.
        progress["snapshots"] = {int(step): digest for step, digest in progress["snapshots"].items()}
        saved = SavedRun(header["identity"], RunState(**progress))
        for name, tensor in load_tensors(content).items():
            part, _, rest = name.partition(".")
            if part == "model":
                saved.weights[rest] = tensor
            else:
                index, key = rest.split(".")
                saved.moments.setdefault(int(index), {})[key] = tensor
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}). Delete it to start the run again.") from error
    for step, digest in saved.progress.snapshots.items():
        snapshot = snapshot_path(folder, step)
        if not snapshot.is_file() or sha256_of(snapshot) != digest:
            raise CheckpointError(
                f"{snapshot} is missing or damaged, and the run in {str(folder)!r} cannot be continued without it. Put "
                f"it back, or delete {path} to start the run again."
            )
    return saved


def require_moments(path: Path, moments: Moments, optimizer: torch.optim.Optimizer, averaged: bool) -> None:
    """Raise CheckpointError unless every trained parameter has the optimiser's state, and its average, in the file."""
    names = ("exp_avg", "exp_avg_sq", *(["average"] if averaged else []))
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, parameter in enumerate(parameters):
        if not parameter.requires_grad:
            continue
        shapes = {name: tensor.shape for name, tensor in moments.get(index, {}).items() if name != "step"}
        if shapes != dict.fromkeys(names, parameter.shape) or "step" not in moments[index]:
            raise CheckpointError(
                f"{path} lacks the optimiser's state of parameter {index}. Delete it to start the run again."
            )


def identify(world: dict[str, Any], objective: str, config: TrainConfig, seed: int) -> Identity:
    """Describe a run of `train`; the world by its spec."""
    return {"world": world, "objective": objective, "config": config.model_dump(mode="json"), "seed": seed}


def differences(stored: Identity, requested: Identity) -> list[str]:
    """List the differences between the run in a folder and the one requested; empty if they are the same run.

    A hyperparameter missing in `stored` was added to the package later: that run was trained with its default.

    Examples
    --------
    >>> requested = identify({"name": "rrxor"}, "nextlat", TrainConfig(), seed=1)
    >>> differences(requested | {"seed": 0, "config": {"layers": 2}}, requested)
    ['seed 0 there, 1 asked for', 'layers 2 there, 4 asked for']
    """
    stored, requested = _flat(stored), _flat(requested)
    changed = [
        f"{name} {stored.get(name)!r} there, {value!r} asked for"
        for name, value in requested.items()
        if stored.get(name) != value
    ]
    unknown = [f"{name} {value!r} there, not known here" for name, value in stored.items() if name not in requested]
    return changed + unknown


def refuse_another(folder: Path, stored: Identity, requested: Identity) -> None:
    """Raise CheckpointError if the run stored in a folder is not the one requested."""
    if different := differences(stored, requested):
        raise CheckpointError(
            f"out={str(folder)!r} holds another run: {'; '.join(different)}. Choose another folder, or delete this one."
        )


def _flat(identity: Identity) -> Identity:
    if "config" not in identity:
        return identity
    rest = {name: value for name, value in identity.items() if name != "config"}
    return rest | TrainConfig().model_dump(mode="json") | identity["config"]
