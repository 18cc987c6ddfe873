"""Sweeps: every run is in one table, even killed and failed ones."""

from __future__ import annotations

import pandas as pd
import pytest

import nextlat_viz as nlv
from nextlat_viz.errors import UnknownNameError
from nextlat_viz.models import NextLat
from nextlat_viz.training import sweep
from nextlat_viz.training.sweeps import TABLE

QUICK = {"steps": 4, "layers": 1, "dim": 16, "heads": 2, "mlp_dim": 16, "psi_width": 16, "batch_size": 8}
QUICK |= {"validate_every": 2, "validation_episodes": 16, "save_every": 1, "decay_steps": 2, "warmup_steps": 1}


def test_every_run_is_in_the_table_and_on_disk(tmp_path):
    table = sweep("rrxor", seeds=[0, 1], grid={"horizon": [1, "2"]}, out=tmp_path, progress=False, **QUICK)
    # The next-token objective has no horizon, and is trained once for each seed.
    assert table[["objective", "horizon", "seed"]].fillna(0).values.tolist() == [
        *[["next_token", 0, 0], ["next_token", 0, 1]],
        *[["nextlat", horizon, seed] for horizon in (1, 2) for seed in (0, 1)],
    ]
    assert (table["error"] == "").all()
    assert table["loss"].to_numpy() == pytest.approx((table["floor"] + table["excess"]).to_numpy())
    for row in table.itertuples():
        assert nlv.load(row.folder).card.metrics["loss"] == row.loss
    assert (tmp_path / "nextlat" / "horizon=2" / "seed1" / "card.json").exists()
    kept = pd.read_csv(tmp_path / TABLE).fillna({"error": ""})
    pd.testing.assert_frame_equal(kept, table, check_dtype=False)


def test_a_failing_run_is_reported_and_tried_again(tmp_path, monkeypatch):
    forward = NextLat.forward

    def fails(self, batch):
        raise RuntimeError("the ground gave way")

    monkeypatch.setattr(NextLat, "forward", fails)
    broken = sweep("rrxor", ["nextlat", "next_token"], [0], out=tmp_path, progress=False, **QUICK)
    assert broken["error"].tolist() == ["RuntimeError: the ground gave way", ""]
    assert broken["loss"].isna().tolist() == [True, False]
    monkeypatch.setattr(NextLat, "forward", forward)
    whole = sweep("rrxor", ["nextlat", "next_token"], [0], out=tmp_path, progress=False, **QUICK)
    assert (whole["error"] == "").all()
    assert whole["loss"].tolist()[1:] == broken["loss"].tolist()[1:]


def test_a_killed_sweep_continues(tmp_path, monkeypatch):
    whole = sweep("rrxor", seeds=[0], out=tmp_path / "whole", progress=False, **QUICK)
    forward, calls = NextLat.forward, iter(range(100))

    def killed(self, batch):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return forward(self, batch)

    monkeypatch.setattr(NextLat, "forward", killed)
    with pytest.raises(KeyboardInterrupt):
        sweep("rrxor", seeds=[0], out=tmp_path / "cut", progress=False, **QUICK)
    monkeypatch.setattr(NextLat, "forward", forward)
    assert pd.read_csv(tmp_path / "cut" / TABLE)["objective"].tolist() == ["next_token"]
    resumed = sweep("rrxor", seeds=[0], out=tmp_path / "cut", progress=False, **QUICK)
    assert resumed["loss"].tolist() == whole["loss"].tolist()
    for ours, theirs in zip(resumed["folder"], whole["folder"], strict=True):
        assert nlv.load(ours).weights_sha256 == nlv.load(theirs).weights_sha256


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"objectives": ["nextlatt"]}, UnknownNameError, "unknown objective 'nextlatt'"),
        ({"grid": {"horizn": [1]}}, UnknownNameError, "unknown hyperparameter 'horizn'. Did you mean 'horizon'"),
        ({"grid": {"horizon": [0]}}, ValueError, "horizon=0: input should be greater than 0"),
        ({"grid": {"dim": [8]}, "dim": 16}, ValueError, "dim is in the grid and also given for all runs"),
        ({"grid": {"dim": []}}, ValueError, "nothing to train"),
        ({"seeds": []}, ValueError, "nothing to train"),
    ],
)
def test_mistakes_are_named_before_training(tmp_path, arguments, kind, message):
    with pytest.raises(kind, match=message):
        sweep("rrxor", out=tmp_path / "runs", **arguments)
    assert not (tmp_path / "runs").exists()
