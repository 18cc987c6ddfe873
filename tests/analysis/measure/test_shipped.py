"""What is claimed of the shipped checkpoints, and that it can be measured again."""

import pandas as pd
import pytest

import nextlat_viz as nlv
from nextlat_viz import evaluation

MEASURED = ["loss", "floor", "excess", "belief_r2", "belief_r2_shuffled", "belief_r2_untrained", "belief_r2_all_sites"]


@pytest.fixture(scope="module")
def results():
    return evaluation.belief_table(evaluation.results())


def beliefs(checkpoints):
    return evaluation.belief_table(evaluation.evaluate(checkpoints, ["loss", "belief"], progress=False).table)


def of(results, world, objective):
    return results.query("world == @world and objective == @objective")


def test_every_shipped_checkpoint_is_in_the_table(results):
    shipped = nlv.list_checkpoints()
    assert shipped["world"].value_counts().to_dict() == {"rrxor": 10, "mess3": 6, "taxi": 4}
    assert set(shipped["name"]) == set(evaluation.results()["model"])
    shipped = shipped[shipped["world"] != "taxi"]
    by_name = shipped.set_index(["world", "objective", "seed"])["loss"].sort_index()
    measured = results.set_index(["world", "objective", "seed"])["loss"].sort_index()
    pd.testing.assert_series_equal(by_name, measured, rtol=1e-5)
    for objective in ("next_token", "nextlat"):
        assert of(results, "rrxor", objective)["seed"].tolist() == [0, 1, 2, 3, 4]
        assert of(results, "mess3", objective)["seed"].tolist() == [0, 1, 2]


def test_same_loss_different_knowledge(results):
    next_token, nextlat = of(results, "rrxor", "next_token"), of(results, "rrxor", "nextlat")
    assert next_token["excess"].max() < 0.01
    assert nextlat["excess"].max() < 0.01
    assert nextlat["belief_r2"].mean() >= 0.93
    assert nextlat["belief_r2"].mean() - next_token["belief_r2"].mean() >= 0.12


def test_no_loss_is_under_its_floor(results):
    assert (results["excess"] >= 0).all()
    assert (results["loss"] >= results["floor"]).all()


def test_controls_are_lower(results):
    for control in ("belief_r2_shuffled", "belief_r2_untrained"):
        assert (results[control] < results["belief_r2"] - 1.96 * results["belief_r2_error"]).all()
    assert (results["belief_r2_shuffled"].abs() < 0.05).all()


@pytest.mark.parametrize("name", ["rrxor/next_token/seed1", "rrxor/nextlat/seed4", "mess3/nextlat/seed2"])
def test_shipped_weights_give_the_numbers_in_the_table(results, name):
    measured = beliefs([name]).iloc[0]
    world, objective, seed = name.split("/")
    claimed = of(results, world, objective).query("seed == @seed", local_dict={"seed": int(seed[4:])}).iloc[0]
    assert measured["weights_sha256"] == claimed["weights_sha256"]
    # The table was measured on another machine, perhaps: its last digits may differ.
    assert measured[MEASURED].astype(float).to_numpy() == pytest.approx(claimed[MEASURED].astype(float), abs=2e-3)


def test_shipped_checkpoints_are_small():
    from nextlat_viz.paths import checkpoints_dir

    assert sum(path.stat().st_size for path in checkpoints_dir().rglob("*") if path.is_file()) < 12_000_000


@pytest.mark.parametrize("objective", ["next_token", "nextlat"])
def test_snapshots_show_the_picture_emerging(objective):
    checkpoint = nlv.load(f"rrxor/{objective}")
    assert checkpoint.snapshots == [200, 600, 1200, 2400, 4000]
    assert beliefs([checkpoint.at(200)])["belief_r2"].iloc[0] < 0.9
