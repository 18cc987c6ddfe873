"""The start token: position 0, where nothing has been read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nextlat_viz.models import OBJECTIVES, Batch, KVCache, Transformer, TransformerConfig
from nextlat_viz.worlds import Episodes

CONFIG = TransformerConfig(vocabulary_size=4, context=8, layers=2, heads=2, dim=16, mlp_dim=24)


@pytest.fixture
def backbone() -> Transformer:
    torch.manual_seed(0)
    model = Transformer(CONFIG).double().eval()
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3)
    return model


def test_the_start_token_is_the_last_id_and_never_predicted(backbone):
    assert backbone.start == 4
    assert backbone.started(torch.tensor([[1, 2]])).tolist() == [[4, 1, 2]]
    assert backbone.logits(backbone(backbone.started(torch.zeros(1, 0, dtype=torch.long)))).shape == (1, 1, 4)
    plain = Transformer(CONFIG.model_copy(update={"start_token": False}))
    assert plain.start is None
    assert plain.started(torch.tensor([[1, 2]])).tolist() == [[1, 2]]


def test_a_repeated_token_has_different_states_at_different_positions(backbone):
    hidden = backbone(backbone.started(torch.ones(1, 8, dtype=torch.long)))[0, 1:]
    assert torch.pdist(hidden).min() > 1e-3
    torch.manual_seed(0)
    plain = Transformer(CONFIG.model_copy(update={"start_token": False})).double()
    assert torch.pdist(plain(torch.ones(1, 8, dtype=torch.long))[0]).max() < 1e-9


def test_the_context_does_not_count_the_start_token(backbone):
    assert backbone(backbone.started(torch.zeros(1, 8, dtype=torch.long))).shape == (1, 9, 16)
    with pytest.raises(ValueError, match="tokens: 9 positions are more than this model's context of 8"):
        backbone(backbone.started(torch.zeros(1, 9, dtype=torch.long)))


def test_packed_documents_have_the_states_of_each_alone(backbone):
    first, second = torch.tensor([[1, 2, 0]]), torch.tensor([[3, 3, 1, 0]])
    packed = backbone.started(torch.cat([first, second], dim=1))
    hidden = backbone(packed, torch.tensor([[5, 5, 5, 5, 2, 2, 2, 2]]))
    torch.testing.assert_close(hidden[:, 1:4], backbone(backbone.started(first))[:, 1:])
    torch.testing.assert_close(hidden[:, 4:], backbone(backbone.started(second))[:, 1:])


def test_a_cache_of_ragged_rows_reads_the_start_token_once(backbone):
    rows = [torch.tensor([1, 2, 0, 3]), torch.tensor([], dtype=torch.long), torch.tensor([2])]
    tokens, counts = torch.zeros(3, 4, dtype=torch.long), torch.tensor([len(row) for row in rows])
    for padded, row in zip(tokens, rows, strict=True):
        padded[: len(row)] = row
    cache = KVCache(CONFIG, 3, backbone.head.weight)
    backbone(backbone.started(tokens), cache=cache, counts=counts + 1)
    following = torch.tensor([[3], [1], [0]])
    hidden = backbone(following, cache=cache)
    for row, token, state in zip(rows, following, hidden, strict=True):
        alone = backbone(backbone.started(torch.cat([row, token])[None]))
        torch.testing.assert_close(state[0], alone[0, -1])


def test_a_batch_scores_the_first_token_from_position_0():
    episodes = Episodes(
        np.array([[1, 2, 3], [3, 0, 0]]),
        {"document": np.array([[0, 0, 1], [0, 0, 0]])},
        loss_mask=np.array([[True, True, True], [True, True, False]]),
        length=np.array([3, 2]),
    )
    batch = Batch.from_episodes(episodes, start=4)
    assert batch.inputs.tolist() == [[4, 1, 2], [4, 3, 0]]
    assert batch.targets.tolist() == [[1, 2, 3], [3, 0, 0]]
    assert batch.target_mask.tolist() == [[True, True, True], [True, True, False]]
    assert batch.valid.tolist() == [[True, True, True], [True, True, True]]
    assert batch.documents is not None
    assert batch.documents.tolist() == [[0, 0, 0], [0, 0, 0]]


def test_no_target_is_predicted_at_position_0():
    batch = Batch.from_episodes(Episodes(np.array([[1, 2]]), targets=np.array([[3, 0]])), start=4)
    assert batch.inputs.tolist() == [[4, 1, 2]]
    assert batch.targets.tolist() == [[0, 3, 0]]
    assert batch.target_mask.tolist() == [[False, True, True]]
    assert batch.valid.tolist() == [[True, True, True]]


@pytest.mark.parametrize("objective", [name for name, kind in OBJECTIVES.items() if kind.next_tokens])
def test_every_objective_trains_with_a_start_token(objective, backbone):
    model = OBJECTIVES[objective](backbone).double()
    batch = Batch.from_episodes(Episodes(np.random.default_rng(0).integers(4, size=(3, 8))), start=backbone.start)
    losses = model(batch)
    losses["loss"].backward()
    assert backbone.embed.weight.grad is not None
    assert bool(backbone.embed.weight.grad[4].any())
    log_p = model.logits(backbone(batch.inputs)).log_softmax(dim=-1)
    expected = F.nll_loss(log_p.flatten(0, 1), batch.targets.flatten())
    torch.testing.assert_close(losses["next_token"], expected)
