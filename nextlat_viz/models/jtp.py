"""Joint multi-token prediction: the next tokens, each given those before it (Ahn et al. 2025, arXiv:2503.21801)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nextlat_viz.models.attention import Attention
from nextlat_viz.models.objective import Batch, FutureTokens
from nextlat_viz.models.transformer import Transformer


class JointToken(FutureTokens):
    """L = L_next_token + lambda_future * mean over i = 1..d and t of -log p(x_{t+1+i} | Fetch(h_t, x_{t+1:t+i})).

    Fetch is one self-attention layer over [h_t, emb(x_{t+1}), ..., emb(x_{t+i})]; the backbone's output head reads its
    last position. Its only information about the past is h_t, the hidden state, which is computed before this module.
    """

    name = "jtp"
    label = "JTP"

    def __init__(self, backbone: Transformer, horizon: int = 1, lambda_future: float = 1.0) -> None:
        super().__init__(backbone, horizon, lambda_future)
        self.norm_in, self.norm_out = nn.RMSNorm(backbone.config.dim), nn.RMSNorm(backbone.config.dim)
        self.fetch = Attention(backbone.config)
        self.fetch.apply(backbone.initialise)

    def forward(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        states = self.backbone.states(batch.inputs, batch.documents)
        hidden, embeddings = states["hidden"], states["embed"]
        b, t, dim = hidden.shape
        d = self.horizon
        # Window t holds h_t and the embeddings of the d tokens after it; it is zero past the end.
        padded = torch.cat([embeddings, embeddings.new_zeros(b, d, dim)], dim=1)
        following = padded[:, 1:].unfold(1, d, 1).transpose(2, 3)
        window = torch.cat([hidden[:, :, None], following], dim=2).flatten(0, 1)
        _, rotation = self.backbone.geometry(d + 1, None)
        fetched = window + self.fetch(self.norm_in(window), rotation, None, None, 0)
        fetched = self.norm_out(fetched).view(b, t, d + 1, dim)
        return self.losses(hidden, (fetched[:, :-i, i] for i in range(1, d + 1)), batch)
