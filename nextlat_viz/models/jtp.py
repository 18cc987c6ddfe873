"""Joint multi-token prediction: the next tokens, each given those before it (Ahn et al. 2025, arXiv:2503.21801)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nextlat_viz.models.attention import Attention
from nextlat_viz.models.losses import token_loss
from nextlat_viz.models.objective import Batch, Objective, check_horizon, count_ahead, mean, next_token_loss
from nextlat_viz.models.transformer import Transformer


class JointToken(Objective):
    """L = L_next_token + lambda_future * mean over i = 1..d and t of -log p(x_{t+1+i} | Fetch(h_t, x_{t+1:t+i})).

    Fetch is one self-attention layer over [h_t, emb(x_{t+1}), ..., emb(x_{t+i})], read at its last place by the
    backbone's output head. All it knows of the past is h_t, which is the hidden state: the one before this module.
    Pairs (t, i) are left out where token t+i is padding or of another document, or where what is predicted is not
    scored.

    Parameters
    ----------
    backbone : Transformer
    horizon : d, how many tokens after the next are predicted.
    lambda_future : weight of their loss.
    """

    name = "jtp"
    label = "JTP"

    def __init__(self, backbone: Transformer, horizon: int = 1, lambda_future: float = 1.0) -> None:
        super().__init__(backbone)
        self.horizon, self.lambda_future = check_horizon(horizon, backbone), lambda_future
        self.norm_in, self.norm_out = nn.RMSNorm(backbone.config.dim), nn.RMSNorm(backbone.config.dim)
        self.fetch = Attention(backbone.config)
        self.fetch.apply(backbone.initialise)

    def forward(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        states = self.backbone.states(batch.inputs, batch.documents)
        hidden, embeddings = states["hidden"], states["embed"]
        b, t, dim = hidden.shape
        d = self.horizon
        # Window t holds h_t and the embeddings of the d tokens after it; past the end of the row it is never read.
        padded = torch.cat([embeddings, embeddings.new_zeros(b, d, dim)], dim=1)
        following = padded[:, 1:].unfold(1, d, 1).transpose(2, 3)
        window = torch.cat([hidden[:, :, None], following], dim=2).flatten(0, 1)
        _, rotation = self.backbone.geometry(d + 1, None)
        fetched = window + self.fetch(self.norm_in(window), rotation, None, None, 0)
        fetched = self.norm_out(fetched).view(b, t, d + 1, dim)
        total, count = hidden.new_zeros(()), batch.targets.new_zeros(())
        for i in range(1, d + 1):
            scored = batch.inside(i) & batch.target_mask[:, i:]
            total = total + token_loss(self.backbone.head, fetched[:, :-i, i], batch.targets[:, i:], scored)
            count = count + scored.sum()
        next_token, future = next_token_loss(self.backbone, hidden, batch), mean(total, count)
        return {"loss": next_token + self.lambda_future * future, "next_token": next_token, "future": future}

    @property
    def weights(self) -> dict[str, float]:
        return {"next_token": 1.0, "future": self.lambda_future}

    def counts(self, batch: Batch) -> dict[str, int]:
        return {
            "next_token": int(batch.target_mask.sum()),
            "future": count_ahead(batch, self.horizon, scored=True),
        }
