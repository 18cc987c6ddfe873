from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import balanced_accuracy_score, r2_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import nextlat_viz as nlv
from nextlat_viz import worlds
from nextlat_viz.analysis import probe, probe_mistakes, probe_positions, probe_sites, read_out, split_episodes
from nextlat_viz.analysis._rows import contents, prefixes
from nextlat_viz.analysis.probes.fit import ALPHAS, fit_ridge
from nextlat_viz.analysis.probes.targets import Classes
from nextlat_viz.errors import LatentsError, UnknownNameError
from nextlat_viz.latents import column, select, tokens_of
from nextlat_viz.latents.table import build
from tests.synthetic import make_latents


def with_hidden(latents: AnnData, hidden: np.ndarray) -> AnnData:
    return AnnData(hidden.astype(np.float32), obs=latents.obs.copy(), obsm=dict(latents.obsm), uns=dict(latents.uns))


def test_identical_sequences_are_on_one_side_of_the_split() -> None:
    # 64 episodes of 3 RRXOR tokens are at most 8 different ones.
    latents = make_latents(n=64, length=3)
    train, test = split_episodes(latents)
    assert np.array_equal(np.sort(np.concatenate([train, test])), np.arange(latents.n_obs))
    tokens = tokens_of(latents)
    sides = [{tuple(tokens[e]) for e in column(latents, "episode")[rows]} for rows in (train, test)]
    assert all(sides)
    assert not sides[0] & sides[1]


def test_split_is_seeded_and_sized(trained: AnnData) -> None:
    _, test = split_episodes(trained, test_size=0.25, seed=3)
    again = split_episodes(trained, test_size=0.25, seed=3)
    other = split_episodes(trained, test_size=0.25, seed=4)
    assert np.array_equal(test, again[1])
    assert not np.array_equal(test, other[1])
    sequences = np.unique(contents(trained)).size
    assert np.unique(contents(trained)[test]).size == round(0.25 * sequences)


def test_a_feature_that_names_the_episode_gains_nothing_held_out(trained: AnnData) -> None:
    episode = column(trained, "episode")
    rng = np.random.default_rng(0)
    names = with_hidden(trained, np.eye(episode.max() + 1)[episode])
    names.obs["luck"] = rng.normal(size=episode.max() + 1)[episode]
    result = probe(names, "luck")
    assert result.score < 0.05
    # Split by row, the same feature would have looked perfect.
    rows = rng.permutation(trained.n_obs)
    fitted = Ridge(1e-3).fit(names.X[rows[:700]], names.obs["luck"].iloc[rows[:700]])
    assert fitted.score(names.X[rows[700:]], names.obs["luck"].iloc[rows[700:]]) > 0.95


def test_prefixes_are_equal_exactly_when_the_tokens_read_are(trained: AnnData) -> None:
    tokens, ids = tokens_of(trained), prefixes(trained)
    read = [tuple(tokens[e, :p]) for e, p in zip(trained.obs["episode"], trained.obs["position"], strict=True)]
    assert len(set(read)) == len(set(ids)) == len(set(zip(read, ids, strict=True)))


def test_ridge_equals_scikit_learn_with_the_same_folds() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 5)) * [1, 5, 0.1, 2, 1] + 3
    Y = X @ rng.normal(size=(5, 2)) + 3 * rng.normal(size=(60, 2))
    groups = np.arange(60) // 6
    fitted = fit_ridge(X, Y, groups, seed=1)
    pipeline = make_pipeline(StandardScaler(), Ridge(fitted.penalty)).fit(X, Y)
    np.testing.assert_allclose(fitted(X), pipeline.predict(X), rtol=1e-9)
    folds = (np.random.default_rng(1).permutation(10) % 5)[groups]
    grid = GridSearchCV(
        Ridge(), {"alpha": list(ALPHAS)}, scoring="neg_mean_squared_error", cv=PredefinedSplit(folds)
    ).fit(StandardScaler().fit_transform(X), Y)
    assert grid.best_params_["alpha"] == fitted.penalty


def test_score_is_r2_of_held_out_rows(trained: AnnData) -> None:
    result = probe(trained, site="block0", min_position=2)
    belief, read = trained.obsm["belief"][result.test_rows], result.predict(trained)[result.test_rows]
    assert result.score == pytest.approx(r2_score(belief, read, multioutput="variance_weighted"))
    assert column(trained, "position")[result.test_rows].min() == 2
    assert result.interval[0] < result.score < result.interval[1]
    assert not set(result.train_episodes) & set(result.test_episodes)


@pytest.mark.parametrize("world", ["rrxor", "mess3"])
def test_logistic_regression_equals_scikit_learn(world: str) -> None:
    latents = make_latents(world, n=60, length=6, noise=0.3)
    result = probe(latents, "state")
    X, y = latents.X.astype(np.float64), column(latents, "state")
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000, tol=1e-8))
    model.fit(X[result.train_rows], y[result.train_rows])
    np.testing.assert_allclose(result.predict(latents), model.predict_proba(X), atol=0.004)
    assert result.names == tuple(model.classes_)
    assert result.score == pytest.approx(model.score(X[result.test_rows], y[result.test_rows]), abs=0.02)
    belief = latents.obsm["belief"][result.test_rows]
    assert result.ceiling == pytest.approx(belief.max(1).mean())
    assert result.chance is not None
    assert result.chance < result.score < result.ceiling + 0.1


def test_two_classes_and_classes_never_fitted() -> None:
    X = np.array([[-1.0], [-0.5], [0.5], [1.0]])
    rows = np.arange(4)

    def logits(codes: list[int]) -> np.ndarray:
        classes = Classes(np.array(codes)[:, None], ("low", "middle", "high"), ("height",))
        return classes.fit(X, rows, rows, seed=0)(X)

    assert list(logits([0, 0, 2, 2]).argmax(1)) == [0, 0, 2, 2]
    assert (logits([0, 0, 2, 2])[:, 1] < -20).all()
    assert list(logits([1, 1, 1, 1]).argmax(1)) == [1, 1, 1, 1]


def test_controls_are_low(trained: AnnData, untrained: AnnData) -> None:
    result = probe(trained, untrained=untrained)
    assert result.score > 0.9
    assert abs(result.shuffled) < 0.2
    assert result.untrained is not None
    assert result.untrained < 0.5
    assert result.ceiling == 1.0
    assert probe(trained).untrained is None


def test_shuffled_control_keeps_the_position_unless_it_fixes_the_target() -> None:
    latents = make_latents(n=64, length=8)
    latents.obs["late"] = 1.0 * (column(latents, "position") > 4) + 0.01 * column(latents, "episode")
    kept = probe(latents, "late")
    assert (kept.shuffled_by, kept.shuffled > 0.5) == ("episodes", True)
    fixed = probe(latents, "position")
    assert fixed.shuffled_by == "rows"
    assert abs(fixed.shuffled) < 0.1 < 0.5 < fixed.score
    assert "shuffles rows, not episodes" in fixed.note


def test_the_balanced_score_equals_scikit_learn(trained: AnnData) -> None:
    result = probe(trained, "state", n_bootstrap=5)
    read = np.array(result.names)[result.predict(trained)[result.test_rows].argmax(axis=1)]
    true = trained.obs["state"].astype(str).to_numpy()[result.test_rows]
    assert result.balanced == pytest.approx(balanced_accuracy_score(true, read))
    assert result.to_frame()["balanced"].tolist() == [result.balanced]


def test_a_board_is_scored_square_by_square() -> None:
    world = worlds.get("othello")
    episodes = world.sample(24, seed=0)
    board = episodes.states["board"].astype(int)
    about = {"card": "{}", "weights_sha256": "0", "label": "ideal", "name": "othello/ideal/seed0", "step": 0}
    hidden = np.eye(3)[board].reshape(*board.shape[:2], -1)
    latents = build(hidden, {}, episodes, world, about, None)
    result = probe(latents, "board", n_bootstrap=5)
    assert (result.metric, result.columns, len(result.names)) == ("accuracy", 64, 192)
    assert result.names[:3] == ("board[0]=empty", "board[0]=mine", "board[0]=theirs")
    assert result.score > 0.97 > result.chance > 0.5  # type: ignore[operator]
    assert result.shuffled < result.score - 0.05
    codes = latents.obsm["board"][result.test_rows]
    p = result.predict(latents)[result.test_rows].reshape(-1, 64, 3)
    np.testing.assert_allclose(p.sum(2), 1)
    assert result.score == pytest.approx((p.argmax(2) == codes).mean())
    recalls = [
        np.mean([(p[:, i].argmax(1) == k)[codes[:, i] == k].mean() for k in np.unique(codes[:, i])]) for i in range(64)
    ]
    assert result.balanced == pytest.approx(np.mean(recalls))
    # Other codes for the same classes are the same information.
    swapped = latents.copy()
    swapped.obsm["board"] = np.array([0, 2, 1])[latents.obsm["board"]]
    assert probe(swapped, "board", n_bootstrap=5).score == pytest.approx(result.score, abs=0.01)
    reading = read_out(latents, result, int(result.test_rows[0]))
    np.testing.assert_array_equal(reading.truth.reshape(64, 3).argmax(1), codes[0])
    assert probe_mistakes(latents, result)[result.test_rows].mean() == pytest.approx(1 - result.score)


def test_minus_one_for_no_value_is_left_out() -> None:
    world = worlds.get("countdown")
    episodes = world.sample(64, seed=0)
    about = {"card": "{}", "weights_sha256": "0", "label": "ideal", "name": "countdown/ideal/seed0", "step": 0}
    left = episodes.states["left"].astype(float)
    hidden = np.stack([left, left == -1, np.ones_like(left)], axis=2)
    latents = build(hidden, {}, episodes, world, about, None)
    result = probe(latents, "left", n_bootstrap=5)
    known = latents.obs["left"].to_numpy()[result.test_rows] != -1
    assert 0.1 < known.mean() < 0.9
    truth, read = (values[result.test_rows][known] for values in (left.reshape(-1), result.predict(latents)[:, 0]))
    assert result.score == pytest.approx(r2_score(truth, read))
    remaining = probe(latents, "remaining", n_bootstrap=5)
    assert remaining.coef.shape == (world.numbers, 3)
    assert np.isfinite(remaining.coef).all()


def test_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    latents = make_latents(n=400, length=10, dim=2)
    signal = rng.normal(size=(latents.n_obs, 1))
    # Errors shared by an episode: an interval over rows would be three times too narrow.
    shared = rng.normal(size=(400, 1))[column(latents, "episode")]
    noisy = with_hidden(latents, np.hstack([signal, rng.normal(size=signal.shape)]))
    noisy.obsm["truth"] = signal + shared
    inside, widths = 0, []
    for seed in range(20):
        result = probe(noisy, "truth", seed=seed)
        inside += result.interval[0] <= 0.5 <= result.interval[1]
        widths.append(result.interval[1] - result.interval[0])
    assert inside >= 16
    assert 0.05 < np.mean(widths) < 0.3


def test_same_seed_same_numbers(trained: AnnData) -> None:
    first, second = probe(trained, seed=5).to_frame(), probe(trained, seed=5).to_frame()
    pd.testing.assert_frame_equal(first, second)


def test_predict_reads_raw_latents_in_the_targets_units(trained: AnnData, untrained: AnnData) -> None:
    result = probe(trained)
    assert result.names == ("start", "first 0", "first 1", "XOR 1", "XOR 0")
    by_hand = trained.X.astype(np.float64) @ result.coef.T + result.intercept
    np.testing.assert_allclose(result.predict(trained), by_hand)
    assert np.abs(result.predict(trained) - trained.obsm["belief"]).mean() < 0.1
    np.testing.assert_allclose(result.predict(trained[5:9]), by_hand[5:9])
    with pytest.raises(LatentsError, match="holds for one model"):
        result.predict(untrained)
    with pytest.raises(LatentsError, match="width 16"):
        result.read(np.zeros((2, 3)))


def test_numeric_and_boolean_columns_are_targets(trained: AnnData) -> None:
    latents = trained.copy()
    latents.obs["odd"] = column(latents, "position") % 2 == 1
    assert probe(latents, "odd").metric == "accuracy"
    result = probe(latents, "position")
    assert (result.metric, result.names) == ("R2", ("position",))
    assert probe(latents, "token").ceiling == 1.0
    assert probe(latents, "next_token_probs_exact").names == ("0", "1")


def test_sites_and_positions(trained: AnnData, untrained: AnnData) -> None:
    table = probe_sites(trained, untrained=untrained, n_bootstrap=20)
    assert list(table["site"]) == ["embed", "block0", "block1", "hidden"]
    assert table["score"].is_monotonic_increasing
    assert list(probe_sites(trained, sites=["hidden", "all"])["site"]) == ["hidden", "all"]
    result = probe(trained, min_position=2)
    positions = probe_positions(trained, result)
    assert list(positions["position"]) == list(range(2, 11))
    assert positions["rows"].sum() == result.test_rows.size
    assert positions["score"].iloc[-1] > 0.9
    with pytest.raises(LatentsError, match="very latents"):
        probe_positions(trained[:20], result)


def test_unseen_prefixes_have_their_own_score() -> None:
    result = probe(make_latents(n=128, length=12))
    assert result.unseen is not None
    assert 30 <= result.unseen_rows < result.test_rows.size
    assert result.unseen > 0.9
    assert probe(make_latents(n=64, length=4)).unseen is None


def test_slices_and_ragged_tables_can_be_probed(trained: AnnData) -> None:
    rng = np.random.default_rng(0)
    ragged = trained[rng.random(trained.n_obs) < 0.7]
    assert probe(ragged).score > 0.9
    late = select(trained, position=range(4, 11))
    assert probe(late).score > 0.9


def test_html_is_escaped(trained: AnnData) -> None:
    latents = trained.copy()
    latents.obs["<b>"] = column(latents, "position") * 1.0
    shown = probe(latents, "<b>")._repr_html_()
    assert "&lt;b&gt;" in shown
    assert "held-out R2" in shown
    assert "shuffled labels" in shown


def test_bad_input_is_named_in_the_error(trained: AnnData) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'belief'"):
        probe(trained, "belif")
    with pytest.raises(UnknownNameError, match="Did you mean 'block1'"):
        probe(trained, site="blok1")
    with pytest.raises(ValueError, match="test_size"):
        split_episodes(trained, test_size=1.5)
    with pytest.raises(ValueError, match="n_bootstrap"):
        probe(trained, n_bootstrap=0)
    with pytest.raises(ValueError, match="sites is empty"):
        probe_sites(trained, sites=[])
    with pytest.raises(LatentsError, match="2 different token sequences"):
        probe(make_latents(n=32, length=1))
    with pytest.raises(LatentsError, match="positions end at 10"):
        probe(trained, min_position=11)
    with pytest.raises(LatentsError, match="same episodes"):
        probe(trained, untrained=make_latents(label="untrained", n=96, length=10, seed=1))
    with pytest.raises(LatentsError, match="same rows"):
        probe(trained, untrained=make_latents(label="untrained", n=96, length=10)[:50])

    broken = trained.copy()
    broken.X[3, 2] = np.nan
    with pytest.raises(LatentsError, match="1 of 960 rows"):
        probe(broken)
    constant = trained.copy()
    constant.obs["level"], constant.obs["kind"] = 0.3, "one"
    with pytest.raises(LatentsError, match="constant"):
        probe(constant, "level")
    with pytest.raises(LatentsError, match="one class"):
        probe(constant, "kind")
    constant.obs["level"] = np.where(np.arange(960) == 4, np.nan, np.arange(960.0))
    with pytest.raises(LatentsError, match="missing in 1 of 960"):
        probe(constant, "level")
    constant.obsm["wide"] = np.full((960, 2), np.inf)
    with pytest.raises(LatentsError, match="NaN or infinity"):
        probe(constant, "wide")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed=-1 must be at least 0"),
        ({"seed": "1"}, "seed='1' must be an integer"),
        ({"min_position": -1}, "min_position=-1 must be at least 0"),
    ],
)
def test_options_are_checked(trained: AnnData, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(probe)(trained, **options)
    with pytest.raises(ValueError, match="test_size must be a share between 0 and 1"):
        inspect.unwrap(split_episodes)(trained, test_size="0.3")  # type: ignore[arg-type]


def test_a_checkpoint_is_extracted_and_anything_else_refused(trained: AnnData) -> None:
    by_name = probe("mess3/nextlat", n_bootstrap=5)
    assert by_name.score == probe(nlv.load("mess3/nextlat"), n_bootstrap=5).score > 0.9
    with pytest.raises(TypeError, match="latents must be a table of latents, a checkpoint or the name of one, got nd"):
        probe(trained.X)
    with pytest.raises(TypeError, match="sites=0 must be names of sites: embed, block0, block1, hidden, all"):
        inspect.unwrap(probe_sites)(trained, sites=0)
