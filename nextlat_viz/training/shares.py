"""What a piece of a batch is worth, so that the losses of the pieces add up to the loss of the whole.

Every term of a loss is a mean over what its mask scores, and masks differ from row to row: the mean of the pieces'
means is not the mean of the whole. Each piece's term is therefore weighed by its share of what the whole batch
scores of that term.
"""

from __future__ import annotations

from torch import Tensor

from nextlat_viz.models import Batch, BeliefState, JointToken, MultiToken, NextLat, Objective

Terms = dict[str, float]


def weights(model: Objective) -> Terms:
    """Weight of each term in the objective's loss."""
    if isinstance(model, NextLat):
        return {"next_token": 1.0, "next_h": model.lambda_h, model.token_term: model.lambda_kl}
    if isinstance(model, MultiToken | JointToken):
        return {"next_token": 1.0, "future": model.lambda_future}
    if isinstance(model, BeliefState):
        # Its next-token loss is measured, and minimised as part of "next".
        return {"next_token": 0.0, "next": 1.0, "previous": 1.0}
    return {"next_token": 1.0}


def scored(model: Objective, batch: Batch) -> dict[str, int]:
    """How many predictions each term is a mean over."""
    found = {"next_token": batch.target_mask.sum()}
    if isinstance(model, NextLat | MultiToken | JointToken):
        offsets = range(1, model.horizon + 1)
        ahead = sum(
            ((batch.inside(i) & batch.target_mask[:, i:]).sum() for i in offsets), start=found["next_token"] * 0
        )
        if isinstance(model, NextLat):
            found["next_h"] = sum((batch.inside(i).sum() for i in offsets), start=ahead * 0)
            found[model.token_term] = ahead
        else:
            found["future"] = ahead
    if isinstance(model, BeliefState):
        found["next"], found["previous"] = _pairs(model, batch)
    return {name: int(count) for name, count in found.items()}


def shares(part: dict[str, int], whole: dict[str, int]) -> Terms:
    """Each term's share of the whole; 0 where the whole scores nothing.

    Examples
    --------
    >>> shares({"next_token": 3}, {"next_token": 12})
    {'next_token': 0.25}
    """
    return {name: count / max(whole[name], 1) for name, count in part.items()}


def weighed(losses: dict[str, Tensor], weight: Terms, share: Terms) -> dict[str, Tensor]:
    """A piece's part of every term, and of the loss."""
    terms = {name: losses[name] * share[name] for name in weight}
    # The sum starts from the whole loss times nothing: no weight is left out, which DDP would wait for.
    loss = sum((terms[name] * factor for name, factor in weight.items() if factor), start=losses["loss"] * 0)
    return {"loss": loss, **terms}


def _pairs(model: BeliefState, batch: Batch) -> tuple[Tensor, Tensor]:
    """Pairs of a prefix and a suffix that count forwards and backwards."""
    document = model._documents(batch)
    rows, length = document.shape
    target = batch.target_mask.new_zeros(rows, length)
    target[:, 1:] = batch.target_mask
    t, s = model._pairs(length, batch.seed, document.device)
    own = document[:, t]
    together = (document[:, s.clamp(max=length - 1)] == own) | (s == length)
    forwards = target[:, t + 1] & together
    backwards = target[:, s - 1] & together & (document[:, s - 1] == own)
    return forwards.sum(), backwards.sum()
