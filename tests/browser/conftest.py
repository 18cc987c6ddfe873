"""One JupyterLab and one Chromium for this folder; a tab, a copied notebook and a kernel for each test."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

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
    """An open notebook of one cell, for tests that show a studio of their own there: see `Notebook.run_again`."""
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
    print("\n".join(blank.console))
    errors = blank.errors()
    blank.page_errors.clear()
    blank.page.evaluate("() => { window.lab.errors.length = 0; }")
    assert not errors, "\n\n".join(errors)


@pytest.fixture
def open_notebook(
    server: Server, browser: Browser, request: pytest.FixtureRequest
) -> Iterator[Callable[[Path], Notebook]]:
    """Open a notebook file at 1280 x 900; hidden errors fail the test at its end."""
    opened: list[Notebook] = []
    context = browser.new_context(viewport={"width": 1280, "height": 900})

    def open_(source: Path) -> Notebook:
        name = re.sub(r"\W+", "-", request.node.name).strip("-")
        opened.append(Notebook(context.new_page(), server, source, name))
        return opened[-1]

    yield open_
    errors = []
    for notebook in opened:
        notebook.screenshot("end")
        print("\n".join(notebook.console))
        errors += notebook.errors()
        notebook.close()
    context.close()
    assert not errors, "\n\n".join(errors)
