"""Recursive models against an independent literal reading: values, gradients, what is detached, targets, averages."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from nextlat_viz.models import OBJECTIVES, Batch, Recursive, RecursiveNetwork, Schedule, TransformerConfig
from nextlat_viz.training.config import TrainConfig
from nextlat_viz.training.data import Piece
from nextlat_viz.training.engine import Engine, start_fabric

from .literal import drawn
from .test_baselines import rms, turned

CONFIG = TransformerConfig(vocabulary_size=3, context=6, layers=2, heads=2, dim=8, mlp_dim=12, start_token=False)
SHORT = {"latent_updates": 2, "cycles": 3, "recursion_steps": 3}


def make(name: str, **schedule: int) -> Recursive:
    objective = drawn(lambda: OBJECTIVES[name](RecursiveNetwork(CONFIG), **schedule))
    if name == "trm":
        # In the middle of training, so that both terms have gradients and no puzzle has halted.
        objective.halt.bias.data.fill_(-1.0)
    return objective


def puzzles(seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(1)
    tokens, targets = torch.randint(0, 3, (2, 4, 6), generator=generator)
    mask = torch.ones(4, 6, dtype=torch.bool)
    mask[1, :2] = False
    return Batch(tokens, targets, mask, torch.ones_like(mask), seed=seed)


def block(part, rows):
    """One block over the cells of one puzzle, (cells, dim): every cell attends to every cell."""
    cells, dim = rows.shape
    size = dim // CONFIG.heads
    q, k, v = (rms(part.attention_norm, rows) @ part.attention.qkv.weight.T).split(dim, dim=1)
    heads = []
    for head in range(CONFIG.heads):
        at = slice(head * size, (head + 1) * size)
        query, key = (torch.stack([turned(x[t, at], t) for t in range(cells)]) for x in (q, k))
        heads.append((query @ key.T / math.sqrt(size)).softmax(dim=1) @ v[:, at])
    rows = rows + torch.cat(heads, dim=1) @ part.attention.out.weight.T
    gate, up = (rms(part.mlp_norm, rows) @ part.mlp.gate_up.weight.T).chunk(2, dim=1)
    return rows + (gate * gate.sigmoid() * up) @ part.mlp.down.weight.T


def net(backbone, state):
    rows = []
    for row in state:
        for part in backbone.blocks:
            row = block(part, row)
        rows.append(rms(backbone.norm, row))
    return torch.stack(rows)


def recursion(backbone, x, y, z, n, cycles):
    """The pseudo-code of TRM (arXiv:2510.04871, figure 3): only the last cycle has a gradient."""
    for cycle in range(cycles):
        with torch.set_grad_enabled(cycle == cycles - 1):
            for _ in range(n):
                z = net(backbone, x + y + z)
            y = net(backbone, y + z)
    return y, z


def puzzle(backbone, tokens):
    return torch.stack([backbone.embed.weight[row] + backbone.cell.weight[: len(row)] for row in tokens])


def cross_entropy(objective, y, targets, mask):
    log_p = (y @ objective.backbone.head.weight.T).log_softmax(-1)
    return -log_p.gather(-1, targets[..., None])[..., 0][mask].mean()


def losses(objective, y, batch):
    """The loss of one step, by the objective's definition."""
    targets = batch.targets
    if objective.name == "dis":
        order = torch.rand(targets.shape, generator=torch.Generator().manual_seed(batch.seed))
        share = 1 - (batch.step + 1) / objective.backbone.schedule.steps
        targets = torch.where(order < share, batch.inputs, targets)
    loss = cross_entropy(objective, y, targets, batch.target_mask)
    if objective.name == "trm":
        best = (y @ objective.backbone.head.weight.T).argmax(-1)
        right = torch.stack([((b == t) | ~m).all() for b, t, m in zip(best, targets, batch.target_mask, strict=True)])
        halt = y.mean(1) @ objective.halt.weight[0] + objective.halt.bias
        loss = loss - torch.where(right, halt.sigmoid().log(), (-halt).sigmoid().log()).mean()
    return loss


def compare(ours, theirs, loss, expected):
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
    loss.backward()
    expected.backward()
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-7, atol=1e-11, msg=name)


@pytest.mark.parametrize("name", ["trm", "dis"])
def test_every_step_equals_the_literal_reading(name):
    ours, theirs, batch = make(name, **SHORT), make(name, **SHORT), puzzles(seed=5)
    y = z = torch.zeros(4, 6, 8, dtype=torch.double)
    following: Batch | None = batch
    while following is not None:
        ours.zero_grad(), theirs.zero_grad()
        result = ours(following)
        x = puzzle(theirs.backbone, batch.inputs)
        y, z = recursion(theirs.backbone, x, y.detach(), z.detach(), n=2, cycles=3)
        compare(ours, theirs, result["loss"], losses(theirs, y, following))
        torch.testing.assert_close(result["carried"], torch.stack([y, z]), rtol=1e-9, atol=1e-12)
        assert not result["carried"].requires_grad
        last, following = following, ours.following(following, result)
    assert last.step == 2


@pytest.mark.parametrize(("name", "steps"), [("one_pass", 1), ("equal_depth", 3)])
def test_the_baselines_have_a_gradient_through_every_step(name, steps):
    schedule = {"latent_updates": 2} | ({"recursion_steps": steps} if steps > 1 else {})
    ours, theirs, batch = make(name, **schedule), make(name, **schedule), puzzles()
    x = puzzle(theirs.backbone, batch.inputs)
    y = z = torch.zeros_like(x)
    for _ in range(steps):
        y, z = recursion(theirs.backbone, x, y, z, n=2, cycles=1)
    result = ours(batch)
    compare(ours, theirs, result["loss"], losses(theirs, y, batch))
    assert ours.following(batch, result) is None


@pytest.mark.parametrize("name", ["trm", "dis", "one_pass", "equal_depth"])
def test_forward_passes_are_those_of_the_schedule(name):
    objective, batch, passes = make(name), puzzles(), 0

    def count(*_):
        nonlocal passes
        passes += 1

    objective.backbone.norm.register_forward_hook(count)
    following: Batch | None = batch
    while following is not None:
        following = objective.following(following, objective(following))
    published = {"trm": 336, "dis": 24, "one_pass": 3, "equal_depth": 24}
    assert passes == objective.backbone.schedule.passes == published[name]


def test_forward_passes_have_the_published_ratio():
    assert Schedule(6, 3, 16).passes / Schedule(2, 1, 6).passes == pytest.approx(336 / 18)


def test_a_puzzle_that_halts_takes_no_further_steps():
    objective, batch = make("trm", **SHORT), puzzles()
    result = objective(batch)
    result["halted"] = torch.tensor([True, False, True, False])
    later = objective.following(batch, result)
    assert torch.equal(later.inputs, batch.inputs[[1, 3]])
    assert torch.equal(later.targets, batch.targets[[1, 3]])
    assert torch.equal(later.carried, result["carried"][:, [1, 3]])
    assert later.step == 1
    assert objective.following(batch, result | {"halted": torch.ones(4, dtype=torch.bool)}) is None
    objective.halt.bias.data.fill_(100.0)
    assert objective(batch)["halted"].all()


def test_targets_of_the_steps_come_closer_to_the_answer():
    objective, batch = make("dis", recursion_steps=8), puzzles(seed=3)
    tokens, targets, mask = (part.repeat(500, 1) for part in (batch.inputs, batch.targets, batch.target_mask))
    many = replace(batch, inputs=tokens, targets=targets, target_mask=mask, valid=mask)
    steps = [objective.target(replace(many, step=step)) for step in range(8)]
    differ = many.inputs != many.targets
    assert torch.equal(steps[-1], many.targets)
    for step, (target, later) in enumerate(pairwise(steps), start=1):
        corrupted = (target != many.targets)[differ].double().mean().item()
        assert corrupted == pytest.approx(1 - step / 8, abs=0.02)
        assert torch.equal(target[target != many.targets], many.inputs[target != many.targets])
        assert not ((later != many.targets) & (target == many.targets)).any(), (
            "a right cell is right in all later steps"
        )
    assert not torch.equal(steps[0], objective.target(replace(many, seed=4)))


def test_every_cell_reads_every_cell_and_knows_its_place():
    network = make("dis").backbone
    tokens = torch.zeros(1, 6, dtype=torch.long)
    states = network(tokens)[0]
    assert len(torch.unique(states.round(decimals=6), dim=0)) == 6
    for cell in range(6):
        changed = network(F.one_hot(torch.tensor([cell]), 6))[0]
        assert ((states - changed).abs().amax(dim=1) > 1e-6).all()


def test_weights_are_averaged_over_every_optimiser_step():
    objective = make("dis", **SHORT).float()
    optimizer = torch.optim.AdamW(objective.parameters(), lr=0.05)
    engine = Engine(objective, optimizer, TrainConfig(ema=0.8, learning_rate=0.05), start_fabric(accelerator="cpu"))
    taken = []
    optimizer.register_step_post_hook(lambda *_: taken.append([w.detach().clone() for w in objective.parameters()]))
    for step in range(2):
        engine.step(step, [Piece(puzzles(seed=step))])
    assert len(taken) == 6
    expected = taken[0]
    for weights in taken[1:]:
        expected = [0.8 * average + 0.2 * weight for average, weight in zip(expected, weights, strict=True)]
    with engine.averaged():
        torch.testing.assert_close([w.detach() for w in objective.parameters()], expected)
    torch.testing.assert_close([w.detach() for w in objective.parameters()], taken[-1], rtol=0, atol=0)
    assert engine.losses()["updates"] == 3


def test_the_network_reads_whole_puzzles_only():
    network = make("dis").backbone
    with pytest.raises(ValueError, match="does not generate token by token"):
        network.cache(1)
    with pytest.raises(ValueError, match="context of 6"):
        network(torch.zeros(1, 7, dtype=torch.long))
