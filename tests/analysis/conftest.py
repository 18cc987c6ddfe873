from __future__ import annotations

import pytest
from anndata import AnnData

from tests.synthetic import make_latents


@pytest.fixture(scope="session")
def trained() -> AnnData:
    return make_latents(n=96, length=10)


@pytest.fixture(scope="session")
def untrained() -> AnnData:
    return make_latents(label="untrained", n=96, length=10)
