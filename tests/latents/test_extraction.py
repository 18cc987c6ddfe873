from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch

from nextlat_viz import latents as nl
from nextlat_viz.errors import LatentsError, UnknownNameError
from nextlat_viz.training.checkpoint import Checkpoint
from nextlat_viz.worlds import Episodes


def test_extraction_equals_a_forward_pass(checkpoint: Checkpoint) -> None:
    episodes = checkpoint.world.sample(5, 8, seed=1)
    latents = nl.extract(checkpoint, episodes)
    backbone = checkpoint.model.backbone
    with torch.no_grad():
        states = backbone.states(backbone.started(torch.from_numpy(episodes.tokens)))
        states = {name: state[:, 1:] for name, state in states.items()}
        probs = backbone.logits(states["hidden"]).softmax(-1)
    assert nl.sites(latents) == backbone.sites
    for name in backbone.sites:
        np.testing.assert_allclose(nl.site(latents, name), states[name].flatten(0, 1).numpy(), atol=1e-6)
    np.testing.assert_allclose(nl.column(latents, "next_token_probs"), probs.flatten(0, 1).numpy(), atol=1e-6)
    np.testing.assert_array_equal(
        nl.column(latents, "belief"), checkpoint.world.belief(episodes.tokens).reshape(40, -1)
    )
    np.testing.assert_array_equal(nl.tokens_of(latents), episodes.tokens)


def test_the_table_names_its_model(checkpoint: Checkpoint) -> None:
    episodes = checkpoint.world.sample(2, 3, seed=1)
    known = nl.meta(nl.extract(checkpoint, episodes))
    assert json.loads(known["card"]) == checkpoint.card.model_dump(mode="json")
    assert known["weights_sha256"] == checkpoint.weights_sha256
    assert known["episodes_sha256"] == episodes.sha256
    assert (known["label"], known["name"], known["step"]) == ("NextLat", "rrxor/nextlat/seed0", 10)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 1000])
def test_batch_size_changes_nothing(checkpoint: Checkpoint, batch_size: int) -> None:
    episodes = checkpoint.world.sample(7, 8, seed=1)
    expected, result = nl.extract(checkpoint, episodes), nl.extract(checkpoint, episodes, batch_size=batch_size)
    np.testing.assert_allclose(result.X, expected.X, atol=1e-6)
    assert list(result.obs_names) == list(expected.obs_names)


def test_padding_changes_nothing(checkpoint: Checkpoint) -> None:
    whole = checkpoint.world.sample(4, 8, seed=1)
    length = np.array([8, 3, 1, 5])
    real = np.arange(8) < length[:, None]
    # Padding may hold any number, and extend past the context.
    tokens = np.pad(np.where(real, whole.tokens, -100), ((0, 0), (0, 5)), constant_values=77)
    padded = nl.extract(checkpoint, Episodes(tokens, states={}, length=length))
    plain = nl.extract(checkpoint, whole)[real.ravel()]
    assert list(padded.obs_names) == list(plain.obs_names)
    for name in nl.sites(plain):
        np.testing.assert_allclose(nl.site(padded, name), nl.site(plain, name), atol=1e-6)
    # On some processors, products of other shapes round the last bit differently.
    np.testing.assert_allclose(nl.column(padded, "belief"), nl.column(plain, "belief"), atol=1e-12)


def test_default_episodes_are_the_same_for_every_model(
    checkpoint: Checkpoint, make_checkpoint: Callable[..., Checkpoint]
) -> None:
    first, two = nl.extract(checkpoint, sites="hidden"), nl.extract(make_checkpoint("next_token", 1), sites="hidden")
    assert first.n_obs == 512 * 8
    assert nl.meta(first)["episodes_sha256"] == nl.meta(two)["episodes_sha256"] == nl.heldout(checkpoint).sha256
    assert nl.concatenate([first, two]).uns["nextlat_viz"]["same_episodes"]


@pytest.mark.parametrize("sites", ["block1", ["block1"], ["hidden", "block1"]])
def test_a_choice_of_sites(checkpoint: Checkpoint, sites: str | list[str]) -> None:
    latents = nl.extract(checkpoint, checkpoint.world.sample(2, 3, seed=0), sites=sites)
    assert nl.sites(latents) == ["block1", "hidden"]


def test_the_model_is_left_as_it_was(checkpoint: Checkpoint) -> None:
    backbone = checkpoint.model.backbone.train()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    nl.extract(checkpoint, checkpoint.world.sample(2, 3, seed=0), device="cpu")
    assert backbone.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())
    backbone(torch.zeros(1, 3, dtype=torch.long)).sum().backward()  # and can still be trained

    checkpoint.model.backbone.eval()
    nl.extract(checkpoint, checkpoint.world.sample(2, 3, seed=0))
    assert not checkpoint.model.backbone.training


def test_latents_of_a_half_precision_model_are_float32(checkpoint: Checkpoint) -> None:
    checkpoint.model.backbone.bfloat16()
    latents = nl.extract(checkpoint, checkpoint.world.sample(2, 3, seed=0))
    assert latents.X.dtype == np.float32
    assert nl.column(latents, "next_token_probs").dtype == np.float32
    np.testing.assert_allclose(nl.column(latents, "next_token_probs").sum(1), 1, atol=1e-6)


def test_progress_bar_can_be_switched_off(checkpoint: Checkpoint, capfd: pytest.CaptureFixture[str]) -> None:
    episodes = checkpoint.world.sample(2, 3, seed=0)
    nl.extract(checkpoint, episodes, progress=False)
    assert capfd.readouterr().err == ""


def test_progress_may_be_a_callback_that_ends_the_extraction(checkpoint: Checkpoint) -> None:
    episodes, reports = checkpoint.world.sample(5, 3, seed=0), []
    nl.extract(checkpoint, episodes, batch_size=2, progress=lambda read, total: reports.append((read, total)))
    assert reports == [(2, 5), (4, 5), (5, 5)]

    def stop(read: int, total: int) -> None:
        reports.append((read, total))
        raise InterruptedError("enough")

    reports.clear()
    with pytest.raises(InterruptedError, match="enough"):
        nl.extract(checkpoint, episodes, batch_size=2, progress=stop)
    assert reports == [(2, 5)]
    assert not checkpoint.model.backbone.training


def test_bad_input(checkpoint: Checkpoint) -> None:
    world = checkpoint.world
    good = world.sample(3, 4, seed=0)
    with pytest.raises(UnknownNameError, match=r"unknown site 'blok0'\. Did you mean 'block0'"):
        nl.extract(checkpoint, good, sites=["blok0"])
    with pytest.raises(LatentsError, match="up to 9 tokens, but this model's context is 8"):
        nl.extract(checkpoint, world.sample(3, 9, seed=0))
    with pytest.raises(LatentsError, match="hold no tokens"):
        nl.extract(checkpoint, good[:0])
    with pytest.raises(ValueError, match="batch_size=0 must be at least 1"):
        nl.extract(checkpoint, good, batch_size=0)
    for wrong in (2, -1):
        tokens = good.tokens.copy()
        tokens[1, 2] = wrong
        with pytest.raises(LatentsError, match=f"token {wrong} of episode 1, position 3, is outside the vocabulary"):
            nl.extract(checkpoint, Episodes(tokens))
    assert not checkpoint.model.backbone.training
    for arguments in ((world, good), (checkpoint, good.tokens)):
        with pytest.raises(TypeError, match=r"Checkpoint|Episodes"):
            nl.extract(*arguments)
