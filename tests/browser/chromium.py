"""The browser of these tests: the system's Chrome or Chromium, else Playwright's, which is fetched if it is missing.

Run as a script before the other tests, so that a missing browser is reported at once.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Error, Playwright, sync_playwright

from nextlat_viz.figures import export

FLAGS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
]
FETCH = [sys.executable, "-m", "playwright", "install", "chromium"]


def launch(playwright: Playwright) -> Browser:
    """Start the first browser that works. Without a browser the tests fail; they are never skipped.

    Raises
    ------
    RuntimeError
        If no browser works; the message lists the attempts, and how to run the tests without a browser.
    """
    failures = []
    for path in candidates(playwright):
        try:
            return playwright.chromium.launch(
                executable_path=path,
                # Chromium has no sandbox for root, the user in a container.
                chromium_sandbox=hasattr(os, "geteuid") and os.geteuid() != 0,
                args=FLAGS,
            )
        except Error as error:
            failures.append(f"{path} does not start: {error.message}")
    raise RuntimeError(
        "The browser tests need Chrome or Chromium. Install one (Debian: apt install chromium), or Playwright's with "
        "the libraries it needs (python -m playwright install --with-deps chromium). All other tests run without it: "
        '.venv/bin/pytest -m "not browser"\n' + "\n".join(failures or ["none was found, and none could be fetched"])
    )


def candidates(playwright: Playwright) -> Iterator[str]:
    """Yield paths of browsers: the one that draws images, then Playwright's, which is fetched if it is missing."""
    installed, own = export.browser(), playwright.chromium.executable_path
    if installed is not None:
        yield installed
    fetched = Path(own).exists()
    if not fetched:
        print("No browser starts here: fetching Playwright's Chromium", flush=True)
        fetched = subprocess.run(FETCH, check=False).returncode == 0
    if fetched and own != installed:
        yield own


if __name__ == "__main__":
    try:
        with sync_playwright() as playwright:
            browser = launch(playwright)
            print(f"browser: Chromium {browser.version}")
            browser.close()
    except RuntimeError as error:
        sys.exit(str(error))
