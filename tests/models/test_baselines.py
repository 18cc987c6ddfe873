"""MTP, JTP and BST against independent literal readings of their equations."""

from __future__ import annotations

import math

import pytest
import torch

import nextlat_viz as nlv
from nextlat_viz.models import OBJECTIVES, Batch, BeliefState, JointToken, MultiToken, Transformer
from nextlat_viz.training.checkpoint import build_model
from nextlat_viz.training.config import TrainConfig

from .literal import BATCHES, CONFIG, agree, drawn, make_batch


def document(batch, b, t):
    return 0 if batch.documents is None else int(batch.documents[b, t])


def future_pairs(batch, horizon):
    """Return (row, t, i) where token t+i is in the same document and the prediction of token t+i+1 is scored."""
    rows, length = batch.inputs.shape
    for b in range(rows):
        for t in range(length):
            for i in range(1, horizon + 1):
                if t + i >= length or not batch.valid[b, t + i] or document(batch, b, t) != document(batch, b, t + i):
                    continue
                if batch.target_mask[b, t + i]:
                    yield b, t, i


def surprise(weight, state, token):
    return -(weight @ state).log_softmax(0)[token]


def rms(norm, x):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + torch.finfo(x.dtype).eps) * norm.weight


def next_token_term(objective, batch, hidden):
    scored = batch.target_mask.nonzero().tolist()
    terms = [surprise(objective.backbone.head.weight, hidden[b, t], batch.targets[b, t]) for b, t in scored]
    return torch.stack(terms).mean()


def with_future(objective, batch, hidden, terms):
    losses = {"next_token": next_token_term(objective, batch, hidden), "future": torch.stack(terms).mean()}
    return losses | {"loss": losses["next_token"] + objective.lambda_future * losses["future"]}


def attend(attention, rows, allowed):
    """Compute one attention layer over rows (T, dim) literally: every head, every pair of positions."""
    length, dim = rows.shape
    size = dim // attention.heads
    q, k, v = (rows @ attention.qkv.weight.T).split(dim, dim=1)
    mixed = torch.zeros_like(rows)
    for head in range(attention.heads):
        part = slice(head * size, (head + 1) * size)
        for t in range(length):
            scores = {
                s: turned(q[t, part], t) @ turned(k[s, part], s) / math.sqrt(size)
                for s in range(t + 1)
                if allowed(t, s)
            }
            weights = torch.stack(list(scores.values())).softmax(0)
            mixed[t, part] = sum(w * v[s, part] for w, s in zip(weights, scores, strict=True))
    return mixed @ attention.out.weight.T


def turned(x, place):
    """Rotary embedding: pairs (j, j + half) turn by place / 10000^(j / half)."""
    half = len(x) // 2
    angle = place * 10_000.0 ** (-torch.arange(half, dtype=x.dtype) / half)
    cos, sin = angle.cos().float().double(), angle.sin().float().double()
    return torch.cat([x[:half] * cos - x[half:] * sin, x[:half] * sin + x[half:] * cos])


def literal_mtp(objective, batch):
    hidden = objective.backbone(batch.inputs, batch.documents)
    seen = []
    for block, norm in zip(objective.heads, objective.norms, strict=True):
        rows = []
        for b in range(len(hidden)):
            x = hidden[b]
            x = x + attend(
                block.attention,
                rms(block.attention_norm, x),
                lambda t, s, b=b: document(batch, b, t) == document(batch, b, s),
            )
            gate, up = (rms(block.mlp_norm, x) @ block.mlp.gate_up.weight.T).chunk(2, dim=-1)
            x = x + (gate * torch.sigmoid(gate) * up) @ block.mlp.down.weight.T
            rows.append(rms(norm, x))
        seen.append(torch.stack(rows))
    terms = [
        surprise(objective.backbone.head.weight, seen[i - 1][b, t], batch.targets[b, t + i])
        for b, t, i in future_pairs(batch, objective.horizon)
    ]
    return with_future(objective, batch, hidden, terms)


def literal_jtp(objective, batch):
    hidden = objective.backbone(batch.inputs, batch.documents)
    embedding = objective.backbone.embed.weight
    terms = []
    for b, t, i in future_pairs(batch, objective.horizon):
        known = torch.stack([hidden[b, t], *(embedding[batch.inputs[b, t + j]] for j in range(1, i + 1))])
        fetched = known + attend(objective.fetch, rms(objective.norm_in, known), lambda t, s: True)
        last = rms(objective.norm_out, fetched[-1])
        terms.append(surprise(objective.backbone.head.weight, last, batch.targets[b, t + i]))
    return with_future(objective, batch, hidden, terms)


def literal_bst(objective, batch):
    """Every prefix with every suffix, each suffix read backwards on its own."""
    ahead = objective.backbone(batch.inputs, batch.documents)
    tokens = torch.cat([batch.inputs, batch.targets[:, -1:]], dim=1)
    rows, length = tokens.shape
    following, previous = [], []

    def its(b, t):
        if t < length - 1:
            return document(batch, b, t) if batch.valid[b, t] else -1
        return its(b, t - 1) if batch.target_mask[b, -1] else -1

    for b in range(rows):
        for t in range(length - 1):
            for s in range(t + 2, length + 1):
                if s < length and its(b, s) != its(b, t):
                    continue
                if s == length:
                    back = objective.empty
                else:
                    # Stop at the end of the document: after it come another document or padding.
                    end = max(u for u in range(length) if its(b, u) == its(b, s)) + 1
                    back = objective.backward_encoder(tokens[b : b + 1, s:end].flip(1))[0, -1]
                x = torch.cat([ahead[b, t], back])
                x = objective.join.weight @ x + objective.join.bias
                x = x * (1 + torch.erf(x / math.sqrt(2))) / 2
                half = len(x) // 2
                if batch.target_mask[b, t]:
                    following.append(surprise(objective.backbone.head.weight, ahead[b, t] + x[:half], tokens[b, t + 1]))
                if batch.target_mask[b, s - 2] and its(b, s - 1) == its(b, t):
                    previous.append(surprise(objective.previous_head.weight, back + x[half:], tokens[b, s - 1]))
    losses = {"next": torch.stack(following).mean(), "previous": torch.stack(previous).mean()}
    return losses | {"loss": losses["next"] + losses["previous"]}


@pytest.mark.parametrize("horizon", [1, 3])
@pytest.mark.parametrize("case", BATCHES)
@pytest.mark.parametrize(("kind", "literal"), [(MultiToken, literal_mtp), (JointToken, literal_jtp)])
def test_future_tokens_agree_with_the_equations(kind, literal, case, horizon):
    make = lambda: drawn(lambda: kind(Transformer(CONFIG), horizon, 0.7))  # noqa: E731
    agree(make, literal, make_batch(**BATCHES[case]), ("loss", "next_token", "future"))


@pytest.mark.parametrize("case", BATCHES)
def test_both_ends_agree_with_the_equations(case):
    make = lambda: drawn(lambda: BeliefState(Transformer(CONFIG), pairs=1000))  # noqa: E731
    # Rotations are in single precision, and a suffix before the end of its row is read at other positions.
    agree(make, literal_bst, make_batch(**BATCHES[case]), ("loss", "next", "previous"), rtol=1e-6)


def test_drawn_pairs_estimate_all_pairs():
    batch = make_batch()
    whole = drawn(lambda: BeliefState(Transformer(CONFIG), pairs=1000))
    t, s = whole._pairs(9, 0, torch.device("cpu"))
    some = drawn(lambda: BeliefState(Transformer(CONFIG), pairs=10))
    chosen = {
        seed: set(zip(*(part.tolist() for part in some._pairs(9, seed, torch.device("cpu"))), strict=True))
        for seed in range(40)
    }
    everything = set(zip(t.tolist(), s.tolist(), strict=True))
    empty = {(place, 9) for place in range(8)}
    assert len(everything) == 8 + 28
    assert all(its < everything and empty < its and len(its) == 18 for its in chosen.values())
    assert set.union(*chosen.values()) == everything
    assert some._pairs(9, 5, torch.device("cpu"))[0].equal(some._pairs(9, 5, torch.device("cpu"))[0])
    assert some(batch)["next_token"] == whole(batch)["next_token"]


def test_bst_predicts_the_next_token_with_an_empty_suffix():
    objective, batch = drawn(lambda: BeliefState(Transformer(CONFIG))), make_batch()
    logits = objective.logits(objective.backbone(batch.inputs))
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
    torch.testing.assert_close(loss, objective(batch)["next_token"])


@pytest.mark.parametrize("objective", [name for name, kind in OBJECTIVES.items() if kind.next_tokens])
def test_the_same_seed_starts_every_objective_from_the_same_backbone(objective):
    world, config = nlv.worlds.get("z1r"), TrainConfig(layers=1)
    first, other = build_model(objective, config, world, 3), build_model("next_token", config, world, 3)
    for (name, mine), (_, theirs) in zip(
        first.backbone.named_parameters(), other.backbone.named_parameters(), strict=True
    ):
        assert torch.equal(mine, theirs), name


def test_zero_pairs_and_too_long_horizons_are_refused():
    with pytest.raises(ValueError, match="pairs=0 must be at least 1"):
        BeliefState(Transformer(CONFIG), pairs=0)
    for kind in (MultiToken, JointToken):
        with pytest.raises(ValueError, match="horizon=8 must be at least 1 and at most 7, with a context of 8"):
            kind(Transformer(CONFIG), horizon=8)


def test_a_row_of_prompt_only_scores_nothing():
    batch = make_batch()
    silent = Batch(batch.inputs, batch.targets, torch.zeros_like(batch.target_mask), batch.valid)
    for kind in (MultiToken, JointToken, BeliefState):
        assert drawn(lambda kind=kind: kind(Transformer(CONFIG)))(silent)["loss"] == 0
