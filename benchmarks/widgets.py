"""Time the cloud, the live plot, plotly's FigureWidget and jupyter-scatter: draw, recolour, move a cursor, select.

In a real JupyterLab in Chromium, each on its own page and kernel, in one run:

    python benchmarks/widgets.py [sizes]        # default 2000 100000 1000000

Seconds from the command in the kernel to the first changed pixel on the page; for a box and a click, from the mouse's
release to the call in Python. A machine without a graphics card draws by software: read the ratios. jupyter-scatter
has no cursor, so a selection of one point stands for it, and it selects with a lasso in the form of a box.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
from playwright.sync_api import Browser, Error, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.browser.chromium import launch
from tests.browser.lab import Notebook, Server

SIZES = (2_000, 100_000, 1_000_000)
LIMIT = 60  # seconds for one change
TASKS = ("first draw", "recolour", "cursor step", "box", "click")

DATA = """
import time
import numpy as np
rng = np.random.default_rng(0)
places = rng.normal(size=({n}, 2)).astype(np.float32)
codes = rng.integers(8, size={n}).astype(np.uint8)
others = [(codes + 1 + i) % 8 for i in range(4)]
path = np.argsort(places[:, 0] ** 2 + (places[:, 1] - 1.5) ** 2)[:60].tolist()
palette = ["#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#F0E442", "#999999", "#0072B2", "#D55E00"]
answers = []
def answered(*what):
    answers.append(time.time())
"""
# Code that the two plotly widgets share.
PLOTLY = """
import plotly.graph_objects as go
scale = [[edge / 8, color] for i, color in enumerate(palette) for edge in (i, i + 1)]
def figure():
    marker = {"color": codes, "colorscale": scale, "cmin": -0.5, "cmax": 7.5, "size": 4}
    return go.Figure(
        [
            go.Scattergl(x=places[:, 0], y=places[:, 1], mode="markers", marker=marker),
            go.Scattergl(x=[], y=[], mode="lines+markers", marker={"size": 16, "color": "#DC267F"}),
        ],
        {"dragmode": "select", "height": 420, "showlegend": False},
    )
def recolour(i):
    widget.data[0].marker.color = others[i]
def step(i):
    at = places[path[10 * i : 10 * i + 10]]
    with widget.batch_update():
        widget.data[1].x, widget.data[1].y = at[:, 0], at[:, 1]
"""
# Each defines show(), recolour(i) and step(i); a box or a click calls answered().
WIDGETS = {
    "Cloud": """
from nextlat_viz.notebook.cloud import Cloud
def show():
    global widget
    widget = Cloud(places, codes, palette, on_select=answered, on_click=answered)
    return widget
def recolour(i):
    widget.recolor(others[i])
def step(i):
    widget.cursor = path[10 * i : 10 * i + 10]
""",
    "Plot": """
from nextlat_viz.notebook.plot import Plot
def show():
    global widget
    widget = Plot(figure(), on_click=answered, on_select=answered)
    return widget
""",
    "FigureWidget": """
def show():
    global widget
    widget = go.FigureWidget(figure())
    widget.data[0].on_selection(answered)
    widget.data[0].on_click(answered)
    return widget
""",
    "jupyter-scatter": """
import jscatter, pandas as pd
def show():
    global scatter
    table = pd.DataFrame({"x": places[:, 0], "y": places[:, 1]})
    for name, values in zip("abcde", [codes, *others]):
        table[name] = pd.Categorical(values)
    scatter = jscatter.Scatter(data=table, x="x", y="y", color_by="a", color_map=palette, height=420)
    scatter.lasso(type="rectangle")
    scatter.mouse("lasso")
    scatter.widget.observe(answered, names="selection")
    return scatter.show()
def recolour(i):
    scatter.color(by="bcde"[i], map=palette)
def step(i):
    scatter.selection(path[10 * i : 10 * i + 1])
""",
}
# A checksum of all canvases, and the number of their pixels that have a colour.
LOOK = """() => {
    const scratch = document.createElement("canvas"), pen = scratch.getContext("2d", {willReadFrequently: true});
    let took = 0;
    window.look = () => {
        const started = performance.now();
        let sum = 0, colored = 0;
        for (const canvas of document.querySelectorAll(".jp-OutputArea canvas")) {
            if (!canvas.width || !canvas.height) continue;
            [scratch.width, scratch.height] = [canvas.width, canvas.height];
            pen.drawImage(canvas, 0, 0);
            for (const pixel of new Uint32Array(pen.getImageData(0, 0, canvas.width, canvas.height).data.buffer)) {
                sum = (Math.imul(sum, 31) + pixel) | 0;
                const r = pixel & 255, g = (pixel >> 8) & 255, b = (pixel >> 16) & 255;
                if (pixel >>> 24 && Math.max(r, g, b) - Math.min(r, g, b) > 30) colored += 1;
            }
        }
        took = performance.now() - started;
        return {sum, colored};
    };
    // Looking takes at most a third of the page's time, however slow it is: the rest is the widget's.
    window.pause = () => new Promise(next => setTimeout(() => requestAnimationFrame(next), 2 * took));
}"""
CHANGE = """async ([code, limit]) => {
    const before = look().sum, started = performance.now();
    window.lab.kernel.requestExecute({code, silent: true, store_history: false});
    while (performance.now() - started < 1000 * limit) {
        await pause();
        if (look().sum !== before) return (performance.now() - started) / 1000;
    }
    return null;
}"""
FIRST = """async limit => {
    const started = performance.now();
    window.lab.app.commands.execute("notebook:run-all-cells");
    while (performance.now() - started < 1000 * limit) {
        await pause();
        if (look().colored > 50) return (performance.now() - started) / 1000;
    }
    return null;
}"""
REST = """async limit => {
    const started = performance.now();
    let last = null, still = 0;
    while (still < 3 && performance.now() - started < 1000 * limit) {
        await new Promise(next => setTimeout(next, 250));
        const now = look().sum;
        still = now === last ? still + 1 : 0;
        last = now;
    }
}"""


@contextlib.contextmanager
def notebook(browser: Browser, server: Server, folder: Path, name: str) -> Iterator[Notebook]:
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("show()")], metadata=kernel), folder / "n.ipynb"
    )
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = Notebook(context.new_page(), server, folder / "n.ipynb", name)
    opened.page.set_default_timeout(2 * LIMIT * 1000)
    yield opened
    opened.close()
    context.close()


def measure(opened: Notebook, kind: str, n: int, repeats: int) -> dict[str, list[float]]:
    page = opened.page
    opened.kernel("None", setup=DATA.format(n=n) + PLOTLY + WIDGETS[kind])
    page.evaluate(LOOK)
    first = page.evaluate(FIRST, 2 * LIMIT)
    if first is None:
        return {task: [] for task in TASKS}
    taken: dict[str, list[float | None]] = {"first draw": [first]}
    page.evaluate(REST, LIMIT / 4)
    for task, call, times in (("recolour", "recolour", min(repeats, 4)), ("cursor step", "step", repeats)):
        taken[task] = []
        for i in range(times):
            taken[task].append(page.evaluate(CHANGE, [f"{call}({i})", LIMIT]))
            page.evaluate(REST, LIMIT / 4)
    frame = page.locator(".jp-OutputArea canvas").first.bounding_box()
    assert frame is not None
    middle = (frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2)
    taken["click"] = [answer(opened, middle, 0)]
    page.evaluate(REST, LIMIT / 4)
    taken["box"] = [answer(opened, middle, 60)]
    return {task: [seconds for seconds in times if seconds is not None] for task, times in taken.items()}


def answer(opened: Notebook, at: tuple[float, float], size: int) -> float | None:
    """Seconds from the release of the mouse, after drawing a box of a size (0: a click), to the call in Python."""
    opened.kernel("None", setup="answers.clear()")
    mouse = opened.page.mouse
    try:
        mouse.move(at[0] - size, at[1] - size)
        opened.page.wait_for_timeout(1000)  # plotly finds out what is under the mouse
        mouse.down()
        if size:
            mouse.move(at[0] + size, at[1] + size, steps=3)
        opened.page.wait_for_timeout(500)
        released = time.time()
        mouse.up()
        while time.time() < released + LIMIT:
            if called := opened.kernel("answers"):
                return float(called[0]) - released
            time.sleep(0.1)
    except Error:
        pass
    return None


def main() -> None:
    sizes = [int(size) for size in sys.argv[1:]] or list(SIZES)
    kinds = list(WIDGETS)
    with contextlib.suppress(ImportError):
        import jscatter  # noqa: F401
    if "jscatter" not in sys.modules:
        print("jupyter-scatter is not installed, so it is left out: pip install jupyter-scatter")
        kinds.remove("jupyter-scatter")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = Server(Path(folder) / "lab")
        browser = launch(playwright)
        try:
            for n in sizes:
                taken = {}
                for kind in kinds:
                    with notebook(browser, server, Path(folder), f"{kind}-{n}") as opened:
                        taken[kind] = measure(opened, kind, n, 2 if n > 500_000 else 6)
                        print(f"{n:,} {kind}: {time.strftime('%X')}", file=sys.stderr)
                report(n, taken)
        finally:
            browser.close()
            server.close()


def report(n: int, taken: dict[str, dict[str, list[float]]]) -> None:
    """Print medians in seconds, and as multiples of the cloud's."""
    print(f"\n{n:,} points" + "".join(f"{task:>22}" for task in TASKS))
    middles = {
        kind: {task: statistics.median(times[task]) if times[task] else None for task in TASKS}
        for kind, times in taken.items()
    }
    for kind, values in middles.items():
        line = f"{kind:{len(f'{n:,} points')}}"
        for task in TASKS:
            value, cloud = values[task], middles["Cloud"][task]
            text = "not in time" if value is None else f"{value:.3f} s"
            text += f" ({value / cloud:6.1f} x)" if value is not None and cloud else ""
            line += f"{text:>22}"
        print(line, flush=True)
    for kind, times in taken.items():
        print(f"  all of {kind}: { ({task: [round(value, 3) for value in values] for task, values in times.items()}) }")


if __name__ == "__main__":
    main()
