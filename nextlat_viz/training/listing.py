"""Tables of checkpoints, and of the cost of training, counted from the shapes of tensors without training."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nextlat_viz import io, worlds
from nextlat_viz.errors import CheckpointError, one_of
from nextlat_viz.models import OBJECTIVES, Batch
from nextlat_viz.training.card import CARD, Card, read_card
from nextlat_viz.training.checkpoint import new_model, shipped_folders
from nextlat_viz.training.config import PRESETS, TrainConfig
from nextlat_viz.worlds.headline import headline

if TYPE_CHECKING:
    import pandas as pd


def list_checkpoints(folder: str | os.PathLike[str] | None = None) -> pd.DataFrame:
    """Table of the shipped checkpoints (or those under `folder`): what was trained, on which world, and how well.

    ``excess`` is the loss above the floor in nats per token; ``measure`` and ``value`` are the world's headline
    measure at the end of training, if it was logged: the ``accuracy`` of the decisive prediction, the
    ``belief_r2`` or the probability on ``legal`` tokens. A folder whose card cannot be read is left out, with a
    warning that names the file.

    Raises
    ------
    CheckpointError
        If there is no such `folder`.

    Examples
    --------
    >>> table = list_checkpoints()
    >>> sorted(set(table["objective"]))
    ['dis', 'equal_depth', 'jtp', 'mtp', 'next_token', 'nextlat', 'one_pass', 'trm']
    >>> table.columns.tolist()[:6]
    ['name', 'world', 'objective', 'seed', 'excess', 'measure']
    """
    import pandas as pd

    if folder is None:
        folders = list(shipped_folders())
    else:
        root = io.resolve(folder, "folder")
        if not root.is_dir():
            raise CheckpointError(f"folder={str(folder)!r} does not exist: give the folder that holds the runs")
        folders = sorted(path.parent for path in root.rglob(CARD))
    rows = []
    for path in folders:
        try:
            card = read_card(path, Card)
        except CheckpointError as error:
            warnings.warn(f"left out: {error}", stacklevel=2)
            continue
        measure = headline(card.metrics)
        rows.append(
            {
                "name": "/".join(path.parts[-3:]) if folder is None else card.name,
                "world": worlds.title(card.world) if "name" in card.world else "",
                "objective": card.objective,
                "seed": card.seed,
                "excess": card.metrics.get("excess"),
                "measure": measure,
                "value": card.metrics.get(measure),
                "steps": card.steps,
                "parameters": card.parameters,
                **{name: value for name, value in card.metrics.items() if name not in (measure, "excess")},
                "snapshots": len(card.snapshots),
                "folder": str(path),
            }
        )
    return pd.DataFrame(rows)


# The paper's tasks: preset, its entry, tokens of the vocabulary and of a sequence. Manhattan has 4,580 intersections,
# eight turns and an end; FineWeb-Edu is counted with GPT-2's vocabulary.
TASKS = {
    "Manhattan": ("paper", "taxi", 4589, 100),
    "Countdown": ("paper", "countdown", 10_008, 29),
    "Path-Star G(2,10)": ("paper", "path_star", 104, 68),
    "TinyStories": ("paper", "text", 1000, 256),
    "A5": ("paper", "group", 60, 12),
    "FineWeb-Edu": ("paper_web", "default", 50_257, 1024),
}
# Assumed, not measured, operations per second of an NVIDIA A100 of 80 GB: half of its peak of 19.5e12 in float32, and
# three tenths of its peak of 312e12 in bfloat16.
RATES = {"32-true": 0.5 * 19.5e12, "bf16-mixed": 0.3 * 312e12}
GPU_BYTES = 80e9
# Weights, gradients and AdamW's two moments, float32.
BYTES_PER_PARAMETER = 4 * 4


@dataclass(frozen=True)
class StepCost:
    """Costs of training: the number of parameters; for each sequence of a step, operations and bytes of activations."""

    parameters: int
    operations: float
    activations: float

    @property
    def fixed(self) -> int:
        return BYTES_PER_PARAMETER * self.parameters

    def bytes(self, sequences: int) -> float:
        """Approximate peak memory of a step on this many sequences at once."""
        return self.fixed + sequences * self.activations


def cost(objective: str, config: TrainConfig, vocabulary: int) -> StepCost:
    """Count what an optimiser step costs, for each sequence of `config.context` tokens.

    Operations are those of the matrix products and of attention, forward and backward, counted by torch. Activations
    are what autograd keeps for the backward pass, in float32. No memory is used: the tensors have shapes and no values.

    Parameters
    ----------
    objective : ``"next_token"``, ``"nextlat"``, ``"mtp"``, ``"jtp"`` or ``"bst"``.
    vocabulary : number of tokens.

    Raises
    ------
    UnknownNameError
        If there is no such objective.

    Examples
    --------
    >>> small = cost("next_token", TrainConfig(), vocabulary=3)
    >>> small.parameters, f"{small.operations:.1e}", f"{small.bytes(64):.1e}"
    (164864, '1.2e+07', '1.8e+07')
    """
    from torch.utils.flop_counter import FlopCounterMode

    one_of("objective", objective, [name for name, kind in OBJECTIVES.items() if kind.next_tokens])
    rows, saved = 2, dict[int, int]()
    with torch.device("meta"):
        model = new_model(objective, config, vocabulary)
        tokens = torch.zeros(rows, config.context, dtype=torch.long)
        everywhere = torch.ones_like(tokens, dtype=torch.bool)
    weights = {weight.untyped_storage()._cdata for weight in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        # A weight is in memory anyway, even if it is saved transposed.
        if not isinstance(tensor, nn.Parameter) and storage._cdata not in weights:
            saved[storage._cdata] = storage.nbytes()
        return tensor

    with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        model(Batch(tokens, tokens, everywhere, everywhere))["loss"].backward()
    parameters = sum(weight.numel() for weight in model.parameters())
    return StepCost(parameters, counter.get_total_flops() / rows, sum(saved.values()) / rows)


def cost_table(objectives: tuple[str, ...] = ("next_token", "nextlat")) -> pd.DataFrame:
    """Return what the paper's sizes cost on one A100 of 80 GB: a row for each task and objective.

    ``millions`` of parameters; ``PFLOP``, 1e15 operations, in all; hours of one GPU at the assumed
    `RATES` in float32 and in bfloat16; ``GB fixed`` of weights, gradients and AdamW; ``GB activations`` of the whole
    batch in float32; and ``accumulate``, the pieces into which the batch must be divided to fit.
    """
    import pandas as pd

    rows = []
    for task, (preset, world, vocabulary, length) in TASKS.items():
        config = PRESETS[preset][world].model_copy(update={"context": length})
        for objective in objectives:
            step = cost(objective, config, vocabulary)
            total = step.operations * config.batch_size * config.steps
            activations = step.activations * config.batch_size
            rows.append(
                {
                    **{"task": task, "objective": objective, "millions": step.parameters / 1e6},
                    **{"PFLOP": total / 1e15, "hours float32": total / RATES["32-true"] / 3600},
                    **{"hours bfloat16": total / RATES["bf16-mixed"] / 3600, "GB fixed": step.fixed / 1e9},
                    **{"GB activations": activations / 1e9},
                    "accumulate": int(-(-activations // (0.9 * GPU_BYTES - step.fixed))),
                }
            )
    return pd.DataFrame(rows)
