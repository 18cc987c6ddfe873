from __future__ import annotations

import pytest

from .models import Ring


@pytest.fixture
def ring() -> Ring:
    return Ring()
