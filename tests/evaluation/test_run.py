"""An evaluation takes what fits, keeps what it has, and says what it was asked wrongly."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

import nextlat_viz as nlv
from nextlat_viz import evaluation
from nextlat_viz.analysis import Measure
from nextlat_viz.errors import UnknownNameError
from nextlat_viz.evaluation.battery import BATTERY, Entry

PAIR = ["rrxor/next_token", "rrxor/nextlat"]


def test_one_tidy_table_of_measures_with_settings_of_their_own() -> None:
    found = evaluation.evaluate(PAIR, ["loss", "rollout_divergence"], progress=False)
    table = found.table
    assert table.columns[:5].tolist() == ["measure", "model", "world", "objective", "seed"]
    assert table.columns[-5:].tolist() == ["value", "unit", "error", "trials", "weights_sha256"]
    assert {"quantity", "k"} <= set(table.columns)
    # Next-token models have no psi: the measure is taken of the other one.
    rolled = table[table["measure"] == "rollout_divergence"]
    assert rolled["objective"].unique().tolist() == ["nextlat"]
    assert set(rolled["unit"]) > {"nats"}
    assert found["loss"].table["objective"].tolist().count("next_token") == 3


def test_goes_on_where_it_was_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluation.evaluate(PAIR, ["loss", "layer_contributions"], progress=False).table
    taken: list[str] = []
    real = Entry.__call__

    def cut(entry: Entry, checkpoint: nlv.Checkpoint) -> Measure:
        taken.append(f"{entry.function} of {checkpoint.card.objective}")
        if len(taken) == 4:
            raise KeyboardInterrupt
        return real(entry, checkpoint)

    monkeypatch.setattr(Entry, "__call__", cut)
    with pytest.raises(KeyboardInterrupt):
        evaluation.evaluate(PAIR, ["loss", "layer_contributions"], out=tmp_path, progress=False)
    done = evaluation.evaluate(PAIR, ["loss", "layer_contributions"], out=tmp_path, progress=False).table
    assert taken[4:] == ["layer_contributions of nextlat"]
    pd.testing.assert_frame_equal(done, whole)


def test_a_part_of_other_weights_is_not_taken(tmp_path: Path) -> None:
    checkpoint = nlv.load("rrxor/nextlat")
    first = evaluation.evaluate([checkpoint], ["layer_contributions"], out=tmp_path, progress=False).table
    early = evaluation.evaluate([checkpoint.at(200)], ["layer_contributions"], out=tmp_path, progress=False).table
    assert len(list((tmp_path / "parts").iterdir())) == 2
    assert not first["value"].equals(early["value"])


def test_what_is_asked_wrongly() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'loss'"):
        evaluation.evaluate(PAIR, ["losses"], progress=False)
    with pytest.raises(ValueError, match=r"'path_accuracy' can be taken of none .*rrxor"):
        evaluation.evaluate(PAIR, ["path_accuracy"], progress=False)
    with pytest.raises(ValueError, match="checkpoints is empty"):
        evaluation.evaluate([], progress=False)
    found = evaluation.evaluate([*PAIR, "mess3/nextlat"], ["loss"], progress=False)
    with pytest.raises(ValueError, match="several worlds"):
        found["loss"]
    with pytest.raises(UnknownNameError, match="unknown measure 'belief'"):
        found["belief"]
    assert found.measures["loss", "mess3"].table["world"].unique().tolist() == ["mess3"]


@pytest.mark.parametrize("table", ["results.csv", "results.parquet"])
def test_written_whole(tmp_path: Path, table: str) -> None:
    found = evaluation.evaluate(PAIR, ["loss", "transition_consistency"], progress=False)
    written = evaluation.write(found, tmp_path, table=table)
    assert [path.name for path in written] == [table, "report.html"]
    read = pd.read_csv(written[0]) if table.endswith("csv") else pd.read_parquet(written[0])
    assert read["value"].tolist() == pytest.approx(found.table["value"].tolist(), rel=1e-5)
    page = written[1].read_text(encoding="utf-8")
    assert "transition consistency, rrxor" in page
    assert json.dumps(nlv.load(PAIR[1]).weights_sha256).strip('"') in page
    with pytest.raises(ValueError, match=r"results\.xlsx"):
        evaluation.write(found, tmp_path, table="results.xlsx")


def test_every_entry_leads_somewhere() -> None:
    import importlib

    for name, entry in BATTERY.items():
        assert callable(getattr(importlib.import_module(f"nextlat_viz.{entry.home}"), entry.function)), name
    assert "belief" in evaluation.battery(nlv.load("rrxor/nextlat"))
    assert "transition_consistency" not in evaluation.battery(nlv.load("rrxor/next_token"))
