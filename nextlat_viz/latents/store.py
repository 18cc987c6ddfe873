"""Latents on disk: one ``.h5ad`` file, written atomically and checked when it is read.

HDF5 reserves a block at the start of a file for the application. Ours holds the format, and the size and hash of the
rest, so a damaged file is recognised before HDF5 reads it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.experimental import write_dispatched

from nextlat_viz import io
from nextlat_viz.errors import LatentsError
from nextlat_viz.latents.table import FORMAT, metas

if TYPE_CHECKING:
    from nextlat_viz.training.checkpoint import Checkpoint

BLOCK = 512  # the smallest user block HDF5 allows, in bytes
_DEEPEST = 32  # groups; what users add to `uns` may be nested
_FAMILY, _, _VERSION = FORMAT.rpartition("/")


def save_latents(latents: AnnData, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write latents to one ``.h5ad`` file, which ``anndata.read_h5ad`` reads too.

    The file is written atomically: the path has the old content or the new, never a part.

    Parameters
    ----------
    path : str or Path
        Ends in ``.h5ad``; missing folders are created.
    overwrite : bool
        Replace an existing file.

    Raises
    ------
    LatentsError
        Not a latents table, another suffix, an existing file, a folder that cannot be written, or a column whose name
        or values the format cannot hold; names it.

    Examples
    --------
    >>> import tempfile
    >>> import nextlat_viz as nlv
    >>> checkpoint = nlv.load("rrxor/nextlat")
    >>> latents = nlv.extract(checkpoint, checkpoint.world.sample(4, 6, seed=1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     load_latents(save_latents(latents, Path(folder, "latents.h5ad"))).shape
    (24, 64)
    """
    metas(latents)
    for part in (latents.obs, latents.obsm, latents.layers):
        require_names(part)
    path = require_free(path, overwrite)
    with writing(path), io.draft(path) as temporary:
        with h5py.File(temporary, "w", userblock_size=BLOCK) as file:
            write_elem(file, "/", latents)
        seal_file(temporary)
    return path


def require_free(path: str | Path, overwrite: bool) -> Path:
    """Return the path of a file of latents that can be written; raise LatentsError for one that cannot."""
    path = io.as_path(path)
    if path.suffix != ".h5ad":
        raise LatentsError(f"path must end in .h5ad, got {path}")
    if path.exists() and not overwrite:
        raise LatentsError(f"{path} exists already: pass overwrite=True to replace it, or choose another path")
    with writing(path):
        io.claim(path.parent)
    return path


def require_names(names: Iterable[Any]) -> None:
    """Raise LatentsError for a name that a file of latents cannot hold. HDF5 reads a slash as a group in a group."""
    for name in names:
        if not isinstance(name, str) or name in ("", ".", "_index") or set(name) & set("/\0"):
            raise LatentsError(
                f"{name!r} cannot be the name of a column or site in a file: rename it; names are "
                "text without a slash, and '_index' is taken"
            )


def write_elem(parent: h5py.Group, key: str, element: Any) -> None:
    """Write a part of a table as AnnData does, after converting columns of pandas types that AnnData refuses.

    Raises a LatentsError that names the column for values that the format cannot hold.
    """

    def write(function: Any, group: h5py.Group, name: str, item: Any, dataset_kwargs: Any, **_: Any) -> None:
        if isinstance(item, pd.DataFrame):
            item = pd.DataFrame({column: _storable(column, item[column]) for column in item}, index=item.index)
            if item.index.inferred_type == "string":
                item.index = pd.Index(item.index, dtype=object)
        function(group, name, item, dataset_kwargs=dataset_kwargs)

    try:
        write_dispatched(parent, key, element, write)
    except (OSError, LatentsError):
        raise
    except Exception as error:
        where = " ".join(getattr(error, "__notes__", []))
        raise LatentsError(f"the table cannot be stored: {error}. {where}. Convert or remove that entry") from error


def _storable(name: str, values: pd.Series) -> pd.Series:
    """Convert a column to a type that can be stored, with the same values and the same gaps."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        categories = values.cat.categories
        if categories.dtype.kind in "biuf":
            return values
        return values.cat.rename_categories(pd.Index(list(map(str, categories)), dtype=object))
    kind = pd.api.types.infer_dtype(values, skipna=True)
    if kind == "string":
        return values.astype("category") if values.hasnans else values.astype(object)
    if values.dtype.kind in "biuc" or (isinstance(values.dtype, np.dtype) and values.dtype.kind == "f"):
        return values
    if kind == "boolean":
        return values.astype("boolean")
    if kind == "integer":
        return values.astype("Int64")
    if kind in ("floating", "mixed-integer-float", "empty"):
        return values.astype("float64")
    types = sorted({type(value).__name__ for value in values})
    raise LatentsError(
        f"column {name!r} holds values of type {', '.join(types)}, which a file of latents cannot: "
        f"convert it, for example latents.obs[{name!r}] = latents.obs[{name!r}].astype(str)"
    )


@contextmanager
def writing(path: Path, more: str = "") -> Iterator[None]:
    """Raise a LatentsError that names the file where it cannot be written."""
    try:
        yield
    except OSError as error:
        reason = str(error)
        if not reason.startswith("cannot write"):
            reason = f"cannot write {path}: {error.strerror or reason}. Choose a folder you can write to"
        raise LatentsError(f"{reason}, with free space{more}") from error


def load_latents(path: str | Path) -> AnnData:
    """Read latents written by `save_latents`, after comparing every byte with the hash in the file.

    A folder, as several processes of torchrun write it, is read as one table: all of its parts must be there.

    Nothing in the file is executed. A file that another program wrote is refused, because it has no hash: read it with
    ``anndata.read_h5ad`` and save it with `save_latents` if you trust it.

    Raises
    ------
    LatentsError
        No such file, not written by `save_latents`, truncated, altered, of another or newer format, or with content
        that would take more memory than the file has bytes.
    """
    path = io.as_path(path)
    if path.is_dir():
        from nextlat_viz.latents.parts import load_parts

        return load_parts(path, load_latents)
    check_file(path)
    try:
        latents = anndata.read_h5ad(path)
        metas(latents)
    except LatentsError:
        raise
    # A right hash does not make the content a table, and anndata fails in many ways on other content.
    except Exception as error:
        raise LatentsError(f"{path} does not hold a table of latents: {error}. Extract it again") from error
    return latents


def check_file(path: Path) -> None:
    """Compare every byte of a file of latents with its hash; raises LatentsError as `load_latents` does."""
    try:
        with path.open("rb") as raw:
            block = raw.read(BLOCK)
    except OSError as error:
        raise LatentsError(f"cannot read latents at {path}: {error.strerror}") from error
    header = re.match(rb"nextlat_viz\.latents/(\d+)\nbytes (\d+)\n", block)
    if not header:
        if block.startswith(b"\x89HDF\r\n\x1a\n"):
            raise LatentsError(f"{path} is HDF5, but was not written by nlv.save_latents: extract the latents again")
        problem = "is empty" if not block else "is not an .h5ad file of latents"
        raise LatentsError(f"{path} {problem}: such files are written by nlv.save_latents")
    version, size = header.groups()
    if version.decode() != _VERSION:
        newer = int(version) > int(_VERSION)
        raise LatentsError(
            f"{path} has format {_FAMILY}/{version.decode()}, this version of nextlat_viz reads {FORMAT}: "
            + ("upgrade it" if newer else "extract the latents again")
        )
    if path.stat().st_size < int(size):
        raise LatentsError(
            f"{path} is truncated: it has {path.stat().st_size:,} of {int(size):,} bytes. Extract the latents again"
        )
    if block != _block(path):
        raise LatentsError(f"{path} was altered or damaged: its content does not match its hash. Extract it again")
    try:
        with h5py.File(path, "r") as file:
            total = sum(_sizes(file))
    # HDF5 raises errors of many types.
    except Exception as error:
        raise LatentsError(f"{path} does not hold a table of latents: {error}. Extract it again") from error
    if total > int(size):
        raise LatentsError(
            f"{path} was not written by nlv.save_latents: its {int(size):,} bytes unpack to {total:,}. Extract it again"
        )


def _sizes(group: h5py.Group, depth: int = 0) -> Iterator[int]:
    """Yield the bytes in memory of every array of a file. Latents are not compressed, so the file has at least as many.

    Raises ValueError for content outside of the file, and for groups nested too deep, such as a group in itself.
    """
    if depth > _DEEPEST:
        raise ValueError(f"{group.name} is nested deeper than {_DEEPEST} groups")
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{group.name}/{name} is a link to another place")
        item = group[name]
        if isinstance(item, h5py.Group):
            yield from _sizes(item, depth + 1)
        elif isinstance(item, h5py.Dataset):
            if item.is_virtual or item.external:
                raise ValueError(f"{item.name} is kept in another file")
            yield (item.size or 0) * item.dtype.itemsize


def seal_file(path: Path) -> None:
    """Write the block at the start of a complete file, and wait until it is on disk."""
    with ThreadPoolExecutor(1) as thread, path.open("rb+", buffering=0) as raw:
        # The disk writes while the processor hashes.
        written = thread.submit(os.fsync, raw.fileno())
        raw.write(_block(path))
        written.result()
        os.fsync(raw.fileno())


def open_backed(path: Path) -> AnnData:
    """Open latents without reading them: ``X``, layers and arrays stay on disk until they are used."""
    try:
        # Two handles: anndata closes its own when a table is brought to memory, and opens it again for X alone.
        own, file = h5py.File(path, "r"), h5py.File(path, "r")
        known = {name: anndata.io.read_elem(file[name]) for name in ("obs", "var", "uns")}
        lazy = {group: {name: file[group][name] for name in file[group]} for group in ("layers", "obsm")}
    except (OSError, KeyError) as error:
        raise LatentsError(f"{path} is not a file of latents: {error}") from error
    latents = AnnData(filename=own, **known, **lazy)
    metas(latents)
    return latents


def _block(path: Path) -> bytes:
    """Build the user block of a file: its format, size in bytes and the sha256 of all that follows the block."""
    with path.open("rb", buffering=0) as raw:
        raw.seek(BLOCK)
        digest = hashlib.file_digest(raw, "sha256")
    text = f"{FORMAT}\nbytes {path.stat().st_size}\nsha256 {digest.hexdigest()}\n"
    return text.encode().ljust(BLOCK, b"\n")


def check_same_model(latents: AnnData, checkpoint: Checkpoint) -> None:
    """Check that the latents come from this checkpoint, at this step.

    Raises
    ------
    LatentsError
        When no model of the table has the checkpoint's weights.
    """
    known = metas(latents)
    if checkpoint.weights_sha256 not in [model["weights_sha256"] for model in known.values()]:
        models = ", ".join(f"{m['name']} step {m['step']} ({m['weights_sha256'][:12]})" for m in known.values())
        raise LatentsError(
            f"these latents are of {models}, not of {checkpoint.name} step {checkpoint.step} "
            f"({checkpoint.weights_sha256[:12]}): extract them from this checkpoint"
        )
