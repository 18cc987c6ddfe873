"""The package imports fast, and folders import only those below them."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .pyproject import ROOT

PACKAGE = ROOT / "nextlat_viz"
HEAVY = {
    "anndata",
    "anywidget",
    "datasets",
    "ipywidgets",
    "kaleido",
    "lightning_fabric",
    "networkx",
    "numba",
    "osmnx",
    "pandas",
    "plotly",
    "pydantic",
    "pyrosm",
    "scipy",
    "sklearn",
    "tokenizers",
    "torch",
    "transformers",
    "tyro",
    "umap",
}

# The folders that a folder may import from. An __init__.py only loads public names, so it is not in the list.
FOUNDATION = {"display", "errors", "io", "paths", "plotting"}
MAY_IMPORT = {
    "display": set(),
    "errors": set(),
    "io": set(),
    "paths": set(),
    "plotting": set(),
    "worlds": FOUNDATION,
    "models": FOUNDATION | {"worlds"},
    "training": FOUNDATION | {"worlds", "models"},
    "hf": FOUNDATION | {"worlds", "models", "training"},
    "decoding": FOUNDATION | {"worlds", "models", "training"},
    "latents": FOUNDATION | {"worlds", "models", "training", "hf"},
    "analysis": FOUNDATION | {"worlds", "models", "training", "decoding", "latents"},
    "figures": FOUNDATION | {"worlds", "latents", "analysis"},
    "notebook": FOUNDATION | {"worlds", "training", "latents", "analysis", "figures"},
    "pages": FOUNDATION | {"worlds", "training", "latents", "analysis", "figures", "notebook"},
    "course": FOUNDATION | {"worlds", "models", "training", "latents", "analysis", "figures", "notebook"},
    "cli": FOUNDATION
    | {"worlds", "models", "training", "hf", "decoding", "latents", "analysis", "figures", "notebook", "pages"},
}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> Iterator[tuple[str, int]]:
    """Absolute names a file imports anywhere in it, functions and TYPE_CHECKING blocks included."""
    package = ".".join(path.relative_to(ROOT).with_suffix("").parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join(parts[: len(parts) - node.level + 1] + ([base] if base else []))
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def python(code: str, cwd: Path) -> str:
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=True).stdout


def test_import_takes_under_300_ms(tmp_path: Path) -> None:
    # Processor time, which does not depend on other processes.
    code = "import time; start = time.process_time(); import nextlat_viz; print(time.process_time() - start)"
    assert min(float(python(code, tmp_path)) for _ in range(3)) < 0.3


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("nextlat_viz", set()),
        ("nextlat_viz.worlds", set()),
        # Training must work without the packages for figures and tables, as on a bare machine with a GPU.
        ("nextlat_viz.training", {"torch", "lightning_fabric", "pydantic"}),
    ],
)
def test_import_loads_nothing_heavy(name: str, allowed: set[str], tmp_path: Path) -> None:
    loaded = json.loads(python(f"import json, sys, {name}; print(json.dumps(sorted(sys.modules)))", tmp_path))
    assert HEAVY & {module.partition(".")[0] for module in loaded} <= allowed


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path: Path) -> None:
    here = room(path)
    assert here in MAY_IMPORT, f"{here} is a new room: say in this test what it may import"
    for name, line in imported_modules(path):
        top, _, rest = name.partition(".")
        if top == "nextlat_viz":
            there = rest.partition(".")[0]
            assert there == here or there in MAY_IMPORT[here], f"{path.relative_to(ROOT)}:{line}: {here} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_loading_never_runs_code(path: Path) -> None:
    """Weights, cards and tables are data: nothing here unpickles."""
    for name, line in imported_modules(path):
        assert name.partition(".")[0] not in {"pickle", "cloudpickle", "dill", "joblib", "shelve"}, f"{path}:{line}"
        assert name != "torch.load", f"{path}:{line}"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called != "torch.load", f"{path}:{node.lineno}: torch.load"
            assert not any(keyword.arg == "allow_pickle" for keyword in node.keywords), f"{path}:{node.lineno}"
            assert called not in {"eval", "exec"}, f"{path}:{node.lineno}: {called}"
