"""Validation: the loss, whole or in parts, with an exact law and without."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from nextlat_viz import worlds
from nextlat_viz.models import Batch
from nextlat_viz.training import data
from nextlat_viz.training.checkpoint import build_model
from nextlat_viz.training.config import TrainConfig, resolve_config
from nextlat_viz.training.data import Validation
from nextlat_viz.worlds.headline import headline

SMALL = {"layers": 1, "validation_episodes": 24}


@pytest.mark.parametrize("name", ["z1r", "path_star", "story", "a5"])
def test_losses_of_parts_add_up(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = worlds.get(name)
    config = resolve_config("tiny", world, SMALL)
    model = build_model("nextlat", config, world, 0)
    whole = Validation(world, config)
    monkeypatch.setattr(data, "MOST_LOGITS", 1)
    parts = Validation(world, config)
    assert len(whole.parts) == 1
    assert len(parts.parts) == 24
    assert parts(model) == pytest.approx(whole(model), rel=1e-6)


def test_the_loss_is_the_cross_entropy_under_the_exact_law() -> None:
    world, config = worlds.get("z1r"), TrainConfig(**SMALL)
    model = build_model("next_token", config, world, 0)
    result = Validation(world, config)(model)
    episodes = world.sample(24, 13, seed=data.VALIDATION_SEED)
    exact = world.next_token_probs(episodes.tokens[:, :-1])
    # The first token is predicted too, from the start token.
    first = np.broadcast_to(world.start_probs(), (24, 1, 2))
    exact = torch.from_numpy(np.concatenate([first, exact], axis=1))
    with torch.no_grad():
        log_q = model.logits(model.backbone(Batch.from_episodes(episodes, start=2).inputs)).double().log_softmax(-1)
    entropy = -torch.xlogy(exact, exact).sum(-1).mean()
    cross_entropy = -(exact * log_q).sum(-1).mean()
    assert result["floor"] == pytest.approx(world.loss_floor(12, start_token=True))
    assert result["floor"] != pytest.approx(world.loss_floor(12), abs=1e-3)
    assert result["excess"] == pytest.approx(float(cross_entropy - entropy))
    assert result["loss"] == pytest.approx(result["floor"] + result["excess"])


def test_without_a_law_the_loss_is_the_cross_entropy_of_the_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    world, config = worlds.get("z1r"), TrainConfig(**SMALL)
    monkeypatch.setattr(type(world), "next_token_probs", lambda self, tokens: None)
    model = build_model("next_token", config, world, 0)
    result = Validation(world, config)(model)
    batch = Batch.from_episodes(world.sample(24, 13, seed=data.VALIDATION_SEED), start=2)
    with torch.no_grad():
        logits = model.logits(model.backbone(batch.inputs))
    assert result["loss"] == pytest.approx(F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten()).item())
    assert set(result) == {"loss", "unigram", "belief_r2"}
    p = np.bincount(batch.targets.flatten()) / batch.targets.numel()
    assert result["unigram"] == pytest.approx(-(p * np.log(p)).sum())


def test_only_scored_positions_count() -> None:
    world = worlds.get("path_star")
    result = Validation(world, resolve_config("tiny", world, SMALL))
    assert result.scored == int(result.episodes.loss_mask.sum())
    assert result.floor == 0.0


def test_a_first_token_of_unknown_law_is_not_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    world, config = worlds.get("z1r"), TrainConfig(**SMALL)
    monkeypatch.setattr(type(world), "start_probs", lambda self: None)
    validation = Validation(world, config)
    assert validation.scored == 24 * 12
    assert validation.floor == pytest.approx(float(np.mean(world.floor(12))), abs=0.05)


def test_accuracy_of_the_decisive_prediction_is_logged() -> None:
    world = worlds.get("path_star", arms=2, nodes_per_arm=4, node_ids=12, train_size=200, test_size=50)
    for start_token in (True, False):
        config = resolve_config("tiny", world, SMALL | {"start_token": start_token})
        validation = Validation(world, config)
        model = build_model("next_token", config, world, 0)
        tokens = validation.episodes.tokens[:, :-1]
        backbone = model.backbone
        with torch.no_grad():
            hidden = backbone(backbone.started(torch.from_numpy(tokens)))[:, backbone.config.start_token :]
            chosen = model.logits(hidden)[:, world.prompt].argmax(-1).numpy()
        right = chosen == validation.episodes.tokens[:, world.prompt + 1]
        assert validation(model)["accuracy"] == pytest.approx(right.mean())
        assert "accuracy" not in Validation(worlds.get("z1r"), TrainConfig(**SMALL))(
            build_model("next_token", TrainConfig(**SMALL), worlds.get("z1r"), 0)
        )


@pytest.mark.parametrize("start_token", [True, False])
def test_r2_of_the_belief_equals_scikit_learn(start_token: bool) -> None:
    world, config = worlds.get("mess3"), TrainConfig(layers=1, validation_episodes=512, start_token=start_token)
    model = build_model("next_token", config, world, 0)
    tokens = world.sample(512, 13, seed=data.VALIDATION_SEED).tokens[:, :-1]
    with torch.no_grad():
        hidden = (
            model.backbone(model.backbone.started(torch.from_numpy(tokens)))[:, int(start_token) :].double().numpy()
        )
    belief = world.belief(tokens)
    probe = LinearRegression().fit(hidden[:256].reshape(-1, 64), belief[:256].reshape(-1, 3))
    expected = r2_score(
        belief[256:].reshape(-1, 3), probe.predict(hidden[256:].reshape(-1, 64)), multioutput="variance_weighted"
    )
    assert Validation(world, config)(model)["belief_r2"] == pytest.approx(expected, abs=2e-3)


def test_beliefs_that_cannot_be_scored_are_left_out() -> None:
    constant = worlds.HiddenMarkovWorld("coin", np.full((2, 1, 1), 0.5))
    for world, episodes in ((worlds.get("z1r"), 1), (constant, 8)):
        config = TrainConfig(layers=1, validation_episodes=episodes)
        row = Validation(world, config)(build_model("next_token", config, world, 0))
        assert "belief_r2" not in row
        assert all(np.isfinite(list(row.values())))


@pytest.mark.parametrize("start_token", [True, False])
def test_probability_on_legal_tokens_is_logged(start_token: bool) -> None:
    world = worlds.get("taxi", width=4, height=4)
    config = resolve_config("tiny", world, SMALL | {"start_token": start_token})
    model = build_model("next_token", config, world, 0)
    episodes = world.sample(24, seed=data.VALIDATION_SEED, split="test")
    batch = Batch.from_episodes(episodes, start=model.backbone.start)
    with torch.no_grad():
        probs = model.logits(model.backbone(batch.inputs)).softmax(-1).numpy()
    legal = world.legal_next(episodes.tokens)[:, : probs.shape[1] - int(start_token)]
    if start_token:
        legal = np.concatenate([np.broadcast_to(world.legal_first(), (24, 1, legal.shape[-1])), legal], axis=1)
    mask = batch.target_mask.numpy()
    assert Validation(world, config)(model)["legal"] == pytest.approx((probs * legal).sum(-1)[mask].mean())


@pytest.mark.parametrize(
    ("name", "expected"),
    [("path_star", "accuracy"), ("s3", "accuracy"), ("sns", "belief_r2"), ("story", "legal"), ("othello", "legal")],
)
def test_every_world_has_a_headline_measure(name: str, expected: str) -> None:
    world = worlds.get(name)
    config = resolve_config("tiny", world, {"layers": 1, "validation_episodes": 4})
    row = Validation(world, config)(build_model("next_token", config, world, 0))
    assert headline(row) == expected
    assert 0 <= row[expected] <= 1 or expected == "belief_r2"
    assert headline({"loss": 1.0}) == ""


@pytest.mark.parametrize(("nodes", "horizon"), [(2, 1), (4, 2), (7, 5), (10, 8)])
def test_the_horizon_of_path_star_fits_its_arms(nodes: int, horizon: int) -> None:
    world = worlds.get("path_star", arms=2, nodes_per_arm=nodes, train_size=20, test_size=5)
    for preset in ("tiny", "compact", "paper"):
        assert resolve_config(preset, world, {}).horizon == horizon
