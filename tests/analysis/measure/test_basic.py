"""The board that probes read: discs by side, or by colour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anndata import AnnData

import nextlat_viz as nlv
from nextlat_viz import evaluation, latents
from nextlat_viz.analysis.measure.basic import board_read
from nextlat_viz.latents.table import build


def test_board_is_read_by_side_and_by_colour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"steps": 1, "layers": 1, "heads": 1, "dim": 8, "mlp_dim": 8, "batch_size": 2, "validation_episodes": 4}
    model = nlv.train("othello", "next_token", out=tmp_path, progress=False, logger=None, **small)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)

    def ideal(checkpoint: Any, read: Any, positions: range, progress: bool) -> AnnData:
        """Return states with the discs by side for a trained model, and noise for the untrained one."""
        sides = np.eye(3)[read.states["board"].astype(int)].reshape(*read.tokens.shape, -1)
        hidden = sides if checkpoint.step else rng.normal(size=(*read.tokens.shape, 8))
        about = {"card": checkpoint.card.model_dump_json(), "weights_sha256": str(checkpoint.step), "label": "ideal"}
        table = build(hidden, {}, read, checkpoint.world, about | {"name": "ideal", "step": checkpoint.step}, None)
        return table[table.obs["position"].isin(positions)].copy()

    monkeypatch.setattr(latents, "extract", ideal)
    assert evaluation.battery(model)[2:4] == ["board", "tokens_ahead"]
    rows = board_read(model, 30, progress=False).table.set_index("discs")
    mine, black = rows.loc["mine, theirs"], rows.loc["black, white"]
    assert mine["value"] > 0.97
    assert mine["value"] - 0.1 > black["value"]
    for row in (mine, black):
        assert row["value"] > row["untrained"] + 0.1
        assert row["value"] > row["shuffled"] + 0.1
        assert row["prior"] < 0.8
