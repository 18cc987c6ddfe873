from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from anndata import AnnData

from nextlat_viz import worlds
from nextlat_viz.training.card import Card
from nextlat_viz.training.checkpoint import Checkpoint, build_model
from nextlat_viz.training.config import TrainConfig
from tests.synthetic import make_latents


def random_checkpoint(objective: str = "nextlat", seed: int = 0, world: str = "rrxor") -> Checkpoint:
    """An untrained checkpoint, which is enough for extraction."""
    config = TrainConfig(context=8, layers=2, heads=2, dim=16, mlp_dim=16, psi_width=16)
    truth = worlds.get(world)
    card = Card(
        name=f"{world}/{objective}/seed{seed}",
        world=truth.spec,
        objective=objective,
        preset="tiny",
        config=config,
        seed=seed,
        steps=10,
        command="",
        data_sha256="",
        weights_sha256=f"{objective}{seed}" * 6,
        parameters=0,
        versions={},
        device="cpu",
        metrics={},
    ).signed()
    return Checkpoint(card, build_model(objective, config, truth, seed).eval(), 10, card.weights_sha256, Path())


@pytest.fixture
def make_checkpoint() -> Callable[..., Checkpoint]:
    return random_checkpoint


@pytest.fixture
def checkpoint() -> Checkpoint:
    return random_checkpoint()


@pytest.fixture
def latents() -> AnnData:
    return make_latents(n=6, length=5, dim=4)
