from __future__ import annotations

import numpy as np
import pytest
import torch
from anndata import AnnData

from nextlat_viz.analysis.dynamics import psi_rollout
from nextlat_viz.analysis.lookahead import look_ahead, next_rows
from nextlat_viz.analysis.prediction import kl
from nextlat_viz.errors import LatentsError
from nextlat_viz.latents import extract, select, tokens_of
from nextlat_viz.training.checkpoint import Checkpoint, load

EPISODE, POSITION = 3, 4


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load("rrxor/nextlat")


@pytest.fixture(scope="module")
def latents(checkpoint: Checkpoint) -> AnnData:
    return extract(checkpoint, checkpoint.world.sample(6, 10, seed=2), progress=False)


def test_a_rollout_is_psi_step_by_step(checkpoint: Checkpoint, latents: AnnData) -> None:
    result = look_ahead(checkpoint, latents, EPISODE, POSITION, steps=5)
    model, tokens = checkpoint.model, tokens_of(latents)[EPISODE]
    with torch.no_grad():
        hidden = model.backbone(model.backbone.started(torch.as_tensor(tokens)[None]))[0, 1:]
        state = hidden[POSITION - 1]
        for i in range(5):
            after = POSITION + i
            state = model.psi(state, model.backbone.embed(torch.tensor(tokens[after])))  # type: ignore[operator]
            np.testing.assert_allclose(result.rolled[i], state, atol=1e-5)
            np.testing.assert_allclose(result.true[i], hidden[after], atol=1e-5)
            assert result.distance[i] == pytest.approx(float((state - hidden[after]).norm()), abs=1e-4)
            assert result.no_change[i] == pytest.approx(float((hidden[POSITION - 1] - hidden[after]).norm()), abs=1e-4)
            p, q = (model.logits(item).softmax(-1).numpy() for item in (hidden[after], state))
            assert result.kl[i] == pytest.approx(float(kl(p, q)), abs=1e-5)
    assert result.positions.tolist() == [5, 6, 7, 8, 9]
    assert result.tokens == tuple(latents.obs["token"].iloc[34:39])
    assert (result.horizon, result.label) == (checkpoint.card.config.horizon, "NextLat")


def test_the_rollout_equals_that_of_rollout_divergence(checkpoint: Checkpoint, latents: AnnData) -> None:
    result = look_ahead(checkpoint.model, latents, EPISODE, POSITION, steps=6)
    whole = psi_rollout(checkpoint, tokens_of(latents)[[EPISODE]], start=POSITION)[0]
    np.testing.assert_allclose(result.rolled, whole[POSITION:], atol=1e-5)


def test_the_rollout_ends_with_the_episode(checkpoint: Checkpoint, latents: AnnData) -> None:
    result = look_ahead(checkpoint, latents, EPISODE, 8, steps=50)
    assert result.positions.tolist() == [9, 10]
    assert result.to_frame()["step"].tolist() == [1, 2]
    assert "no change" in result._repr_html_()
    with pytest.raises(LatentsError, match="position=10 is the last of episode 3 here"):
        look_ahead(checkpoint, latents, EPISODE, 10)


def test_the_rollout_does_not_cross_gaps_or_documents(latents: AnnData) -> None:
    gap = select(latents, position=[1, 2, 3, 6, 7])
    assert gap.obs["position"].iloc[next_rows(gap, 15, 8)].tolist() == [2, 3]
    packed = latents.copy()
    packed.obs["document"] = (packed.obs["position"] > 6).astype(int)
    assert packed.obs["position"].iloc[next_rows(packed, 33, 8)].tolist() == [5, 6]
    assert packed.obs["position"].iloc[next_rows(packed, 36, 8)].tolist() == [8, 9, 10]


@pytest.mark.slow
def test_psi_added_to_a_pretrained_model() -> None:
    import transformers

    from nextlat_viz.hf.backbone import PostHoc, Pretrained

    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=30, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    module = transformers.GPT2LMHeadModel(config).eval()
    model = PostHoc(Pretrained(module), horizon=2, lambda_h=1.0, lambda_kl=1.0, psi_width=8)
    latents = extract(module, np.random.default_rng(0).integers(5, 25, size=(3, 8)), progress=False)
    result = look_ahead(model, latents, 1, 3, steps=4)
    # psi starts as "no change".
    np.testing.assert_allclose(result.rolled, np.tile(result.start, (4, 1)), atol=1e-6)
    np.testing.assert_allclose(result.distance, result.no_change, rtol=1e-5)
    assert result.tokens == tuple(latents.obs["token"].iloc[11:15])


def test_bad_input_is_refused(checkpoint: Checkpoint, latents: AnnData) -> None:
    plain = load("rrxor/next_token")
    own_latents = extract(plain, plain.world.sample(6, 10, seed=2), progress=False)
    with pytest.raises(ValueError, match=r"'next-token' has no latent dynamics psi.*trained by nextlat"):
        look_ahead(plain, own_latents, EPISODE, POSITION)
    with pytest.raises(ValueError, match="steps=0 must be at least 1"):
        look_ahead(checkpoint, latents, EPISODE, POSITION, steps=0)
    with pytest.raises(LatentsError, match="position=11: episode 3 has positions 1 to 10"):
        look_ahead(checkpoint, latents, EPISODE, 11)
    with pytest.raises(LatentsError, match="no episode 6"):
        look_ahead(checkpoint, latents, 6, POSITION)


def test_a_checkpoint_may_be_given_by_name(latents: AnnData) -> None:
    assert look_ahead("rrxor/nextlat", latents, EPISODE, POSITION).tokens
    with pytest.raises(TypeError, match="model must be a checkpoint, the name of one or its model, got AnnData"):
        look_ahead(latents, latents, EPISODE, POSITION)


def test_latents_of_another_model_are_refused(checkpoint: Checkpoint, latents: AnnData) -> None:
    with pytest.raises(LatentsError, match="a checkpoint holds for one model"):
        look_ahead(checkpoint.untrained(), latents, EPISODE, POSITION)
    # A bare model has no hash, but its predictions differ from those in the table.
    with pytest.raises(LatentsError, match="predicts other next tokens"):
        look_ahead(checkpoint.untrained().model, latents, EPISODE, POSITION)
    narrow = latents[:, :32].copy()
    with pytest.raises(LatentsError, match="width 64, these latents have 32"):
        look_ahead(checkpoint.model, narrow, EPISODE, POSITION)
    broken = latents.copy()
    broken.X[35] = np.inf
    with pytest.raises(LatentsError, match="NaN or infinity"):
        look_ahead(checkpoint, broken, EPISODE, POSITION)
