"""Next-Latent Prediction: psi, the latent dynamics, and the objective (arXiv:2511.05963, section 3)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nextlat_viz.errors import one_of
from nextlat_viz.models.losses import Rows, pieces, recomputed
from nextlat_viz.models.objective import Batch, Objective, check_horizon, count_ahead, mean
from nextlat_viz.models.transformer import Transformer


class LatentDynamics(nn.Module):
    """psi: h^_{t+1} = h_t + f_psi(LayerNorm([h_t ; emb(x_{t+1})]))  (NextLat, eq. 9).

    `f_psi` is `layers` linear layers with GELU between them; it predicts the change of the state.

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

    def read(self, hidden: Float[Tensor, "*b dim"], embeddings: Float[Tensor, "*b k dim"]) -> Float[Tensor, "*b k dim"]:
        """Roll psi out over tokens, from one state of each row: the state after each token."""
        states = []
        for embedding in embeddings.unbind(dim=-2):
            hidden = self(hidden, embedding)
            states.append(hidden)
        return torch.stack(states, dim=-2) if states else embeddings


class NextLat(Objective):
    """L = L_next_token + lambda_h L_next_h + lambda_kl L_KL  (eq. 5), over a horizon of d steps.

    psi is rolled out d steps from every true h_t, reading the true tokens. With sg the stop-gradient:

    - L_next_h is the mean of SmoothL1(sg(h_{t+i}), h^_{t+i}) over positions t, steps i = 1..d and dimensions;
    - L_KL is the mean of KL(head(sg(h_{t+i})) || head(h^_{t+i})) over t and i, the head's weights frozen;
      or, in its place, the cross-entropy -log head(h^_{t+i})[x_{t+i+1}].

    So gradients of both reach psi and, through h_t and the token embeddings, the trunk; never the head or the target.
    A mean over (t, i) is over all pairs in which t+i is inside the row. Pairs that cross a document boundary or reach
    padding count in neither; pairs whose prediction is not scored (prompt) count in L_next_h alone. A loss of weight 0
    is not computed.

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
        self.token_term = one_of("token_term", token_term, ("kl", "ce"))
        self.stop_target, self.freeze_head = stop_target, freeze_head
        self.psi = LatentDynamics(backbone.config.dim, psi_width, psi_layers)

    def forward(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        states = self.backbone.states(batch.inputs, batch.documents)
        hidden = states["hidden"]
        target = hidden.detach() if self.stop_target else hidden
        predicted = self.psi.rollout(hidden, states["embed"], self.horizon)
        next_token, token_term = self.token_losses(hidden, target, predicted if self.lambda_kl else [], batch)
        losses = {"next_token": next_token}
        if self.lambda_h:
            losses["next_h"] = self.state_loss(target, predicted, batch)
        if self.lambda_kl:
            losses[self.token_term] = token_term
        losses["loss"] = torch.stack([weight * losses[name] for name, weight in self.weights.items()]).sum()
        return losses

    @property
    def weights(self) -> dict[str, float]:
        weights = {"next_token": 1.0, "next_h": self.lambda_h, self.token_term: self.lambda_kl}
        return {name: weight for name, weight in weights.items() if weight}

    def counts(self, batch: Batch) -> dict[str, int]:
        counts = {
            "next_token": int(batch.target_mask.sum()),
            "next_h": count_ahead(batch, self.horizon, scored=False),
            self.token_term: count_ahead(batch, self.horizon, scored=True),
        }
        return {name: counts[name] for name in self.weights}

    @property
    def draft_head(self) -> nn.Module:
        """The head that turns psi's states into drafts of tokens."""
        return self.backbone.head

    def draft_logits(self, hidden: Float[Tensor, "*b dim"]) -> Float[Tensor, "*b vocabulary"]:
        """Logits of a draft, from a state of psi."""
        return self.logits(hidden)

    def state_loss(
        self, target: Float[Tensor, "b t dim"], predicted: list[Float[Tensor, "b _s dim"]], batch: Batch
    ) -> Float[Tensor, ""]:
        """L_next_h of predictions as :meth:`LatentDynamics.rollout` gives them."""
        total, count = target.new_zeros(()), batch.targets.new_zeros(())
        for i, guess in enumerate(predicted, start=1):
            inside = batch.inside(i)
            errors = F.smooth_l1_loss(guess, target[:, i:], reduction="none").mean(dim=-1)
            total, count = total + (errors * inside).sum(), count + inside.sum()
        return mean(total, count)

    def token_losses(
        self,
        hidden: Float[Tensor, "b t dim"],
        target: Float[Tensor, "b t dim"],
        predicted: list[Float[Tensor, "b _s dim"]],
        batch: Batch,
        head: nn.Linear | None = None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """L_next_token, and L_KL or the cross-entropy in its place: 0 without predictions.

        Both use the head's logits at the same states, so these are computed once. `head` is the backbone's if None.
        """
        head = self.backbone.head if head is None else head
        rows = Rows.of(batch.target_mask)
        pairs = [batch.inside(i) & batch.target_mask[:, i:] for i in range(1, len(predicted) + 1)]
        states, targets, tokens, scored = rows(hidden), rows(target), rows(batch.targets), rows(batch.target_mask)
        guesses = [rows(guess, i) for i, guess in enumerate(predicted, start=1)]
        masks = [rows(pair, i) for i, pair in enumerate(pairs, start=1)]

        def arguments(part: slice) -> tuple[Any, ...]:
            """Arguments of `_sums` for some of the rows; the rows of step i begin at time i."""
            steps = []
            for guess, counts in zip(guesses, masks, strict=True):
                first = len(states) - len(guess)
                of_step = slice(max(0, part.start - first), max(0, part.stop - first))
                steps.append((guess[of_step], counts[of_step]))
            return head, states[part], targets[part], tokens[part], scored[part], steps

        parts = pieces(len(rows), (1 + len(predicted)) * head.out_features)
        if len(parts) <= 1:
            next_token, latent = self._sums(*arguments(slice(0, len(rows))))
        else:
            sums = zip(*(recomputed(self._sums, *arguments(part)) for part in parts), strict=True)
            next_token, latent = (torch.stack(terms).sum() for terms in sums)
        count = sum((pair.sum() for pair in pairs), batch.target_mask.new_zeros((), dtype=torch.long))
        return mean(next_token, batch.target_mask.sum()), mean(latent, count)

    def _sums(
        self,
        head: nn.Linear,
        states: Float[Tensor, "n dim"],
        targets: Float[Tensor, "n dim"],
        tokens: Int[Tensor, " n"],
        scored: Bool[Tensor, " n"],
        steps: list[tuple[Float[Tensor, "_m dim"], Bool[Tensor, " _m"]]],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Sum the two losses over some rows.

        `steps` has, for each step of psi, its predictions for the last rows, and which of them count.
        """
        weight = head.weight.detach() if self.freeze_head else head.weight
        log_p = F.log_softmax(head(states), dim=-1)
        next_token = (F.nll_loss(log_p, tokens, reduction="none") * scored).sum()
        if self.token_term == "kl" and steps:
            shared = self.stop_target and self.freeze_head
            log_teacher = log_p.detach() if shared else F.log_softmax(F.linear(targets, weight), dim=-1)
            teacher = log_teacher.exp()
            # KL(p || q) = sum p log p - sum p log q; the first sum is the same for every step.
            negative_entropy = (teacher * log_teacher).sum(dim=-1)
        latent = next_token.new_zeros(())
        for guess, counts in steps:
            log_q = F.log_softmax(F.linear(guess, weight), dim=-1)
            late = slice(len(states) - len(guess), None)
            if self.token_term == "kl":
                losses = negative_entropy[late] - (teacher[late] * log_q).sum(dim=-1)
            else:
                losses = F.nll_loss(log_q, tokens[late], reduction="none")
            latent = latent + (losses * counts).sum()
        return next_token, latent
