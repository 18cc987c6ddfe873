"""Next-Latent Prediction: the next token, and the next hidden state (arXiv:2511.05963, section 3)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nextlat_viz.errors import unknown
from nextlat_viz.models.dynamics import LatentDynamics
from nextlat_viz.models.objective import Batch, Objective, check_horizon, cross_entropy, next_token_loss
from nextlat_viz.models.transformer import Transformer


class NextLat(Objective):
    """L = L_next_token + lambda_h L_next_h + lambda_kl L_KL  (eq. 5), over a horizon of d steps.

    psi is rolled out d steps from every true h_t, reading the true tokens. With sg the stop-gradient:

    - L_next_h is the mean of SmoothL1(sg(h_{t+i}), h^_{t+i}) over positions t, steps i = 1..d and dimensions;
    - L_KL is the mean of KL(head(sg(h_{t+i})) || head(h^_{t+i})) over t and i, the head's weights frozen;
      or, in its place, the cross-entropy -log head(h^_{t+i})[x_{t+i+1}].

    So both reach psi and, through h_t and the token embeddings, the trunk; never the head, never the target.
    A mean over (t, i) is over all pairs in which t+i is inside the row. Pairs that cross a document boundary
    or reach padding count in neither; pairs whose prediction is not scored (prompt) count in L_next_h alone.

    Parameters
    ----------
    backbone : Transformer
    horizon : d, the number of steps psi is rolled out.
    lambda_h, lambda_kl : weights of the two latent losses.
    psi_width, psi_layers : hidden width of psi, and how many linear layers it has.
    token_term : "kl", or "ce" for the cross-entropy in its place; `lambda_kl` weighs either.
    stop_target : False lets gradients through the targets too (the paper's ablation of the first stop-gradient).
    freeze_head : False lets L_KL train the head (the ablation of the second).
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
        psi_layers: int = 3,
        token_term: Literal["kl", "ce"] = "kl",
        stop_target: bool = True,
        freeze_head: bool = True,
    ) -> None:
        super().__init__(backbone)
        self.horizon, self.lambda_h, self.lambda_kl = check_horizon(horizon, backbone), lambda_h, lambda_kl
        if token_term not in ("kl", "ce"):
            raise unknown("token_term", token_term, ("kl", "ce"))
        self.token_term, self.stop_target, self.freeze_head = token_term, stop_target, freeze_head
        self.psi = LatentDynamics(backbone.config.dim, psi_width, psi_layers)

    def forward(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        states = self.backbone.states(batch.inputs, batch.documents)
        hidden = states["hidden"]
        logits = self.backbone.logits(hidden)
        losses = {"next_token": next_token_loss(logits, batch)}
        losses |= self.latent_losses(hidden, states["embed"], logits, batch)
        losses["loss"] = (
            losses["next_token"] + self.lambda_h * losses["next_h"] + self.lambda_kl * losses[self.token_term]
        )
        return losses

    def latent_losses(
        self,
        hidden: Float[Tensor, "b t dim"],
        embeddings: Float[Tensor, "b t dim"],
        logits: Float[Tensor, "b t v"],
        batch: Batch,
    ) -> dict[str, Float[Tensor, ""]]:
        """L_next_h and L_KL; `logits` are the head's at the true hidden states, the teacher of L_KL."""
        head = self.backbone.head.weight.detach() if self.freeze_head else self.backbone.head.weight
        target = hidden.detach() if self.stop_target else hidden
        # The teacher's logits are those of the next-token loss: computed once, they serve both.
        taught = logits.detach() if self.stop_target and self.freeze_head else F.linear(target, head)
        teacher = F.log_softmax(taught, dim=-1)
        h_sum = token_sum = hidden.new_zeros(())
        h_count = token_count = torch.zeros((), dtype=torch.long, device=hidden.device)
        for i, predicted in enumerate(self.psi.rollout(hidden, embeddings, self.horizon), start=1):
            inside = batch.inside(i)
            h_loss = F.smooth_l1_loss(predicted, target[:, i:], reduction="none").mean(dim=-1)
            h_sum, h_count = h_sum + (h_loss * inside).sum(), h_count + inside.sum()

            scored = inside & batch.target_mask[:, i:]
            student = F.linear(predicted, head)
            if self.token_term == "ce":
                losses = cross_entropy(student, batch.targets[:, i:])
            else:
                losses = F.kl_div(
                    F.log_softmax(student, dim=-1), teacher[:, i:], log_target=True, reduction="none"
                ).sum(dim=-1)
            token_sum, token_count = token_sum + (losses * scored).sum(), token_count + scored.sum()
        return {"next_h": h_sum / h_count.clamp(min=1), self.token_term: token_sum / token_count.clamp(min=1)}
