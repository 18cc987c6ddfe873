"""Next-Latent Prediction: the next token, and the next hidden state (arXiv:2511.05963, section 3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nextlat_viz.models.dynamics import LatentDynamics
from nextlat_viz.models.objective import Batch, Objective, next_token_loss
from nextlat_viz.models.transformer import Transformer


class NextLat(Objective):
    """L = L_next_token + lambda_h L_next_h + lambda_kl L_KL  (eq. 5), over a horizon of d steps.

    psi is rolled out d steps from every true h_t, reading the true tokens. With sg the stop-gradient:

    - L_next_h is the mean of SmoothL1(sg(h_{t+i}), h^_{t+i}) over positions t, steps i = 1..d and dimensions;
    - L_KL is the mean of KL(head(sg(h_{t+i})) || head(h^_{t+i})) over t and i, the head's weights frozen.

    So both reach psi and, through h_t and the token embeddings, the trunk; never the head, never the target.
    A mean over (t, i) is over all pairs in which t+i is inside the row. Pairs that cross a document boundary
    or reach padding count in neither; pairs whose prediction is not scored (prompt) count in L_next_h alone.

    Parameters
    ----------
    backbone : Transformer
    horizon : d, the number of steps psi is rolled out.
    lambda_h, lambda_kl : weights of the two latent losses.
    psi_width : hidden width of psi.
    """

    name = "nextlat"
    label = "NextLat"

    def __init__(
        self,
        backbone: Transformer,
        horizon: int = 1,
        lambda_h: float = 1.0,
        lambda_kl: float = 1.0,
        psi_width: int = 128,
    ) -> None:
        super().__init__(backbone)
        if not 1 <= horizon < backbone.config.context:
            raise ValueError(
                f"horizon={horizon} must be at least 1 and under the context of {backbone.config.context}: "
                "psi cannot be rolled out past the end of a sequence"
            )
        self.horizon, self.lambda_h, self.lambda_kl = horizon, lambda_h, lambda_kl
        self.psi = LatentDynamics(backbone.config.dim, psi_width)

    def forward(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        states = self.backbone.states(batch.inputs, batch.documents)
        hidden = states["hidden"]
        logits = self.backbone.logits(hidden)
        losses = {"next_token": next_token_loss(logits, batch)}
        losses |= self.latent_losses(hidden, states["embed"], logits, batch)
        losses["loss"] = losses["next_token"] + self.lambda_h * losses["next_h"] + self.lambda_kl * losses["kl"]
        return losses

    def latent_losses(
        self,
        hidden: Float[Tensor, "b t dim"],
        embeddings: Float[Tensor, "b t dim"],
        logits: Float[Tensor, "b t v"],
        batch: Batch,
    ) -> dict[str, Float[Tensor, ""]]:
        """L_next_h and L_KL; `logits` are the head's at the true hidden states, the teacher of L_KL."""
        target, teacher = hidden.detach(), F.log_softmax(logits.detach(), dim=-1)
        frozen_head = self.backbone.head.weight.detach()
        h_sum = kl_sum = hidden.new_zeros(())
        h_count = kl_count = torch.zeros((), dtype=torch.long, device=hidden.device)
        for i, predicted in enumerate(self.psi.rollout(hidden, embeddings, self.horizon), start=1):
            inside = batch.valid[:, i:]
            if batch.documents is not None:
                inside = inside & (batch.documents[:, i:] == batch.documents[:, :-i])
            h_loss = F.smooth_l1_loss(predicted, target[:, i:], reduction="none").mean(dim=-1)
            h_sum, h_count = h_sum + (h_loss * inside).sum(), h_count + inside.sum()

            scored = inside & batch.target_mask[:, i:]
            student = F.log_softmax(F.linear(predicted, frozen_head), dim=-1)
            kl = F.kl_div(student, teacher[:, i:], log_target=True, reduction="none").sum(dim=-1)
            kl_sum, kl_count = kl_sum + (kl * scored).sum(), kl_count + scored.sum()
        return {"next_h": h_sum / h_count.clamp(min=1), "kl": kl_sum / kl_count.clamp(min=1)}
