"""environment.yml and pyproject.toml require the same packages, by their names in conda and in pip."""

from __future__ import annotations

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from rattler import MatchSpec

from .pyproject import PROJECT, ROOT, requirements

# All others have the same name.
CONDA_NAMES = {"torch": "pytorch", "kaleido": "python-kaleido", "lazy-loader": "lazy_loader"}
PIP_ONLY = {"lightning-fabric"}  # conda-forge has it only inside the whole of lightning

ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
CONDA = [entry for entry in ENVIRONMENT["dependencies"] if isinstance(entry, str)]
(PIP,) = (entry["pip"] for entry in ENVIRONMENT["dependencies"] if isinstance(entry, dict))


def conda_bounds() -> dict[str, str | None]:
    specs = [MatchSpec(entry, strict=True) for entry in CONDA]
    return {spec.name.normalized: str(spec.version) if spec.version else None for spec in specs}


@pytest.mark.parametrize("entry", CONDA)
def test_specs_are_valid_for_conda(entry: str) -> None:
    spec = MatchSpec(entry, strict=True)
    assert spec.build is None
    assert spec.channel is None


def test_only_conda_forge() -> None:
    assert ENVIRONMENT["channels"] == ["conda-forge"]


@pytest.mark.parametrize("name", sorted(set(requirements()) - PIP_ONLY))
def test_bounds_agree_with_pyproject(name: str) -> None:
    bound = conda_bounds().get(CONDA_NAMES.get(name, name))
    assert bound is not None, f"{name} is in pyproject.toml but not in environment.yml"
    assert SpecifierSet(bound) == requirements()[name].specifier


def test_no_other_packages_are_required() -> None:
    expected = {CONDA_NAMES.get(name, name) for name in set(requirements()) - PIP_ONLY}
    assert set(conda_bounds()) == expected | {"python", "pip"}


def test_python_bounds_agree() -> None:
    assert SpecifierSet(str(conda_bounds()["python"])) == SpecifierSet(PROJECT["requires-python"])


def test_pip_only_packages_come_from_pip() -> None:
    *lines, itself = PIP
    assert itself == "-e ."
    pinned = {canonicalize_name(requirement.name): requirement for requirement in map(Requirement, lines)}
    assert set(pinned) == PIP_ONLY
    for name, requirement in pinned.items():
        assert requirement.specifier == requirements()[name].specifier
