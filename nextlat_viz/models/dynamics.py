"""psi, the latent dynamics: from a hidden state and the next token to the next hidden state."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn


class LatentDynamics(nn.Module):
    """h^_{t+1} = h_t + f_psi(LayerNorm([h_t ; emb(x_{t+1})]))  (NextLat, eq. 9).

    `f_psi` is three linear layers (or another number) with GELU between; it predicts the change of the state, not the
    state.

    Examples
    --------
    >>> psi = LatentDynamics(dim=8, width=16)
    >>> psi(torch.zeros(2, 5, 8), torch.zeros(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, dim: int, width: int, layers: int = 3) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(2 * dim)
        sizes = [2 * dim, *[width] * (layers - 1), dim]
        parts: list[nn.Module] = []
        for before, after in pairwise(sizes):
            parts += [nn.Linear(before, after), nn.GELU()]
        self.layers = nn.Sequential(*parts[:-1])

    def forward(self, hidden: Float[Tensor, "*b dim"], embedding: Float[Tensor, "*b dim"]) -> Float[Tensor, "*b dim"]:
        """Predicted next hidden state, from the current one and the embedding of the token read next."""
        return hidden + self.layers(self.norm(torch.cat([hidden, embedding], dim=-1)))

    def rollout(
        self, hidden: Float[Tensor, "b t dim"], embeddings: Float[Tensor, "b t dim"], horizon: int
    ) -> list[Float[Tensor, "b s dim"]]:
        """Teacher-forced rollouts from every position: item i-1 holds h^_{t+i} for t = 1..T-i.

        Item i-1 has T-i positions and lines up with `hidden[:, i:]`, the states it predicts.
        """
        rolled, current = [], hidden
        for i in range(1, horizon + 1):
            current = self(current[:, :-1], embeddings[:, i:])
            rolled.append(current)
        return rolled
