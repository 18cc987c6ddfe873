"""TrajectoryCompare on models that have no beliefs."""

from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData

from nextlat_viz.notebook import TrajectoryCompare

from .conftest import touch, traces


def without_beliefs(latents: AnnData, *, place: bool, probabilities: bool = True) -> AnnData:
    other = latents.copy()
    del other.obsm["belief"], other.obsm["next_token_probs_exact"]
    if not probabilities:
        del other.obsm["next_token_probs"]
    if place:
        other.obs["x"], other.obs["y"] = np.asarray(other.X[:, 0], float), np.asarray(other.X[:, 1], float)
    return other


def texts(compare: TrajectoryCompare) -> str:
    return " ".join(note.text for note in compare.plot.layout.annotations)


def test_places_read_by_probes_are_compared_with_true_ones(rrxor: list[AnnData]) -> None:
    compare = TrajectoryCompare(*(without_beliefs(latents, place=True) for latents in rrxor))
    assert compare._alert.value == compare.words == ""
    assert "x and y, read by linear probes" in texts(compare)
    assert (compare.plot.layout.xaxis.title.text, compare.plot.layout.yaxis.title.text) == ("x", "y")
    assert compare.paths[0].distance.max() < 0.5
    assert len(traces(compare.plot, "error")) == 2
    touch(compare.plot, "click", {traces(compare.plot, "strip")[0]: [4]})
    assert compare.state.position == 5
    compare.close()


@pytest.mark.parametrize("probabilities", [True, False])
def test_other_models_are_shown_in_pca_without_distances(rrxor: list[AnnData], probabilities: bool) -> None:
    compare = TrajectoryCompare(
        *(without_beliefs(latents, place=False, probabilities=probabilities) for latents in rrxor)
    )
    assert compare._alert.value == compare.words == ""
    assert "PCA 1 and PCA 2 of the latents" in texts(compare)
    assert "The exact path is not known, so there is no distance." in texts(compare)
    assert ("hold no next-token probabilities" in texts(compare)) != probabilities
    assert not traces(compare.plot, "error")
    assert len(traces(compare.plot, "path")) == 2
    compare.close()
