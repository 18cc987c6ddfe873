from __future__ import annotations

import jaxtyping
import pytest


@pytest.fixture
def without_shape_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as a user does: our own errors speak, and a hundred thousand small calls take seconds rather than minutes."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
