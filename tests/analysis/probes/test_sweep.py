from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nextlat_viz import worlds
from nextlat_viz.analysis import probe, split_episodes
from nextlat_viz.analysis.probes.ahead import ratio_error
from nextlat_viz.analysis.probes.sweep import ProbeSweep, probe_sweep
from nextlat_viz.errors import LatentsError, UnknownNameError
from nextlat_viz.latents.table import build
from tests.synthetic import make_latents

QUIET: dict[str, Any] = {"progress": False}


def relabelled(latents: AnnData, objective: str, seed: int) -> AnnData:
    """Return the same latents under the name of another run."""
    mine = latents.copy()
    about = dict(mine.uns["nextlat_viz"])
    card = json.loads(about["card"]) | {"objective": objective, "seed": seed}
    about |= {"card": json.dumps(card), "label": objective, "name": f"rrxor/{objective}/seed{seed}"}
    mine.uns["nextlat_viz"] = about
    return mine


@pytest.fixture(scope="module")
def runs() -> list[AnnData]:
    """Two objectives, two seeds; all read the same episodes."""
    first, other = make_latents(n=80, length=10), make_latents(label="next-token", noise=0.8, n=80, length=10)
    return [
        relabelled(table, name, seed) for table, name in ((first, "nextlat"), (other, "next_token")) for seed in (0, 1)
    ]


@pytest.fixture(scope="module")
def swept(runs: list[AnnData]) -> ProbeSweep:
    return probe_sweep(runs, sites="hidden", offsets=(0, 1, 3), **QUIET)


def ahead(latents: AnnData, values: np.ndarray, offset: int) -> tuple[np.ndarray, list[Any]]:
    """Return for each row the value `offset` rows later, if it is of the same episode."""
    episode = latents.obs["episode"].to_numpy()
    rows, result = [], []
    for i in range(latents.n_obs):
        if i + offset < latents.n_obs and episode[i + offset] == episode[i]:
            rows.append(i)
            result.append(values[i + offset])
    return np.array(rows), result


def test_classes_are_read_as_by_scikit_learn(trained: AnnData) -> None:
    result = probe_sweep(trained, sites=["block0", "hidden"], offsets=[0, 2, 5], tol=1e-5, controls=(), **QUIET)
    train, test = split_episodes(trained)
    for _, row in result.table.iterrows():
        X = trained.X if row["site"] == "hidden" else trained.layers["block0"]
        rows, tokens = ahead(trained, trained.obs["token"].astype(str).to_numpy(), row["offset"])
        y = dict(zip(rows, tokens, strict=True))
        a, b = (np.array([r for r in side if r in y]) for side in (train, test))
        scaler = StandardScaler().fit(X[train])
        theirs = LogisticRegression(tol=1e-8).fit(scaler.transform(X[a]), [y[r] for r in a])
        p = theirs.predict_proba(scaler.transform(X[b]))
        true = np.array([list(theirs.classes_).index(y[r]) for r in b])
        loss = -np.log(p[np.arange(len(b)), true])
        assert row["value"] == pytest.approx(loss.mean(), abs=2e-3)
        assert row["accuracy"] == pytest.approx((p.argmax(1) == true).mean(), abs=0.005)
        assert (row["trials"], row["fitted"], row["unseen"]) == (len(b), len(a), 0)
        share = np.bincount([list(theirs.classes_).index(y[r]) for r in a]) / len(a)
        assert row["prior"] == pytest.approx(-np.log(share[true]).mean(), abs=1e-3)
    assert result.by == ("offset", "site")
    assert (result.unit, result.better) == ("nats", "lower")


def test_numbers_are_read_by_ridge(trained: AnnData) -> None:
    result = probe_sweep(trained, "belief", sites="hidden", offsets=[0, 3], controls=(), **QUIET)
    train, test = split_episodes(trained)
    for _, row in result.table.iterrows():
        rows, beliefs = ahead(trained, trained.obsm["belief"], row["offset"])
        Y = dict(zip(rows, beliefs, strict=True))
        a, b = (np.array([r for r in side if r in Y]) for side in (train, test))
        theirs = make_pipeline(StandardScaler(), Ridge(row["penalty"])).fit(trained.X[a], np.stack([Y[r] for r in a]))
        expected = np.stack([Y[r] for r in b])
        wrong = np.square(theirs.predict(trained.X[b]) - expected).sum()
        assert row["value"] == pytest.approx(1 - wrong / np.square(expected - expected.mean(0)).sum(), abs=1e-5)
    now = probe(trained, "belief", n_bootstrap=1)
    assert result.table["value"][0] == pytest.approx(now.score, abs=1e-6)
    assert result.unit == "R2"


def test_controls_score_like_class_frequencies(trained: AnnData, untrained: AnnData) -> None:
    result = probe_sweep(trained, "state", sites="hidden", offsets=[0, 1], untrained=untrained, **QUIET).table
    assert (result["accuracy"] > result["untrained_accuracy"] + 0.05).all()
    assert (result["value"] < result["untrained"]).all()
    assert (result["selectivity"] == result["accuracy"] - result["shuffled_accuracy"]).all()
    assert (result["shuffled"] > result["value"]).all()
    assert result["selectivity"].iloc[0] > 0.2
    # The scores are the same whether or not controls are fitted with them.
    alone = probe_sweep(trained, "state", sites="hidden", offsets=[0, 1], controls=(), tol=1e-5, **QUIET).table
    beside = probe_sweep(trained, "state", sites="hidden", offsets=[0, 1], tol=1e-5, **QUIET).table
    np.testing.assert_allclose(alone["value"], beside["value"], atol=1e-4)
    assert "shuffled" not in alone


def test_shuffled_beliefs_cannot_be_read(trained: AnnData, untrained: AnnData) -> None:
    result = probe_sweep(trained, "belief", sites="hidden", offsets=[0], untrained=untrained, **QUIET).table
    assert abs(result["shuffled"][0]) < 0.15
    assert result["selectivity"][0] == pytest.approx(result["value"][0] - result["shuffled"][0])
    assert result["untrained"][0] < result["value"][0]


def test_every_run_is_kept_and_compared_with_its_seed(swept: ProbeSweep) -> None:
    assert len(swept.table) == 4 * 3
    difference = swept.relative_to("next_token")
    assert set(difference.table["objective"]) == {"nextlat"}
    for _, row in difference.table.iterrows():
        same = swept.table[(swept.table["seed"] == row["seed"]) & (swept.table["offset"] == row["offset"])]
        first, other = (float(same[same["objective"] == name]["value"].iloc[0]) for name in ("nextlat", "next_token"))
        assert row["value"] == pytest.approx(first - other)
    assert dict(difference.references) == {"next_token": 0.0}
    assert swept.compare()["difference"].iloc[1] == pytest.approx(difference.summary()["mean"].iloc[1])


def test_relative_to_needs_a_baseline_for_every_seed(swept: ProbeSweep, runs: list[AnnData]) -> None:
    with pytest.raises(UnknownNameError, match="unknown objective 'mtp'"):
        swept.relative_to("mtp")
    with pytest.raises(ValueError, match=r"next_token has no run of world 'rrxor' and seed 1, which nextlat has"):
        probe_sweep([runs[0], runs[1], runs[2]], sites="hidden", offsets=[1], **QUIET).relative_to()
    with pytest.raises(ValueError, match="all runs are of nextlat"):
        probe_sweep(runs[:1], sites="hidden", offsets=[1], **QUIET).relative_to("nextlat")


def test_scored_by_and_addition(swept: ProbeSweep, runs: list[AnnData]) -> None:
    accuracy = swept.scored_by("accuracy")
    assert (accuracy.unit, accuracy.better) == ("share", "higher")
    np.testing.assert_array_equal(accuracy.table["value"], swept.table["accuracy"])
    np.testing.assert_array_equal(accuracy.table["cross_entropy"], swept.table["value"])
    assert isinstance(accuracy, ProbeSweep)
    assert swept.scored_by("shuffled").unit == "nats"
    with pytest.raises(UnknownNameError, match=r"unknown score 'acuracy'\. Did you mean 'accuracy'"):
        swept.scored_by("acuracy")
    parts = [probe_sweep(table, sites="hidden", offsets=(0, 1, 3), **QUIET) for table in runs]
    together = parts[0] + parts[1] + parts[2] + parts[3]
    pd.testing.assert_frame_equal(together.table, swept.table)
    assert isinstance(together, ProbeSweep)


def test_several_targets_of_one_kind(trained: AnnData) -> None:
    result = probe_sweep(trained, ["token", "state"], sites="hidden", offsets=[0, 1], **QUIET)
    assert result.by == ("offset", "site", "target")
    assert result.table["target"].tolist() == ["token", "token", "state", "state"]
    with pytest.raises(ValueError, match="'belief' is read as numbers and 'token' as classes"):
        probe_sweep(trained, ["token", "belief"], sites="hidden", offsets=[0], **QUIET)


def test_positions_choose_the_rows_that_are_read(trained: AnnData) -> None:
    result = probe_sweep(trained, sites="hidden", offsets=[0, 4], positions=[2, 3], **QUIET).table
    _, test = split_episodes(trained)
    position = trained.obs["position"].to_numpy()[test]
    assert result["trials"].tolist() == [np.isin(position, [2, 3]).sum()] * 2


def test_a_class_never_fitted_counts_as_wrong_with_finite_loss(trained: AnnData) -> None:
    mine = trained.copy()
    _, test = split_episodes(mine)
    names = mine.obs["token"].astype(str).to_numpy()
    names[test[:7]] = "never seen"
    mine.obs["word"] = pd.Categorical(names)
    row = probe_sweep(mine, "word", sites="hidden", offsets=[0], **QUIET).table.iloc[0]
    assert row["unseen"] == 7
    assert np.isfinite(row["value"])
    assert row["accuracy"] <= 1 - 7 / row["trials"]
    # One part in (rows + 1) of a third.
    known = probe_sweep(trained, sites="hidden", offsets=[0], **QUIET).table.iloc[0]
    assert row["value"] > known["value"] * 0.9 + 7 / row["trials"] * np.log(3 * (row["fitted"] + 1)) * 0.9


def test_same_seed_same_numbers(trained: AnnData) -> None:
    tables = [probe_sweep(trained, sites="hidden", offsets=[1], seed=seed, **QUIET).table for seed in (3, 3, 4)]
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert tables[0]["value"][0] != tables[2]["value"][0]


def test_error_of_a_mean_over_groups_by_hand() -> None:
    values, groups = np.array([0.0, 1.0, 1.0, 4.0]), np.array([0, 0, 1, 1])
    # Sums 1 and 5 around 3: sqrt(2 * (4 + 4)) / 4.
    assert ratio_error(values, np.ones(4), groups) == pytest.approx(1.0)
    assert np.isnan(ratio_error(values, np.ones(4), np.zeros(4, int)))
    alone = ratio_error(values, np.ones(4), np.arange(4))
    assert alone == pytest.approx(values.std(ddof=1) / 2)


def test_bad_input_is_named_in_the_error(trained: AnnData, untrained: AnnData, small: AnnData) -> None:
    def refuse(kind: type[Exception], match: str, latents: Any = trained, **options: Any) -> None:
        with pytest.raises(kind, match=match):
            probe_sweep(latents, **{"sites": "hidden", "offsets": [1], **QUIET, **options})

    refuse(ValueError, r"offset 10 is beyond the episodes: .* end at position 10", offsets=[1, 10])
    refuse(ValueError, r"offsets=-1 must be at least 0: they count steps ahead, and 0 is now", offsets=[-1])
    refuse(ValueError, "must each name at least one", offsets=[])
    refuse(UnknownNameError, "unknown site 'hiden'. Did you mean 'hidden'", sites=["hiden"])
    refuse(UnknownNameError, "unknown target 'tokn'", target="tokn")
    refuse(UnknownNameError, "unknown control 'shufled'", controls=["shufled"])
    refuse(ValueError, r"no row is at positions=99: the latents have positions 1 to 10", positions=[99])
    refuse(ValueError, "latents is empty", latents=[])
    refuse(TypeError, "latents must be a table of latents, .* got ndarray", latents=[trained.X])
    refuse(ValueError, "one table per run, got 2 for 1", untrained=[untrained, untrained])
    refuse(LatentsError, "same episodes", latents=[trained, small])
    refuse(LatentsError, "different token sequences", latents=make_latents(n=3, length=10))
    broken = trained.copy()
    broken.X[5] = np.nan
    refuse(LatentsError, "NaN or infinity in 1 of", latents=broken)
    flat = trained.copy()
    flat.obs["same"] = pd.Categorical(["a"] * flat.n_obs)
    flat.obs["level"] = 1.0
    refuse(LatentsError, r"target 'same' has one class \(a\)", latents=flat, target="same")
    refuse(LatentsError, "target 'level' is constant", latents=flat, target="level")
    late = trained.copy()
    late.obs["late"] = pd.Categorical(np.where(late.obs["position"] > 5, "yes", "no"))
    late.obs["height"] = np.where(late.obs["position"] > 5, 1.0, 0.0)
    refuse(LatentsError, r"one class \(yes\) 6 steps ahead", latents=late, target="late", offsets=[1, 6])
    refuse(LatentsError, "constant 6 steps ahead", latents=late, target="height", offsets=[1, 6])


def test_a_board_is_swept_square_by_square() -> None:
    world = worlds.get("othello")
    episodes = world.sample(24, seed=0)
    board = episodes.states["board"].astype(int)
    about = {"card": "{}", "weights_sha256": "0", "label": "ideal", "name": "othello/ideal/seed0", "step": 0}
    latents = build(np.eye(3)[board].reshape(*board.shape[:2], -1), {}, episodes, world, about, None)
    rows = probe_sweep(latents, "board", sites="hidden", offsets=[0, 1], **QUIET).table
    alone = probe(latents, "board", n_bootstrap=5)
    assert rows["accuracy"][0] == pytest.approx(alone.score, abs=0.005)
    assert rows["balanced_accuracy"][0] == pytest.approx(alone.balanced, abs=0.02)
    assert rows["accuracy"][1] < rows["accuracy"][0]
    assert (rows["shuffled_accuracy"] < rows["accuracy"] - 0.02).all()


def test_a_target_fixed_by_position_is_controlled_by_shuffled_rows(trained: AnnData) -> None:
    row = probe_sweep(trained, "position", sites="hidden", offsets=[0, 2], **QUIET).table
    assert (row["shuffled"].abs() < 0.2).all()
    assert (row["selectivity"] > 0.1).all()
