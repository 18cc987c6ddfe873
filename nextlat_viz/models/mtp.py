"""Multi-token prediction: extra heads for the tokens after the next (Gloeckle et al. 2024, arXiv:2404.19737)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from nextlat_viz.models.objective import Batch, FutureTokens
from nextlat_viz.models.transformer import Block, Transformer


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
