"""JupyterLab in headless Chromium, driven by mouse and keyboard, and checked both on the page and in the kernel.

`Server` is one running JupyterLab, `Notebook` one open notebook on a fresh kernel, `Plot` one plotly figure in it.
"""

from __future__ import annotations

import ast
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from PIL import Image
from playwright.sync_api import ConsoleMessage, Locator, Page, expect

ARTIFACTS = Path(__file__).parents[2] / "artifacts" / "browser"
SECONDS = 1000  # Playwright counts in milliseconds
PATIENCE = 120.0  # seconds; a busy machine must not fail a test

# Turn off everything that covers the page, uses the network, or saves the notebook.
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
    "docmanager-extension/plugin": {"autosave": False},
    "extensionmanager-extension/plugin": {"enabled": False},
}

expect.set_options(timeout=PATIENCE * SECONDS)


def wait_for(check: Callable[[], Any], what: str, seconds: float = PATIENCE, pause: float = 0.1) -> Any:
    """Return the first truthy answer of `check`."""
    deadline = time.monotonic() + seconds
    while True:
        if answer := check():
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(pause)


def at_rest(read: Callable[[], Any], what: str, seconds: float = 1.0) -> Any:
    """What `read` answers, once it has answered the same for a while."""
    last, since = read(), time.monotonic()

    def still() -> bool:
        nonlocal last, since
        if (now := read()) != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since > seconds

    wait_for(still, f"{what} to come to rest")
    return last


def write_notebook(path: Path, *cells: str) -> Path:
    """Write a notebook of code cells."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, cells)), metadata=kernel), path)
    return path


class Server:
    """JupyterLab on a free port, with notebooks, settings and runtime files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.notebooks = folder / "notebooks"
        self.log = folder / "server.log"
        self.notebooks.mkdir(parents=True)
        for name, values in SETTINGS.items():
            file = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(values), encoding="utf-8")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--expose-app-in-browser"]
        command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={self.notebooks}"]
        command += ["--IdentityProvider.token=", "--ServerApp.password=", "--ServerApp.allow_root=True"]
        private = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, **{name: str(folder / path) for name, path in private.items()}},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_for(self._answers, f"JupyterLab to start, see {self.log}", 3 * PATIENCE)

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"JupyterLab stopped:\n{self.log.read_text(encoding='utf-8')}")
        try:
            with urllib.request.urlopen(f"{self.url}/api", timeout=5) as reply:
                return reply.status == 200
        except OSError:
            return False

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


# Open a notebook and make `window.lab` for the scripts below. `errors` also has the kernel's errors outside of cells,
# such as an exception in a widget's callback, which the page does not show.
OPEN = """
async path => {
    const app = window.jupyterapp;
    await app.restored;
    const panel = await app.commands.execute("docmanager:open", {path, factory: "Notebook"});
    await panel.context.ready;
    await panel.sessionContext.ready;
    const kernel = panel.sessionContext.session.kernel;
    await kernel.info;
    const lab = {app, panel, kernel, errors: []};
    kernel.iopubMessage.connect((_, message) => {
        const {header, content} = message;
        if (header.msg_type === "error") lab.errors.push(content.traceback.join("\\n"));
        if (header.msg_type === "stream" && content.name === "stderr") lab.errors.push(content.text);
    });
    window.lab = lab;
}
"""
PROGRESS = """
() => {
    const cells = [...window.lab.panel.content.model.cells].filter(cell => cell.type === "code");
    const outputs = cells.flatMap(cell => cell.outputs.toJSON());
    const failed = outputs.find(output => output.output_type === "error");
    return {
        finished: cells.every(cell => cell.executionCount !== null && cell.executionState !== "running"),
        error: failed ? failed.traceback.join("\\n") : "",
    };
}
"""
EVALUATE = """
async ([code, expression]) => {
    const future = window.lab.kernel.requestExecute(
        {code, silent: true, store_history: false, user_expressions: {value: `__import__("json").dumps(${expression})`}}
    );
    const {content} = await future.done;
    if (content.status !== "ok") return {error: content.traceback.join("\\n")};
    const value = content.user_expressions.value;
    return value.status === "ok" ? {value: value.data["text/plain"]} : {error: value.traceback.join("\\n")};
}
"""
NOT_ERRORS = (
    # The page asks a new kernel for the widgets of an older one, before ipywidgets is imported there.
    re.compile(r"^No such comm"),
    # Logged for each widget that starts late on a busy page; our widgets still work, see test_harness.
    re.compile(r"^Error: \[anywidget\] Failed to initialize model"),
    # On a busy machine choreographer, which draws PDFs, reads its own mark of the end, "{bye}", after the last message.
    re.compile(r"^JSONError decoding message\. Ignoring"),
)
# Chromium and JupyterLab log these hundreds of times with software WebGL or on a busy machine.
SLOW_MACHINE = re.compile(r"GPU stall|^Plugin \S+ .*(to activate|too long)")
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class Notebook:
    """A copy of a notebook, open in its own tab on a new kernel."""

    def __init__(self, page: Page, server: Server, source: Path, name: str) -> None:
        self.page = page
        self.name = self.shown = name
        self.page_errors: list[str] = []
        self.console: list[str] = []
        page.set_default_timeout(PATIENCE * SECONDS)
        page.on("pageerror", lambda error: self.page_errors.append(f"{error.name}: {error.message}\n{error.stack}"))
        page.on("console", self._listen)
        shutil.copyfile(source, server.notebooks / f"{name}.ipynb")
        page.goto(f"{server.url}/lab/workspaces/{name}?reset")
        self._open()

    def _open(self) -> None:
        self.page.wait_for_function("() => window.jupyterapp")
        self.page.evaluate(OPEN, f"{self.name}.ipynb")
        self.execute("application:set-mode", mode="single-document")

    def reload(self) -> None:
        """Reload the page; the kernel keeps running."""
        self.page.reload()
        self._open()

    def _listen(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not SLOW_MACHINE.search(message.text):
            self.console.append(f"{message.type}: {message.text}")

    def execute(self, command: str, **arguments: object) -> None:
        """Run one of JupyterLab's own commands."""
        self.page.evaluate("async ([c, a]) => { await jupyterapp.commands.execute(c, a); }", [command, arguments])

    def run_all(self, seconds: float = PATIENCE) -> float:
        """Run every cell and return the seconds it took; an error in a cell fails with its traceback."""
        start = time.monotonic()
        self.page.evaluate("() => { window.lab.app.commands.execute('notebook:run-all-cells'); }")

        def finished() -> bool:
            progress = self.page.evaluate(PROGRESS)
            assert not progress["error"], ANSI.sub("", progress["error"])
            return bool(progress["finished"])

        wait_for(finished, "the last cell", seconds)
        return time.monotonic() - start

    def run_again(self, seconds: float = PATIENCE) -> None:
        """Run every cell again in the same kernel, with whatever is left there."""
        # Without this, the last run would count as finished.
        self.execute("notebook:clear-all-cell-outputs")
        self.run_all(seconds)
        assert not self.page.locator(".jp-OutputArea-output [role=alert]").all_inner_texts()

    def run_other(self, source: str | Path, limit: float = PATIENCE) -> float:
        """Run the code of one cell, or another notebook, instead of the cells here: in this kernel, without its names.

        The kernel has imported the package and the page has loaded JupyterLab; a notebook of its own does both again.
        """
        if isinstance(source, Path):
            content, self.shown = nbformat.read(source, as_version=4), source.stem.partition("_")[2]
        else:
            content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
            self.shown = self.name
        self.kernel("None", setup="get_ipython().run_line_magic('reset', '-f -s')")
        self.page.evaluate("content => { lab.panel.content.model.fromJSON(content); }", content)
        seconds = self.run_all(limit)
        assert not self.page.locator(".jp-OutputArea-output [role=alert]").all_inner_texts()
        return seconds

    # -- the kernel's side ------------------------------------------------------------------------------------------

    def kernel(self, expression: str, setup: str = "") -> Any:
        """Run `setup` in the notebook's kernel, and return the value of a Python expression there (as JSON)."""
        answer = self.page.evaluate(EVALUATE, [setup, expression])
        assert "error" not in answer, ANSI.sub("", answer["error"])
        # The reply is the repr of a JSON text.
        return json.loads(ast.literal_eval(answer["value"]))

    def wait_for_kernel(self, expression: str, seconds: float = PATIENCE) -> Any:
        """Ask until the expression is truthy, because callbacks run later; return its value."""
        return wait_for(lambda: self.kernel(expression), f"{expression} in the kernel", seconds)

    def drawn(self, clouds: Locator, studio: str = "") -> list[int]:
        """How often each cloud has drawn its points, once they are still and no panel of the studio is to be drawn."""

        def counts() -> list[int]:
            if studio:
                self.wait_for_kernel(f"not {studio}.state.busy")
            return [int(cloud.get_attribute("data-draws") or 0) for cloud in clouds.all()]

        wait_for(lambda: all(counts()), "the points")
        return list(at_rest(counts, "the clouds"))

    def errors(self) -> list[str]:
        """Return hidden errors: of the page's scripts, or of the kernel outside of cells."""
        hidden = [ANSI.sub("", text) for text in self.page.evaluate("() => window.lab.errors")]
        return [text for text in self.page_errors + hidden if not any(known.match(text) for known in NOT_ERRORS)]

    def check(self) -> None:
        """Assert that nothing went wrong behind the page's back, and forget what did."""
        print("\n".join(self.console))
        errors = self.errors()
        self.page_errors.clear()
        self.page.evaluate("() => { window.lab.errors.length = 0; }")
        assert not errors, "\n\n".join(errors)

    # -- controls, by their visible label ---------------------------------------------------------------------------

    def control(self, label: str, nth: int = 0) -> Locator:
        """Return the ipywidget with exactly this label."""
        # Go from the label to its parent: `:has` takes minutes on a page with large pictures.
        labels = self.page.locator(".jp-OutputArea-output .widget-label")
        return labels.filter(has_text=re.compile(rf"^\s*{re.escape(label)}\s*$")).nth(nth).locator("xpath=..")

    def options(self, label: str, nth: int = 0) -> list[str]:
        return self.control(label, nth).locator("option").all_text_contents()

    def choose(self, label: str, option: str, nth: int = 0) -> None:
        self.control(label, nth).locator("select").select_option(label=option)

    def press(self, text: str, nth: int = 0) -> None:
        """Press a button, or one of a row of toggle buttons."""
        self.page.locator(".jp-OutputArea-output button.jupyter-button", has_text=text).nth(nth).click()

    def handle(self, label: str, nth: int = 0) -> Locator:
        return self.control(label, nth).locator(".noUi-handle").first

    def slide(self, label: str, fraction: float, nth: int = 0) -> None:
        """Drag a slider's handle to a fraction of its track."""
        handle, track = self.handle(label, nth), self.control(label, nth).locator(".noUi-base")
        handle.scroll_into_view_if_needed()
        start, end = box(handle), box(track)
        self.page.mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
        self.page.mouse.down()
        self.page.mouse.move(end["x"] + fraction * end["width"], end["y"] + end["height"] / 2, steps=8)
        self.page.mouse.up()

    def keys(self, label: str, *keys: str, nth: int = 0) -> None:
        """Focus a slider and press keys."""
        self.handle(label, nth).focus()
        for key in keys:
            self.page.keyboard.press(key)

    def slider_value(self, label: str, nth: int = 0) -> float:
        return float(self.handle(label, nth).get_attribute("aria-valuenow") or "nan")

    # -- pictures ---------------------------------------------------------------------------------------------------

    def plot(self, nth: int = 0) -> Plot:
        """Return a plotly figure once it is drawn."""
        locator = self.page.locator(".js-plotly-plot").nth(nth)
        locator.scroll_into_view_if_needed()
        expect(locator.locator(".main-svg").first).to_be_visible()
        return Plot(self.page, locator)

    def theme(self, name: str) -> None:
        """Switch to "JupyterLab Light" or "JupyterLab Dark"."""
        self.execute("apputils:change-theme", theme=name)
        light = "true" if name.endswith("Light") else "false"
        self.page.wait_for_selector(f"body[data-jp-theme-light={light}]", state="attached")

    def screenshot(self, label: str) -> Path:
        """Save a picture of the page."""
        path = ARTIFACTS / f"{self.shown}-{label}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path)
        return path

    def close(self) -> None:
        self.page.evaluate("async () => { await window.lab.panel.sessionContext.shutdown(); }")


class Plot:
    """One plotly figure on the page."""

    def __init__(self, page: Page, locator: Locator) -> None:
        self.page = page
        self.locator = locator

    def wait_for_webgl(self) -> Plot:
        expect(self.locator.locator(".gl-canvas").first).to_be_visible()
        return self

    def evaluate(self, expression: str) -> Any:
        """Evaluate a JavaScript expression of `plot`, the figure's div."""
        return self.locator.evaluate(f"plot => {expression}")

    def pixels(self) -> np.ndarray:
        """Return the figure as (height, width, 3) bytes."""
        self.locator.scroll_into_view_if_needed()
        return np.asarray(Image.open(io.BytesIO(self.locator.screenshot())).convert("RGB"))

    def wait_for_change(self, before: np.ndarray, share: float = 0.0005, seconds: float = PATIENCE) -> float:
        """Wait until more than a `share` of the pixels differ from `before`, and return that share."""
        self.page.mouse.move(1, 1)  # a hover label is no change

        def changed() -> Any:
            return (part := difference(before, self.pixels())) > share and part

        # A picture takes the browser as long as a kernel takes to answer.
        return wait_for(changed, "the figure to change", seconds, pause=0.3)

    def mode(self, title: str) -> None:
        """Press a button of the figure's mode bar, such as "Lasso Select" or "Box Select"."""
        self.locator.hover()
        self.locator.locator(f'.modebar-btn[data-title="{title}"]').click()

    def at(self, x: float, y: float, axes: str = "") -> tuple[float, float]:
        """Convert data coordinates of the subplot with axes x{axes} and y{axes} to page coordinates."""
        self.locator.scroll_into_view_if_needed()
        left, top = self.evaluate(
            f"""(() => {{
                const {{xaxis{axes}: x, yaxis{axes}: y}} = plot._fullLayout, rect = plot.getBoundingClientRect();
                return [rect.left + x._offset + x.d2p({x}), rect.top + y._offset + y.d2p({y})];
            }})()"""
        )
        return left, top

    def range(self, axes: str = "") -> tuple[list[float], list[float]]:
        x, y = self.evaluate(f"[plot._fullLayout.xaxis{axes}.range, plot._fullLayout.yaxis{axes}.range]")
        return x, y

    def drag(self, corners: Sequence[tuple[float, float]], axes: str = "", steps: int = 6) -> None:
        """Drag the mouse through points in data coordinates: two for a box, more for a lasso."""
        path = [self.at(x, y, axes) for x, y in corners]
        self.page.mouse.move(*path[0])
        self.page.mouse.down()
        for point in path[1:]:
            self.page.mouse.move(*point, steps=steps)
        self.page.mouse.up()

    def lasso_around(self, x0: float, y0: float, x1: float, y1: float, axes: str = "") -> None:
        """Lasso a rectangle, in fractions of the subplot's ranges; at 0 and 1, the mouse would drag the axes."""
        (left, right), (bottom, top) = self.range(axes)
        x = [left + fraction * (right - left) for fraction in (x0, x1)]
        y = [bottom + fraction * (top - bottom) for fraction in (y0, y1)]
        self.drag([(x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1]), (x[0], y[0])], axes)


def box(locator: Locator) -> dict[str, float]:
    rectangle = locator.bounding_box()
    assert rectangle is not None, f"{locator} is not on the page"
    return dict(rectangle)


def difference(before: np.ndarray, after: np.ndarray) -> float:
    """Return the share of pixels that differ by more than antialiasing does; 1 if the sizes differ."""
    if before.shape != after.shape:
        return 1.0
    return float((np.abs(before.astype(int) - after).max(axis=-1) > 24).mean())


def settle(plot: Plot) -> np.ndarray:
    """Return the figure's pixels once they no longer change."""
    plot.page.mouse.move(1, 1)  # a hover label is no change
    before = plot.pixels()

    def still() -> bool:
        nonlocal before
        time.sleep(0.3)
        last, before = before, plot.pixels()
        return difference(last, before) == 0

    wait_for(still, "the figure to come to rest")
    return before
