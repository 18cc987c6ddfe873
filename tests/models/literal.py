"""Small batches, and the comparison of losses and gradients with a literal reading, for tests of every objective."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from nextlat_viz.models import Batch, Objective, TransformerConfig

CONFIG = TransformerConfig(vocabulary_size=4, context=8, layers=2, heads=2, dim=8, mlp_dim=12, start_token=False)
BATCHES = {
    "plain": {},
    "prompt": {"prompt": 3},
    "padding": {"length": 5},
    "packed": {"documents": torch.tensor([[0, 0, 0, 1, 1, 1, 1, 2]] * 3)},
}


def drawn(make: Callable[[], Objective]) -> Objective:
    """A model in double precision with large weights, the same every time."""
    torch.manual_seed(0)
    objective = make().double()
    for parameter in objective.parameters():
        parameter.data.normal_(std=0.4)
    return objective


def make_batch(prompt: int = 0, length: int | None = None, documents: torch.Tensor | None = None) -> Batch:
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(0, 4, (3, 9), generator=generator)
    target_mask = torch.ones(3, 8, dtype=torch.bool)
    target_mask[:, :prompt] = False
    valid = torch.ones(3, 8, dtype=torch.bool)
    if length is not None:
        valid[1, length:] = False
        target_mask[1, length - 1 :] = False
    return Batch(tokens[:, :-1], tokens[:, 1:], target_mask, valid, documents)


def agree(
    make: Callable[[], Objective], literal: Callable, batch: Batch, names: Iterable[str], rtol: float = 1e-9
) -> None:
    """Compare each named loss and its gradients, parameter by parameter, with the literal reading."""
    for name in names:
        ours, theirs = make(), make()
        loss, expected = ours(batch)[name], literal(theirs, batch)[name]
        torch.testing.assert_close(loss, expected, rtol=rtol, atol=1e-12)
        loss.backward()
        expected.backward()
        for (key, mine), (_, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
            if other.grad is None:
                assert mine.grad is None or not mine.grad.any(), f"{name} reaches {key}"
            else:
                torch.testing.assert_close(
                    mine.grad, other.grad, rtol=100 * rtol, atol=rtol / 1000, msg=f"{name}: {key}"
                )
