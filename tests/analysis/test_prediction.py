from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from nextlat_viz.analysis import next_token_scores, probe
from nextlat_viz.analysis.prediction import Prediction, episode_predictions, kl, prediction
from nextlat_viz.analysis.probes.result import read_out
from nextlat_viz.errors import LatentsError
from nextlat_viz.latents import extract, select, tokens_of
from nextlat_viz.training.checkpoint import load
from tests.synthetic import make_latents


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_kl_equals_scipy(seed: int, size: int) -> None:
    p, q = np.random.default_rng(seed).dirichlet(np.ones(size), size=(2, 3))
    np.testing.assert_allclose(kl(p, q), [entropy(a, b) for a, b in zip(p, q, strict=True)], atol=1e-12)


def test_kl_with_probabilities_of_zero() -> None:
    p, q = np.array([0.5, 0.5, 0.0]), np.array([1.0, 0.0, 0.0])
    assert kl(p, q) == np.inf
    assert kl(q, p) == pytest.approx(np.log(2))


def test_prediction_equals_the_row_of_the_table(trained: AnnData) -> None:
    result = prediction(trained, 23)
    assert (result.episode, result.position, result.label) == (2, 4, "NextLat")
    np.testing.assert_allclose(result.model, trained.obsm["next_token_probs"][23], atol=1e-7)
    assert result.exact is not None
    np.testing.assert_allclose(result.exact, trained.obsm["next_token_probs_exact"][23])
    # The synthetic model is 0.98 of the exact distribution and 0.02 of chance.
    assert result.kl == pytest.approx(float(entropy(result.exact, 0.98 * result.exact + 0.01)), abs=1e-6)
    assert "nats" in result._repr_html_()


def test_the_likeliest_tokens() -> None:
    result = Prediction(tuple("abcd"), np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.9, 0.1, 0.0, 0.0]), "x", 0, 1)
    top = result.top(2)
    assert top["token"].tolist() == ["a", "d"]
    assert top.index.tolist() == [0, 3]
    assert top["exact"].tolist() == [0.9, 0.0]
    blind = Prediction(tuple("ab"), np.array([0.3, 0.7]), None, "x", 0, 1)
    assert blind.kl is None
    assert blind.top()["exact"].isna().all()
    with pytest.raises(ValueError, match="k=0 must be at least 1"):
        result.top(0)


def test_probabilities_from_the_head_equal_those_of_the_table() -> None:
    checkpoint = load("rrxor/next_token")
    latents = extract(checkpoint, checkpoint.world.sample(5, 7, seed=3), progress=False)
    head = checkpoint.model.backbone.head.weight.detach().numpy()
    bare = latents.copy()
    del bare.obsm["next_token_probs"]
    np.testing.assert_allclose(prediction(bare, 9, head).model, prediction(latents, 9).model, atol=1e-5)
    with pytest.raises(LatentsError, match=r"hold no next-token probabilities.*head="):
        prediction(bare, 9)
    with pytest.raises(LatentsError, match=r"head must be \(V, 64\)"):
        prediction(bare, 9, head[:, :3])


def test_an_episode_position_by_position(trained: AnnData) -> None:
    table = episode_predictions(trained, 7)
    tokens = tokens_of(trained)[7]
    assert len(table) == 10
    for t in range(9):
        row = 70 + t
        following = tokens[t + 1]
        assert table["next_token"][t] == trained.obs["token"].iloc[row + 1] == table["token"][t + 1]
        assert table["model"][t] == pytest.approx(trained.obsm["next_token_probs"][row, following])
        assert table["exact"][t] == trained.obsm["next_token_probs_exact"][row, following]
        assert table["kl"][t] == prediction(trained, row).kl
    assert table.iloc[9][["next_token", "model", "exact"]].isna().all()
    assert np.isfinite(table["kl"][9])


def test_tokens_without_a_name_are_named_by_their_number(trained: AnnData) -> None:
    few = trained.copy()
    few.obs["token_id"] = np.where(few.obs["token"].astype(str) == "1", 3, 1)
    head = np.random.default_rng(0).normal(size=(5, 16))
    result = prediction(few, 23, head)
    assert result.vocabulary == ("0", "0", "2", "1", "4")
    # The world's distribution over two tokens cannot be compared with one over five.
    assert result.exact is None
    table = episode_predictions(few, 2, head)
    ids = few.obs["token_id"].to_numpy()[20:30]
    logits = few.X[20:30].astype(float) @ head.T
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(table["model"][:9], probs[np.arange(9), ids[1:]], rtol=1e-6)


def test_no_next_token_across_a_gap(trained: AnnData) -> None:
    table = episode_predictions(select(trained, position=[1, 2, 5, 6]), 7)
    assert table["model"].notna().tolist() == [True, False, True, False]


def test_the_next_token_of_a_group_is_the_product() -> None:
    a5 = make_group()
    table = episode_predictions(a5, 1)
    assert table["next_token"].tolist() == a5.obs["state"].astype(str)[a5.obs["episode"] == 1].tolist()
    np.testing.assert_allclose(table["exact"], 1)


def make_group() -> AnnData:
    from nextlat_viz import worlds
    from nextlat_viz.latents.table import build

    world = worlds.get("a5")
    episodes = world.sample(3, 5, seed=0)
    probs = world.next_token_probs(episodes.tokens)
    assert probs is not None
    meta = {"card": "{}", "weights_sha256": "0", "label": "ideal", "name": "a5/ideal/seed0", "step": 0}
    return build(probs, {}, episodes, world, meta, probs)


@pytest.mark.parametrize("row", [-1, 960])
def test_a_missing_row_is_refused(trained: AnnData, row: int) -> None:
    with pytest.raises(LatentsError, match=f"row={row}: these latents have rows 0 to 959"):
        prediction(trained, row)


def test_probabilities_of_nan_are_refused(trained: AnnData) -> None:
    broken = trained.copy()
    broken.obsm["next_token_probs"][4] = np.nan
    with pytest.raises(LatentsError, match="row 4 are NaN"):
        prediction(broken, 4)
    prediction(broken, 5)


def test_read_out_of_numbers(trained: AnnData) -> None:
    fitted = probe(trained, "belief")
    row = int(fitted.test_rows[3])
    result = read_out(trained, fitted, row)
    np.testing.assert_allclose(result.read, fitted.predict(trained)[row])
    np.testing.assert_allclose(result.truth, trained.obsm["belief"][row])
    assert result.held_out is True
    assert read_out(trained, fitted, int(fitted.train_rows[0])).held_out is False
    other = make_latents(n=96, length=10, seed=0, dim=15)
    with pytest.raises(LatentsError, match="another"):
        read_out(other, fitted, 0)


def test_read_out_of_classes(trained: AnnData) -> None:
    fitted = probe(trained, "state")
    result = read_out(trained, fitted, 11)
    assert result.read.sum() == pytest.approx(1)
    assert fitted.names[int(result.truth.argmax())] == trained.obs["state"].iloc[11]
    assert result.to_frame()["name"].tolist() == list(fitted.names)
    missing = trained.copy()
    missing.obs.iloc[11, missing.obs.columns.get_loc("state")] = None
    assert np.isnan(read_out(missing, fitted, 11).truth).all()
    assert read_out(missing, fitted, 12).truth.sum() == 1


def test_the_next_token_is_known_between_extracted_positions() -> None:
    checkpoint = load("mess3/nextlat")
    episodes = checkpoint.world.sample(4, 8, seed=1)
    whole, part = (extract(checkpoint, episodes, positions=kept, progress=False) for kept in (None, [2, 3, 6, 8]))
    shown = np.isin(whole.obs["position"], [2, 3, 6, 8])
    pd.testing.assert_frame_equal(next_token_scores(part), next_token_scores(whole)[shown])
    expected = episode_predictions(whole, 2).iloc[[1, 2, 5, 7]].reset_index(drop=True)
    pd.testing.assert_frame_equal(episode_predictions(part, 2), expected)
    assert expected["next_token"].notna().tolist() == [True, True, True, False]
