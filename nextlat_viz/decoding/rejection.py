"""Speculative sampling: accept drafts so that the tokens follow the model's own distribution."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def acceptance_probs(
    p: Float[Tensor, "b _k v"], q: Float[Tensor, "b k v"], drafts: Int[Tensor, "b k"]
) -> Float[Tensor, "b k"]:
    """Return min(1, p(x) / q(x)) for every draft x (Leviathan et al. 2023, arXiv:2211.17192, algorithm 1).

    Parameters
    ----------
    p : the model's distributions at the places of the drafts; further ones are ignored.
    q : the distributions that the drafts were drawn from.
    drafts : (b, k) tokens.

    Examples
    --------
    >>> p, q = torch.tensor([[[0.2, 0.8]]]), torch.tensor([[[0.4, 0.6]]])
    >>> acceptance_probs(p, q, torch.tensor([[0]])).item(), acceptance_probs(p, q, torch.tensor([[1]])).item()
    (0.5, 1.0)
    """
    k = drafts.shape[1]
    drafted_p, drafted_q = (law[:, :k].gather(2, drafts[..., None])[..., 0] for law in (p, q))
    # No draft is drawn where q is 0: that is padding, which is never accepted.
    return torch.where(drafted_q > 0, drafted_p / drafted_q, 0).clamp(max=1)


def accepted(
    chances: Float[Tensor, "b k"], counts: Int[Tensor, " b"], uniforms: Float[Tensor, "b k"]
) -> Int[Tensor, " b"]:
    """Count the accepted drafts of each row: those before the first rejected one, among the row's `counts`."""
    inside = torch.arange(chances.shape[1], device=chances.device) < counts[:, None]
    return ((uniforms < chances) & inside).long().cumprod(dim=1).sum(dim=1)


def replacement(
    p: Float[Tensor, "b _k v"], q: Float[Tensor, "b k v"], counts: Int[Tensor, " b"], kept: Int[Tensor, " b"]
) -> Float[Tensor, "b v"]:
    """Distribution of the token after the accepted drafts.

    After a rejection it is max(0, p - q), normalised; where all `counts` drafts were accepted, p.

    Examples
    --------
    >>> p, q = torch.tensor([[[0.2, 0.8], [0.5, 0.5]]]), torch.tensor([[[0.4, 0.6]]])
    >>> replacement(p, q, torch.tensor([1]), torch.tensor([0])).tolist()
    [[0.0, 1.0]]
    >>> replacement(p, q, torch.tensor([1]), torch.tensor([1])).tolist()
    [[0.5, 0.5]]
    """
    rows = torch.arange(len(p), device=p.device)
    own = p[rows, kept]
    if q.shape[1] == 0:
        return own
    drafted = q[rows, kept.clamp(max=q.shape[1] - 1)]
    more = (own - torch.where((kept < counts)[:, None], drafted, 0)).clamp(min=0)
    total = more.sum(dim=1, keepdim=True)
    # Where p and q differ only by rounding, p - q may have no positive part.
    return torch.where(total > 0, more / total.clamp(min=torch.finfo(total.dtype).tiny), own)


def sample_rows(probs: Float[Tensor, "b v"], uniforms: Float[Tensor, " b"]) -> Int[Tensor, " b"]:
    """Take a token per row, by inverting the cumulative distribution at a uniform number.

    Examples
    --------
    >>> sample_rows(torch.tensor([[0.5, 0.0, 0.5], [0.5, 0.0, 0.5]]), torch.tensor([0.4, 0.6])).tolist()
    [0, 2]
    """
    cumulative = probs.cumsum(dim=1)
    return (cumulative > (uniforms * cumulative[:, -1])[:, None]).long().argmax(dim=1)
