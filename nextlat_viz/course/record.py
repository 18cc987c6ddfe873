"""Record of the student's progress: a JSON file that several kernels may write, and that may be deleted at any time."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Literal

import pydantic
from filelock import FileLock, Timeout

from nextlat_viz import io
from nextlat_viz.course.exercises import all_exercises

FILE = "course_progress.json"


class Entry(pydantic.BaseModel):
    """The record of an exercise or of a prediction."""

    state: Literal["", "tried", "done"] = ""
    tries: pydantic.NonNegativeInt = 0
    hints: pydantic.NonNegativeInt = 0
    solution: bool = False
    prediction: str = ""


_ENTRIES = pydantic.TypeAdapter(dict[str, Entry])
_chosen: list[Path] = []


def progress(path: str | Path | None = None) -> Any:
    """Show the state of every exercise, as a DataFrame.

    Progress is kept in ``course_progress.json`` in the working folder. Delete the file to start again.

    Parameters
    ----------
    path : path, optional
        Another file in which to keep progress from now on.

    Examples
    --------
    >>> import tempfile
    >>> progress(f"{tempfile.mkdtemp()}/mine.json").loc["belief_update", "state"]
    'open'
    """
    import pandas as pd

    if path is not None:
        _chosen[:] = [io.resolve(path)]
    entries, message = _read(_file())
    if message:
        print(message)
    rows = {}
    for name, exercise in all_exercises().items():
        entry = entries.get(name, Entry())
        rows[name] = {"lesson": exercise.lesson, "state": entry.state or "open", "tries": entry.tries,
                      "hints": entry.hints, "solution seen": "yes" if entry.solution else ""}  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("exercise")


def add(name: str, counts: str = "", **values: Any) -> tuple[Entry, str]:
    """Add 1 to a count of an entry of the file, and set other values; the state "done" never changes.

    Returns the entry, and a message for the student if the file had a problem.
    """
    path, entry = _file(), Entry()
    try:
        with _lock(path):
            entries, message = _read(path)
            entry = entries.get(name, entry)
            before = {counts: getattr(entry, counts) + 1} if counts else {}
            entry = entry.model_copy(update=before | values | ({"state": "done"} if entry.state == "done" else {}))
            io.write(path, _ENTRIES.dump_json(entries | {name: entry}, indent=1, exclude_defaults=True))
    except (OSError, Timeout) as error:
        return Entry(hints=1), f"Progress is not kept: {error}. course.progress(path) chooses another file."
    return entry, message


def predicted(name: str) -> str:
    """Return the answer locked earlier for a prediction, or an empty text."""
    return _read(_file())[0].get(name, Entry()).prediction


def _file() -> Path:
    return _chosen[0] if _chosen else Path.cwd() / FILE


@contextlib.contextmanager
def _lock(path: Path) -> Any:
    """Hold the lock of a file, so that two kernels do not overwrite each other's entries."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=5)
    # Some network file systems have no locks; write there without one.
    with contextlib.suppress(NotImplementedError):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _read(path: Path) -> tuple[dict[str, Entry], str]:
    """Return the entries of a file, none without a file, and a message; a damaged file is renamed."""
    try:
        return _ENTRIES.validate_json(path.read_bytes()), ""
    except FileNotFoundError:
        return {}, ""
    except OSError as error:
        return {}, f"The progress file cannot be read ({error})."
    except ValueError:
        aside = path.with_name(f"{path.stem}.damaged{path.suffix}")
        with contextlib.suppress(OSError):
            path.replace(aside)
        return {}, f"The progress file was damaged. It is now {aside.name}, and a new one begins."
