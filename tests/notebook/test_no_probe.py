"""If no probe can be fitted, widgets still open, draw the rest, and say why in one sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from anndata import AnnData

import nextlat_viz as nlv
from nextlat_viz.notebook import LatentExplorer, ProbeLab, TrajectoryCompare
from tests.synthetic import make_latents

from .conftest import traces

FEW = "these latents hold 3 different token sequences"
WIDGETS = (LatentExplorer, ProbeLab, TrajectoryCompare, nlv.studio)


@pytest.fixture(scope="module")
def few() -> AnnData:
    return make_latents(n=3)


def with_first_target(values: Any) -> AnnData:
    """Latents whose first target, the default of a new state, is a column of these values."""
    latents = make_latents()
    del latents.obsm["belief"], latents.obsm["next_token_probs_exact"]
    latents.obs["own"] = values
    latents.obs = latents.obs[["own", *(name for name in latents.obs if name != "own")]]
    return latents


def test_too_few_sequences_are_drawn_without_a_probe(few: AnnData) -> None:
    explorer, compare = LatentExplorer(few), TrajectoryCompare(few)
    assert explorer._alert.value == explorer.words == compare._alert.value == compare.words == ""
    assert traces(explorer.plot, "points")
    texts = " ".join(note.text for note in explorer.plot.layout.annotations).replace("<br>", " ")
    assert FEW in texts
    assert "PCA 1 and PCA 2 of the latents" in " ".join(note.text for note in compare.plot.layout.annotations)
    assert f"because there is no probe: {FEW}" in compare._why.value
    lab = ProbeLab(few)
    assert lab._alert.value == ""
    assert lab.words.startswith(f"There is no probe: {FEW}")
    for widget in (explorer, compare, lab):
        widget.close()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (1.0, "is constant over the"),
        (np.where(np.arange(64 * 12) % 3, 0.5 * np.arange(64 * 12), np.nan), "is missing in"),
    ],
    ids=["constant", "with gaps"],
)
def test_a_first_target_that_cannot_be_probed(values: Any, reason: str) -> None:
    latents = with_first_target(values)
    for make in WIDGETS:
        widget = make(latents)
        # Targets with gaps come after those without.
        assert widget.state.target == ("state" if np.isnan(values).any() else "own")
        widget.state.target = "own"
        widget.state.loop.flush()
        assert widget._alert.value == ""
        widget.state.select([0, 1])
        assert widget.selection["error, NextLat"].isna().all()
        if isinstance(widget, ProbeLab):
            assert reason in widget.words
            widget.state.target = "state"
            widget.state.loop.flush()
            assert widget.words == ""
            assert "share of wrong classes" in widget._table.value
            assert widget.selection["error, NextLat"].notna().all()
        widget.close()
