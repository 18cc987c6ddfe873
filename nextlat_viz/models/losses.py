"""Losses over a vocabulary that skip unscored rows and bound the number of logits in memory at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# Maximum number of logits kept for the gradient: 128 MB in single precision. If a batch has more, they are computed in
# pieces, and again for the gradient, at the cost of one extra product with the head.
MOST_LOGITS = 1 << 25

Result = TypeVar("Result")


@dataclass(frozen=True)
class Rows:
    """The scored positions of a (B, T) grid as rows, ordered by time, then by batch row.

    On a CPU only scored positions are gathered, which saves the logits of all others, such as those of an unscored
    prompt. On other devices gathering would wait for the device, and in compiled code shapes must not depend on data,
    so every position is a row there. In both cases the mask leaves unscored positions out of the sum.

    Examples
    --------
    >>> rows = Rows.of(torch.tensor([[False, True], [True, True]]))
    >>> rows(torch.tensor([[1, 2], [3, 4]])), rows.before(1)
    (tensor([3, 2, 4]), 1)
    """

    batch_size: int
    length: int
    chosen: Int[Tensor, " n"] | None

    @classmethod
    def of(cls, mask: Bool[Tensor, "b t"]) -> Rows:
        gathers = mask.device.type == "cpu" and not torch.compiler.is_compiling() and not bool(mask.all())
        batch_size, length = mask.shape
        return cls(batch_size, length, mask.T.flatten().nonzero()[:, 0] if gathers else None)

    def __len__(self) -> int:
        return self.batch_size * self.length if self.chosen is None else len(self.chosen)

    def __call__(self, values: Tensor, skip: int = 0) -> Tensor:
        """Select the rows (n, ...) of (B, T, ...), or of (B, T - skip, ...) that lacks the first `skip` times."""
        flat = values.transpose(0, 1).flatten(0, 1)
        if self.chosen is None:
            return flat
        return flat.index_select(0, self.chosen[self.before(skip) :] - skip * self.batch_size)

    def before(self, time: int) -> int:
        """Number of rows before a time."""
        first = time * self.batch_size
        return first if self.chosen is None else int((self.chosen < first).sum())


def pieces(rows: int, logits_per_row: int) -> list[slice]:
    """Cut the rows into slices of at most `MOST_LOGITS` logits each.

    Examples
    --------
    >>> pieces(5, logits_per_row=MOST_LOGITS // 3)
    [slice(0, 3, None), slice(3, 6, None)]
    """
    size = max(1, MOST_LOGITS // logits_per_row)
    return [slice(start, start + size) for start in range(0, rows, size)]


def recomputed(function: Callable[..., Result], *arguments: object) -> Result:
    """Call the function and keep only its arguments for the gradient; the backward pass calls it again."""
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)


def token_loss(
    head: nn.Linear, hidden: Float[Tensor, "b t dim"], targets: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"]
) -> Float[Tensor, ""]:
    """Sum of -log p(target) in nats over the positions where the mask is True; p is the head's softmax.

    Examples
    --------
    >>> head, anywhere = nn.Linear(3, 4), torch.zeros(1, 2, dtype=torch.long)
    >>> _ = nn.init.zeros_(head.weight), nn.init.zeros_(head.bias)
    >>> token_loss(head, torch.zeros(1, 2, 3), anywhere, torch.tensor([[True, False]])).item()
    1.386...
    """
    rows = Rows.of(mask)
    states, tokens, counts = rows(hidden), rows(targets), rows(mask)

    def loss(states: Tensor, tokens: Tensor, counts: Tensor) -> Tensor:
        return (F.cross_entropy(head(states), tokens, reduction="none") * counts).sum()

    parts = pieces(len(rows), head.out_features)
    if len(parts) <= 1:
        return loss(states, tokens, counts)
    return torch.stack([recomputed(loss, states[part], tokens[part], counts[part]) for part in parts]).sum()
