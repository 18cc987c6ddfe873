"""Commands, links and numbers in the README are right."""

from __future__ import annotations

import re

import pytest

from nextlat_viz import evaluation

from .pyproject import ROOT

TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def typed(document: str) -> str:
    """Return all code, fenced or inline."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_make_targets_exist(document: str) -> None:
    named = set(re.findall(r"\bmake ([a-z]+)", typed(document)))
    assert named
    assert named <= TARGETS


def test_readme_names_the_entry_points() -> None:
    commands = typed("README.md")
    for way_in in ("make lab", "make demo", "make test", "environment.yml", "pip install"):
        assert way_in in commands


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_links_and_pictures_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)", text) + re.findall(r'(?:src|href)="([^"#]+)"', text):
        if "://" not in target:
            assert (ROOT / target).exists(), target


def test_readme_numbers_are_the_measured_ones() -> None:
    assert evaluation.claims_markdown(evaluation.claims()) in (ROOT / "README.md").read_text(encoding="utf-8")
