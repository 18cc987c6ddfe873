"""Claims about the shipped checkpoints, measured again."""

import importlib.util
import itertools
import sys
from pathlib import Path

import pandas as pd
import pytest

import nextlat_viz as nlv
from nextlat_viz import evaluation, paths
from nextlat_viz.analysis.measure.tables import table_bytes
from nextlat_viz.training import checkpoint

_path = Path(__file__).parents[3] / "checkpoints" / "build.py"
_spec = importlib.util.spec_from_file_location("checkpoints_build", _path)
build = sys.modules["checkpoints_build"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(build)
RECIPES = build.RECIPES
# A deeper folder holds models that are compared with another folder's, and are not in the table of results.
MEASURED_RECIPES = [(folder, recipe) for folder, recipe in RECIPES.items() if "/" not in folder]
MEASURED = ["loss", "floor", "excess", "belief_r2", "belief_r2_shuffled", "belief_r2_untrained", "belief_r2_all_sites"]


@pytest.fixture(scope="module")
def results():
    return evaluation.belief_table(evaluation.results())


@pytest.fixture(scope="module")
def models():
    return [nlv.load(folder) for folder in checkpoint.shipped_folders()]


def beliefs(checkpoints):
    return evaluation.belief_table(evaluation.evaluate(checkpoints, ["loss", "belief"], progress=False).table)


def of(results, world, objective):
    return results.query("world == @world and objective == @objective")


def test_every_shipped_checkpoint_is_in_the_table(results, models):
    shipped = nlv.list_checkpoints()
    folder, model = (shipped["name"].str.split("/").str[part] for part in (0, 1))
    runs = shipped.assign(folder=folder, model=model).groupby(["folder", "model"])
    assert runs["seed"].apply(sorted).to_dict() == {
        (folder, model): list(range(recipe.seeds)) for folder, recipe in MEASURED_RECIPES for model in recipe.models
    }
    assert runs["objective"].agg(set).to_dict() == {
        (folder, model): {objective}
        for folder, recipe in MEASURED_RECIPES
        for model, (objective, _) in recipe.models.items()
    }
    table = evaluation.results()
    assert {model.weights_sha256 for model in models} == set(table["weights_sha256"])
    losses = table.query("measure == 'loss' and quantity == 'loss'").set_index("weights_sha256")["value"]
    for model in models:
        assert losses[model.weights_sha256] == pytest.approx(model.card.metrics["loss"], rel=1e-5)
    for objective, world in itertools.product(("next_token", "nextlat"), ("rrxor", "mess3", "z1r")):
        assert of(results, world, objective)["seed"].tolist() == [0, 1, 2, 3, 4]


def test_a_build_measures_only_what_results_lack(models, monkeypatch, tmp_path):
    monkeypatch.setattr(build, "RUNS", tmp_path)
    content = (paths.checkpoints_dir() / "results.csv").read_bytes()
    whole = build.as_text(content)
    assert build.missing(whole, models, ()) == {}
    losses = whole["measure"] == "loss"
    lost = losses & (whole["objective"] == "nextlat")
    gone = whole[-1:].assign(weights_sha256="of a model that is no longer shipped")
    table = build.measured(pd.concat([gone, whole[~lost]]), models)
    assert table_bytes(table, "results.csv") == content
    table = build.measured(whole.assign(value=whole["value"].mask(losses, "0")), models, ["loss"])
    assert table_bytes(table, "results.csv") == content
    with pytest.raises(SystemExit, match="'los' is no measure"):
        build.missing(whole, models, ["los"])


def test_variants_of_an_objective_have_their_own_names():
    recipe = build.Recipe(overrides={"steps": 6}, own={"nextlat": {"lambda_h": 2.0}})
    recipe.variants["nextlat_d4"] = ("nextlat", {"horizon": 4})
    assert recipe.models == {
        "next_token": ("next_token", {"steps": 6}),
        "nextlat": ("nextlat", {"steps": 6, "lambda_h": 2.0}),
        "nextlat_d4": ("nextlat", {"steps": 6, "horizon": 4}),
    }


def test_shared_projections_are_compared_on_the_same_data():
    recipe = RECIPES["sharing/story"]
    shipped = [nlv.load("story/next_token", seed) for seed in range(recipe.seeds)]
    for name, (objective, options) in recipe.models.items():
        for seed, plain in enumerate(shipped):
            model = nlv.load(f"sharing/story/{name}", seed)
            assert (model.objective, model.seed, model.world.spec) == (objective, seed, plain.world.spec)
            # The same data, step by step, and nothing else that differs.
            assert model.card.config == plain.card.config.model_copy(update=options)
            assert model.card.data_sha256 == plain.card.data_sha256
            assert model.model.backbone.config.kv_cache_bytes() <= plain.model.backbone.config.kv_cache_bytes()
            assert model.card.metrics["loss"] >= model.card.metrics["floor"]


def test_list_checkpoints_shows_the_headline_measure():
    shipped = nlv.list_checkpoints().set_index("name")
    assert set(shipped.loc[shipped.index.str.startswith("path_star/"), "measure"]) == {"accuracy"}
    assert set(shipped.loc[shipped.index.str.startswith("rrxor/"), "measure"]) == {"belief_r2"}
    assert set(shipped.loc[shipped.index.str.startswith("story/"), "measure"]) == {"legal"}
    for name in ("path_star/nextlat/seed0", "s3/nextlat/seed1", "taxi_grid/next_token/seed2"):
        card = nlv.load(name).card
        assert shipped.loc[name, "value"] == card.metrics[shipped.loc[name, "measure"]]
        assert shipped.loc[name, "excess"] == card.metrics["excess"]
    assert "path_star:nodes_per_arm=4,node_ids=12" in set(shipped["world"])


def test_nextlat_plans_and_next_token_does_not():
    (row,) = nlv.claims().query("world == 'path_star'").to_dict("records")
    assert len(row["nextlat"]) == len(row["next_token"]) == 5
    assert sum(value >= 0.95 for value in row["nextlat"]) >= 4
    assert max(row["next_token"]) < 0.60
    assert row["verdict"] == "holds"
    pair = [nlv.load("path_star/nextlat"), nlv.load("path_star/next_token")]
    measured = nlv.analysis.path_accuracy(pair, "greedy", progress=False).table.query("part == 'path'")
    assert measured["value"].tolist() == pytest.approx([row["nextlat"][0], row["next_token"][0]], abs=0.01)


def test_snapshots_cover_the_jump_in_accuracy():
    checkpoint = nlv.load("path_star/nextlat")
    before, after = (checkpoint.at(step) for step in (checkpoint.snapshots[4], checkpoint.snapshots[-1]))
    accuracy = nlv.analysis.path_accuracy([before, after], "greedy", n=200, progress=False).table
    low, high = accuracy.query("part == 'branch'")["value"]
    assert low < 0.7 < 0.95 < high


def test_psi_tracks_past_the_training_length_where_the_transformer_is_at_chance():
    runs = [nlv.load("s3/nextlat", seed) for seed in range(RECIPES["s3"].seeds)]
    assert all(run.card.config.context == 10 for run in runs)
    table = nlv.analysis.state_tracking(runs, (10, 20, 30), n=300, progress=False).table
    share = table.pivot(index="seed", columns=["reader", "length"], values="value")
    assert (share["psi", 20] >= 0.9).all()
    assert (share["transformer", 20] < 0.3).all()
    claimed = nlv.claims().query("world == 's3'")["nextlat"].iloc[0]
    assert share["psi", 20].tolist() == pytest.approx(claimed, abs=0.05)


def test_same_loss_but_different_beliefs(results):
    next_token, nextlat = of(results, "rrxor", "next_token"), of(results, "rrxor", "nextlat")
    assert next_token["excess"].max() < 0.01
    assert nextlat["excess"].max() < 0.01
    assert nextlat["belief_r2"].mean() >= 0.93
    assert nextlat["belief_r2"].mean() - next_token["belief_r2"].mean() >= 0.12


def test_no_loss_is_under_its_floor(results):
    assert (results["excess"] >= 0).all()
    assert (results["loss"] >= results["floor"]).all()
    shipped = nlv.list_checkpoints()
    # The law of a text is not known.
    known = shipped[~shipped["world"].str.startswith("text:")]
    assert known["floor"].notna().all()
    assert (known["loss"] >= known["floor"]).all()


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
    # The table may have been measured on another machine, so its last digits may differ.
    assert measured[MEASURED].astype(float).to_numpy() == pytest.approx(claimed[MEASURED].astype(float), abs=2e-3)


def test_shipped_checkpoints_are_small():
    from nextlat_viz.paths import checkpoints_dir

    assert sum(path.stat().st_size for path in checkpoints_dir().rglob("*") if path.is_file()) < 60_000_000


@pytest.mark.parametrize("objective", ["next_token", "nextlat"])
def test_snapshots_show_beliefs_emerging(objective):
    checkpoint = nlv.load(f"rrxor/{objective}")
    assert checkpoint.snapshots == [200, 600, 1200, 2400, 4000]
    assert beliefs([checkpoint.at(200)])["belief_r2"].iloc[0] < 0.9
