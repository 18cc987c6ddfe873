"""Served pages: a kernel ends with its page."""

from __future__ import annotations

import contextlib

import psutil
import pytest
from playwright.sync_api import Browser

from nextlat_viz.notebook.serve import App, serve

from .lab import PATIENCE, SECONDS, wait_for


def kernels(app: App) -> set[int]:
    """Return the process ids of a server's kernels."""
    alive = set()
    for child in psutil.Process(app._process.pid).children(recursive=True):
        # A child may end while its command line is read.
        with contextlib.suppress(psutil.Error):
            if any("ipykernel" in word for word in child.cmdline()):
                alive.add(child.pid)
    return alive


def test_a_page_that_is_closed_or_reloaded_ends_its_kernel(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    # The page must end its kernel itself: the server, which stops kernels without a page, never gets to it.
    monkeypatch.setattr("nextlat_viz.notebook.serve._IDLE", 3_600)
    with serve("rrxor/nextlat", open_browser=False) as app:
        # Share a context: a page that owns its context would lose its last request when it is closed.
        context = browser.new_context()
        page = context.new_page()
        page.goto(app.url, timeout=3 * PATIENCE * SECONDS)
        page.wait_for_selector(".nlv-studio", timeout=3 * PATIENCE * SECONDS)
        (first,) = kernels(app)
        page.reload(timeout=3 * PATIENCE * SECONDS)
        page.wait_for_selector(".nlv-studio", timeout=3 * PATIENCE * SECONDS)
        wait_for(lambda: len(kernels(app)) == 1, "the kernel of the page before the reload to end")
        assert first not in kernels(app)
        page.close(run_before_unload=True)
        wait_for(lambda: not kernels(app), "the kernel of the closed page to end")
        context.close()
