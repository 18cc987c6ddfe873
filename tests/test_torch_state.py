"""Torch's global device, precision and autocast do not change our results; a user's own module keeps them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import nextlat_viz as nlv
from nextlat_viz import analysis, decoding
from nextlat_viz.errors import LatentsError


@contextlib.contextmanager
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


STATES: dict[str, Callable[[], Any]] = {
    "meta": lambda: torch.device("meta"),
    "float64": float64,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "inference": torch.inference_mode,
}
CHECKPOINT = nlv.load("rrxor/nextlat")
EPISODES = CHECKPOINT.world.sample(40, 6, seed=1)
LATENTS = nlv.extract(CHECKPOINT, EPISODES, progress=False)
CALLS: dict[str, Callable[[], Any]] = {
    "extract": lambda: nlv.extract(CHECKPOINT, EPISODES, progress=False).X,
    "probe a belief": lambda: nlv.probe(LATENTS).coef,
    "probe classes": lambda: nlv.probe(LATENTS, "state").coef,
    "probe_sweep": lambda: analysis.probe_sweep(LATENTS, offsets=[1], progress=False).table["accuracy"],
    "project": lambda: nlv.project(LATENTS).coordinates,
    "generate": lambda: decoding.generate(CHECKPOINT, EPISODES.tokens[:3, :2], 4).tokens,
    "speculative_generate": lambda: decoding.speculative_generate(CHECKPOINT, EPISODES.tokens[:3, :2], 4).tokens,
    "psi_rollout": lambda: analysis.psi_rollout(CHECKPOINT, EPISODES.tokens),
    "look_ahead": lambda: analysis.look_ahead(CHECKPOINT, LATENTS, 0, 2, 3).to_frame().to_numpy(),
    "a measure": lambda: analysis.transition_consistency(CHECKPOINT, 8, progress=False).table["value"],
    "train": lambda: nlv.load(CHECKPOINT.folder).untrained().model.backbone.head.weight.detach().numpy(),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("call", CALLS)
def test_results_do_not_depend_on_torchs_global_state(call: str, state: str) -> None:
    expected = CALLS[call]()
    with STATES[state]():
        result = CALLS[call]()
    np.testing.assert_array_equal(np.asarray(result), np.asarray(expected))


def test_an_extraction_of_a_module_under_autocast_is_another_call(tmp_path: Any) -> None:
    module, tokens = nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 8)), np.arange(10).reshape(2, 5)
    out = tmp_path / "latents.h5ad"
    nlv.extract(module, tokens, ["1"], out=out, progress=False)
    with STATES["autocast"](), pytest.raises(LatentsError, match="computation_sha256"):
        nlv.extract(module, tokens, ["1"], out=out, progress=False)
