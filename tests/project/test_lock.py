"""requirements.lock pins every dependency within its bounds, and names nothing of the machine that made it."""

from __future__ import annotations

import re
from importlib import metadata

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from .pyproject import PROJECT, ROOT, requirements

LINES = [
    line for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines() if not line.startswith("#")
]
PINS = {
    canonicalize_name(requirement.name): Version(next(iter(requirement.specifier)).version)
    for requirement in map(Requirement, LINES)
}


def test_every_line_is_a_plain_pin() -> None:
    for line in LINES:
        # A local label or a path would tie the lock to the machine it was made on.
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), line
    assert len(PINS) == len(LINES)


@pytest.mark.parametrize("name", sorted(requirements("app", "city", "cluster", "text", "hf", "docs", "dev")))
def test_pins_satisfy_their_bounds(name: str) -> None:
    bound = requirements("app", "city", "cluster", "text", "hf", "docs", "dev")[name]
    assert name in PINS, f"{bound} is in pyproject.toml but not in the lock: run make lock"
    assert bound.specifier.contains(PINS[name]), f"{bound} excludes the lock's {PINS[name]}: run make lock"
    assert list(bound.specifier), f"{name} has no lower bound in pyproject.toml"


def test_the_lock_includes_all_dependencies_of_dependencies() -> None:
    """Whatever a dependency needs on this platform is pinned too."""
    environment = {**default_environment(), "extra": ""}
    waiting = list(requirements("app", "city", "cluster", "text", "hf", "docs", "dev"))
    seen = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        assert name in PINS, f"{name} is needed but not pinned: run make lock"
        for line in metadata.requires(name) or []:
            needed = Requirement(line)
            # The CUDA libraries that a wheel of torch needs depend on the platform.
            if canonicalize_name(needed.name).startswith(("nvidia-", "cuda-", "triton")):
                continue
            if needed.marker is None or needed.marker.evaluate(environment):
                waiting.append(canonicalize_name(needed.name))


def test_torch_is_the_version_the_makefile_installs() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"torch=={PINS['torch']}" in makefile


def test_the_supported_pythons_agree() -> None:
    assert PROJECT["requires-python"] == ">=3.11,<3.14"
    assert "(3, 11) <= sys.version_info[:2] < (3, 14)" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_tests_of_a_group_run_in_one_process(request: pytest.FixtureRequest) -> None:
    """Of some versions of pytest and pytest-xdist they do not, and all that fails is the clock."""
    assert "@" in request.node.nodeid or not request.config.getoption("loadgroup", False)
