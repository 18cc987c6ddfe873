"""The layout of a table on disk: everything but the latents, with space for their rows."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from nextlat_viz.errors import LatentsError
from nextlat_viz.latents.facts import Reading, index_of, row_facts
from nextlat_viz.latents.store import BLOCK, write_elem
from nextlat_viz.latents.table import HIDDEN, PROBS, features_of, place

_CHUNK = 16_384  # rows whose columns are written at a time


def narrow(name: str, values: np.ndarray, kind: np.dtype) -> np.ndarray:
    """Convert the values of a site; raise LatentsError where float16 cannot hold them."""
    if kind == np.float16 and len(values) and np.abs(values).max() > np.finfo(np.float16).max:
        raise LatentsError(
            f"site {name!r} holds values up to {np.abs(values).max():.3g}, which float16 cannot: give dtype='float32'"
        )
    return values.astype(kind, copy=False)


def stored_type(name: str, dtype: str) -> np.dtype:
    """Type of a site in a table; probabilities are float32."""
    return np.dtype("float32" if name == PROBS else dtype)


def require_room(path: Path, rows: int, widths: Mapping[str, int], dtype: str) -> None:
    needed = sum(rows * width * stored_type(name, dtype).itemsize for name, width in widths.items())
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise LatentsError(
            f"{rows:,} rows need {needed / 2**30:.1f} GiB at {path.parent}, and {free / 2**30:.1f} GiB are free: take "
            "fewer sites or positions, or dtype='float16'"
        )


def lay_out(path: Path, read: Reading, uns: Mapping[str, Any], widths: Mapping[str, int], dtype: str) -> None:
    """Write everything except latents, in the layout that anndata reads, with space for the latents."""
    dim = widths[HIDDEN]
    with h5py.File(path, "w", userblock_size=BLOCK) as file:
        _tag(file, "anndata", "0.1.0")
        write_elem(file, "var", pd.DataFrame(index=features_of(dim)))
        write_elem(file, "uns", dict(uns))
        for group in ("layers", "obsm", "obsp", "varm", "varp"):
            write_elem(file, group, {})
        for name, width in widths.items():
            group, key = place(name, width, dim)
            parent = file if group == "X" else file[group]
            _tag(_reserve(parent, key, (read.rows, width), stored_type(name, dtype)), "array")
        _write_columns(file, read, PROBS in widths)


def _reserve(parent: h5py.Group, key: str, shape: tuple[int, int], kind: np.dtype) -> h5py.Dataset:
    """Create a contiguous dataset. Its space in the file is allocated now and filled later."""
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    layout.set_obj_track_times(False)
    stored = h5py.h5t.py_create(kind.newbyteorder("<"))
    return h5py.Dataset(h5py.h5d.create(parent.id, key.encode(), stored, h5py.h5s.create_simple(shape), layout))


def _write_columns(file: h5py.File, read: Reading, probs: bool) -> None:
    """Write ``obs`` and the arrays of truth, a chunk of episodes at a time."""
    per_episode = read.keep.sum(axis=1)
    ends = np.cumsum(per_episode)
    obs = file.create_group("obs")
    first = row = 0
    while first < len(ends):
        # At least one episode, and about _CHUNK rows.
        stop = max(first + 1, int(np.searchsorted(ends, row + _CHUNK, side="right")))
        columns, arrays = row_facts(read, first, stop, probs)
        if row == 0 and "_index" not in obs:
            _create_columns(file, columns, arrays, read.rows)
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


def _create_columns(file: h5py.File, columns: Mapping[str, Any], arrays: Mapping[str, np.ndarray], rows: int) -> None:
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
            write_elem(group, "categories", np.array([str(name) for name in values.categories], dtype=object))
        else:
            _tag(obs.create_dataset(name, (rows,), values.dtype), "array")
    for name, values in arrays.items():
        _tag(file["obsm"].create_dataset(name, (rows, *values.shape[1:]), values.dtype), "array")


def _tag(element: Any, kind: str, version: str = "0.2.0") -> None:
    element.attrs["encoding-type"], element.attrs["encoding-version"] = kind, version


def offsets_of(path: Path, sites: Iterable[str]) -> dict[str, tuple[int, np.dtype, int]]:
    """Return the offset in the file, the type and the width of the dataset of each site, and of the probabilities."""
    with h5py.File(path, "r") as file:
        layers, obsm = file["layers"], file["obsm"]
        datasets = {
            name: file["X"] if name == HIDDEN else layers[name] if name in layers else obsm[f"X_{name}"]
            for name in sites
        }
        if PROBS in obsm:
            datasets[PROBS] = obsm[PROBS]
        return {name: (data.id.get_offset(), data.dtype, data.shape[1]) for name, data in datasets.items()}
