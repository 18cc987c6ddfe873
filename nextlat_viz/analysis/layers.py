"""Layers: what each block of a transformer adds to the residual stream, and the loss of a prediction after it."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nextlat_viz.analysis.episodes import heldout_episodes
from nextlat_viz.analysis.measure import Models, Rows, clustered, measure
from nextlat_viz.analysis.psi import batches
from nextlat_viz.decoding.predictor import ModelPredictor
from nextlat_viz.latents.extraction import HELDOUT_SEED
from nextlat_viz.models import Batch, Transformer
from nextlat_viz.worlds import Episodes


@measure(
    "layer contributions",
    by=("site", "quantity"),
    unit={"loss": "nats", "norm": "of the stream before", "cosine": "cosine"},
    note="What each block adds to the residual stream: its norm relative to that of the stream before it, its cosine "
    "with that stream, and the loss in nats of the head read there (logit lens). Blocks that write little, or a low "
    "loss early, mean that the depth is not needed.",
    of=ModelPredictor,
    fits=lambda checkpoint: isinstance(checkpoint.network.backbone, Transformer),
)
def layer_contributions(models: Models[ModelPredictor], n: int = 256, *, seed: int = HELDOUT_SEED) -> Rows:
    """Measure what each block adds: how much, in which direction, and what the head reads after it.

    Parameters
    ----------
    n, seed : int
        Number and seed of held-out episodes.

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
        for (site, quantity), (sums, counts) in _sums(model, episodes).items():
            yield model, {"site": site, "quantity": quantity, **clustered(sums, counts)}


@torch.no_grad()
def _sums(
    predictor: ModelPredictor, episodes: Episodes
) -> dict[tuple[str, str], tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]]:
    """Return sums over positions, and the number of positions, by episode."""
    parts: dict[tuple[str, str], list[tuple[Tensor, Tensor]]] = {}
    for _, batch in batches(predictor, episodes):
        states = predictor.model.backbone.states(batch.inputs, batch.documents)
        sites = [site for site in states if site != "hidden"]
        for before, site in zip([None, *sites], sites, strict=False):
            quantities = {"loss": (_loss(predictor, states[site], batch), batch.target_mask)}
            if before is not None:
                update, stream = states[site] - states[before], states[before]
                quantities["norm"] = (update.norm(dim=-1) / stream.norm(dim=-1), batch.valid)
                quantities["cosine"] = (F.cosine_similarity(update, stream, dim=-1), batch.valid)
            for quantity, (values, mask) in quantities.items():
                sums = torch.where(mask, values, 0.0).double().sum(dim=1)
                parts.setdefault((site, quantity), []).append((sums, mask.sum(dim=1).double()))
    return {
        key: (torch.cat(sums).cpu().numpy(), torch.cat(counts).cpu().numpy())
        for key, pieces in parts.items()
        for sums, counts in [zip(*pieces, strict=True)]
    }


def _loss(predictor: ModelPredictor, stream: Float[Tensor, "b t dim"], batch: Batch) -> Float[Tensor, "b t"]:
    logits = predictor.model.logits(predictor.model.backbone.norm(stream)).float()
    return F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="none").view(batch.targets.shape)
