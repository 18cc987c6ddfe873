"""States of a model for measures: from its transformer, also past the training length, and from psi."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nextlat_viz.decoding.predictor import ModelPredictor
from nextlat_viz.models import OBJECTIVES, Batch, NextLat, Objective, Transformer
from nextlat_viz.models.transformer import rotation_table
from nextlat_viz.worlds import Episodes

BATCH = 64
TRANSFORMER, PSI = "transformer", "psi"
K = TypeVar("K")


def psi_of(predictor: ModelPredictor) -> NextLat:
    """Return the model, which must have latent dynamics psi."""
    return with_psi(predictor.model, f"{predictor.name} was trained by {predictor.objective}, which")


def with_psi(model: Objective, name: str) -> NextLat:
    """Return a model that must have psi; the error for one without begins with its name."""
    if not isinstance(model, NextLat):
        objectives = ", ".join(name for name, kind in OBJECTIVES.items() if issubclass(kind, NextLat))
        raise ValueError(
            f"{name} has no latent dynamics psi: give a model trained by {objectives}, or add psi with finetune"
        )
    return model


def lengthened(backbone: Transformer, context: int) -> Transformer:
    """Return the transformer for sequences longer than it was trained on: a copy with rotations of more positions.

    Rotary positions are computed by a formula and have no weights, so the copy has no new parameters.
    """
    if context <= backbone.config.context:
        return backbone
    longer = copy.deepcopy(backbone)
    longer.config = backbone.config.model_copy(update={"context": context})
    longer.rotation = rotation_table(longer.config).to(backbone.rotation)
    return longer.requires_grad_(False)


def batches(predictor: ModelPredictor, episodes: Episodes) -> Iterator[tuple[slice, Batch]]:
    """Yield batches as in training, on the model's device, with the slice of episodes in each."""
    backbone = predictor.model.backbone
    for first in range(0, len(episodes), BATCH):
        rows = slice(first, first + BATCH)
        yield rows, Batch.from_episodes(episodes[rows], backbone.head.weight.device, start=backbone.start)


@torch.no_grad()
def over_batches(
    predictor: ModelPredictor, episodes: Episodes, compute: Callable[[slice, Batch], Mapping[K, Sequence[Tensor]]]
) -> dict[K, list[np.ndarray]]:
    """Compute tensors by name, whose rows are episodes, of every batch, and return those of all batches joined."""
    parts: dict[K, list[list[np.ndarray]]] = {}
    for rows, batch in batches(predictor, episodes):
        for name, tensors in compute(rows, batch).items():
            parts.setdefault(name, []).append([tensor.cpu().numpy() for tensor in tensors])
    return {name: [np.concatenate(arrays) for arrays in zip(*pieces, strict=True)] for name, pieces in parts.items()}


def first_position(predictor: ModelPredictor) -> int:
    """Return the first position at which a model has a state: 0 with a start token, else 1."""
    return 1 - predictor.model.backbone.offset


def psi_states(predictor: ModelPredictor, inputs: Int[Tensor, "n t"], start: int | None) -> Float[Tensor, "n t dim"]:
    """Return the states after each input: the transformer's up to position `start`, then psi's on the true tokens.

    The inputs are those of a batch, with the start token where the model has one: it is position 0. By default psi
    starts at the first position.
    """
    model, backbone = psi_of(predictor), predictor.model.backbone
    first = first_position(predictor)
    start = first if start is None else start
    read = inputs.shape[1] - backbone.offset
    last = min(read, predictor.context or read)
    if not first <= start <= last:
        raise ValueError(
            f"start={start} must be between {first} and {last}: psi starts from a state of the transformer, which has "
            "to read that many tokens"
        )
    read = backbone(inputs[:, : start + 1 - first])
    return torch.cat([read, rollout(model, read[:, -1], inputs[:, start + 1 - first :])], dim=1)


def rollout(model: NextLat, state: Float[Tensor, "*n dim"], tokens: Int[Tensor, "*n k"]) -> Float[Tensor, "*n k dim"]:
    """Roll psi out from states over tokens: ``h_{t+1} = psi(h_t, embed(x_{t+1}))``."""
    embeddings = model.backbone.embed(tokens)
    states = []
    for embedding in embeddings.unbind(dim=-2):
        state = model.psi(state, embedding)
        states.append(state)
    return torch.stack(states, dim=-2) if states else embeddings


def readers(predictor: ModelPredictor, length: int, start: int | None = None) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return functions from the inputs of batches (n, t) to states (n, t, dim), for up to `length` tokens.

    One is the transformer; the other, where the model has it, is psi, which starts from the transformer's state at
    position `start`.
    """
    functions: dict[str, Callable[[Tensor], Tensor]] = {TRANSFORMER: lengthened(predictor.model.backbone, length)}
    if isinstance(predictor.model, NextLat):
        functions[PSI] = lambda inputs: psi_states(predictor, inputs, start)
    return functions
