"""Losses over a vocabulary: computed in pieces or on some rows they are the same, with bounded memory."""

import pytest
import torch

from nextlat_viz.models import OBJECTIVES, Transformer, TransformerConfig, losses
from nextlat_viz.models.losses import Rows, token_loss

from .literal import BATCHES, make_batch

CONFIG = TransformerConfig(vocabulary_size=4, context=8, layers=1, heads=2, dim=8, mlp_dim=12, start_token=False)


def losses_and_gradients(name, batch, monkeypatch, most=1 << 25, gathers=True):
    torch.manual_seed(0)
    options = {} if name in ("next_token", "bst") else {"horizon": 3}
    objective = OBJECTIVES[name](Transformer(CONFIG), **options)
    for parameter in objective.parameters():
        parameter.data.normal_(std=0.4)
    with monkeypatch.context() as patch:
        patch.setattr(losses, "MOST_LOGITS", most)
        patch.setattr(torch.compiler, "is_compiling", lambda: not gathers)
        result = objective(batch)
        result["loss"].backward()
    return result, {key: parameter.grad for key, parameter in objective.named_parameters()}


@pytest.mark.parametrize("how", [{"most": 28}, {"gathers": False}, {"most": 28, "gathers": False}], ids=str)
@pytest.mark.parametrize("case", BATCHES)
@pytest.mark.parametrize("name", [name for name, kind in OBJECTIVES.items() if kind.next_tokens])
def test_pieces_and_selected_rows_give_the_same_losses(name, case, how, monkeypatch):
    batch = make_batch(**BATCHES[case])
    expected, gradients = losses_and_gradients(name, batch, monkeypatch)
    result, its = losses_and_gradients(name, batch, monkeypatch, **how)
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(its, gradients, rtol=1e-5, atol=1e-6)


def test_no_scored_position_gives_a_loss_of_zero_with_a_gradient():
    head, hidden = torch.nn.Linear(3, 5, bias=False), torch.randn(2, 4, 3, requires_grad=True)
    nowhere = torch.zeros(2, 4, dtype=torch.bool)
    loss = token_loss(head, hidden, torch.zeros(2, 4, dtype=torch.long), nowhere)
    loss.backward()
    assert loss == 0
    assert not hidden.grad.any()


def test_rows_are_the_scored_positions_in_order_of_time():
    mask = torch.tensor([[False, False, True], [False, True, True]])
    rows = Rows.of(mask)
    values = torch.arange(6).view(2, 3)
    assert rows(values).tolist() == [4, 2, 5]
    assert rows(values[:, 2:], skip=2).tolist() == [2, 5]
    assert [rows.before(time) for time in range(4)] == [0, 0, 1, 3]
    everything = Rows.of(torch.ones_like(mask))
    assert everything(values).tolist() == [0, 3, 1, 4, 2, 5]
    assert everything(values[:, 1:], skip=1).tolist() == [1, 4, 2, 5]
    assert [everything.before(time) for time in range(4)] == [0, 2, 4, 6]


class Largest(torch.overrides.TorchFunctionMode):
    """Record the size of the largest tensor that was made."""

    def __init__(self):
        self.numbers = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.numbers = max(self.numbers, result.numel())
        return result


@pytest.mark.parametrize("name", ["next_token", "nextlat", "mtp", "jtp", "bst"])
def test_never_more_logits_at_once_than_allowed(name, monkeypatch):
    """A vocabulary of 500 on 24 rows: 12,000 logits, of which 2,000 may exist."""
    monkeypatch.setattr(losses, "MOST_LOGITS", 2000)
    options = {"horizon": 3, "psi_width": 16} if name == "nextlat" else {}
    objective = OBJECTIVES[name](Transformer(CONFIG.model_copy(update={"vocabulary_size": 500})), **options)
    saved = []

    def keep(tensor):
        saved.append(tensor.numel())
        return tensor

    with Largest() as largest, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        objective(make_batch())["loss"].backward()
    # The head's own weights have 500 x 8 numbers.
    assert largest.numbers <= 4000
    assert max(saved) <= 4000
