"""The studio as a page of its own, for who has no notebook open: served by Voila, on this computer only."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nextlat_viz.training.checkpoint import load

HOST = "127.0.0.1"
PAIR = ("rrxor/next_token", "rrxor/nextlat")
_PATIENCE = 120.0
# Seconds until the kernel of a page that nobody looks at any more is stopped, and how often that is checked.
_IDLE, _CHECK = 1800, 60


class App:
    """A studio being served. Close it, or use it as a context manager, to stop.

    Attributes
    ----------
    url : str
        Where to look, with the token that lets one in.
    """

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], url: str) -> None:
        self._folder, self._process, self.url = folder, process, url

    def __repr__(self) -> str:
        return f"<App at {self.url}>" if self.running else "<App, closed>"

    def __enter__(self) -> App:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def running(self) -> bool:
        """Whether it still serves."""
        return self._process.poll() is None

    @property
    def log(self) -> str:
        """What the server said so far."""
        path = _log(self._folder)
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    def wait(self) -> None:
        """Serve until interrupted (Ctrl-C) or closed."""
        try:
            self._process.wait()
        except KeyboardInterrupt:
            self.close()

    def close(self) -> None:
        """Stop the server and its kernels, and remove what it wrote."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def serve(
    models: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = PAIR,
    *,
    port: int = 0,
    open_browser: bool = True,
) -> App:
    """Serve the studio outside a notebook: each visit gets a kernel of its own, which ends with the page.

    Bound to this computer alone, and to who has the token in the address.

    Parameters
    ----------
    models : names or folders of checkpoints, side by side
        Default the shipped RRXOR pair.
    port : int
        Default one that is free.
    open_browser : bool
        Show the page in the default browser.

    Returns
    -------
    App
        Already answering at its ``url``. ``app.wait()`` serves until interrupted, ``app.close()`` ends it.

    Raises
    ------
    ModuleNotFoundError
        When Voila is not installed.
    UnknownNameError, CheckpointError
        For a checkpoint that is not there.
    ValueError
        For no models, models of several worlds, or a port that is none.
    OSError
        When the port is taken.
    ChildProcessError
        When the server does not start.

    Examples
    --------
    >>> serve(["rrxor/nextlt"])
    Traceback (most recent call last):
    ...
    nextlat_viz.errors.UnknownNameError: unknown checkpoint 'rrxor/nextlt'. Did you mean 'rrxor/nextlat'? ...
    """
    page = app_notebook(models)
    if importlib.util.find_spec("voila") is None:
        raise ModuleNotFoundError(
            'serving the studio needs the package voila: pip install "nextlat-viz[app]"; '
            "in a notebook, nlv.studio(...) needs nothing more",
            name="voila",
        )
    port = _free(port)
    token = secrets.token_urlsafe(24)
    # Readable by this user alone, so the token goes in here and not onto a command line that every user can list.
    folder = Path(tempfile.mkdtemp(prefix="nextlat-viz-app-"))
    (folder / "studio.ipynb").write_text(json.dumps(page), encoding="utf-8")
    (folder / "voila.json").write_text(json.dumps(_settings(port, token)), encoding="utf-8")
    command = [sys.executable, "-m", "voila", "studio.ipynb", f"--Voila.config_file_paths={folder}"]
    with _log(folder).open("wb") as log:
        # Out of this terminal's group: Ctrl-C is this process's to hear, and it closes the server.
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    app = App(folder, process, f"http://{HOST}:{port}/?token={token}")
    try:
        _await(app, port)
    except BaseException:
        app.close()
        raise
    if open_browser:
        webbrowser.open(app.url)
    return app


def app_notebook(models: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> dict[str, Any]:
    """Return the notebook behind the page: one cell, that opens the studio on these checkpoints.

    Examples
    --------
    >>> from pathlib import Path
    >>> source = app_notebook("rrxor/nextlat")["cells"][0]["source"]
    >>> source.splitlines()[0], Path("rrxor/nextlat/seed0").as_posix() in source
    ('from nextlat_viz.notebook.studio import studio', True)
    """
    names = [models] if isinstance(models, (str, os.PathLike)) else list(models)
    if not names:
        raise ValueError("models is empty: name at least one checkpoint, such as 'rrxor/nextlat'")
    found = [load(name) for name in names]
    if any(one.card.world != found[0].card.world for one in found):
        said = ", ".join(f"{one.name} of {one.card.world['name']}" for one in found)
        raise ValueError(f"models must be of one world, which their episodes are of, got {said}")
    # The kernel runs elsewhere, where a relative path would mean another folder.
    folders = [one.folder.resolve().as_posix() for one in found]
    source = f"from nextlat_viz.notebook.studio import studio\nstudio(*{json.dumps(folders)})"
    cell: dict[str, Any] = {
        "cell_type": "code", "id": "studio", "execution_count": None, "metadata": {}, "outputs": [], "source": source,
    }  # fmt: skip
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"cells": [cell], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def _settings(port: int, token: str) -> dict[str, Any]:
    # Voila's page asks a server far away for icons that it brings along itself.
    stay = f"default-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data: ws://{HOST}:{port}; frame-ancestors 'none'"
    return {
        "Voila": {
            "ip": HOST,
            "port": port,
            "port_retries": 0,
            "open_browser": False,
            "token": token,
            "tornado_settings": {"headers": {"Content-Security-Policy": stay}},
        },
        "VoilaConfiguration": {"show_tracebacks": True},
        "MappingKernelManager": {"cull_idle_timeout": _IDLE, "cull_interval": _CHECK},
    }


def _log(folder: Path) -> Path:
    return folder / "voila.log"


def _free(port: int) -> int:
    """Return the port if it is free, or a free one for 0."""
    if not 0 <= port < 65536:
        raise ValueError(f"port must be in 1..65535, or 0 for one that is free, got {port}")
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise OSError(f"port={port} cannot be had ({error.strerror}): choose another, or 0") from error
        return int(probe.getsockname()[1])


def _await(app: App, port: int) -> None:
    """Return once the server answers, be it that the token is missing."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if not app.running:
            raise ChildProcessError(f"the server stopped before it answered; it said:\n{app.log.strip()[-2000:]}")
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/api/kernels", timeout=5):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise ChildProcessError(f"the server did not answer within {_PATIENCE:.0f} s; it said:\n{app.log.strip()[-2000:]}")
