"""Extract with several processes into one folder: each writes one file, with the rows of its episodes.

Such a file, a part, is sealed, continued and read like any other table. Its episodes keep their numbers in the whole
extraction. It records which part it is, of how many, and the call that all parts belong to, so no process waits for
another, and nothing is left to write when the last part is finished.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anndata
import torch
from anndata import AnnData

from nextlat_viz import io
from nextlat_viz.errors import LatentsError
from nextlat_viz.latents.facts import Reading
from nextlat_viz.latents.table import KEY

_NAME = re.compile(r"\.?part(\d+)of(\d+)\.h5ad(\.journal|\.part)?")
_OWN = ("part", "rows")


def processes() -> tuple[int, int]:
    """Return the number of this process and of all processes, from torch.distributed or else from torchrun.

    Examples
    --------
    >>> processes()
    (0, 1)
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def own_device(device: torch.device | str | None) -> torch.device | str | None:
    """Return the device; for ``"cuda"``, which names no GPU, that of this process."""
    if device is not None and torch.device(device) == torch.device("cuda"):
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return device


def own_part(
    read: Reading, folder: Path, identity: Mapping[str, Any], rank: int, count: int
) -> tuple[Reading, Path, dict[str, Any]]:
    """Return the reading, the file and the identity of one process. The batches are those of a single process.

    Raises LatentsError for fewer batches than processes, and if the folder has parts of another number of processes.
    """
    size, n = identity["batch_size"], len(read.episodes)
    batches = -(-n // size)
    if batches < count:
        raise LatentsError(
            f"{n} episodes in batches of {size} are {batches} for {count} processes: give "
            f"batch_size={max(1, n // count)} or less, or start fewer processes"
        )
    if others := sorted({total for _, total in _parts(folder) if total != count}):
        raise LatentsError(
            f"{folder} holds parts of {others[0]} processes, and these are {count}: start {others[0]} to finish it, "
            "choose another folder, or delete this one"
        )
    own = slice(batches * rank // count * size, min(n, batches * (rank + 1) // count * size))
    part = dataclasses.replace(
        read,
        episodes=read.episodes[own],
        keep=read.keep[own],
        columns={name: values[own] for name, values in read.columns.items()},
        first=own.start,
    )
    if not part.rows:
        raise LatentsError(
            f"episodes {own.start} to {own.stop - 1} have no rows for process {rank}: start fewer processes"
        )
    stated = {**identity, "rows": part.rows, "all_rows": read.rows, "part": rank + 1, "parts": count}
    return part, folder / f"part{rank + 1}of{count}.h5ad", stated


def _parts(folder: Path, *, finished: bool = False) -> list[tuple[int, int]]:
    """Return the number and the total of each part in a folder, even of unfinished ones unless `finished` is True."""
    matches = [_NAME.fullmatch(path.name) for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(
        (int(match[1]), int(match[2]))
        for match in matches
        if match and not (finished and (match[3] or match[0].startswith(".")))
    )


def load_parts(folder: Path, load: Callable[[Path], AnnData]) -> AnnData:
    """Read the table of a folder of parts. `load` reads one part, after comparing it with its hash.

    Raises LatentsError for a part that is missing, damaged, or of another extraction.
    """
    parts = _parts(folder, finished=True)
    totals = sorted({total for _, total in parts})
    if not totals:
        raise LatentsError(f"{folder} holds no part of a table, as nlv.extract writes them under torchrun")
    if len(totals) > 1:
        raise LatentsError(
            f"{folder} holds parts of {' and of '.join(map(str, totals))} processes: keep those of one extraction"
        )
    (total,) = totals
    if missing := sorted(set(range(1, total + 1)) - {number for number, _ in parts}):
        raise LatentsError(
            f"{folder} lacks part {', '.join(map(str, missing))} of {total}: the same extraction, started again, "
            "finishes it"
        )
    calls, tables = [], []
    for number in range(1, total + 1):
        path = folder / f"part{number}of{total}.h5ad"
        tables.append(load(path))
        call = dict(io.parse_json(tables[-1].uns[KEY].get("extraction", "{}")))
        calls.append({name: value for name, value in call.items() if name not in _OWN})
        differ = [name for name in {**calls[0], **calls[-1]} if calls[0].get(name) != calls[-1].get(name)]
        if differ or call.get("part") != number:
            raise LatentsError(
                f"{path} is of another extraction than part 1 (another {', '.join(differ) or 'part'}): delete it, and "
                "start the extraction again"
            )
    stacked = anndata.concat(tables, merge="same")
    whole = {name: stacked.n_obs if name == "rows" else value for name, value in call.items()}
    for name in ("all_rows", "part", "parts"):
        del whole[name]
    uns = tables[0].uns
    uns[KEY]["extraction"] = json.dumps(whole)
    stacked.uns = uns
    return stacked
