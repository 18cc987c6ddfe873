from __future__ import annotations

import pytest
from anndata import AnnData

from nextlat_viz.analysis import Projection, ProjectionCache, project
from tests.synthetic import make_latents


@pytest.fixture(scope="session")
def trained() -> AnnData:
    return make_latents(n=96, length=10)


@pytest.fixture(scope="session")
def untrained() -> AnnData:
    return make_latents(label="untrained", n=96, length=10)


@pytest.fixture(scope="session")
def small() -> AnnData:
    return make_latents(n=20, length=10)


@pytest.fixture(scope="session")
def umap_cache(tmp_path_factory: pytest.TempPathFactory) -> ProjectionCache:
    return ProjectionCache(user=tmp_path_factory.mktemp("projections"))


@pytest.fixture(scope="session")
def umap(small: AnnData, umap_cache: ProjectionCache) -> Projection:
    """The one UMAP of the whole run: importing and compiling it takes longer than all other tests here.

    Tests that use it are in the group "umap", which one process runs.
    """
    return project(small, "umap", cache=umap_cache, n_neighbors=10, n_epochs=30)
