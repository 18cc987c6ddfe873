"""A progress file of each test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from nextlat_viz.course import record


@pytest.fixture(autouse=True)
def own_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(record, "_chosen", [])
    monkeypatch.chdir(tmp_path)
    return tmp_path / record.FILE
