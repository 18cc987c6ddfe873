"""The browser of tests/browser: the system's, else Playwright's, else a fetched one, else a clear error."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace

import pytest
from playwright.sync_api import Error

from nextlat_viz.figures import export
from tests.browser import chromium


class Playwright:
    """The part of Playwright that the lookup uses; `broken` are the paths of browsers that do not start."""

    def __init__(self, own, broken=()):
        self.chromium = SimpleNamespace(executable_path=str(own), launch=self.launch)
        self.broken = broken

    def launch(self, executable_path, **_):
        if executable_path in self.broken:
            raise Error("libnss3.so is missing")
        return executable_path


@pytest.fixture
def fetches(monkeypatch, tmp_path):
    """Record the commands that would fetch a browser; they put one at `tmp_path / "own"`."""
    commands = []

    def run(command, **_):
        commands.append(command)
        (tmp_path / "own").touch()
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


@pytest.mark.parametrize("name", ["chromium", "google-chrome", "google-chrome-stable"])
def test_the_browser_on_the_path_comes_first(tmp_path, monkeypatch, fetches, name):
    monkeypatch.setattr("choreographer.browsers.chromium.get_chrome_download_path", lambda **_: None)
    monkeypatch.setattr("choreographer.browsers.chromium.get_old_chrome_download_path", lambda: None)
    program = tmp_path / name
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    # Set in this process once an image was drawn.
    monkeypatch.delenv("BROWSER_PATH", raising=False)
    result = chromium.launch(Playwright(tmp_path / "own"))
    # Chrome is looked for before Chromium, and may be installed outside of the path.
    assert result == str(program) or (name == "chromium" and "chrome" in result)
    assert not fetches


def test_otherwise_playwrights_browser_is_used(tmp_path, monkeypatch, fetches):
    monkeypatch.setattr(export, "browser", lambda: None)
    (tmp_path / "own").touch()
    assert chromium.launch(Playwright(tmp_path / "own")) == str(tmp_path / "own")
    assert not fetches


def test_otherwise_a_browser_is_fetched(tmp_path, monkeypatch, fetches):
    monkeypatch.setattr(export, "browser", lambda: None)
    assert chromium.launch(Playwright(tmp_path / "own")) == str(tmp_path / "own")
    (command,) = fetches
    assert command[1:] == ["-m", "playwright", "install", "chromium"]


def test_a_browser_that_does_not_start_is_skipped(tmp_path, monkeypatch, fetches):
    monkeypatch.setattr(export, "browser", lambda: "/snap/stub")
    assert chromium.launch(Playwright(tmp_path / "own", broken=["/snap/stub"])) == str(tmp_path / "own")


def test_without_a_browser_the_error_names_the_remedies(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "browser", lambda: None)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1))
    with pytest.raises(RuntimeError, match=r'apt install chromium(.|\n)*pytest -m "not browser"'):
        chromium.launch(Playwright(tmp_path / "own"))


@pytest.mark.parametrize(
    "program",
    [
        "chromium-1255/chrome-linux64/chrome",
        "chromium_headless_shell-1255/chrome-headless-shell-linux64/chrome-headless-shell",
        "chromium-1255/chrome-mac-arm64/Google Chrome for Testing.app/Contents/MacOS/Google Chrome for Testing",
        "chromium-1117/chrome-win/chrome.exe",
    ],
)
def test_images_are_drawn_with_a_browser_of_playwright_too(tmp_path, monkeypatch, program):
    path = tmp_path / program
    path.parent.mkdir(parents=True)
    path.touch(0o755)
    monkeypatch.setattr("choreographer.browsers.chromium.Chromium.find_browser", lambda **_: None)
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    assert export.browser() == str(path)
