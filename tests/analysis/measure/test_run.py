"""Evaluations: measures that fit, kept results, errors."""

from __future__ import annotations

import functools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import nextlat_viz as nlv
from nextlat_viz import evaluation, io
from nextlat_viz.analysis import Measure
from nextlat_viz.analysis.measure import Models, Rows, measure, record
from nextlat_viz.analysis.measure import evaluation as run
from nextlat_viz.analysis.measure.registry import MEASURES, Registered
from nextlat_viz.errors import CheckpointError, UnknownNameError
from tests.analysis.models import fresh
from tests.synthetic import make_latents

PAIR = ["rrxor/next_token", "rrxor/nextlat"]


def test_one_tidy_table_for_measures_with_different_settings() -> None:
    result = evaluation.evaluate(PAIR, ["loss", "rollout_divergence"], progress=False)
    table = result.table
    assert table.columns[:5].tolist() == ["measure", "model", "world", "objective", "seed"]
    assert table.columns[-5:].tolist() == ["value", "unit", "error", "trials", "weights_sha256"]
    assert {"quantity", "k"} <= set(table.columns)
    # Next-token models have no psi, so only the other model is measured.
    rolled = table[table["measure"] == "rollout_divergence"]
    assert rolled["objective"].unique().tolist() == ["nextlat"]
    assert set(rolled["unit"]) > {"nats"}
    assert result["loss"].table["objective"].tolist().count("next_token") == 4


def test_an_interrupted_evaluation_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluation.evaluate(PAIR, ["loss", "layer_contributions"], progress=False).table
    measured: list[str] = []

    def interrupted(name: str) -> Registered:
        real = MEASURES[name]

        @functools.wraps(real.take)
        def take(checkpoint: nlv.Checkpoint, **options: object) -> Measure:
            measured.append(f"{name} of {checkpoint.card.objective}")
            if len(measured) == 4:
                raise KeyboardInterrupt
            return real.take(checkpoint, **options)

        return Registered(take, real.fits)

    for name in ("loss", "layer_contributions"):
        monkeypatch.setitem(MEASURES, name, interrupted(name))
    with pytest.raises(KeyboardInterrupt):
        evaluation.evaluate(PAIR, ["loss", "layer_contributions"], out=tmp_path, progress=False)
    done = evaluation.evaluate(PAIR, ["loss", "layer_contributions"], out=tmp_path, progress=False).table
    assert measured[4:] == ["layer_contributions of nextlat"]
    pd.testing.assert_frame_equal(done, whole)


def test_a_kept_result_of_other_weights_is_not_used(tmp_path: Path) -> None:
    checkpoint = nlv.load("rrxor/nextlat")
    first = evaluation.evaluate([checkpoint], ["layer_contributions"], out=tmp_path, progress=False).table
    early = evaluation.evaluate([checkpoint.at(200)], ["layer_contributions"], out=tmp_path, progress=False).table
    assert len(list((tmp_path / "parts").iterdir())) == 2
    assert not first["value"].equals(early["value"])


def test_a_damaged_kept_result_is_measured_again(tmp_path: Path) -> None:
    checkpoint = nlv.load("rrxor/nextlat")
    first = evaluation.evaluate(checkpoint, "layer_contributions", out=tmp_path, progress=False).table
    (part,) = (tmp_path / "parts").iterdir()
    whole = part.read_bytes()
    for damaged in (
        b"",
        whole[:-100],
        whole.replace(b"embed", b"ember", 1),
        whole.replace(b"0.", b"1.", 1),
        b"[" * 9999,
    ):
        assert damaged != whole
        part.write_bytes(damaged)
        again = evaluation.evaluate(checkpoint, "layer_contributions", out=tmp_path, progress=False).table
        pd.testing.assert_frame_equal(first, again)
        assert part.read_bytes() == whole


def test_a_kept_result_is_the_same_table(tmp_path: Path) -> None:
    """Whole numbers, infinities and missing values survive."""
    rows = [record("w", "nextlat", 0, value=np.inf, kl=np.nan, note=None, hits=3), record("w", "x", None, value=0.1)]
    table = pd.DataFrame(rows).astype({"hits": "Int64"})
    result = Measure("m", table, unit="nats", references={"floor": 0.5}, note="n")
    io.write_json(tmp_path / "part.json", {"result": run._plain(result)})
    again = run._from_plain(io.read_json(tmp_path / "part.json")["result"])
    pd.testing.assert_frame_equal(again.table, result.table)
    assert (again.name, again.by, again.unit, again.references) == ("m", (), "nats", {"floor": 0.5})


def test_a_users_own_measure_is_never_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MEASURES, "mine", MEASURES["loss"])

    @measure("mine", key="mine", fits=lambda checkpoint: checkpoint.card.objective == "nextlat")
    def mine(models: Models) -> Rows:
        for model in models:
            yield model, {"value": 1.0}

    assert evaluation.battery()[-1] == "mine"
    table = evaluation.evaluate(PAIR, "mine", out=tmp_path, progress=False).table
    assert table[["objective", "value"]].values.tolist() == [["nextlat", 1.0]]
    assert not (tmp_path / "parts").exists()


def test_a_single_run_may_be_given() -> None:
    for alone in ("rrxor/nextlat", nlv.load("rrxor/nextlat"), nlv.load("rrxor/nextlat").folder):
        assert evaluation.evaluate(alone, "loss", progress=False).table["model"].nunique() == 1
    latents = make_latents(n=4, length=6)
    for wrong in (latents, [latents]):
        with pytest.raises(TypeError, match=r"checkpoints must hold checkpoints, names or folders, got AnnData"):
            evaluation.evaluate(wrong, "loss", progress=False)


def test_a_bad_card_hides_no_other_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PAIR:
        shutil.copytree(nlv.load(name).folder, tmp_path / name / "seed0")
    card = tmp_path / PAIR[0] / "seed0" / "card.json"
    card.write_text("{", encoding="utf-8")
    monkeypatch.setattr("nextlat_viz.training.checkpoint.checkpoints_dir", lambda: tmp_path)
    with pytest.warns(UserWarning, match=r"left out .*next_token"):
        table = evaluation.evaluate(measures="loss", progress=False).table
    assert table["objective"].unique().tolist() == ["nextlat"]
    with pytest.raises(CheckpointError, match="next_token"):
        evaluation.evaluate([card.parent, PAIR[1]], "loss", progress=False)


def test_models_without_their_corpus_are_left_out_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [nlv.load(name).folder for name in ("text/next_token", "text/nextlat", "rrxor/nextlat")]
    monkeypatch.setattr(run, "shipped_folders", lambda: folders)
    with pytest.warns(UserWarning, match=r"left out .*next_token.*, .*nextlat.*: the text of this world") as warnings:
        table = evaluation.evaluate(measures="loss", progress=False).table
    assert len(warnings) == 1
    assert table["model"].unique().tolist() == ["rrxor/nextlat/seed0"]


@pytest.mark.parametrize(("names", "measures"), [(PAIR, ["loss"]), (PAIR, ["belief"]), (["taxi/nextlat"], ["loss"])])
def test_belief_table_works_without_some_measures(names: list[str], measures: list[str]) -> None:
    beliefs = evaluation.belief_table(evaluation.evaluate(names, measures, progress=False).table)
    assert beliefs.empty
    assert {"loss", "belief_r2", "belief_r2_error", "seed", "weights_sha256"} <= set(beliefs.columns)


def test_a_damaged_table_of_results_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = evaluation.results()
    evaluation.write_results(table, tmp_path)
    monkeypatch.setattr("nextlat_viz.analysis.measure.tables.checkpoints_dir", lambda: tmp_path)
    assert len(evaluation.results()) == len(table)
    path = tmp_path / evaluation.RESULTS
    path.write_bytes(path.read_bytes().replace(b"0.9", b"0.8", 1))
    with pytest.raises(ValueError, match=r"results\.csv is damaged"):
        evaluation.results()
    (tmp_path / "results.json").unlink()
    with pytest.raises(ValueError, match=r"results\.csv is damaged"):
        evaluation.results()


def test_worlds_of_one_name_are_kept_apart() -> None:
    usual = nlv.load("mess3/nextlat")
    other = fresh(nlv.worlds.get("mess3", x=0.1))
    table = evaluation.evaluate([usual, other], ["transition_consistency", "loss"], progress=False)
    assert sorted(table.measures) == [
        (name, world) for name in ("loss", "transition_consistency") for world in ("mess3", "mess3:x=0.1")
    ]
    assert set(table.table["world"]) == {"mess3", "mess3:x=0.1"}


def test_runs_with_another_horizon_are_not_seeds_of_one_model() -> None:
    usual = nlv.load("mess3/nextlat")
    config = usual.card.config.model_copy(update={"horizon": 4, "steps": 10})
    other = replace(usual, card=usual.card.model_copy(update={"config": config}))
    table = evaluation.evaluate([usual, other], "loss", progress=False).table
    assert table["objective"].unique().tolist() == ["nextlat", "nextlat, horizon 4"]
    # Next-token models have no horizon.
    usual = nlv.load("mess3/next_token")
    other = replace(usual, card=usual.card.model_copy(update={"config": config}))
    assert evaluation.evaluate([usual, other], "loss", progress=False).table["objective"].unique() == ["next_token"]


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'loss'"):
        evaluation.evaluate(PAIR, ["losses"], progress=False)
    with pytest.raises(ValueError, match=r"'path_accuracy' fits none .*rrxor"):
        evaluation.evaluate(PAIR, ["path_accuracy"], progress=False)
    with pytest.raises(ValueError, match="checkpoints is empty"):
        evaluation.evaluate([], progress=False)
    result = evaluation.evaluate([*PAIR, "mess3/nextlat"], ["loss"], progress=False)
    with pytest.raises(ValueError, match="several worlds"):
        result["loss"]
    with pytest.raises(UnknownNameError, match="unknown measure 'belief'"):
        result["belief"]
    assert result.measures["loss", "mess3"].table["world"].unique().tolist() == ["mess3"]


@pytest.mark.parametrize("table", ["results.csv", "results.parquet"])
def test_write_evaluation_writes_table_and_report(tmp_path: Path, table: str) -> None:
    result = evaluation.evaluate(PAIR, ["loss", "transition_consistency"], progress=False)
    written = evaluation.write_evaluation(result, tmp_path, table=table)
    assert [path.name for path in written] == [table, "report.html"]
    read = pd.read_csv(written[0]) if table.endswith("csv") else pd.read_parquet(written[0])
    assert read["value"].tolist() == pytest.approx(result.table["value"].tolist(), rel=1e-5)
    page = written[1].read_text(encoding="utf-8")
    assert "transition consistency, rrxor" in page
    assert json.dumps(nlv.load(PAIR[1]).weights_sha256).strip('"') in page
    with pytest.raises(ValueError, match=r"results\.xlsx"):
        evaluation.write_evaluation(result, tmp_path, table="results.xlsx")


def test_battery_keeps_its_order_and_filters_by_fit() -> None:
    names = evaluation.battery()
    assert set(MEASURES) == {*run.BASIC, *run._SHIPPED}, "a measure of the package is missing in _SHIPPED"
    assert names[:5] == ["loss", "training_cost", "belief", "board", "tokens_ahead"]
    assert names[-8:-5] == ["length_generalisation", "acceptance", "solved_puzzles"]
    assert "belief" in evaluation.battery(nlv.load("rrxor/nextlat"))
    assert "transition_consistency" not in evaluation.battery(nlv.load("rrxor/next_token"))


def test_two_runs_of_one_name_can_be_told_apart(tmp_path: Path) -> None:
    for copy in ("first", "second"):
        shutil.copytree(nlv.load("rrxor/nextlat").folder, tmp_path / copy)
    folders = [tmp_path / "first", tmp_path / "second", "rrxor/next_token"]
    table = evaluation.evaluate(folders, ["loss"], progress=False).table
    names = ["rrxor/nextlat/seed0 (1)", "rrxor/nextlat/seed0 (2)", "rrxor/next_token/seed0"]
    assert table["model"].unique().tolist() == names
    rolled = nlv.analysis.rollout_divergence(folders[:2], steps=1, n=8, progress=False).table
    assert rolled["model"].unique().tolist() == names[:2]
