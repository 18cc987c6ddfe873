"""Time the studio in a real JupyterLab in Chromium: until the first panel is drawn, and a step of the cursor.

    python benchmarks/studio.py [another checkout]

A step takes from the press of an arrow key to the last change that it makes in a visible panel, frame included. With
another checkout, such as a git worktree of an older commit, both are open and take turns. The load of the machine is
printed beside the numbers: on a busy one, read the ratios.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from playwright.sync_api import Browser, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.browser.chromium import launch
from tests.browser.lab import Notebook, Server

MODELS = {"rrxor": "rrxor", "taxi": "taxi_grid"}
STEPS, ROUNDS, QUIET = 4, 3, 1500  # per turn; turns; milliseconds without a change after the last one
CELLS = ("import nextlat_viz as nlv, torch, plotly", "studio = nlv.studio('{0}/next_token', '{0}/nextlat')\nstudio")
FIRST = """async limit => {
    const started = performance.now();
    window.lab.app.commands.execute("notebook:run-cell");
    while (performance.now() - started < 1000 * limit) {
        await new Promise(next => requestAnimationFrame(next));
        if ([...document.querySelectorAll(".nlv-studio .main-svg")].some(svg => svg.clientWidth)) {
            return (performance.now() - started) / 1000;
        }
    }
    return null;
}"""
# Every change in the studio, and every drawing of a figure: a WebGL figure changes without any change of elements.
WATCH = """() => {
    const studio = document.querySelector(".nlv-studio");
    const seen = () => requestAnimationFrame(() => setTimeout(() => { window.last = performance.now(); }));
    new MutationObserver(seen).observe(studio, {subtree: true, childList: true, attributes: true, characterData: true});
    for (const plot of studio.querySelectorAll(".js-plotly-plot")) plot.on("plotly_afterplot", seen);
    window.addEventListener("keydown", () => { window.pressed = window.last = performance.now(); }, true);
}"""
TOOK = """async quiet => {
    while (performance.now() - window.last < quiet) await new Promise(next => setTimeout(next, 50));
    return window.last - window.pressed;
}"""


def opened(browser: Browser, checkout: Path, world: str, folder: Path) -> tuple[Notebook, Server, float]:
    """Open the studio of a checkout; also returns the seconds from its cell to the first panel."""
    folder.mkdir()
    os.environ["PYTHONPATH"] = str(checkout)
    server = Server(folder / "lab")
    cells = [nbformat.v4.new_code_cell(text.format(MODELS[world])) for text in CELLS]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "n.ipynb")
    page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    book = Notebook(page, server, folder / "n.ipynb", "n")
    book.kernel("None", setup=CELLS[0])
    page.evaluate("() => { window.lab.panel.content.activeCellIndex = 1; }")
    first = page.evaluate(FIRST, 120)
    book.wait_for_kernel("not studio.state.busy")
    page.wait_for_timeout(2 * QUIET)
    page.evaluate(WATCH)
    return book, server, first


def steps(book: Notebook) -> list[float]:
    """Milliseconds of some steps of the cursor, forwards from the start of the next episode."""
    book.page.bring_to_front()
    book.kernel("None", setup="studio.state.go_to(studio.state.episode + 1, 2)")
    book.page.wait_for_timeout(2 * QUIET)
    book.page.locator(".nlv-studio").first.focus()
    taken = []
    for _ in range(STEPS):
        book.page.keyboard.press("ArrowRight")
        taken.append(book.page.evaluate(TOOK, QUIET))
    return taken


def main() -> None:
    checkouts = [Path(__file__).parents[1], *(Path(path).resolve() for path in sys.argv[1:2])]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = launch(playwright)
        for world in MODELS:
            books = [opened(browser, path, world, Path(folder) / f"{world}{i}") for i, path in enumerate(checkouts)]
            taken: list[list[float]] = [[] for _ in books]
            for _ in range(ROUNDS):
                for times, (book, *_) in zip(taken, books, strict=True):
                    times += steps(book)
            for path, times, (book, server, first) in zip(checkouts, taken, books, strict=True):
                load = os.getloadavg()[0]
                print(
                    f"{world}, {path.name}: first panel {first:.1f} s; a step {statistics.median(times):.0f} ms, "
                    f"{min(times):.0f} to {max(times):.0f}; load {load:.1f} at {time.strftime('%X')}",
                    flush=True,
                )
                book.close()
                server.close()
            if len(books) > 1:
                now, before = map(statistics.median, taken)
                print(f"{world}: a step takes {now / before:.2f} times as long as in {checkouts[1].name}", flush=True)
        browser.close()


if __name__ == "__main__":
    main()
