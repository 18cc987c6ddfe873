from __future__ import annotations

import json
import sys
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from anndata import AnnData
from scipy.stats import ortho_group
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_info, threadpool_limits

import nextlat_viz as nlv
from nextlat_viz.analysis import Projection, ProjectionCache, aligned, probe, project, with_projection
from nextlat_viz.analysis.projection.project import distinct_rows
from nextlat_viz.analysis.projection.result import Affine, Nearest
from nextlat_viz.errors import LatentsError, UnknownNameError
from nextlat_viz.latents import world_of
from tests.synthetic import make_latents


@pytest.mark.parametrize("site", ["hidden", "block0"])
def test_pca_equals_scikit_learn_up_to_sign(trained: AnnData, site: str) -> None:
    result = project(trained, "pca", site=site)
    X = (trained.X if site == "hidden" else trained.layers[site]).astype(np.float64)
    model = PCA(2).fit(X)
    np.testing.assert_allclose(np.abs(result.coordinates), np.abs(model.transform(X)), atol=1e-4)
    assert result.explained_variance == pytest.approx(model.explained_variance_ratio_)
    assert result.coordinates.dtype == np.float32
    assert result.trustworthiness is not None
    assert 0.7 < result.trustworthiness <= 1
    assert result.note.startswith("PCA:")


def test_pca_has_a_fixed_sign_and_places_new_rows_exactly(trained: AnnData) -> None:
    result = project(trained, rows=np.arange(400))
    np.testing.assert_array_equal(result.transform(trained.X[:400]), result.coordinates)
    # eigh may return either sign: the largest loading of each axis decides.
    assert isinstance(result.placement, Affine)
    assert (result.placement.matrix[np.abs(result.placement.matrix).argmax(0), [0, 1]] > 0).all()


def test_belief_projection_is_the_probes_reading_in_picture_coordinates(trained: AnnData, untrained: AnnData) -> None:
    reading = probe(trained)
    result = project(trained, "belief", probe=reading)
    expected = world_of(trained).belief_coordinates(reading.predict(trained))
    np.testing.assert_allclose(result.coordinates, expected, atol=1e-5)
    np.testing.assert_allclose(result.transform(trained.X[:7]), expected[:7], atol=1e-5)
    with pytest.raises(ValueError, match="needs probe"):
        project(trained, "belief")
    with pytest.raises(ValueError, match="needs probe"):
        project(trained, "belief", probe=probe(trained, "state"))
    with pytest.raises(LatentsError, match="holds for one model"):
        project(untrained, "belief", probe=reading)


def test_rows_by_number_or_mask(trained: AnnData) -> None:
    mask = np.arange(trained.n_obs) % 3 == 0
    first, other = project(trained, rows=mask), project(trained, rows=np.flatnonzero(mask))
    np.testing.assert_array_equal(first.coordinates, other.coordinates)
    assert len(first.coordinates) == mask.sum() == len(first.rows)
    np.testing.assert_array_equal(project(trained, rows=[3, 5, 8]).rows, [3, 5, 8])
    for bad in (mask[:5], np.array([-1]), np.array([trained.n_obs]), np.array([0.5]), np.array([[0, 1]])):
        with pytest.raises(LatentsError, match="rows"):
            project(trained, rows=bad)


def test_equal_rows_are_laid_out_once() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 8)).astype(np.float32)
    repeated = np.concatenate([X, X + rng.normal(size=X.shape).astype(np.float32) * 1e-8, X[3:5]])
    first, which = distinct_rows(repeated)
    np.testing.assert_array_equal(first, np.arange(30))
    np.testing.assert_array_equal(which, [*range(30), *range(30), 3, 4])
    with pytest.raises(LatentsError, match="are 30 different ones"):
        project(table_of(np.concatenate([X, X])), "umap", n_neighbors=29)


def table_of(X: np.ndarray) -> AnnData:
    latents = make_latents(n=len(X), length=1)
    return AnnData(X, obs=latents.obs, uns={"nextlat_viz": latents.uns["nextlat_viz"]})


def test_transform_places_new_rows_between_their_neighbours() -> None:
    fitted = np.array([[0.0, 0.0], [1.0, 0.0], [9.0, 9.0]])
    place = Nearest(fitted, np.array([[0.0, 0.0], [10.0, 0.0], [50.0, 50.0]], dtype=np.float32), k=2)
    np.testing.assert_allclose(place(np.array([[0.25, 0.0]])), [[2.5, 0.0]])
    np.testing.assert_allclose(place(fitted), place.places)


@pytest.mark.slow
@pytest.mark.xdist_group("umap")
def test_umap_of_two_hundred_points(umap: Projection, small: AnnData) -> None:
    assert umap.coordinates.shape == (200, 2)
    assert np.isfinite(umap.coordinates).all()
    assert umap.params == {"n_neighbors": 10, "min_dist": 0.1, "n_epochs": 30, "seed": 0}
    assert umap.trustworthiness is not None
    assert umap.trustworthiness > 0.8
    assert not umap.cached
    np.testing.assert_allclose(umap.transform(small.X), umap.coordinates, atol=1e-6)
    near = umap.transform(small.X[:1] + 1e-3)
    assert np.linalg.norm(near - umap.coordinates[:1]) < 1


@pytest.mark.slow
@pytest.mark.xdist_group("umap")
def test_umap_is_read_from_the_cache(
    umap: Projection, small: AnnData, umap_cache: ProjectionCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nextlat_viz.analysis.projection.project.umap_layout", never)
    again = project(small, "umap", cache=umap_cache, n_neighbors=10, n_epochs=30)
    assert again.cached
    assert again.trustworthiness == umap.trustworthiness
    np.testing.assert_array_equal(again.coordinates, umap.coordinates)
    np.testing.assert_array_equal(again.transform(small.X[:9]), umap.transform(small.X[:9]))
    for change in ({"seed": 1}, {"min_dist": 0.2}, {"site": "block0"}, {"rows": np.arange(199)}):
        with pytest.raises(AssertionError, match="laid out"):
            project(small, "umap", cache=umap_cache, **{"n_neighbors": 10, "n_epochs": 30, **change})
    changed = small.copy()
    changed.X = small.X * 2
    with pytest.raises(AssertionError, match="laid out"):
        project(changed, "umap", cache=umap_cache, n_neighbors=10, n_epochs=30)


def never(*_: object, **__: object) -> np.ndarray:
    raise AssertionError("laid out")


@pytest.fixture
def fake_umap(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count layouts, which are the first two columns here."""
    calls: list[int] = []

    def layout(X: np.ndarray, **_: object) -> np.ndarray:
        calls.append(len(X))
        return X[:, :2].copy()

    monkeypatch.setattr("nextlat_viz.analysis.projection.project.umap_layout", layout)
    return calls


def test_cache_false_uses_no_cache(trained: AnnData, fake_umap: list[int]) -> None:
    for _ in range(2):
        project(trained, "umap", cache=False)
    assert fake_umap == [trained.n_obs, trained.n_obs]


def test_with_projection_returns_a_copy(trained: AnnData, fake_umap: list[int]) -> None:
    whole = with_projection(trained, project(trained))
    both = with_projection(whole, project(trained, "umap", site="block0", rows=np.arange(50), cache=False))
    assert "X_pca" not in trained.obsm
    assert np.isfinite(both.obsm["X_pca"]).all()
    assert np.isnan(both.obsm["X_umap_block0"][50:]).all()
    about = {key: json.loads(text) for key, text in both.uns["nextlat_viz_projections"].items()}
    assert about["X_umap_block0"]["params"]["n_neighbors"] == 15
    assert set(about) == {"X_pca", "X_umap_block0"}
    with pytest.raises(LatentsError, match="very latents"):
        with_projection(trained[:20], project(trained))


def test_aligned_projections_differ_only_in_shape(trained: AnnData, fake_umap: list[int]) -> None:
    turned = trained.copy()
    turned.X = (trained.X @ ortho_group.rvs(16, random_state=0) * 3 + 1).astype(np.float32)
    for make in (lambda table: project(table), lambda table: project(table, "umap", cache=False)):
        check_alignment(make, trained, turned)
    with pytest.raises(LatentsError, match="different rows"):
        aligned([project(trained), project(trained, rows=np.arange(50))])
    with pytest.raises(ValueError, match="nothing to align"):
        aligned([])


def check_alignment(make: Callable[[AnnData], Projection], one: AnnData, other: AnnData) -> None:
    first, second = make(one), make(other)
    fixed, moved = aligned([first, second])
    assert fixed is first
    before = np.linalg.norm(first.coordinates - second.coordinates)
    assert np.linalg.norm(fixed.coordinates - moved.coordinates) < before
    np.testing.assert_allclose(moved.transform(other.X[:20]), moved.coordinates[:20], atol=1e-4)
    assert "Procrustes" in moved.note
    if first.method == "pca":
        np.testing.assert_allclose(fixed.coordinates, moved.coordinates, atol=1e-4)


def test_html_is_escaped_and_shows_trustworthiness(trained: AnnData) -> None:
    strange = trained.copy()
    strange.uns["nextlat_viz"] = {**strange.uns["nextlat_viz"], "label": "<i>"}
    shown = project(strange)._repr_html_()
    assert "&lt;i&gt;" in shown
    assert "trustworthiness" in shown


def test_bad_input_is_named_in_the_error(trained: AnnData) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'umap'"):
        project(trained, "umpa")
    with pytest.raises(UnknownNameError, match="block0"):
        project(trained, site="blok0")
    with pytest.raises(LatentsError, match="needs at least 17 different rows"):
        project(trained, "umap", rows=np.arange(10))
    for name, value in {"n_neighbors": 1, "min_dist": -1.0, "n_epochs": 0}.items():
        with pytest.raises(ValueError, match=f"{name} must be .*{value}"):
            project(trained, "umap", **{name: value})
    with pytest.raises(LatentsError, match="at least 3 rows"):
        project(trained, rows=np.arange(2))
    broken = trained.copy()
    broken.X[0, 0] = np.inf
    with pytest.raises(LatentsError, match="NaN or infinity"):
        project(broken)
    assert project(trained, rows=np.arange(10)).trustworthiness is None


def test_umap_runs_on_one_blas_thread(trained: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []

    class Umap:
        def __init__(self, **_: object) -> None: ...

        def fit_transform(self, X: np.ndarray) -> np.ndarray:
            threads.extend(pool["num_threads"] for pool in threadpool_info())
            return X[:, :2]

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Umap))
    with threadpool_limits(2):
        project(trained, "umap", cache=False)
    assert set(threads) == {1}


@pytest.mark.slow
@pytest.mark.xdist_group("umap")
def test_umap_does_not_depend_on_the_number_of_threads(umap: Projection, small: AnnData) -> None:
    with threadpool_limits(2):
        other = project(small, "umap", cache=False, n_neighbors=10, n_epochs=30)
    np.testing.assert_array_equal(other.coordinates, umap.coordinates)


def test_a_checkpoint_is_extracted_and_an_array_refused(trained: AnnData) -> None:
    by_name = project("mess3/nextlat")
    np.testing.assert_array_equal(by_name.coordinates, project(nlv.load("mess3/nextlat")).coordinates)
    with pytest.raises(TypeError, match="latents must be a table of latents, a checkpoint or the name of one, got nd"):
        project(trained.X)
    with pytest.raises(ValueError, match="seed=-1 must be at least 0"):
        project(trained, "umap", seed=-1)
