"""Length generalisation: the loss past the training length, of the transformer and of psi as a recurrent network."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from nextlat_viz.analysis.episodes import heldout_episodes
from nextlat_viz.analysis.measure import Models, Rows, clustered, measure
from nextlat_viz.analysis.psi import batches, first_position, readers
from nextlat_viz.decoding.predictor import ModelPredictor
from nextlat_viz.errors import at_least
from nextlat_viz.latents.extraction import HELDOUT_SEED
from nextlat_viz.models import Transformer
from nextlat_viz.worlds import Episodes

TRUE_WORLD = "true world"


@measure(
    "length generalisation",
    by=("position", "reader"),
    unit="nats",
    better="lower",
    of=ModelPredictor,
    fits=lambda checkpoint: bool(checkpoint.world.state_names) and isinstance(checkpoint.network.backbone, Transformer),
)
def length_generalisation(
    models: Models[ModelPredictor],
    length: int | None = None,
    n: int = 256,
    *,
    start: int | None = None,
    seed: int = HELDOUT_SEED,
) -> Rows:
    """Loss by position, past the training length: of the transformer, of psi as a recurrent network, and the floor.

    Past its context the transformer meets positions it was never trained on. Psi starts from the transformer's state
    after `start` tokens, by default none, or one where the model has no start token; it reads the true tokens and has
    no positions.

    Parameters
    ----------
    length : int, optional
        Tokens read in each episode; by default three times the context, or a whole episode in a world of fixed length.
    n, start, seed : int
        Held-out episodes, tokens read before psi starts, seed of the episodes.

    Returns
    -------
    Measure
        By position (tokens read) and reader, ``"transformer"``, ``"psi"`` or, where the world knows its law,
        ``"true world"``: the mean loss of scored predictions in nats. Columns ``kl``, the mean KL to the exact law
        (NaN where it is unknown), and ``trained``, whether the position is within the context. Position 0 is the
        prediction of the first token by models with a start token. Positions where nothing is scored are NaN with 0
        trials. Positions of psi up to `start` are the transformer's.

    Raises
    ------
    ValueError
        Sequences longer than an episode of the world; several documents in an episode.

    Examples
    --------
    >>> losses = length_generalisation("rrxor/nextlat", length=24, n=32, progress=False)
    >>> sorted(set(losses.table["reader"])), int(losses.table["position"].max())
    (['psi', 'transformer', 'true world'], 24)
    """
    world, context = models.world, models.context
    assert context is not None
    ahead = int(world.predicts_next_token)
    if length is None:
        length = 3 * context if world.length is None else world.length - ahead
    at_least("length", length, 1 if start is None else start, "psi starts from there")
    if world.length is not None and length + ahead > world.length:
        raise ValueError(
            f"length={length} must be at most {world.length - ahead}: an episode of world {world.name!r} has "
            f"{world.length} tokens"
        )
    episodes = heldout_episodes(models, n, length + ahead, seed=seed)
    if "document" in episodes.states:
        raise ValueError(
            f"world {world.name!r} has several documents in an episode, and psi would continue across them: measure a "
            "world of one document per episode"
        )
    for model in models:
        scores = _losses(model, episodes, start)
        for column, position in enumerate(range(first_position(model), length + 1)):
            for reader, score in scores.items():
                scored = score.scored[:, column]
                known = not np.isnan(score.kl[:, column]).any()
                kl = clustered(score.kl[:, column], scored)["value"] if known else np.nan
                where = {"position": position, "reader": reader, "trained": position <= (model.context or 0)}
                yield model, {**where, **clustered(score.loss[:, column], scored), "kl": kl}
    place = "its first position" if start is None else f"position {start}"
    return {
        "note": "Loss after this many tokens. Past its context the transformer meets positions it was not trained on; "
        f"psi starts from the transformer's state at {place} and reads the true tokens."
    }


class _Scores(NamedTuple):
    """Loss and KL by episode and position, 0 where nothing is scored, and 1 where something is."""

    loss: Float[np.ndarray, "n t"]
    kl: Float[np.ndarray, "n t"]
    scored: Float[np.ndarray, "n t"]


@torch.no_grad()
def _losses(predictor: ModelPredictor, episodes: Episodes, start: int | None) -> dict[str, _Scores]:
    """Return the scores of each reader; the KL is NaN where the exact law is unknown."""
    parts: dict[str, list[list[np.ndarray]]] = {}
    functions = readers(predictor, episodes.tokens.shape[1], start)
    for rows, batch in batches(predictor, episodes):
        law = _law(predictor, episodes.tokens[rows])
        predicted = {
            reader: predictor.model.logits(read(batch.inputs)).double().log_softmax(dim=-1)
            for reader, read in functions.items()
        }
        exact = None
        if law is not None:
            exact = torch.as_tensor(law, device=batch.inputs.device)[:, : batch.inputs.shape[1]]
            predicted[TRUE_WORLD] = exact.log()
        scored = batch.target_mask & batch.valid
        for reader, log_q in predicted.items():
            loss = F.nll_loss(log_q.flatten(0, 1), batch.targets.flatten(), reduction="none").view(scored.shape)
            kl = torch.full_like(loss, torch.nan) if exact is None else _kl(exact, log_q)
            arrays = [torch.where(scored, values, 0.0) for values in (loss, kl)] + [scored.double()]
            parts.setdefault(reader, []).append([values.cpu().numpy() for values in arrays])
    return {reader: _Scores(*map(np.concatenate, zip(*pieces, strict=True))) for reader, pieces in parts.items()}


def _law(predictor: ModelPredictor, tokens: Int[np.ndarray, "n t"]) -> Float[np.ndarray, "n s v"] | None:
    """Return the exact law at every position of a batch; None where the world does not know it."""
    law, first = predictor.world.next_token_probs(tokens), predictor.world.start_probs()
    if law is None or first_position(predictor) == 1:
        return law
    start = np.full(law.shape[-1], np.nan) if first is None else first
    return np.concatenate([np.broadcast_to(start, (len(law), 1, len(start))), law], axis=1)


def _kl(exact: Float[Tensor, "b t v"], log_q: Float[Tensor, "b t v"]) -> Float[Tensor, "b t"]:
    # A token of exact probability 0 contributes 0, also where the model gives it 0.
    return torch.where(exact > 0, exact * (exact.log() - log_q), 0.0).sum(dim=-1)
