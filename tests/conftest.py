"""Setup of all tests."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import shapes

# Before the package is imported.
shapes.install()

# Set before torch is imported, and inherited by every process a test starts. The models are so small that the threads
# of an operation mostly wait for each other: on two busy cores a short run took 113 s with two threads, 10 s with one.
for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

# Takes every process seconds to build, and no notebook's schema needs its grammar of web addresses.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

# A slow core must not make a property fail, and a run must be repeatable.
settings.register_profile("nextlat_viz", deadline=None, derandomize=True)
settings.load_profile("nextlat_viz")


def pytest_configure() -> None:
    # A background job of a shell ignores Ctrl-C, and so do the processes that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Leave what the imports make out of garbage collection, which takes a fifth of their time.

    Later it would take half a second whenever a test of leaks asks for it.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="run endurance tests at full length; `make soak` does")


@pytest.fixture
def soak(request: pytest.FixtureRequest) -> bool:
    """Whether endurance tests run at full length rather than shortened."""
    return bool(request.config.getoption("--soak"))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user cache for this run, shared by its processes, so that no test uses what this computer has cached."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    folder.mkdir(exist_ok=True)
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    yield folder
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(autouse=True)
def no_umap(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offer no UMAP in explorers: without an event loop a test would wait for the layout."""
    from nextlat_viz import analysis
    from nextlat_viz.errors import LatentsError

    def refuse(*arguments: object, **options: object) -> None:
        raise LatentsError("no UMAP in this test")

    if "umaps" not in request.fixturenames:
        monkeypatch.setattr(analysis, "project_in_process", refuse, raising=False)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give way to JupyterLab and Chromium, whose tests are the longest row and wait for each other."""
    group = item.get_closest_marker("xdist_group")
    beside = "PYTEST_XDIST_WORKER" in os.environ and (group is None or group.args != ("JupyterLab",))
    if beside and hasattr(os, "nice") and os.nice(0) < 5:
        os.nice(5)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark browser tests, and set the order of tests and the groups that share a process."""
    order = {}
    for item in items:
        browser, slow = Path(__file__).parent / "browser" in item.path.parents, item.get_closest_marker("slow")
        lab = browser and "server" in getattr(item, "fixturenames", ())
        if browser:
            item.add_marker("browser")
        if lab:
            item.add_marker(pytest.mark.xdist_group("JupyterLab"))
        # Tests of a file share a process and its fixtures; slow tests go to any process.
        elif not (slow or item.get_closest_marker("xdist_group")):
            item.add_marker(pytest.mark.xdist_group(str(item.path)))
        # With several processes the longest tests start first, to finish together; with one, the quick ones do.
        order[item] = (not lab, not browser, not slow) if hasattr(config, "workerinput") else browser
    items.sort(key=order.__getitem__)
