"""Errors: what is missing, and what only seems to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from nextlat_viz import errors


def test_a_broken_package_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_binary.py").write_text("import broken_binary.core")
    (tmp_path / "lacks_another.py").write_text("import no_such_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="install it"):
        errors.optional("no_such_package.part", "install it")
    for package, cause in (("broken_binary", "broken_binary.core"), ("lacks_another", "no_such_dependency")):
        with pytest.raises(ImportError, match=cause):
            errors.optional(package, "install it")
