"""Open the studio in a notebook, or serve it as a web page with Voila, on this computer only."""

from __future__ import annotations

import contextlib
import gc
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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextlat_viz.display import escape, shorten
from nextlat_viz.notebook.threads import Loop
from nextlat_viz.paths import PACKAGE

if TYPE_CHECKING:
    from nextlat_viz.figures.theme import Theme
    from nextlat_viz.notebook.state import ViewState
    from nextlat_viz.notebook.studio import Studio

HOST = "127.0.0.1"
PAIR = ("rrxor/next_token", "rrxor/nextlat")
_PATIENCE = 120.0
# Seconds after which a kernel without a page is stopped, and between two checks. A page that is closed stops its kernel
# itself; this is for pages that crashed. It must be longer than a page takes to load, when its kernel has no page yet.
_IDLE, _CHECK = 120, 10
# Keeps the open servers alive: a server ends when its process object is deleted.
_open: set[App] = set()


def studio(*models: Any, state: ViewState | None = None, theme: Theme | None = None, lesson: Any = None) -> Studio:
    """Open models side by side, with linked panels that each answer one question.

    Parameters
    ----------
    *models
        Checkpoints, their names, or latents; or one dict ``{world name: models}``. With models of several worlds, the
        first model's world is shown first. By default the shipped pair of RRXOR, with and without next-latent
        prediction.
    state : ViewState, optional
        The state of other widgets to link with, instead of models.
    theme : {"auto", "light", "dark"}, optional
        "auto" leaves the page's own background.
    lesson : str, path or dict, optional
        The lesson to open: the name of a shipped one, such as ``"beliefs"``, or the path of a JSON file. Without
        models, the lesson's own models are opened.

    Returns
    -------
    Studio

    Raises
    ------
    ValueError
        For a lesson about other models or with unknown names.
    LatentsError
        For models of one world that did not read the same episodes.

    Examples
    --------
    >>> opened = studio("rrxor/next_token", "rrxor/nextlat")
    >>> opened.state.go_to(3, 5)
    >>> opened
    <Studio of next-token, NextLat at episode 3, position 5>
    >>> opened.state.select(range(2))
    >>> opened.selection["position"].tolist()
    [1, 2]
    >>> opened.close()
    """
    with contextlib.ExitStack() as opening:
        opening.enter_context(_without_collection())
        from nextlat_viz.notebook.plot import PlotlyLibrary

        # The page runs plotly.js, which takes a second, while the kernel imports the rest and reads the models.
        opening.enter_context(PlotlyLibrary.lent())
        from nextlat_viz.notebook.lessons import read_lesson
        from nextlat_viz.notebook.studio import Studio

        script = None if lesson is None else read_lesson(lesson)
        if not models and state is None:
            models = PAIR if script is None or not script.models else tuple(script.models)
        opened = Studio(*models, state=state, theme=theme)
    if script is not None:
        try:
            opened.rail.start(script)
        except ValueError:
            opened.close()
            raise
    return opened


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Pause the garbage collector until the event loop has drawn the first panel.

    Imports make so many objects that it would walk through torch and plotly several times, which takes half a second.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        Loop().soon(gc.enable)


def page(*models: Any, lesson: Any = None) -> Studio:
    """Open the studio as a whole page for `serve`: in the full window, with a title, dark if the system is dark.

    Examples
    --------
    >>> opened = page("rrxor/next_token", "rrxor/nextlat")
    >>> "next-token, NextLat on rrxor" in opened.children[0].value
    True
    >>> opened.close()
    """
    import ipywidgets

    opened = studio(*models, lesson=lesson)
    worlds = opened.state.worlds
    labels = map(shorten, opened.state.labels) if len(worlds) == 1 else ["models"]
    names = f"{', '.join(labels)} on {', '.join(map(shorten, worlds))}"
    about = "Models that read the same episodes are side by side. Each panel answers one question at the cursor."
    title = ipywidgets.HTML(f"<b>nextlat_viz studio: {escape(names)}</b>&ensp;{about}")
    opened.children = [title, *opened.children]
    opened.add_class("nlv-page")
    return opened


class App:
    """A studio being served. It stops on `close`, at the end of a ``with`` block, and when this Python process ends.

    Attributes
    ----------
    url : str
        The address of the page, with its access token.
    """

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], url: str) -> None:
        self._folder, self._process, self.url = folder, process, url
        _open.add(self)

    def __repr__(self) -> str:
        return f"<App at {self.url}>" if self.running else "<App, closed>"

    def __enter__(self) -> App:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def log(self) -> str:
        """The output of the server so far."""
        path = _log(self._folder)
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    def wait(self) -> None:
        """Return when the server is closed or interrupted (Ctrl-C)."""
        try:
            self._process.wait()
        except KeyboardInterrupt:
            self.close()

    def close(self) -> None:
        """Stop the server and its kernels, and remove its files."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        _open.discard(self)


def serve(
    models: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    *,
    lesson: str | os.PathLike[str] | None = None,
    port: int = 0,
    open_browser: bool = True,
) -> App:
    """Serve the studio as a web page. Each page has its own kernel, which stops when the page is closed or reloaded.

    The server listens on 127.0.0.1 only, and the URL carries an access token. It stops when this Python process ends.

    Parameters
    ----------
    models : names or folders of checkpoints, side by side
        Default those of the lesson, or the shipped RRXOR pair.
    lesson : name or path of a lesson, optional
        To open beside the panels.
    port : int
        Default any free port.
    open_browser : bool
        Open the page in the default browser.

    Returns
    -------
    App
        Already answering at its ``url``. ``app.wait()`` returns when interrupted, ``app.close()`` stops the server.

    Raises
    ------
    ModuleNotFoundError
        When Voila is not installed.
    UnknownNameError, CheckpointError
        For a checkpoint that does not exist.
    ValueError
        For no models, worlds of one name with different parameters, a lesson that is not about the models, or an
        invalid port.
    OSError
        When the port is in use.
    ChildProcessError
        When the server does not start.

    Examples
    --------
    >>> serve(["rrxor/nextlt"])
    Traceback (most recent call last):
    ...
    nextlat_viz.errors.UnknownNameError: unknown checkpoint 'rrxor/nextlt'. Did you mean 'rrxor/nextlat'? ...
    """
    page = app_notebook(models, lesson)
    if importlib.util.find_spec("voila") is None:
        raise ModuleNotFoundError(
            'serving the studio needs the package voila: pip install "nextlat-viz[app]"; '
            "in a notebook, nlv.studio(...) needs nothing more",
            name="voila",
        )
    port = _free(port)
    token = secrets.token_urlsafe(24)
    # Readable by this user only. The token is passed in a file here, because every user can list command lines.
    folder = Path(tempfile.mkdtemp(prefix="nextlat-viz-app-"))
    (folder / "studio.ipynb").write_text(json.dumps(page), encoding="utf-8")
    (folder / "voila.json").write_text(json.dumps(_settings(port, token)), encoding="utf-8")
    command = [sys.executable, "-m", "nextlat_viz.notebook.server", str(folder)]
    # Let the server import the same copy of this package as the caller.
    path = os.pathsep.join([str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    with _log(folder).open("wb") as log:
        # A new session: Ctrl-C in this terminal interrupts the caller only, which then closes the server. Nothing is
        # written to the pipe: it closes when this process ends, which stops the server.
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    app = App(folder, process, f"http://{HOST}:{port}/?token={token}")
    try:
        _await(app, port)
    except BaseException:
        app.close()
        raise
    if open_browser:
        webbrowser.open(app.url)
    return app


def app_notebook(
    models: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    lesson: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Return the notebook behind the page: one cell that opens the studio on these checkpoints, with a lesson.

    Examples
    --------
    >>> from pathlib import Path
    >>> source = app_notebook("rrxor/nextlat")["cells"][0]["source"]
    >>> source.splitlines()[0], Path("rrxor/nextlat/seed0").as_posix() in source
    ('from nextlat_viz.notebook.serve import page', True)
    """
    script, option = None, ""
    if lesson is not None:
        from nextlat_viz.notebook.lessons import read_lesson

        script = read_lesson(lesson)
        path = os.fspath(lesson)
        option = f", lesson={json.dumps(str(Path(path).resolve()) if path.endswith('.json') else path)}"
    if models is None:
        models = PAIR if script is None or not script.models else script.models
    names = [models] if isinstance(models, (str, os.PathLike)) or not isinstance(models, Sequence) else list(models)
    if not names:
        raise ValueError("models is empty: name at least one checkpoint, such as 'rrxor/nextlat'")
    for name in names:
        if not isinstance(name, (str, os.PathLike)):
            raise TypeError(
                "models must be names or folders of checkpoints, which the page loads itself, "
                f"got {type(name).__name__}"
            )
    from nextlat_viz.training.checkpoint import Checkpoint, load

    checkpoints = [load(name) for name in names]
    by_world: dict[str, list[Checkpoint]] = {}
    for checkpoint in checkpoints:
        by_world.setdefault(checkpoint.card.world["name"], []).append(checkpoint)
    for world, (first, *others) in by_world.items():
        for other in others:
            if other.card.world != first.card.world:
                raise ValueError(
                    f"{first.name} and {other.name} are of two worlds with the name {world!r} and other parameters, "
                    "so their rows cannot be linked: open models of one world"
                )
    if script is not None and not any(
        script.is_about(world, [checkpoint.weights_sha256 for checkpoint in group]) for world, group in by_world.items()
    ):
        raise script.other_models()
    # Absolute paths, because the kernel runs in another folder.
    folders = [checkpoint.folder.resolve().as_posix() for checkpoint in checkpoints]
    source = f"from nextlat_viz.notebook.serve import page\npage(*{json.dumps(folders)}{option})"
    cell: dict[str, Any] = {
        "cell_type": "code", "id": "studio", "execution_count": None, "metadata": {}, "outputs": [], "source": source,
    }  # fmt: skip
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    title = f"{', '.join(checkpoint.name for checkpoint in checkpoints)}: nextlat_viz studio"
    return {"cells": [cell], "metadata": {"kernelspec": kernel, "title": title}, "nbformat": 4, "nbformat_minor": 5}


def _settings(port: int, token: str) -> dict[str, Any]:
    # Allow local files only: Voila's page would fetch icons from the internet that it also has as files.
    local = f"default-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data: ws://{HOST}:{port}; frame-ancestors 'none'"
    return {
        "Voila": {
            "ip": HOST,
            "port": port,
            "port_retries": 0,
            "open_browser": False,
            "token": token,
            "tornado_settings": {"headers": {"Content-Security-Policy": local}},
        },
        "VoilaConfiguration": {"show_tracebacks": True},
        "MappingKernelManager": {"cull_idle_timeout": _IDLE, "cull_interval": _CHECK},
    }


def _log(folder: Path) -> Path:
    return folder / "voila.log"


def _free(port: int) -> int:
    """Return the port if it is free, or any free port for 0."""
    if not isinstance(port, int) or not 0 <= port < 65536:
        raise ValueError(f"port must be in 1..65535, or 0 for any free port, got {port!r}")
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise OSError(f"port={port} cannot be used ({error.strerror}): choose another, or 0") from error
        return int(probe.getsockname()[1])


def _await(app: App, port: int) -> None:
    """Return once the server answers, even if only to ask for the token."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if not app.running:
            raise ChildProcessError(f"the server stopped before it answered; its output:\n{app.log.strip()[-2000:]}")
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/api/kernels", timeout=5):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise ChildProcessError(
        f"the server did not answer within {_PATIENCE:.0f} s; its output:\n{app.log.strip()[-2000:]}"
    )
