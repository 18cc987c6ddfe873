"""What a killed run goes on from: one file with weights, optimiser and history, which holds no code."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from nextlat_viz import io
from nextlat_viz.errors import CheckpointError

TRAIN_STATE = "train_state.safetensors"
# By the parameter's place in the optimiser: tensors such as "exp_avg".
Moments: TypeAlias = dict[int, dict[str, Tensor]]


@dataclass
class Progress:
    """How far a run has come: steps, seconds over all its sittings, metrics so far, and its snapshots' hashes."""

    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    snapshots: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Saved:
    """What a training-state file holds; `identity` says of which run."""

    identity: dict[str, Any]
    progress: Progress
    tensors: dict[str, Tensor]

    @property
    def weights(self) -> dict[str, Tensor]:
        """The model's state."""
        return _under("model", self.tensors)

    @property
    def moments(self) -> Moments:
        """What the optimiser remembers of each parameter."""
        state: Moments = {}
        for name, tensor in _under("optimizer", self.tensors).items():
            index, key = name.split(".", 1)
            state.setdefault(int(index), {})[key] = tensor
        return state

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Put weights and moments back where both are whole."""
        model.load_state_dict(self.weights)
        optimizer.load_state_dict({"state": self.moments, "param_groups": optimizer.state_dict()["param_groups"]})


def write(folder: Path, identity: dict[str, Any], progress: Progress, model: nn.Module, moments: Moments) -> None:
    """Write the state of a run, whole or not at all."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, state in moments.items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
    header = {"run": json.dumps({"identity": identity, "progress": asdict(progress)})}
    content = save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, header)
    io.write(folder / TRAIN_STATE, content)


def read(folder: Path) -> Saved | None:
    """Read the state of a run; None where there is none.

    Raises
    ------
    CheckpointError
        If the file is damaged.
    """
    path = folder / TRAIN_STATE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["run"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        kept = header["progress"]
        # JSON has no numbers for keys.
        kept["snapshots"] = {int(step): digest for step, digest in kept["snapshots"].items()}
        return Saved(header["identity"], Progress(**kept), tensors)
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}). Delete it to start the run again.") from error


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
