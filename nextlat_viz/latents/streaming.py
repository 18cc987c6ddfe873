"""A table that is written to disk batch by batch, in constant memory; an interrupted extraction can be continued.

The number of rows is known before the model reads anything. So the whole HDF5 file is laid out first, with all columns
and empty space for the latents, and closed. Rows are then written into that space with plain file writes. A journal
next to the file records which rows are safe on disk, with a hash of these rows, the columns and the layout. A crash
cannot damage what is recorded, and the finished file has the same bytes wherever it was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import h5py
import numpy as np
from filelock import FileLock, Timeout

from nextlat_viz import io
from nextlat_viz.display import shorten
from nextlat_viz.errors import LatentsError
from nextlat_viz.latents.facts import Reading
from nextlat_viz.latents.layout import lay_out, narrow, offsets_of, require_room
from nextlat_viz.latents.store import BLOCK, check_file, seal_file, writing
from nextlat_viz.latents.table import KEY

# Seconds of work that a crash can lose. Every journal entry waits for the disk: too slow for every batch.
SYNC_EVERY = 1.0
CONTINUES = ". The same call continues from the last saved batch"
_LAYOUT = ""  # no site has this name


class Growing:
    """A table that is being written: first as ``.NAME.part`` with a journal, and as `out` when it is complete.

    Parameters
    ----------
    out : Path
        The finished file.
    identity : dict
        Everything that the table depends on. An extraction is continued only where all of it is the same.

    Attributes
    ----------
    finished : bool
        Whether `out` exists.
    episodes : int
        Number of episodes that are done.

    Raises
    ------
    LatentsError
        Another suffix, a file that another process is writing, or files of another call; the differences are listed.
    """

    def __init__(self, out: Path, identity: Mapping[str, Any]) -> None:
        if out.suffix != ".h5ad":
            raise LatentsError(
                f"out must end in .h5ad, got {out}; a folder is for several processes, as torchrun starts them"
            )
        self.out, self.identity = out, dict(identity)
        self.part = out.with_name(f".{out.name}.part")
        self.journal = out.with_name(f".{out.name}.journal")
        self.episodes = self.row = 0
        self._begun = self._open = False
        self._recorded: str | None = None
        self._lines: TextIO | None = None
        self._sums: dict[str, int] = {}
        self._lock = FileLock(out.with_name(f".{out.name}.lock"))
        try:
            if not out.exists():
                self._acquire()
            self.finished = out.exists()
            self._compare()
        except BaseException:
            self.close()
            raise

    def _acquire(self) -> None:
        """Lock the file against other processes; the operating system releases it when this one ends."""
        with writing(self.out, CONTINUES):
            self.out.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                raise LatentsError(
                    f"out={str(self.out)!r} is in use: another process extracts there. Wait for it, or choose another "
                    "path"
                ) from None

    def close(self) -> None:
        """Let other processes write the file."""
        if self._lock.is_locked:
            with suppress(OSError):  # Windows keeps a file that is open
                Path(self._lock.lock_file).unlink()
            self._lock.release()

    def _compare(self) -> None:
        """Compare existing files with this call."""
        out = self.out
        if self.finished:
            _require_same(stated(out), self.identity, out, f"choose another path, or delete {out} first")
            try:
                check_file(out)
            except LatentsError as error:
                raise LatentsError(f"{error}: delete {out} first") from error
        elif self.journal.exists() and self.part.exists() and not self.part.is_symlink():
            identity, self.episodes, self.row, self._recorded = _journal(self.journal)
            advice = f"run that call again to finish it, choose another path, or delete {self.journal} to start over"
            _require_same(identity, self.identity, self.journal, advice)
            self._begun = True

    def fill(
        self, batches: Iterable[tuple[dict[str, np.ndarray], int]], read: Reading, uns: Mapping[str, Any], dtype: str
    ) -> None:
        """Write all batches, and then the hash of the complete file, which becomes `out`.

        After an interruption the rows written so far stay on disk, and the next call continues. Each batch is a pair:
        its rows by site, and the number of episodes done once it is written. `uns` comes from `table.origin`; `dtype`
        is that of the sites.
        """
        # One thread writes a batch while the model reads the next one, so at most two batches are in memory.
        writing: Future[None] | None = None
        try:
            with ThreadPoolExecutor(1, "latents") as thread:
                for arrays, episodes in batches:
                    if not self._open:
                        self._start(read, uns, {name: values.shape[1] for name, values in arrays.items()}, dtype)
                    if writing is not None:
                        writing.result()
                    writing = thread.submit(self._write, arrays, episodes)
                if writing is not None:
                    writing.result()
        except BaseException:
            if self._open:
                self._stop()
            raise
        self._finish()

    def _start(self, read: Reading, uns: Mapping[str, Any], widths: Mapping[str, int], dtype: str) -> None:
        """Lay the file out, unless an earlier session did, and open it for rows."""
        with writing(self.out, CONTINUES):
            if not self._begun:
                self.part.parent.mkdir(parents=True, exist_ok=True)
                # The next call must find the file, so its name can be guessed: a link planted there is removed, not
                # followed.
                self.part.unlink(missing_ok=True)
                self.part.touch(exist_ok=False)
                require_room(self.part, read.rows, widths, dtype)
                stored = {**uns, KEY: {**uns[KEY], "extraction": json.dumps(self.identity)}}
                lay_out(self.part, read, stored, widths, dtype)
            self._offsets = self._checked_offsets(int(read.keep[: self.episodes].sum()))
            if {name: width for name, (_, _, width) in self._offsets.items()} != widths:
                raise damaged(self.part, self.journal)
            self._file: BinaryIO = self.part.open("rb+", buffering=0)
        self._synced, self._open = time.monotonic(), True

    def _write(self, arrays: Mapping[str, np.ndarray], episodes: int) -> None:
        count = len(next(iter(arrays.values())))
        # If the disk fills up during a batch, the journal must state only the batches before it.
        sums = dict(self._sums)
        with writing(self.out, CONTINUES):
            for name, values in arrays.items():
                offset, kind, width = self._offsets[name]
                self._file.seek(offset + self.row * width * kind.itemsize)
                rest = np.ascontiguousarray(narrow(name, values, kind)).data.cast("B")
                sums[name] = zlib.crc32(rest, sums[name])
                # An unbuffered write may write less than it was given.
                while rest:
                    rest = rest[self._file.write(rest) :]
            self.row, self.episodes, self._sums = self.row + count, episodes, sums
            if time.monotonic() - self._synced >= SYNC_EVERY:
                self._sync()

    def _stop(self) -> None:
        try:
            self._sync()
        finally:
            self._release()

    def _release(self) -> None:
        self._file.close()
        if self._lines is not None:
            self._lines.close()
        self._open, self._lines = False, None

    def _finish(self) -> None:
        if self._open:
            # The last rows get no entry in the journal, which would wait for the disk once more.
            self._release()
        else:
            # An earlier session wrote the last rows and did not seal them.
            self._checked_offsets(self.identity["rows"])
        with writing(self.out, CONTINUES):
            seal_file(self.part)
            self.part.replace(self.out)
        with suppress(OSError):
            self.journal.unlink()

    def _sync(self) -> None:
        # Rows first: even after a power cut, the journal may only name rows that are on disk.
        os.fsync(self._file.fileno())
        if self._lines is None:
            # Written anew in each session: text appended to an incomplete line could make a wrong, complete one.
            io.write(self.journal, f"{json.dumps(self.identity)}\n{self._entry()}")
            self._lines = self.journal.open("a", encoding="utf-8", newline="\n")
        else:
            self._lines.write(self._entry())
            self._lines.flush()
            os.fsync(self._lines.fileno())
        self._synced = time.monotonic()

    def _entry(self) -> str:
        """Return a line of the journal: episodes and rows done, and a hash of all that is written."""
        return f"{self.episodes} {self.row} {_combined(self._sums)}\n"

    def _checked_offsets(self, rows: int) -> dict[str, tuple[int, np.dtype, int]]:
        """Return the offsets of the sites in the file, after comparing everything written with the journal."""
        try:
            offsets = offsets_of(self.part, self.identity["sites"])
            self._sums = {}
            with self.part.open("rb") as file:
                for name, (offset, kind, width) in offsets.items():
                    self._sums[name] = _checksum(file, offset, self.row * width * kind.itemsize)
                # Everything else: the layout and the columns.
                end, layout = BLOCK, 0
                for offset, kind, width in sorted(offsets.values(), key=itemgetter(0)):
                    layout = _checksum(file, end, offset - end, layout)
                    end = offset + self.identity["rows"] * width * kind.itemsize
                self._sums[_LAYOUT] = _checksum(file, end, self.part.stat().st_size - end, layout)
        except Exception as error:
            raise damaged(self.part, self.journal) from error
        if self._begun and (self.row != rows or self._recorded != _combined(self._sums)):
            raise damaged(self.part, self.journal)
        return offsets


def damaged(path: Path, journal: Path) -> LatentsError:
    """Build the error for an interrupted extraction that cannot be continued."""
    return LatentsError(
        f"{path} is damaged, so the interrupted extraction cannot be continued: delete {journal} to start over"
    )


def _checksum(file: BinaryIO, start: int, count: int, before: int = 0) -> int:
    """Return the CRC of `count` bytes of a file, continued from the CRC `before`.

    It checks files left by a crash, several times faster than the hash that seals a complete file.
    """
    file.seek(start)
    while count > 0 and (chunk := file.read(min(count, 1 << 20))):
        before = zlib.crc32(chunk, before)
        count -= len(chunk)
    return before


def _combined(sums: Mapping[str, int]) -> str:
    return hashlib.sha256("".join(f"{name} {sums[name]:08x}" for name in sorted(sums)).encode()).hexdigest()


def _journal(path: Path) -> tuple[dict[str, Any], int, int, str | None]:
    """Read a journal: the identity of its call, episodes and rows done, and the hash of these rows."""
    try:
        # The last item is empty, or a line that was not completed.
        first, *complete, _ = path.read_text(encoding="utf-8").split("\n")
        identity: dict[str, Any] = dict(io.parse_json(first))
        episodes, row, recorded = complete[-1].split()
        if int(episodes) < 0 or int(row) < 0:
            raise ValueError("negative counts")
        return identity, int(episodes), int(row), recorded
    except (OSError, ValueError, TypeError, IndexError) as error:
        raise damaged(path, path) from error


def stated(path: Path) -> dict[str, Any]:
    """Return the identity in a finished file; empty where it was not written by this module."""
    try:
        with h5py.File(path, "r") as file:
            return dict(io.parse_json(file["uns"][KEY]["extraction"][()]))
    except Exception:
        # HDF5 raises errors of many types for a damaged file.
        return {}


def _require_same(old: Mapping[str, Any], new: Mapping[str, Any], path: Path, advice: str) -> None:
    differences = [
        f"{key} was {shorten(json.dumps(old.get(key)))}, now {shorten(json.dumps(new.get(key)))}"
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key)
    ]
    if differences:
        reason = "; ".join(differences) if old else "it does not state the call that wrote it"
        raise LatentsError(f"{path} is of another call ({reason}): {advice}")
