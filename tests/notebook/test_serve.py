"""The studio as an app: its notebook, access, start and end."""

from __future__ import annotations

import asyncio
import http.client
import importlib.util
import os
import shlex
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from tornado.web import HTTPError

from nextlat_viz.errors import CheckpointError, UnknownNameError
from nextlat_viz.notebook import serve as serving
from nextlat_viz.training.checkpoint import find

# The tests share a server, so they run in one process.
pytestmark = pytest.mark.xdist_group("serve")


def test_the_notebook_is_valid_and_names_whole_paths() -> None:
    page = serving.app_notebook(["rrxor/next_token", find("rrxor/nextlat")])
    nbformat.validate(nbformat.from_dict(page))
    (cell,) = page["cells"]
    scope: dict[str, Any] = {"page": lambda *models: models}
    opened = eval(cell["source"].splitlines()[1], scope)
    assert [Path(item).is_absolute() for item in opened] == [True, True]
    assert [Path(item) for item in opened] == [find(f"rrxor/{name}").resolve() for name in ("next_token", "nextlat")]


def test_a_page_shows_models_of_several_worlds() -> None:
    source = serving.app_notebook(["rrxor/nextlat", "mess3/nextlat"])["cells"][0]["source"]
    opened = eval(source.splitlines()[1], {"page": serving.page})
    assert "models on rrxor, mess3<" in opened.children[0].value
    assert opened.state.worlds == ["rrxor", "mess3"]
    opened.close()


def test_a_folder_name_is_text_in_the_notebook(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s "here"; print(1) é'
    folder.symlink_to(find("rrxor/nextlat"))
    source = serving.app_notebook([tmp_path / 'it\'s "here"; print(1) é'])["cells"][0]["source"]
    (opened,) = eval(source.splitlines()[1], {"page": lambda *models: models})
    assert Path(opened) == find("rrxor/nextlat").resolve()


def test_a_lesson_opens_with_the_models_it_is_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scope: dict[str, Any] = {"page": lambda *models, lesson: (models, lesson)}
    source = serving.app_notebook(lesson="branch")["cells"][0]["source"]
    models, lesson = eval(source.splitlines()[1], scope)
    assert [Path(model) for model in models] == [
        find(f"path_star/{name}").resolve() for name in ("next_token", "nextlat")
    ]
    assert lesson == "branch"
    path = tmp_path / "mine.json"
    path.write_text('{"title": "Mine", "world": "rrxor", "steps": [{"look": "Look.", "panel": "next"}]}')
    monkeypatch.chdir(tmp_path)
    source = serving.app_notebook("rrxor/nextlat", "mine.json")["cells"][0]["source"]
    # The kernel runs in another folder.
    assert eval(source.splitlines()[1], scope)[1] == str(path)
    with pytest.raises(ValueError, match="the lesson is about path_star/next_token and path_star/nextlat"):
        serving.app_notebook("rrxor/nextlat", "branch")
    with pytest.raises(UnknownNameError, match=r"unknown lesson 'brnch'\. Did you mean 'branch'"):
        serving.app_notebook(lesson="brnch")


def test_missing_models_are_refused_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving.subprocess, "Popen", None)
    with pytest.raises(UnknownNameError, match="Did you mean 'rrxor/nextlat'"):
        serving.serve("rrxor/nextlt")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        serving.serve([tmp_path])
    with pytest.raises(ValueError, match="models is empty"):
        serving.serve([])
    with pytest.raises(ValueError, match="two worlds with the name 'taxi' and other parameters"):
        serving.serve(["taxi_grid/nextlat", "taxi/nextlat"])
    with pytest.raises(ValueError, match=r"port must be in 1\.\.65535.*got 70000"):
        serving.serve(port=70_000)
    with socket.socket() as taken:
        taken.bind((serving.HOST, 0))
        taken.listen()
        with pytest.raises(OSError, match=r"port=\d+ cannot be used .*choose another, or 0"):
            serving.serve(port=taken.getsockname()[1])


def test_without_voila_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "nextlat-viz\[app\]"'):
        serving.serve()


def test_a_server_that_fails_is_quoted_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving.tempfile, "mkdtemp", lambda prefix: str(tmp_path / "app"))
    (tmp_path / "app").mkdir()
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho no such module >&2\nexit 3\n")
    script.chmod(0o755)
    monkeypatch.setattr(serving.sys, "executable", str(script))
    with pytest.raises(ChildProcessError, match=r"stopped before it answered.*\n.*no such module"):
        serving.serve(open_browser=False)
    assert not (tmp_path / "app").exists()


@pytest.fixture(scope="module")
def app() -> Iterator[serving.App]:
    with serving.serve("rrxor/nextlat", open_browser=False) as app:
        yield app
    assert not app.running
    assert repr(app) == "<App, closed>"


def ask(app: serving.App, path: str, token: str = "") -> http.client.HTTPResponse:
    """Return the server's first answer, without following redirects."""
    port = int(app.url.split(":")[2].split("/")[0])
    connection = http.client.HTTPConnection(serving.HOST, port, timeout=60)
    connection.request("GET", f"{path}?token={token}" if token else path)
    reply = connection.getresponse()
    reply.read()
    connection.close()
    return reply


@pytest.mark.slow
def test_access_needs_the_token(app: serving.App) -> None:
    token = app.url.partition("?token=")[2]
    assert len(token) >= 32
    for path in ("/", "/api/kernels"):
        for given in ("", "wrong"):
            reply = ask(app, path, given)
            assert reply.status == 302
            assert reply.headers["Location"].startswith("/login")
    assert ask(app, "/login", token).headers["Location"] == "/"


@pytest.mark.slow
def test_pages_are_local_and_files_stay_in_their_folder(app: serving.App) -> None:
    token = app.url.partition("?token=")[2]
    assert "default-src 'self'" in ask(app, "/login").headers["Content-Security-Policy"]
    for name in ("voila.json", "studio.ipynb", "voila.log"):
        assert ask(app, f"/voila/files/{name}", token).status == 403


@pytest.mark.slow
def test_the_server_listens_on_localhost_and_hides_its_token(app: serving.App) -> None:
    token = app.url.partition("?token=")[2]
    assert token not in shlex.join(map(str, app._process.args))  # type: ignore[arg-type]
    assert stat.S_IMODE(app._folder.stat().st_mode) == 0o700 or os.name == "nt"
    port = int(app.url.split(":")[2].split("/")[0])
    with socket.socket() as other:
        # The server is bound to one address, so the port is free on all others.
        other.bind(("127.0.0.2", port))


@pytest.mark.slow
def test_the_server_ends_with_its_parent() -> None:
    # A killed parent runs no code at its end, so this is the hardest case.
    code = (
        "import os; from nextlat_viz.notebook.serve import serve; serve('rrxor/nextlat', open_browser=False); "
        "from nextlat_viz.notebook.serve import _open; app, = _open; print(app._process.pid, app._folder, flush=True); "
        "os.kill(os.getpid(), 9)"
    )
    parent = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    pid, folder = parent.stdout.split()
    deadline = time.monotonic() + 60
    while psutil.pid_exists(int(pid)) and psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the server goes on without its parent"
        time.sleep(0.1)
    assert not Path(folder).exists()


def test_pages_beyond_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from nextlat_viz.notebook import server

    monkeypatch.setattr(server, "MOST_KERNELS", 0)
    with pytest.raises(HTTPError, match="0 pages of this studio are open already") as refusal:
        asyncio.run(server.PageKernels().start_kernel())
    assert refusal.value.status_code == 503
