"""The notebook for marimo: its cells run with a stand-in, because marimo is too large to install for this test."""

from __future__ import annotations

import inspect
import runpy
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.project.pyproject import ROOT


class App:
    def __init__(self, **_: Any) -> None:
        self.cells: list[Callable[..., Any]] = []

    def cell(self, function: Callable[..., Any]) -> Callable[..., Any]:
        self.cells.append(function)
        return function


def test_every_cell_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    marimo: Any = ModuleType("marimo")
    marimo.App, marimo.md = App, str
    marimo.ui = SimpleNamespace(
        dropdown=lambda options, value, label: SimpleNamespace(value=options[value]), plotly=drawn.append
    )
    monkeypatch.setitem(sys.modules, "marimo", marimo)
    app = runpy.run_path(str(ROOT / "notebooks" / "marimo_quickstart.py"))["app"]
    known: dict[str, Any] = {}
    for cell in app.cells:
        names = list(inspect.signature(cell).parameters)
        assert set(names) <= set(known), "a cell takes what no earlier cell returns"
        result = cell(*(known[name] for name in names))
        returned = inspect.getsource(cell).rpartition("return")[2].strip(" \n(),")
        if result is not None:
            known |= dict(zip([name.strip() for name in returned.split(",")], result, strict=True))
    assert {"checkpoint", "latents", "belief"} <= set(known)
    assert [trace.name for trace in drawn[0].data] == ["NextLat", "Bayes floor"]
