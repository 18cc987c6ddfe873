"""What the measures of latent dynamics ask of models: psi, states past the training length, means over episodes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nextlat_viz.analysis.measure import record
from nextlat_viz.decoding.predictor import ModelPredictor, Predictor, as_predictors
from nextlat_viz.latents.extraction import HELDOUT_SEED
from nextlat_viz.models import OBJECTIVES, Batch, LatentDynamics, NextLat, Transformer
from nextlat_viz.models.transformer import rotation_table
from nextlat_viz.training.presets import episode_length
from nextlat_viz.worlds import Episodes

BATCH = 64
TRANSFORMER, PSI = "transformer", "psi"


def trained(models: Any) -> list[ModelPredictor]:
    """Models whose hidden states can be read, of one world.

    Raises
    ------
    ValueError
        If one is no trained model of ours, such as the world itself.
    """
    found = []
    for one in as_predictors(models):
        if not isinstance(one, ModelPredictor):
            raise ValueError(f"{one.name} has no hidden states: this is measured of checkpoints only")
        found.append(one)
    return found


def psi_of(predictor: ModelPredictor) -> LatentDynamics:
    """The model's latent dynamics.

    Raises
    ------
    ValueError
        If its objective has none; those that have are named.
    """
    if not isinstance(predictor.model, NextLat):
        those = ", ".join(name for name, kind in OBJECTIVES.items() if issubclass(kind, NextLat))
        raise ValueError(
            f"{predictor.name} was trained by {predictor.objective}, which has no latent dynamics psi: measure models "
            f"trained by {those}"
        )
    return predictor.model.psi


def lengthened(backbone: Transformer, context: int) -> Transformer:
    """The same transformer for sequences longer than it was trained on: a copy with rotations of more positions.

    Rotary positions are a formula, not weights, so nothing is made up; whether the model can make anything of
    positions it has never seen is the question.
    """
    if context <= backbone.config.context:
        return backbone
    longer = copy.deepcopy(backbone)
    longer.config = backbone.config.model_copy(update={"context": context})
    longer.rotation = rotation_table(longer.config).to(backbone.rotation)
    return longer.requires_grad_(False)


def row(predictor: Predictor, **found: Any) -> dict[str, Any]:
    """A row of a measure's table about a model."""
    return record(predictor.world.name, predictor.objective, predictor.seed, predictor.name, **found)


def check_count(name: str, value: int, least: int, why: str = "") -> int:
    """The number, if it is at least so much."""
    if value < least:
        raise ValueError(f"{name}={value} must be at least {least}" + (f": {why}" if why else ""))
    return value


def heldout_episodes(
    models: list[ModelPredictor], n: int, length: int | None = None, seed: int = HELDOUT_SEED
) -> Episodes:
    """Held-out episodes as long as in training, of which all but the last token are read; or of another length.

    Of models with several contexts the shortest counts, so that all read the same.
    """
    check_count("n", n, 2, "a standard error needs two episodes")
    world = models[0].world
    if length is None:
        length = episode_length(world, min(one.model.backbone.config.context for one in models))
    return world.sample(n, length, seed=seed, split="test" if "test" in world.splits else "train")


def batches(predictor: ModelPredictor, episodes: Episodes) -> Iterator[tuple[slice, Batch]]:
    """Batches as in training, on the model's device, and which episodes they are."""
    device = predictor.model.backbone.head.weight.device
    for start in range(0, len(episodes), BATCH):
        rows = slice(start, start + BATCH)
        yield rows, Batch.from_episodes(episodes[rows], device)


def roll(predictor: ModelPredictor, tokens: Int[Tensor, "n t"], start: int = 1) -> Float[Tensor, "n t dim"]:
    """States after each token: the transformer's up to `start`, from there on psi's alone, reading the true tokens."""
    psi, backbone = psi_of(predictor), predictor.model.backbone
    if not 1 <= start <= min(tokens.shape[1], backbone.config.context):
        raise ValueError(
            f"start={start} must be between 1 and {min(tokens.shape[1], backbone.config.context)}: psi goes on from a "
            "state of the transformer, which has to read that many tokens"
        )
    embeddings = backbone.embed(tokens)
    states = list(backbone(tokens[:, :start]).unbind(dim=1))
    for t in range(start, tokens.shape[1]):
        states.append(psi(states[-1], embeddings[:, t]))
    return torch.stack(states, dim=1)


def readers(predictor: ModelPredictor, length: int, start: int = 1) -> dict[str, Callable[[Tensor], Tensor]]:
    """What gives hidden states after each of up to `length` tokens: the transformer and, where there is one, psi.

    Tokens (n, t) become states (n, t, dim); psi goes on from the transformer's state after `start` tokens.
    """
    found: dict[str, Callable[[Tensor], Tensor]] = {TRANSFORMER: lengthened(predictor.model.backbone, length)}
    if isinstance(predictor.model, NextLat):
        found[PSI] = lambda tokens: roll(predictor, tokens, start)
    return found


def clustered(sums: Float[np.ndarray, " n"], counts: Float[np.ndarray, " n"]) -> dict[str, float | int]:
    """Return ``value = sum(sums) / sum(counts)`` over episodes, its standard ``error`` and the episodes in it.

    Positions of one episode are not independent, so the error is that of a ratio of two sums over episodes (the
    linearised, "delta method" one).

    Examples
    --------
    >>> clustered(np.array([1.0, 3.0]), np.array([1.0, 1.0]))
    {'value': 2.0, 'error': 1.0, 'trials': 2}
    """
    if not np.isfinite(sums).all():
        raise ValueError(
            f"{int((~np.isfinite(sums)).sum())} of {len(sums)} episodes give NaN or infinity: was the model trained "
            "too fast? Measure an earlier snapshot, or another run"
        )
    # An episode whose states never move has nothing to divide by and errors all the same: it stays in.
    used = (counts > 0) | (sums != 0)
    sums, counts, n = sums[used], counts[used], int(used.sum())
    if n == 0:
        return {"value": float("nan"), "error": float("nan"), "trials": 0}
    if counts.sum() == 0:
        raise ValueError("the states of this model never change: there is nothing to compare an error with")
    value = float(sums.sum() / counts.sum())
    if n == 1:
        return {"value": value, "error": float("nan"), "trials": 1}
    spread = np.square(sums - value * counts).sum() / (n * (n - 1))
    return {"value": value, "error": float(np.sqrt(spread) / counts.mean()), "trials": n}
