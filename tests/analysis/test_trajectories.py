from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from nextlat_viz.analysis import compare_trajectories, mean_trajectory_error, probe, read_trajectory
from nextlat_viz.errors import LatentsError
from nextlat_viz.latents import world_of
from tests.synthetic import make_latents


def test_a_path_has_the_probes_reading_and_the_truth(trained: AnnData) -> None:
    reading = probe(trained)
    episode = int(reading.test_episodes[0])
    path = read_trajectory(trained, reading, episode)
    rows = np.flatnonzero(trained.obs["episode"] == episode)
    np.testing.assert_allclose(path.read, reading.predict(trained)[rows])
    np.testing.assert_array_equal(path.exact, trained.obsm["belief"][rows])
    np.testing.assert_array_equal(path.positions, np.arange(1, 11))
    assert path.tokens == tuple(trained.obs["token"].iloc[rows])
    assert path.held_out is True
    assert read_trajectory(trained, reading, int(reading.train_episodes[0])).held_out is False
    np.testing.assert_allclose(path.exact_coordinates, world_of(trained).belief_coordinates(path.exact))

    by_hand = path.read - path.exact
    np.testing.assert_allclose(path.distance, np.sqrt((by_hand**2).sum(1)))
    np.testing.assert_allclose(path.total_variation, 0.5 * np.abs(by_hand).sum(1))
    assert np.isnan(path.step[0])
    np.testing.assert_allclose(path.step[1:], np.linalg.norm(path.read[1:] - path.read[:-1], axis=1))
    np.testing.assert_allclose(path.exact_step[3], np.linalg.norm(path.exact[3] - path.exact[2]))


def test_the_frame_names_states_and_html_is_escaped(trained: AnnData) -> None:
    strange = trained.copy()
    strange.obs["token"] = strange.obs["token"].cat.rename_categories({"0": "<0>"})
    strange.uns["nextlat_viz"] = {**strange.uns["nextlat_viz"], "vocabulary": ["<0>", "1"]}
    path = read_trajectory(strange, probe(strange), 0)
    frame = path.to_frame()
    assert len(frame) == 10
    assert {"read_start", "exact_XOR 0", "distance", "total_variation", "step", "x", "exact_y"} <= set(frame.columns)
    assert "<0>" not in path._repr_html_()


def test_models_are_compared_in_one_frame(trained: AnnData, untrained: AnnData) -> None:
    tables = [trained, untrained]
    readings = [probe(table) for table in tables]
    episode = int(readings[0].test_episodes[0])
    frame = compare_trajectories(tables, readings, episode)
    assert list(frame["model"].unique()) == ["NextLat", "untrained"]
    assert len(frame) == 20
    mean = frame.groupby("model")["distance"].mean()
    assert mean["NextLat"] < mean["untrained"]
    exact = frame.pivot(index="position", columns="model", values="exact_x")
    np.testing.assert_array_equal(exact["NextLat"], exact["untrained"])
    assert set(compare_trajectories(tables, readings, episode, names=["a", "b"])["model"]) == {"a", "b"}


def test_the_mean_error_is_over_held_out_episodes_only(trained: AnnData) -> None:
    reading = probe(trained)
    result = mean_trajectory_error(trained, reading)
    paths = [read_trajectory(trained, reading, int(e)) for e in reading.test_episodes]
    np.testing.assert_allclose(result["distance"], np.mean([path.distance for path in paths], axis=0))
    np.testing.assert_allclose(result["total_variation"], np.mean([path.total_variation for path in paths], axis=0))
    assert (result["episodes"] == reading.test_episodes.size).all()
    # The fitted episodes must not matter.
    changed = trained.copy()
    changed.X[reading.train_rows] = 0
    pd.testing.assert_frame_equal(mean_trajectory_error(changed, reading), result)


def test_bad_input_is_named_in_the_error(trained: AnnData, untrained: AnnData) -> None:
    reading = probe(trained)
    with pytest.raises(LatentsError, match="no episode 999"):
        read_trajectory(trained, reading, 999)
    with pytest.raises(LatentsError, match="holds for one model"):
        read_trajectory(untrained, reading, 0)
    with pytest.raises(ValueError, match="target 'belief'"):
        read_trajectory(trained, probe(trained, "state"), 0)
    with pytest.raises(ValueError, match="1 tables and 0 probes"):
        compare_trajectories([trained], [], 0)
    with pytest.raises(ValueError, match="names"):
        compare_trajectories([trained], [reading], 0, names=[])
    other = make_latents(label="GPT", n=20, length=10, seed=1)
    with pytest.raises(LatentsError, match="another sequence"):
        compare_trajectories([trained, other], [reading, probe(other)], 0)
    fitted = trained[np.isin(trained.obs["episode"], reading.train_episodes)]
    with pytest.raises(LatentsError, match="none of the probe's held-out episodes"):
        mean_trajectory_error(fitted, reading)
