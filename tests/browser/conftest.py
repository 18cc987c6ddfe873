"""One JupyterLab and one Chromium for this folder, and one notebook that runs what most tests show."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from .chromium import launch
from .lab import Notebook, Server, write_notebook


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("lab"))
    yield server
    server.close()


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One browser for this folder, closed after its last test: Playwright runs an event loop while it is open."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def blank(server: Server, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """An open notebook of one cell, for tests that show a studio of their own there: see `Notebook.run_other`."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    source = write_notebook(tmp_path_factory.mktemp("blank") / "blank.ipynb", "opened = None")
    notebook = Notebook(context.new_page(), server, source, "blank")
    yield notebook
    notebook.close()
    context.close()


@pytest.fixture
def book(blank: Notebook) -> Iterator[Notebook]:
    """The same notebook in each test; what goes wrong behind the page's back fails the test at its end."""
    yield blank
    blank.check()
