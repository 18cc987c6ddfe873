"""Objectives that also predict the tokens after the next: multi-token prediction, and joint multi-token prediction.

Gloeckle et al. 2024, arXiv:2404.19737; Ahn et al. 2025, arXiv:2503.21801.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nextlat_viz.models.attention import Attention
from nextlat_viz.models.losses import token_loss
from nextlat_viz.models.objective import Batch, Objective, check_horizon, count_ahead, mean, next_token_loss
from nextlat_viz.models.transformer import Block, Transformer


class FutureTokens(Objective):
    """L = L_next_token + lambda_future * mean over i = 1..d and t of -log p(x_{t+1+i} | ...).

    Pairs (t, i) are left out where token t+i is padding or of another document, or where the target is not scored.

    Parameters
    ----------
    backbone : Transformer
    horizon : d, the number of tokens after the next that are predicted.
    lambda_future : weight of their loss.
    """

    def __init__(self, backbone: Transformer, horizon: int = 1, lambda_future: float = 1.0) -> None:
        super().__init__(backbone)
        self.horizon, self.lambda_future = check_horizon(horizon, backbone), lambda_future

    def losses(
        self, hidden: Float[Tensor, "b t dim"], ahead: Iterable[Float[Tensor, "b _s dim"]], batch: Batch
    ) -> dict[str, Float[Tensor, ""]]:
        """Losses from the hidden states, and from the states (B, T - i, dim) that the head reads for i = 1..d."""
        total, count = hidden.new_zeros(()), batch.targets.new_zeros(())
        for i, states in enumerate(ahead, start=1):
            scored = batch.inside(i) & batch.target_mask[:, i:]
            total = total + token_loss(self.backbone.head, states, batch.targets[:, i:], scored)
            count = count + scored.sum()
        next_token, future = next_token_loss(self.backbone, hidden, batch), mean(total, count)
        return {"loss": next_token + self.lambda_future * future, "next_token": next_token, "future": future}

    @property
    def weights(self) -> dict[str, float]:
        return {"next_token": 1.0, "future": self.lambda_future}

    def counts(self, batch: Batch) -> dict[str, int]:
        return {"next_token": int(batch.target_mask.sum()), "future": count_ahead(batch, self.horizon, scored=True)}


class MultiToken(FutureTokens):
    """L = L_next_token + lambda_future * mean over i = 1..d and t of -log p_i(x_{t+1+i} | h_t).

    Every offset i has its own transformer layer on the hidden states, and all share the backbone's output head:
    p_i = softmax(head(norm_i(Block_i(h)_t))). The hidden state is the trunk's, before these layers.
    """

    name = "mtp"
    label = "MTP"

    def __init__(self, backbone: Transformer, horizon: int = 1, lambda_future: float = 1.0) -> None:
        super().__init__(backbone, horizon, lambda_future)
        self.heads = nn.ModuleList(Block(backbone.config) for _ in range(horizon))
        self.norms = nn.ModuleList(nn.RMSNorm(backbone.config.dim) for _ in range(horizon))
        self.heads.apply(backbone.initialise)

    def forward(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        hidden = self.backbone(batch.inputs, batch.documents)
        mask, rotation = self.backbone.geometry(batch.inputs.shape[1], batch.documents)
        layers = enumerate(zip(self.heads, self.norms, strict=True), start=1)
        ahead = (norm(head(hidden, rotation, mask, None, 0))[:, :-i] for i, (head, norm) in layers)
        return self.losses(hidden, ahead, batch)


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
