"""Multi-token prediction: extra heads for the tokens after the next (Gloeckle et al. 2024, arXiv:2404.19737)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from nextlat_viz.models.losses import token_loss
from nextlat_viz.models.objective import Batch, Objective, check_horizon, count_ahead, mean, next_token_loss
from nextlat_viz.models.transformer import Block, Transformer


class MultiToken(Objective):
    """L = L_next_token + lambda_future * mean over i = 1..d and t of -log p_i(x_{t+1+i} | h_t).

    Every offset i has one transformer layer of its own on the hidden states, and all share the backbone's output
    head: p_i = softmax(head(norm_i(Block_i(h)_t))). The hidden state is the trunk's, before these layers. Pairs
    (t, i) are left out where token t+i is padding or of another document, or where what is predicted is not scored.

    Parameters
    ----------
    backbone : Transformer
    horizon : d, how many tokens after the next are predicted.
    lambda_future : weight of their loss.
    """

    name = "mtp"
    label = "MTP"

    def __init__(self, backbone: Transformer, horizon: int = 1, lambda_future: float = 1.0) -> None:
        super().__init__(backbone)
        self.horizon, self.lambda_future = check_horizon(horizon, backbone), lambda_future
        self.heads = nn.ModuleList(Block(backbone.config) for _ in range(horizon))
        self.norms = nn.ModuleList(nn.RMSNorm(backbone.config.dim) for _ in range(horizon))
        self.heads.apply(backbone.initialise)

    def forward(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        hidden = self.backbone(batch.inputs, batch.documents)
        mask, rotation = self.backbone.geometry(batch.inputs.shape[1], batch.documents)
        total, count = hidden.new_zeros(()), batch.targets.new_zeros(())
        for i, (head, norm) in enumerate(zip(self.heads, self.norms, strict=True), start=1):
            ahead = norm(head(hidden, rotation, mask, None, 0))[:, :-i]
            scored = batch.inside(i) & batch.target_mask[:, i:]
            total = total + token_loss(self.backbone.head, ahead, batch.targets[:, i:], scored)
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
