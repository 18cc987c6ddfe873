"""Latent dynamics: the states that psi predicts, and their distance from the transformer's own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from nextlat_viz.analysis.episodes import first_position, heldout_episodes, over_batches
from nextlat_viz.analysis.measure import Models, Rows, clustered, measure
from nextlat_viz.decoding.predictor import ModelPredictor
from nextlat_viz.errors import at_least
from nextlat_viz.latents.extraction import HELDOUT_SEED
from nextlat_viz.models import OBJECTIVES, Batch, NextLat, Objective, Transformer
from nextlat_viz.models.torch_state import torch_defaults
from nextlat_viz.models.transformer import rotation_table
from nextlat_viz.training.trained import TrainedModel
from nextlat_viz.worlds import Episodes, checks
from nextlat_viz.worlds.base import Tokens

TRANSFORMER, PSI = "transformer", "psi"


@torch_defaults()
def psi_rollout(model: Any, tokens: Tokens, start: int | None = None) -> Float[np.ndarray, "episodes positions dim"]:
    """Roll psi as a recurrent network over true tokens: ``h^_{t+1} = psi(h^_t, x_{t+1})`` from the true ``h_start``.

    Psi reads no positions, so sequences may have any length (arXiv:2511.05963, section 5, the A5 word problem).

    Parameters
    ----------
    model : Checkpoint, name or ModelPredictor
        Trained by an objective with latent dynamics.
    tokens : int array (episodes, positions)
        Of any length, even past the model's context.
    start : int, optional
        Tokens the transformer reads; psi reads the others. Default 0, or 1 where the model has no start token.

    Returns
    -------
    float32 array (episodes, positions, dim)
        The state after each token: the transformer's up to position `start`, then psi's.

    Raises
    ------
    ValueError
        A model without psi; a `start` the transformer cannot read; tokens outside the vocabulary.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> checkpoint = nlv.load("rrxor/nextlat")
    >>> psi_rollout(checkpoint, checkpoint.world.sample(2, 40, seed=0).tokens).shape
    (2, 40, 64)
    """
    chosen: Models[ModelPredictor] = Models("psi_rollout", model, ModelPredictor)
    if len(chosen.all) != 1:
        raise ValueError(f"psi_rollout takes one model, got {len(chosen.all)}")
    (predictor,) = chosen.all
    psi_of(predictor)
    tokens = checks.tokens(predictor.world, tokens)
    if tokens.shape[1] == 0:
        raise ValueError("tokens must be of at least one position")
    with torch.no_grad():
        backbone = predictor.model.backbone
        states = psi_states(predictor, backbone.started(predictor.tensor(tokens)), start)
        return states[:, backbone.offset :].float().cpu().numpy()


def _has_psi(checkpoint: TrainedModel) -> bool:
    return hasattr(checkpoint.network, "psi")


@measure(
    "transition consistency",
    unit="of the error of no change",
    better="lower",
    references={"no change": 1.0},
    note="Squared error of psi(h_t, x_{t+1}) against h_{t+1}, relative to that of predicting h_t again. NextLat "
    "(arXiv:2511.05963), eq. 9.",
    of=ModelPredictor,
    fits=_has_psi,
)
def transition_consistency(models: Models[ModelPredictor], n: int = 256, *, seed: int = HELDOUT_SEED) -> Rows:
    """Error of ``psi(h_t, x_{t+1})`` against ``h_{t+1}``, over the error of predicting no change.

    ``sum |psi(h_t, x_{t+1}) - h_{t+1}|^2 / sum |h_{t+1} - h_t|^2`` over all positions of held-out episodes. It is 0
    where the state is a function of the previous state and the token; with an exact next-token head such a state is a
    belief state (arXiv:2511.05963, theorem 3.2).

    Returns
    -------
    Measure
        A row per model; the standard error is over episodes.

    Raises
    ------
    ValueError
        A model without psi; fewer than two episodes.

    Examples
    --------
    >>> consistency = transition_consistency("rrxor/nextlat", n=32, progress=False)
    >>> bool(0 < consistency.table["value"].iloc[0] < 1)
    True
    """
    episodes = _episodes(models, n, seed)
    for model in models:
        above, below = over_batches(model, episodes, partial(_divergence, model, 1))["relative"]
        yield model, clustered(above[:, 0], below[:, 0])


@measure(
    "rollout divergence",
    by=("k", "quantity"),
    unit={"relative": "of no change", "distance": "latent units", "kl": "nats"},
    better="lower",
    note="psi rolled k steps over the true tokens from every true state, against the transformer's own states and "
    "predictions: relative to the error of no change, as a distance between latents, and in nats. NextLat "
    "(arXiv:2511.05963), section 3.",
    of=ModelPredictor,
    fits=_has_psi,
)
def rollout_divergence(
    models: Models[ModelPredictor], steps: int | None = None, n: int = 256, *, seed: int = HELDOUT_SEED
) -> Rows:
    """How far psi, rolled out k steps over true tokens from every true state, drifts from the transformer.

    Parameters
    ----------
    steps : int, optional
        Largest k; may exceed the horizon that psi was trained for. Default 8, or fewer in shorter episodes.

    Returns
    -------
    Measure
        By k and quantity: ``"relative"``, ``sum |h^_{t+k} - h_{t+k}|^2 / sum |h_{t+k} - h_t|^2`` (1: no better than
        no change; at k = 1 it is `transition_consistency`); ``"distance"``, the mean of ``|h^_{t+k} - h_{t+k}|`` in
        the units of the hidden states; ``"kl"``, the mean of KL(head(h_{t+k}) || head(h^_{t+k})) in nats, where
        the prediction is scored. Column ``horizon``, the number of steps psi was trained for.

    Raises
    ------
    ValueError
        A model without psi; steps that do not fit into an episode.

    Examples
    --------
    >>> divergence = rollout_divergence("rrxor/nextlat", steps=2, n=32, progress=False)
    >>> divergence.table[["k", "quantity"]].values.tolist()
    [[1, 'relative'], [1, 'distance'], [1, 'kl'], [2, 'relative'], [2, 'distance'], [2, 'kl']]
    """
    episodes = _episodes(models, n, seed)
    read = episodes.tokens.shape[1] - (episodes.targets is None)
    steps = min(8, read - 1) if steps is None else at_least("steps", steps)
    if steps >= read:
        raise ValueError(f"steps={steps} must be between 1 and {read - 1}: the model reads {read} tokens of an episode")
    for model in models:
        ratios, horizon = over_batches(model, episodes, partial(_divergence, model, steps)), psi_of(model).horizon
        for k in range(steps):
            for quantity, (above, below) in ratios.items():
                score = clustered(above[:, k], below[:, k])
                yield model, {"k": k + 1, "quantity": quantity, "horizon": horizon, **score}


def _episodes(models: Models[ModelPredictor], n: int, seed: int) -> Episodes:
    for model in models.all:
        psi_of(model)
    return heldout_episodes(models, n, seed=seed)


def _divergence(predictor: ModelPredictor, steps: int, rows: slice, batch: Batch) -> dict[str, list[Tensor]]:
    """Return the numerator and the denominator of each quantity: sums over positions, by episode and step."""
    model = psi_of(predictor)
    states = model.backbone.states(batch.inputs, batch.documents)
    hidden = states["hidden"]
    # Softmaxes over a large vocabulary take most of the time: compute them only at scored positions, and those of
    # the transformer once for all steps.
    log_probs = _log_probs(predictor, hidden[batch.target_mask])
    place = batch.target_mask.flatten().cumsum(dim=0).view_as(batch.target_mask) - 1
    ratios: dict[str, list[tuple[Tensor, Tensor]]] = {"relative": [], "distance": [], "kl": []}
    for i, guess in enumerate(model.psi.rollout(hidden, states["embed"], steps)):
        true, inside = hidden[:, i + 1 :], batch.inside(i + 1)
        scored = inside & batch.target_mask[:, i + 1 :]
        missed = (guess - true).double().square().sum(-1)
        moved = (true - hidden[:, : -i - 1]).double().square().sum(-1)
        kl = torch.zeros_like(missed)
        p, q = log_probs[place[:, i + 1 :][scored]], _log_probs(predictor, guess[scored])
        kl[scored] = F.kl_div(q, p, reduction="none", log_target=True).sum(dim=-1)
        ratios["relative"].append(((missed * inside).sum(dim=1), (moved * inside).sum(dim=1)))
        ratios["distance"].append(((missed.sqrt() * inside).sum(dim=1), inside.double().sum(dim=1)))
        ratios["kl"].append((kl.sum(dim=1), scored.double().sum(dim=1)))
    return {
        quantity: [torch.stack(sums, dim=1) for sums in zip(*pairs, strict=True)] for quantity, pairs in ratios.items()
    }


def _log_probs(predictor: ModelPredictor, hidden: Float[Tensor, "m dim"]) -> Float[Tensor, "m v"]:
    return predictor.model.logits(hidden).double().log_softmax(dim=-1)


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


def psi_states(predictor: ModelPredictor, inputs: Int[Tensor, "n t"], start: int | None) -> Float[Tensor, "n t dim"]:
    """Return the states after each input: the transformer's up to position `start`, then psi's on the true tokens.

    The inputs are those of a batch, including the start token (position 0) of models that have one. By default psi
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
    rolled = model.psi.read(read[:, -1], backbone.embed(inputs[:, start + 1 - first :]))
    return torch.cat([read, rolled], dim=1)


def readers(predictor: ModelPredictor, length: int, start: int | None = None) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return functions from the inputs of batches (n, t) to states (n, t, dim), for up to `length` tokens.

    One is the transformer. The other, for models that have it, is psi, which starts from the transformer's state at
    position `start`.
    """
    functions: dict[str, Callable[[Tensor], Tensor]] = {TRANSFORMER: lengthened(predictor.model.backbone, length)}
    if isinstance(predictor.model, NextLat):
        functions[PSI] = lambda inputs: psi_states(predictor, inputs, start)
    return functions


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
