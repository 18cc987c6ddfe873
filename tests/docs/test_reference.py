"""Every public name is on exactly one page of the reference, and the pages are all in the contents."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import nextlat_viz
from docs import reference

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("api")
    reference.write(folder)
    return {path.stem: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def test_every_public_name_is_on_exactly_one_page(pages: dict[str, str]) -> None:
    directives = [
        (path, page)
        for page, text in pages.items()
        for path in re.findall(r"^\.\. (?:autoclass|autofunction|py:data):: (\S+)$", text, re.MULTILINE)
    ]
    objects = Counter(_resolved(path) for path, _ in directives)
    assert [name for name, count in objects.items() if count > 1] == []
    for stub in sorted((ROOT / "nextlat_viz").rglob("__init__.pyi")):
        package = ".".join(stub.parent.relative_to(ROOT).parts)
        for name in re.findall(r"^from \S+ import (\w+) as \1$", stub.read_text(encoding="utf-8"), re.MULTILINE):
            value = getattr(importlib.import_module(package), name)
            if not isinstance(value, ModuleType):
                assert _resolved(f"{package}.{name}") in objects, (
                    f"{package}.{name} is on no page: see docs/reference.py"
                )
    for package in ("figures", "models", "notebook", "pages"):
        for name, _ in reference.listed(f"nextlat_viz.{package}"):
            assert _resolved(f"nextlat_viz.{package}.{name}") in objects, f"{package}.{name} is on no page"


def _resolved(path: str) -> object:
    """The identity of an object; of a constant its name."""
    module, _, name = path.rpartition(".")
    value = getattr(importlib.import_module(module), name)
    return (value.__module__, value.__qualname__) if hasattr(value, "__qualname__") else name


def test_the_index_lists_every_name(pages: dict[str, str]) -> None:
    assert all(f"<{name.path}>`" in pages["index"] for name in reference.names())


def test_every_page_is_in_the_contents() -> None:
    docs = ROOT / "docs"
    listed = set()
    for path in docs.rglob("*.md"):
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
            entries = [line for line in tree.splitlines() if line and not line.startswith(":")]
            listed |= {(path.parent / entry).resolve() for entry in entries}
    pages = {path.with_suffix("").resolve() for path in docs.rglob("*.md")}
    assert pages - listed == {(docs / "index").resolve()}


def test_citation() -> None:
    """The Citation File Format 1.2.0 requires these."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert {"message", "title", "authors"} <= citation.keys()
    assert all(author.keys() <= {"name", "family-names", "given-names", "orcid"} for author in citation["authors"])
    assert citation["version"] == nextlat_viz.__version__
    assert citation["license"] == "MIT"
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {nextlat_viz.__version__}" in changes
