from __future__ import annotations

import jaxtyping
import pytest


@pytest.fixture
def without_shape_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run without shape checks, as a user does: our own errors are raised, and 100,000 small calls take seconds."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
