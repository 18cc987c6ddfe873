from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import procrustes as scipy_procrustes

from nextlat_viz import latents, worlds
from nextlat_viz.analysis import effective_rank, linear_cka, same_state_spread
from nextlat_viz.analysis.representations import latent_geometry, similarity
from nextlat_viz.analysis.shape import different_histories, merge_distance, trajectory_shapes
from nextlat_viz.decoding import UniformLegal
from nextlat_viz.errors import UnknownNameError
from nextlat_viz.training import Checkpoint, load

from .models import last_token_only

N = 24


@pytest.fixture(scope="module")
def runs() -> list[Checkpoint]:
    return [load("rrxor/nextlat/seed0"), load("rrxor/nextlat/seed1"), load("rrxor/next_token/seed0")]


def test_latent_geometry_equals_the_single_functions(runs: list[Checkpoint]) -> None:
    result = latent_geometry(runs, sites=["block1", "hidden"], n=N, progress=False).table
    assert len(result) == 3 * 2 * 5
    table = result.set_index(["model", "site", "quantity"])
    for run in (runs[0], runs[2]):
        own = latents.extract(run, latents.heldout(run, N), progress=False)
        for site in ("block1", "hidden"):
            rows, paths = different_histories(own), trajectory_shapes(own, site)
            expected = {
                "effective_rank": effective_rank(latents.site(own, site)),
                "same_state_spread": same_state_spread(own[rows], site=site),
                "merge_distance": merge_distance(own, site=site),
                "curvature": paths["curvature"].mean(),
                "path_length": paths["relative_length"].mean(),
            }
            for quantity, value in expected.items():
                assert table.loc[(run.name, site, quantity), "value"] == pytest.approx(value), quantity
    curved = table.loc[(runs[0].name, "hidden", "curvature")]
    assert curved["trials"] == N
    assert curved["error"] > 0


def test_states_of_a_model_of_the_last_token_are_merged() -> None:
    """The latent is a function of the last token, so histories that end in one token have one latent."""
    result = latent_geometry(
        last_token_only(), ["same_state_spread", "merge_distance"], by="token", n=N, progress=False
    ).table
    np.testing.assert_allclose(result["value"], 0, atol=1e-6)


def test_geometry_over_training(runs: list[Checkpoint]) -> None:
    result = latent_geometry(runs[0], ["effective_rank"], snapshots="all", n=N, min_position=3, progress=False)
    assert result.by == ("step", "site", "quantity")
    assert result.table["step"].tolist() == [0, *runs[0].snapshots]
    untrained = latents.extract(runs[0].untrained(), latents.heldout(runs[0], N), progress=False)
    first = effective_rank(untrained.X[latents.column(untrained, "position") >= 3])
    assert result.table["value"].iloc[0] == pytest.approx(first)
    assert result.table["trials"].iloc[0] == N * 10
    with pytest.raises(ValueError, match="no snapshot"):
        latent_geometry(runs[0], snapshots=[7], n=N, progress=False)


def test_spread_and_merge_distance_are_nan_without_repeated_states(runs: list[Checkpoint]) -> None:
    result = latent_geometry(
        runs[0], ["merge_distance", "same_state_spread"], by=["episode", "position"], n=N, progress=False
    ).table
    assert result["value"].isna().all()
    assert (result["trials"] == 0).all()


def test_similarity_is_pairwise(runs: list[Checkpoint]) -> None:
    result = similarity(runs, n=N, progress=False).set_index(["model", "other"])
    clouds = {run.name: latents.extract(run, latents.heldout(run, N), progress=False).X for run in runs}
    for (item, other), row in result.iterrows():
        assert row["cka"] == pytest.approx(linear_cka(clouds[item], clouds[other]))
        assert row["disparity"] == pytest.approx(scipy_procrustes(clouds[item], clouds[other])[2], abs=1e-6)
    assert len(result) == 9
    assert result.loc[(runs[0].name, runs[0].name), "cka"] == pytest.approx(1)
    # Two objectives differ more than two seeds of one objective.
    assert result.loc[(runs[0].name, runs[1].name), "cka"] > 0.9 > result.loc[(runs[0].name, runs[2].name), "cka"]


def test_similarity_between_layers(runs: list[Checkpoint]) -> None:
    result = similarity(runs[0], "all", n=N, progress=False)
    sites = runs[0].model.backbone.sites
    assert result["site"].tolist() == [site for site in sites for _ in sites]
    square = result.pivot(index="site", columns="other_site", values="cka").loc[sites, sites].to_numpy()
    np.testing.assert_allclose(square, square.T)
    np.testing.assert_allclose(np.diag(square), 1)


def test_bad_input_is_refused(runs: list[Checkpoint]) -> None:
    with pytest.raises(UnknownNameError, match=r"'rank'.*effective_rank"):
        latent_geometry(runs[0], ["rank"])
    with pytest.raises(UnknownNameError, match="block9"):
        latent_geometry(runs[0], sites="block9", n=N, progress=False)
    with pytest.raises(ValueError, match="n=1 must be at least 2"):
        latent_geometry(runs[0], n=1)
    with pytest.raises(ValueError, match="min_position=0"):
        similarity(runs[0], min_position=0)
    with pytest.raises(ValueError, match="raise n"):
        similarity(runs[0], n=4, progress=False)
    with pytest.raises(ValueError, match="no hidden states"):
        similarity([runs[0], UniformLegal(worlds.get("rrxor"))])
