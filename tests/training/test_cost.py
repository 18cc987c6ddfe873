"""Estimated costs agree with measured ones."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import nextlat_viz as nlv
from nextlat_viz import worlds
from nextlat_viz.models import Batch
from nextlat_viz.training.checkpoint import build_model
from nextlat_viz.training.config import resolve_config
from nextlat_viz.training.listing import TASKS, cost


class Peak(TorchDispatchMode):
    """Track the bytes of living tensors made inside the block, and their maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **kwargs or {})
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.seen:
                    self.seen.add(storage._cdata)
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self.freed, storage._cdata, storage.nbytes())
        self.most = max(self.most, self.now)
        return out

    def freed(self, number: int, count: int) -> None:
        self.seen.discard(number)
        self.now -= count


@pytest.mark.parametrize("objective", ["next_token", "nextlat", "bst"])
def test_estimated_memory_is_near_the_measured_one(objective: str) -> None:
    """Within a quarter: temporary memory of single operations is not counted."""
    world = worlds.get("story")
    config = resolve_config("tiny", world, {"batch_size": 16})
    tokens = torch.zeros(config.batch_size, config.context, dtype=torch.long)
    everywhere = torch.ones_like(tokens, dtype=torch.bool)
    gc.collect()
    with Peak() as peak:
        model = build_model(objective, config, world, 0)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        for _ in range(2):
            optimizer.zero_grad(set_to_none=True)
            model(Batch(tokens, tokens, everywhere, everywhere))["loss"].backward()
            optimizer.step()
    counted = cost(objective, config, len(world.vocabulary))
    assert counted.bytes(config.batch_size) == pytest.approx(peak.most, rel=0.25)


def test_operations_are_near_those_of_a_checkpoint() -> None:
    checkpoint = nlv.load("rrxor/nextlat")
    # A checkpoint's batch has the start token in front, and predicts from it.
    config = checkpoint.card.config
    counted = cost("nextlat", config, len(checkpoint.world.vocabulary))
    assert counted.parameters == checkpoint.card.parameters
    assert counted.operations * config.batch_size == pytest.approx(checkpoint.operations, rel=0.15)


def test_twice_the_depth_costs_twice_as_much() -> None:
    config = resolve_config("tiny", worlds.get("rrxor"), {})
    small, deep = (cost("next_token", config.model_copy(update={"layers": layers}), 2) for layers in (4, 8))
    assert deep.operations == pytest.approx(2 * small.operations, rel=0.02)
    assert deep.activations == pytest.approx(2 * small.activations, rel=0.1)


def test_every_task_of_the_paper_has_its_preset() -> None:
    for preset, world, vocabulary, length in TASKS.values():
        assert world in nlv.training.config.PRESETS[preset]
        assert min(vocabulary, length) > 1
    assert len(worlds.get("countdown").vocabulary) == TASKS["Countdown"][2]
    path_star = worlds.get("path_star", arms=2, nodes_per_arm=10)
    assert (len(path_star.vocabulary), path_star.length) == TASKS["Path-Star G(2,10)"][2:]
