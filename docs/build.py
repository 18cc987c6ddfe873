"""Build the documentation site: `make docs`. Sources and all intermediate files go into build/.

The cells of pages and notebooks are run first, each file in its own process, forked from this one so that heavy
packages are imported once. Their outputs are kept, and used again until code changes.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

# The models are tiny, and a process must not have started threads when it is forked.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import cells
import nbformat
import reference
from plotly.offline import get_plotlyjs
from sphinx.cmd.build import build_main

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SOURCE, STATIC, KEPT, OUT = (ROOT / "build" / name for name in ("docs-source", "docs-static", "docs-cells", "docs"))
_PROCESSES = 2


def sources() -> Iterator[tuple[Path, str]]:
    """Yield every source of the site and its place in it."""
    for path in sorted(HERE.rglob("*")):
        if path.is_file() and path.suffix not in (".py", ".pyc", ".json"):
            yield path, path.relative_to(HERE).as_posix()
    for path in sorted((ROOT / "notebooks").rglob("*.ipynb")):
        if ".ipynb_checkpoints" not in path.parts:
            yield path, path.relative_to(ROOT).as_posix()
    yield ROOT / "CHANGELOG.md", "changelog.md"
    yield ROOT / "CONTRIBUTING.md", "contributing.md"
    yield ROOT / "CITATION.cff", "CITATION.cff"


def assemble() -> list[tuple[Path, str]]:
    """Make the folder that Sphinx reads, without the outputs of cells; return the files that have cells."""
    places, with_cells = set(), []
    for path, place in sources():
        places.add(SOURCE / place)
        if has_cells(path):
            with_cells.append((path, place))
        elif path.suffix == ".md":
            write(SOURCE / place, relinked(path.read_text(encoding="utf-8"), path))
        else:
            write(SOURCE / place, path.read_bytes())
    write(STATIC / "plotly.min.js", get_plotlyjs().encode())
    pages = Path(tempfile.mkdtemp())
    reference.write(pages)
    for path in pages.iterdir():
        places.add(SOURCE / "api" / path.name)
        write(SOURCE / "api" / path.name, path.read_bytes())
    shutil.rmtree(pages)
    places |= {SOURCE / Path(place).with_suffix(".ipynb") for _, place in with_cells} | {
        SOURCE / "_static/plotly.min.js"
    }
    for path in SOURCE.rglob("*"):
        if path.is_file() and path not in places:
            path.unlink()
    return with_cells


def has_cells(path: Path) -> bool:
    text = path.read_text(encoding="utf-8") if path.suffix == ".md" else ""
    return path.suffix == ".ipynb" or re.search(r"^```\{code-cell\}", text, re.MULTILINE) is not None


def relinked(text: str, path: Path) -> bytes:
    """Rewrite the links of a source for the site, where pages with cells are notebooks."""

    def rewrite(match: re.Match[str]) -> str:
        target = match[1]
        if has_cells((path.parent / target).resolve()):
            target = f"{target.removesuffix('.md').removesuffix('.ipynb')}.ipynb"
        return f"]({target.replace('../docs/', '../')}"

    return re.sub(r"\]\(([\w./]+\.(?:md|ipynb))(?=[)#])", rewrite, text).encode()


def write(path: Path, content: bytes) -> None:
    """Write a file if its content differs, so that Sphinx reads again only what has changed."""
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def package_hash() -> str:
    """Hash everything that outputs depend on besides the cells themselves."""
    digest = hashlib.sha256()
    for path in sorted([*(ROOT / "nextlat_viz").rglob("*.*"), HERE / "cells.py", ROOT / "requirements.lock"]):
        if path.suffix in (".py", ".js", ".css", ".html", ".lock"):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def run(job: tuple[Path, str, str]) -> str:
    """Run the cells of a file, or read their kept outputs, and write the notebook that Sphinx reads."""
    path, place, package = job
    notebook = cells.read(path)
    stem = place.rpartition(".")[0].replace("/", "-")
    code = json.dumps([[cell.source, cell.metadata.get("tags", [])] for cell in notebook.cells])
    key = hashlib.sha256(f"{package}{code}".encode()).hexdigest()[:20]
    cached = KEPT / f"{stem}-{key}.ipynb"
    started = time.process_time()
    if cached.exists():
        executed = nbformat.read(cached, as_version=4)
    else:
        for old in KEPT.glob(f"{stem}-*"):
            old.unlink()
        home = Path(tempfile.mkdtemp())
        before = Path.cwd()
        os.chdir(home)
        executed = cells.run(path, KEPT / "episodes", stem)
        os.chdir(before)
        shutil.rmtree(home)
        nbformat.write(executed, cached)
    # Prose may be newer than the outputs.
    for old, new in zip(executed.cells, notebook.cells, strict=True):
        old.source = new.source
    write(SOURCE / Path(place).with_suffix(".ipynb"), relinked(nbformat.writes(executed), path))
    return f"{place}: {time.process_time() - started:.0f} s of CPU"


def main() -> int:
    """Build the site; return the exit status of Sphinx, or 1 if a cell fails."""
    KEPT.mkdir(parents=True, exist_ok=True)
    package = package_hash()
    jobs = [(path, place, package) for path, place in assemble()]
    with multiprocessing.get_context("fork").Pool(_PROCESSES, maxtasksperchild=1) as pool:
        try:
            for line in pool.imap_unordered(run, jobs, chunksize=1):
                print(line, flush=True)
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1
    trees = str(ROOT / "build" / "docs-trees")
    status = build_main(["-W", "--keep-going", "-q", "-d", trees, "-c", str(HERE), str(SOURCE), str(OUT)])
    shutil.copytree(KEPT / "episodes", OUT / "episodes", dirs_exist_ok=True)
    if status == 0:
        print(f"open {OUT / 'index.html'}")
    return int(status)


if __name__ == "__main__":
    raise SystemExit(main())
