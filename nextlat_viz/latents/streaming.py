"""A table that grows on disk: flat memory however many rows, and a run that was cut off goes on where it stopped.

How many rows there will be is known before the model reads anything. So the whole HDF5 file is laid out first, with
every fact in it and room for what the model will hold, and closed. From then on rows are written straight into that
room, and a journal beside the file says which are safe on disk. A crash can hurt neither the layout nor what the
journal vouches for, and the finished file does not depend on where it happened.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import anndata
import h5py
import numpy as np
import pandas as pd

from nextlat_viz import io
from nextlat_viz.errors import LatentsError
from nextlat_viz.latents.facts import Reading, facts, index_of
from nextlat_viz.latents.store import BLOCK, seal_file, unwritable
from nextlat_viz.latents.table import HIDDEN, KEY, PROBS, features_of, place

# Seconds of work that a cut can cost at most: the journal waits for the disk, which would be slow after every batch.
SYNC_EVERY = 1.0
_CHUNK = 16_384  # rows of facts laid out at a time


class Growing:
    """One table on disk, from nothing to finished.

    Parameters
    ----------
    out : Path
        Where it will be once it is whole.
    identity : dict
        What the run depends on. A run goes on only where all of it is the same.

    Attributes
    ----------
    finished : bool
        Whether the table is there already.
    episodes : int
        How many episodes are done.

    Raises
    ------
    LatentsError
        Another suffix, or what is there was begun by another call; the differences are listed.
    """

    def __init__(self, out: Path, identity: Mapping[str, Any]) -> None:
        if out.suffix != ".h5ad":
            raise LatentsError(f"out must end in .h5ad, got {out}")
        self.out, self.identity = out, dict(identity)
        self.part = out.with_name(f".{out.name}.part")
        self.journal = out.with_name(f".{out.name}.journal")
        self.finished = out.exists()
        self.episodes = self.row = 0
        self._begun = self._open = False
        if self.finished:
            _require_same(_stated(out), self.identity, out, f"choose another path, or delete {out} first")
        elif self.journal.exists() and self.part.exists() and not self.part.is_symlink():
            first, *lines = self.journal.read_text(encoding="utf-8").split("\n")
            advice = f"run that call again to finish it, choose another path, or delete {self.journal} to start over"
            _require_same(json.loads(first), self.identity, self.journal, advice)
            whole = [line.split() for line in lines[:-1]]  # the last is empty, or was cut
            self.episodes, self.row = map(int, whole[-1]) if whole else (0, 0)
            self._begun = True

    def start(self, read: Reading, uns: Mapping[str, Any], widths: Mapping[str, int], dtype: str) -> None:
        """Lay the file out, unless that was done, and open it for rows.

        Parameters
        ----------
        read : Reading
        uns : dict
            As `table.origin` gives it.
        widths : {site or "next_token_probs": width}
        dtype : "float32" or "float16"
            Of the sites; probabilities are float32.
        """
        try:
            if not self._begun:
                self.part.parent.mkdir(parents=True, exist_ok=True)
                # The name is known beforehand, for the next call to find the file: a link planted under it is removed
                # and not followed.
                self.part.unlink(missing_ok=True)
                self.part.touch(exist_ok=False)
                _require_room(self.part, read.rows, widths, dtype)
                stored = {**uns, KEY: {**uns[KEY], "extraction": json.dumps(self.identity)}}
                _lay_out(self.part, read, stored, widths, dtype)
                with self.part.open("rb+") as raw:
                    os.fsync(raw.fileno())
            self._room = _room(self.part, widths)
            self._file: BinaryIO = self.part.open("rb+", buffering=0)
            # Begun afresh each time: a line that was cut must never be taken for a whole one.
            said = f"{json.dumps(self.identity)}\n{self.episodes} {self.row}\n"
            io.write(self.journal, said)
            self._lines = self.journal.open("a", encoding="utf-8", newline="\n")
        except OSError as error:
            raise self._unwritable(error) from error
        self._synced, self._open = time.monotonic(), True

    def write(self, arrays: Mapping[str, np.ndarray], episodes: int) -> None:
        """Add the rows of a batch; `episodes` are done with it."""
        count = len(next(iter(arrays.values())))
        try:
            for name, values in arrays.items():
                offset, kind, width = self._room[name]
                self._file.seek(offset + self.row * width * kind.itemsize)
                left = np.ascontiguousarray(narrow(name, values, kind)).data.cast("B")
                while left:
                    left = left[self._file.write(left) :]
            self.row, self.episodes = self.row + count, episodes
            if time.monotonic() - self._synced >= SYNC_EVERY:
                self._sync()
        except OSError as error:
            raise self._unwritable(error) from error

    def stop(self) -> None:
        """Let go of the file; what is on disk stays there, to go on from."""
        try:
            self._sync()
        finally:
            self._file.close()
            self._lines.close()
            self._open = False

    def finish(self) -> None:
        """Vouch for the whole file and move it to its place."""
        if self._open:
            self.stop()
        try:
            seal_file(self.part)
            self.part.replace(self.out)
        except OSError as error:
            raise self._unwritable(error) from error
        with suppress(OSError):
            self.journal.unlink()

    def _sync(self) -> None:
        # Rows first: the journal must not vouch for what could still be lost.
        os.fsync(self._file.fileno())
        self._lines.write(f"{self.episodes} {self.row}\n")
        self._lines.flush()
        os.fsync(self._lines.fileno())
        self._synced = time.monotonic()

    def _unwritable(self, error: OSError) -> LatentsError:
        return LatentsError(f"{unwritable(self.out, error)}. The same call continues from the last saved batch")


def _stated(path: Path) -> dict[str, Any]:
    """Return the identity in a finished file; nothing where it was not made by streaming."""
    try:
        with h5py.File(path, "r") as file:
            text = file["uns"][KEY]["extraction"][()]
    except (OSError, KeyError):
        return {}
    found: dict[str, Any] = json.loads(text)
    return found


def _require_same(found: Mapping[str, Any], wanted: Mapping[str, Any], path: Path, advice: str) -> None:
    differences = [
        f"{key} was {_short(found.get(key))}, now {_short(wanted.get(key))}"
        for key in dict.fromkeys([*found, *wanted])
        if found.get(key) != wanted.get(key)
    ]
    if differences:
        said = "; ".join(differences) if found else "it says nothing about a call that wrote it"
        raise LatentsError(f"{path} is of another call ({said}): {advice}")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def narrow(name: str, values: np.ndarray, kind: np.dtype) -> np.ndarray:
    if kind == np.float16 and len(values) and np.abs(values).max() > np.finfo(np.float16).max:
        raise LatentsError(
            f"site {name!r} holds values up to {np.abs(values).max():.3g}, which float16 cannot: give dtype='float32'"
        )
    return values.astype(kind, copy=False)


def _types(widths: Mapping[str, int], dtype: str) -> dict[str, np.dtype]:
    return {name: np.dtype("float32" if name == PROBS else dtype) for name in widths}


def _require_room(path: Path, rows: int, widths: Mapping[str, int], dtype: str) -> None:
    needed = sum(rows * width * _types(widths, dtype)[name].itemsize for name, width in widths.items())
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise LatentsError(
            f"{rows:,} rows need {needed / 2**30:.1f} GiB at {path.parent}, and {free / 2**30:.1f} GiB are free: take "
            "fewer sites or positions, or dtype='float16'"
        )


def _lay_out(path: Path, read: Reading, uns: Mapping[str, Any], widths: Mapping[str, int], dtype: str) -> None:
    """Write everything but what the model holds, in the layout that anndata reads."""
    dim, kinds = widths[HIDDEN], _types(widths, dtype)
    with h5py.File(path, "w", userblock_size=BLOCK) as file:
        _tag(file, "anndata", "0.1.0")
        anndata.io.write_elem(file, "var", pd.DataFrame(index=features_of(dim)))
        anndata.io.write_elem(file, "uns", dict(uns))
        for group in ("layers", "obsm", "obsp", "varm", "varp"):
            anndata.io.write_elem(file, group, {})
        for name, width in widths.items():
            group, key = place(name, width, dim)
            parent = file if group == "X" else file[group]
            _tag(_make_room(parent, key, (read.rows, width), kinds[name]), "array")
        _write_facts(file, read, PROBS in widths)


def _make_room(parent: h5py.Group, key: str, shape: tuple[int, int], kind: np.dtype) -> h5py.Dataset:
    """Make a dataset in one piece whose place in the file is settled now and filled later."""
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    layout.set_obj_track_times(False)
    stored = h5py.h5t.py_create(kind.newbyteorder("<"))
    return h5py.Dataset(h5py.h5d.create(parent.id, key.encode(), stored, h5py.h5s.create_simple(shape), layout))


def _write_facts(file: h5py.File, read: Reading, probs: bool) -> None:
    per_episode = read.keep.sum(axis=1)
    ends = np.cumsum(per_episode)
    obs = file.create_group("obs")
    first = row = 0
    while first < len(ends):
        # At least one episode, and about _CHUNK rows.
        stop = max(first + 1, int(np.searchsorted(ends, row + _CHUNK, side="right")))
        columns, arrays = facts(read, first, stop, probs)
        if row == 0 and "_index" not in obs:
            _prepare(file, columns, arrays, read.rows)
        rows = slice(row, int(ends[stop - 1]))
        obs["_index"][rows] = index_of(columns)
        for name, values in columns.items():
            if isinstance(values, pd.Categorical):
                obs[name]["codes"][rows] = values.codes
            else:
                obs[name][rows] = values
        for name, values in arrays.items():
            file["obsm"][name][rows] = values
        first, row = stop, rows.stop


def _prepare(file: h5py.File, columns: Mapping[str, Any], arrays: Mapping[str, np.ndarray], rows: int) -> None:
    obs = file["obs"]
    _tag(obs, "dataframe")
    obs.attrs["_index"] = "_index"
    obs.attrs["column-order"] = np.array(list(columns), dtype=object)
    _tag(obs.create_dataset("_index", (rows,), h5py.string_dtype()), "string-array")
    for name, values in columns.items():
        if isinstance(values, pd.Categorical):
            group = obs.create_group(name)
            _tag(group, "categorical")
            group.attrs["ordered"] = False
            _tag(group.create_dataset("codes", (rows,), values.codes.dtype), "array")
            anndata.io.write_elem(group, "categories", np.array([str(one) for one in values.categories], dtype=object))
        else:
            _tag(obs.create_dataset(name, (rows,), values.dtype), "array")
    for name, values in arrays.items():
        _tag(file["obsm"].create_dataset(name, (rows, *values.shape[1:]), values.dtype), "array")


def _tag(one: Any, kind: str, version: str = "0.2.0") -> None:
    one.attrs["encoding-type"], one.attrs["encoding-version"] = kind, version


def _room(path: Path, widths: Mapping[str, int]) -> dict[str, tuple[int, np.dtype, int]]:
    """Return where in the file each dataset begins, its type, and its width."""
    found = {}
    with h5py.File(path, "r") as file:
        for name, width in widths.items():
            group, key = place(name, width, widths[HIDDEN])
            dataset = file[key] if group == "X" else file[group][key]
            found[name] = (dataset.id.get_offset(), dataset.dtype, width)
    return found
