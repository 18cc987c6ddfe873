"""The baseline: next-token prediction only."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from nextlat_viz.models.objective import Batch, Objective, next_token_loss


class NextToken(Objective):
    """Cross-entropy of the next token, -log p(x_{t+1} | h_t), averaged over scored positions."""

    name = "next_token"
    label = "next-token"

    def forward(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        hidden = self.backbone(batch.inputs, batch.documents)
        loss = next_token_loss(self.backbone, hidden, batch)
        return {"loss": loss, "next_token": loss}

    @property
    def weights(self) -> dict[str, float]:
        return {"next_token": 1.0}

    def counts(self, batch: Batch) -> dict[str, int]:
        return {"next_token": int(batch.target_mask.sum())}
