"""The table of checkpoints: shipped ones, or those in a folder."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

from nextlat_viz import io, worlds
from nextlat_viz.errors import CheckpointError
from nextlat_viz.training.card import CARD, Card, read_card
from nextlat_viz.training.checkpoint import shipped_folders
from nextlat_viz.worlds.headline import headline

if TYPE_CHECKING:
    import pandas as pd


def list_checkpoints(folder: str | os.PathLike[str] | None = None) -> pd.DataFrame:
    """Table of the shipped checkpoints (or those under `folder`): what was trained, on which world, and how well.

    ``excess`` is the loss above the floor in nats per token; ``measure`` and ``value`` are the world's headline
    measure at the end of training, where it was logged: the ``accuracy`` of the decisive prediction, the
    ``belief_r2`` or the probability on ``legal`` tokens. A folder whose card cannot be read is left out, with a
    warning that names the file.

    Raises
    ------
    CheckpointError
        If there is no such `folder`.

    Examples
    --------
    >>> table = list_checkpoints()
    >>> sorted(set(table["objective"]))
    ['dis', 'equal_depth', 'next_token', 'nextlat', 'one_pass', 'trm']
    >>> table.columns.tolist()[:6]
    ['name', 'world', 'objective', 'seed', 'excess', 'measure']
    """
    import pandas as pd

    if folder is None:
        folders = list(shipped_folders())
    else:
        root = io.resolve(folder, "folder")
        if not root.is_dir():
            raise CheckpointError(f"folder={str(folder)!r} does not exist: give the folder that holds the runs")
        folders = sorted(path.parent for path in root.rglob(CARD))
    rows = []
    for path in folders:
        try:
            card = read_card(path, Card)
        except CheckpointError as error:
            warnings.warn(f"left out: {error}", stacklevel=2)
            continue
        measure = headline(card.metrics)
        rows.append(
            {
                "name": "/".join(path.parts[-3:]) if folder is None else card.name,
                "world": worlds.title(card.world) if "name" in card.world else "",
                "objective": card.objective,
                "seed": card.seed,
                "excess": card.metrics.get("excess"),
                "measure": measure,
                "value": card.metrics.get(measure),
                "steps": card.steps,
                "parameters": card.parameters,
                **{name: value for name, value in card.metrics.items() if name not in (measure, "excess")},
                "snapshots": len(card.snapshots),
                "folder": str(path),
            }
        )
    return pd.DataFrame(rows)
