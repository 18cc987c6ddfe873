"""Losses of the output head: after each block of the transformer, and at positions past the training length."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from nextlat_viz.analysis.dynamics import readers
from nextlat_viz.analysis.episodes import first_position, heldout_episodes, over_batches
from nextlat_viz.analysis.measure import Models, Rows, clustered, measure
from nextlat_viz.decoding.predictor import ModelPredictor
from nextlat_viz.errors import at_least
from nextlat_viz.latents.extraction import HELDOUT_SEED
from nextlat_viz.latents.thinking import is_recursive
from nextlat_viz.models import Batch, Transformer
from nextlat_viz.worlds import Episodes

TRUE_WORLD = "true world"


@measure(
    "layer contributions",
    by=("site", "quantity"),
    unit={"loss": "nats", "norm": "of the stream before", "cosine": "cosine"},
    note="What each block adds to the residual stream: its norm relative to that of the stream before it, its cosine "
    "with that stream, and the loss in nats of the head read there (logit lens). Blocks that write little, or a low "
    "loss early, mean that the depth is not needed.",
    of=ModelPredictor,
    fits=lambda checkpoint: isinstance(checkpoint.network.backbone, Transformer) and not is_recursive(checkpoint),
)
def layer_contributions(models: Models[ModelPredictor], n: int = 256, *, seed: int = HELDOUT_SEED) -> Rows:
    """Measure what each block adds: how much, in which direction, and what the head reads after it.

    Returns
    -------
    Measure
        By site and quantity, for ``"embed"`` and each block: ``"loss"``, the mean loss in nats of what the head reads
        from the stream there after the last norm (the logit lens, nostalgebraist 2020); and for the blocks ``"norm"``,
        the mean of ``|x_l - x_{l-1}| / |x_{l-1}|``, and ``"cosine"``, the mean cosine of ``x_l - x_{l-1}`` with
        ``x_{l-1}`` (below 0 the block removes what was there). The loss after the last block is the model's own.

    Raises
    ------
    ValueError
        No trained model; fewer than two episodes; latents that are not finite.

    Examples
    --------
    >>> table = layer_contributions("mess3/nextlat", n=16, progress=False).table
    >>> table[["site", "quantity"]].agg(" ".join, axis=1).tolist()[:4]
    ['embed loss', 'block0 loss', 'block0 norm', 'block0 cosine']
    """
    episodes = heldout_episodes(models, n, seed=seed)
    for model in models:
        for (site, quantity), (sums, counts) in over_batches(model, episodes, partial(_sums, model)).items():
            yield model, {"site": site, "quantity": quantity, **clustered(sums, counts)}


def _sums(predictor: ModelPredictor, rows: slice, batch: Batch) -> dict[tuple[str, str], tuple[Tensor, Tensor]]:
    """Return sums over positions, and the number of positions, by episode."""
    sums = {}
    states = predictor.model.backbone.states(batch.inputs, batch.documents)
    sites = [site for site in states if site != "hidden"]
    for before, site in zip([None, *sites], sites, strict=False):
        log_probs = predictor.model.logits(predictor.model.backbone.norm(states[site])).float().log_softmax(dim=-1)
        quantities = {"loss": (_nll(log_probs, batch), batch.target_mask)}
        if before is not None:
            update, stream = states[site] - states[before], states[before]
            quantities["norm"] = (update.norm(dim=-1) / stream.norm(dim=-1), batch.valid)
            quantities["cosine"] = (F.cosine_similarity(update, stream, dim=-1), batch.valid)
        for quantity, (values, mask) in quantities.items():
            counts = mask.sum(dim=1).double()
            sums[site, quantity] = (torch.where(mask, values, 0.0).double().sum(dim=1), counts)
    return sums


def _nll(log_probs: Float[Tensor, "b t v"], batch: Batch) -> Float[Tensor, "b t"]:
    return F.nll_loss(log_probs.flatten(0, 1), batch.targets.flatten(), reduction="none").view(batch.targets.shape)


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
    start : int, optional
        Tokens read before psi starts.

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
            for reader, arrays in scores.items():
                loss, kl, scored = (array[:, column] for array in arrays)
                mean_kl = np.nan if np.isnan(kl).any() else clustered(kl, scored)["value"]
                where = {"position": position, "reader": reader, "trained": position <= (model.context or 0)}
                yield model, {**where, **clustered(loss, scored), "kl": mean_kl}
    place = "its first position" if start is None else f"position {start}"
    return {
        "note": "Loss after this many tokens. Past its context the transformer meets positions it was not trained on; "
        f"psi starts from the transformer's state at {place} and reads the true tokens."
    }


def _losses(
    predictor: ModelPredictor, episodes: Episodes, start: int | None
) -> dict[str, list[Float[np.ndarray, "n t"]]]:
    """Return for each reader, by episode and position, the loss, the KL, and 1 where a prediction is scored, else 0.

    Loss and KL are 0 where nothing is scored. The KL is NaN where the exact law is unknown.
    """
    functions = readers(predictor, episodes.tokens.shape[1], start)

    def scores(rows: slice, batch: Batch) -> dict[str, list[Tensor]]:
        law = _law(predictor, episodes.tokens[rows])
        predicted = {
            reader: predictor.model.logits(read(batch.inputs)).double().log_softmax(dim=-1)
            for reader, read in functions.items()
        }
        exact = None
        if law is not None:
            exact = torch.as_tensor(law, device=batch.inputs.device)[:, : batch.inputs.shape[1]]
            predicted[TRUE_WORLD] = exact.log()
        scored, results = batch.target_mask & batch.valid, {}
        for reader, log_q in predicted.items():
            loss = _nll(log_q, batch)
            kl = torch.full_like(loss, torch.nan) if exact is None else _kl(exact, log_q)
            results[reader] = [*(torch.where(scored, values, 0.0) for values in (loss, kl)), scored.double()]
        return results

    return over_batches(predictor, episodes, scores)


def _law(predictor: ModelPredictor, tokens: Int[np.ndarray, "n t"]) -> Float[np.ndarray, "n s v"] | None:
    """Return the exact law at every position of a batch; None where the world does not know it."""
    law, first = predictor.world.next_token_probs(tokens), predictor.world.start_probs()
    if law is None or first_position(predictor) == 1:
        return law
    start = np.full(law.shape[-1], np.nan) if first is None else first
    return np.concatenate([np.broadcast_to(start, (len(law), 1, len(start))), law], axis=1)


def _kl(exact: Float[Tensor, "b t v"], log_q: Float[Tensor, "b t v"]) -> Float[Tensor, "b t"]:
    # A token of exact probability 0 contributes 0, even if the model's probability is 0 too.
    return torch.where(exact > 0, exact * (exact.log() - log_q), 0.0).sum(dim=-1)
