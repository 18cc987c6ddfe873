"""What a piece of a batch is worth, so that the losses of the pieces add up to the loss of the whole.

Every term of a loss is a mean over what its mask scores, and masks differ from row to row: the mean of the pieces'
means is not the mean of the whole. Each piece's term is therefore weighed by its share of what the whole batch
scores of that term.
"""

from __future__ import annotations

from torch import Tensor

Terms = dict[str, float]


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
