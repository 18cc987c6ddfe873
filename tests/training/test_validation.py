"""Validation: the loss is what it says, whole or in parts, with a law and without one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nextlat_viz import worlds
from nextlat_viz.models import Batch
from nextlat_viz.training import data
from nextlat_viz.training.checkpoint import build_model
from nextlat_viz.training.config import TrainConfig, resolve_config
from nextlat_viz.training.data import Validation

SMALL = {"layers": 1, "validation_episodes": 24}


@pytest.mark.parametrize("name", ["z1r", "path_star", "story", "a5"])
def test_parts_add_up(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = worlds.get(name)
    config = resolve_config("tiny", world, SMALL)
    model = build_model("nextlat", config, world, 0)
    whole = Validation(world, config)
    monkeypatch.setattr(data, "MOST_LOGITS", 1)
    parts = Validation(world, config)
    assert len(whole.parts) == 1
    assert len(parts.parts) == 24
    assert parts(model) == pytest.approx(whole(model), rel=1e-6)


def test_loss_is_cross_entropy_under_the_exact_law() -> None:
    world, config = worlds.get("z1r"), TrainConfig(**SMALL)
    model = build_model("next_token", config, world, 0)
    found = Validation(world, config)(model)
    episodes = world.sample(24, 13, seed=data.VALIDATION_SEED)
    exact = torch.from_numpy(world.next_token_probs(episodes.tokens[:, :-1]))
    with torch.no_grad():
        log_q = model.logits(model.backbone(Batch.from_episodes(episodes).inputs)).double().log_softmax(-1)
    entropy = -torch.xlogy(exact, exact).sum(-1).mean()
    cross_entropy = -(exact * log_q).sum(-1).mean()
    assert found["floor"] == pytest.approx(world.loss_floor(12))
    assert found["excess"] == pytest.approx(float(cross_entropy - entropy))
    assert found["loss"] == pytest.approx(found["floor"] + found["excess"])


def test_without_a_law_it_is_the_cross_entropy_of_the_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    world, config = worlds.get("z1r"), TrainConfig(**SMALL)
    monkeypatch.setattr(type(world), "next_token_probs", lambda self, tokens: None)
    model = build_model("next_token", config, world, 0)
    found = Validation(world, config)(model)
    batch = Batch.from_episodes(world.sample(24, 13, seed=data.VALIDATION_SEED))
    with torch.no_grad():
        logits = model.logits(model.backbone(batch.inputs))
    assert found["loss"] == pytest.approx(F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten()).item())
    assert set(found) == {"loss", "unigram"}
    p = np.bincount(batch.targets.flatten()) / batch.targets.numel()
    assert found["unigram"] == pytest.approx(-(p * np.log(p)).sum())


def test_only_what_is_scored_counts() -> None:
    world = worlds.get("path_star")
    found = Validation(world, resolve_config("tiny", world, SMALL))
    assert found.scored == int(found.episodes.loss_mask.sum())
    assert found.floor == 0.0
