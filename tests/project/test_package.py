"""The package built, installed elsewhere, and used there."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from .pyproject import ROOT


def run(*command: object, cwd: Path = ROOT, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, and the wheel built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run("-m", "build", "--no-isolation", "--outdir", folder)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    return next(dist.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    run("-m", "pip", "install", "-qq", "--no-deps", "--no-index", "--target", folder, wheel)
    return folder


def test_wheel_holds_the_package_the_models_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"nextlat_viz"}
    files = (path for path in (ROOT / "checkpoints").rglob("*") if path.is_file() and path.suffix != ".pyc")
    shipped = {str(path.relative_to(ROOT)) for path in files}
    assert not any(name.endswith(".pyc") for name in names)
    assert any(name.endswith(".safetensors") for name in shipped)
    assert {name.replace("checkpoints/", "nextlat_viz/_checkpoints/", 1) for name in shipped} <= set(names)
    # All seeds of all models are shipped, so that every claim can be measured again.
    assert wheel.stat().st_size < 60e6


def test_sdist_holds_the_sources(dist: Path) -> None:
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "LICENSE", "pyproject.toml", "requirements.lock", "environment.yml", "Makefile"} <= names
    assert "notebooks/01_quickstart.ipynb" in names
    assert not any(name.startswith((".venv", ".git/", "artifacts", "runs", "demo")) for name in names)


def test_load_works_from_an_installed_package(installed: Path, tmp_path: Path) -> None:
    code = """
import pathlib, nextlat_viz as nlv
checkpoint = nlv.load("rrxor/nextlat")
print(pathlib.Path(nlv.__file__).parent, checkpoint.folder, checkpoint.name, sep="\\n")
"""
    package, folder, name = run("-c", code, cwd=tmp_path, PYTHONPATH=str(installed)).splitlines()
    assert Path(package) == installed / "nextlat_viz"
    assert Path(folder).is_relative_to(installed)
    assert name == "rrxor/nextlat/seed0"


def test_training_and_extraction_need_no_notebook(installed: Path, tmp_path: Path) -> None:
    """From the installed package, without the repository, and without what only figures and widgets need."""
    code = """
import sys
import nextlat_viz as nlv
assert len(nlv.list_checkpoints()) > 50
run = nlv.train("mess3", steps=20, layers=1, validation_episodes=8, progress=False, out="run")
latents = nlv.extract("run", run.world.sample(4, 12, seed=0), progress=False)
nlv.export_projector(latents, "projector")
heavy = {"IPython", "anywidget", "ipywidgets", "jupyterlab", "kaleido", "numba", "plotly", "sklearn", "umap"}
print(latents.shape, sorted(heavy & sys.modules.keys()))
"""
    assert run("-c", code, cwd=tmp_path, PYTHONPATH=str(installed)) == "(48, 64) []\n"
    assert (tmp_path / "projector" / "metadata.tsv").is_file()


def test_the_command_is_installed(installed: Path, tmp_path: Path) -> None:
    assert (installed / "bin" / "nextlat-viz").is_file()
    help_text = run("-m", "nextlat_viz.cli", "--help", cwd=tmp_path, PYTHONPATH=str(installed))
    assert "train" in help_text
