"""Export latents to files of other tools: Parquet, Embedding Atlas, TensorBoard's projector."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float

from nextlat_viz import io
from nextlat_viz.analysis._rows import episode_index
from nextlat_viz.analysis.projection.project import project
from nextlat_viz.errors import LatentsError, at_least, optional, shown
from nextlat_viz.latents.combine import select
from nextlat_viz.latents.table import HIDDEN, PROBS, column, metas, site, sites, tokens_of

# Columns of every table, even when nothing is known of its world.
_PLACES = ("model", "episode", "position", "token", "token_id")
# Beliefs and distributions of more values than this are not split into columns.
_MOST_PARTS = 16
_TEXT_TOKENS = 64
_TSV = str.maketrans({"\t": "\\t", "\n": "\\n", "\r": "\\r"})


def export_parquet(latents: AnnData, path: str | Path, *, sites: str | Iterable[str] = HIDDEN) -> Path:
    """Write latents to one Parquet file: a row for each (episode, position), read by pandas, polars, DuckDB, R.

    Columns of ``obs`` keep their types; a site, a belief or a distribution is a column of lists. The file's metadata
    has the key ``nextlat_viz``: name, step and hash of each model, as JSON.

    Parameters
    ----------
    latents : AnnData
        From `nextlat_viz.extract`, of one model or several.
    path : str or Path
        Ends in ``.parquet``. An existing file is replaced, once the new one is complete.
    sites : "all", or names
        The sites to write; an empty list writes the other columns alone.

    Raises
    ------
    ImportError
        pyarrow is not installed.
    LatentsError
        Not a table of latents, or another suffix.
    UnknownNameError
        A site that the table does not have.

    Examples
    --------
    >>> import tempfile
    >>> import nextlat_viz as nlv
    >>> checkpoint = nlv.load("rrxor/nextlat")
    >>> latents = nlv.extract(checkpoint, checkpoint.world.sample(4, 6, seed=1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     frame = pd.read_parquet(export_parquet(latents, Path(folder, "latents.parquet")))
    >>> len(frame), len(frame["hidden"].iloc[0]), frame["token"].iloc[0] in checkpoint.world.vocabulary
    (24, 64, True)
    """
    about, path = metas(latents), _parquet_path(path)
    frame = latents.obs.reset_index(names="row").copy()
    for name in _wide(latents):
        frame[name] = list(column(latents, name))
    for name, values in _states(latents, sites).items():
        frame[name] = list(values)
    return _write_parquet(frame, path, about)


def export_atlas(latents: AnnData, path: str | Path, projection: Any = None, *, neighbours: int = 15) -> Path:
    """Write latents to a Parquet file for Embedding Atlas.

    ``embedding-atlas FILE --x x --y y --text text --neighbors neighbors`` opens it. The columns:

    - ``x``, ``y``: the place in the plane; ``text``: the tokens read so far, the last 64 of them;
    - ``neighbors``: the nearest rows by the latents themselves, not by their place in the plane;
    - all columns of ``obs``, and a column for each value of a belief or a distribution with at most 16 values.

    Parameters
    ----------
    latents : AnnData
        Of one model or several, at one projection.
    path : str or Path
        Ends in ``.parquet``. An existing file is replaced, once the new one is complete.
    projection : Projection, (rows, 2) array or name, optional
        The plane: what `nextlat_viz.project` returns, coordinates, or a name in ``obsm`` such as ``"X_umap"``. Default
        the first two principal components. Rows that were not projected are left out.
    neighbours : int
        Nearest rows of each row; 0 leaves the column out.

    Raises
    ------
    ImportError
        pyarrow is not installed.
    LatentsError
        Not a table of latents, another suffix, or a projection of other rows.

    Warns
    -----
    UserWarning
        Nothing is known of the truth behind the tokens, so there is nothing to colour by but token and position.

    Examples
    --------
    >>> import tempfile
    >>> import nextlat_viz as nlv
    >>> latents = nlv.extract("mess3/nextlat", nlv.worlds.get("mess3").sample(4, 6, seed=1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     frame = pd.read_parquet(export_atlas(latents, Path(folder, "atlas.parquet"), neighbours=2))
    >>> frame.columns.tolist()
    ['row', 'episode', 'position', 'token', ..., 'belief_2', ..., 'x', 'y', 'text', 'neighbors']
    """
    about, path = metas(latents), _parquet_path(path)
    rows, places = _plane(latents, projection)
    frame = _facts(latents).iloc[rows].reset_index(names="row")
    frame["x"], frame["y"] = places.T
    frame["text"] = np.asarray(_texts(latents), dtype=object)[rows]
    if at_least("neighbours", neighbours, 0):
        from nextlat_viz.analysis.projection.umap import neighbours as nearest

        states = site(latents, getattr(projection, "site", HIDDEN))[rows]
        # The nearest row of a row is itself.
        indices, distances = nearest(states, states, min(neighbours + 1, len(states)))
        frame["neighbors"] = [
            {"ids": ids[ids != row][:neighbours].tolist(), "distances": away[ids != row][:neighbours].tolist()}
            for row, (ids, away) in enumerate(zip(indices, distances, strict=True))
        ]
    return _write_parquet(frame, path, about)


def export_projector(
    latents: AnnData,
    folder: str | Path,
    *,
    sites: str | Iterable[str] = HIDDEN,
    columns: Sequence[str] | None = None,
) -> Path:
    """Write latents to a folder for TensorBoard's embedding projector: ``tensorboard --logdir FOLDER``.

    In the projector's menu each site is a separate embedding. The files are ``tensors-<site>.tsv``,
    ``metadata.tsv``, and ``projector_config.pbtxt``, which is written last. The first two can also be loaded into the
    projector's own page.

    Parameters
    ----------
    latents : AnnData
        Of one model or several. The projector draws tens of thousands of rows; `nextlat_viz.latents.select` takes some.
    folder : str or Path
        Files of an earlier export are replaced.
    sites : "all", or names
        The sites to write.
    columns : list of str, optional
        What to label and colour by. Default all columns of ``obs``, and a column for each value of a belief or a
        distribution with at most 16 values.

    Raises
    ------
    LatentsError
        Not a table of latents, or a folder that cannot be written.
    UnknownNameError
        A site or a column that the table does not have.

    Warns
    -----
    UserWarning
        Nothing is known of the truth behind the tokens, so there is nothing to colour by but token and position.

    Examples
    --------
    >>> import tempfile
    >>> import nextlat_viz as nlv
    >>> latents = nlv.extract("mess3/nextlat", nlv.worlds.get("mess3").sample(4, 6, seed=1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = export_projector(latents, folder, sites=["block0", "hidden"], columns=["token", "belief"])
    ...     sorted(file.name for file in written.iterdir())
    ['metadata.tsv', 'projector_config.pbtxt', 'tensors-block0.tsv', 'tensors-hidden.tsv']
    """
    metas(latents)
    folder = io.resolve(folder, "folder")
    if not (states := _states(latents, sites)):
        raise LatentsError("sites is empty: name at least one, such as sites=['hidden']")
    known = _facts(latents, columns)
    try:
        io.claim(folder)
        # A file of a single column has no header: the projector would read it as a row.
        header = "\t".join(map(_cell, known.columns)) + "\n" if known.shape[1] > 1 else ""
        lines = ("\t".join(map(_cell, row)) + "\n" for row in known.itertuples(index=False))
        io.write(folder / "metadata.tsv", header + "".join(lines))
        config = ""
        for name, values in states.items():
            file = f"tensors-{io.file_name(name)}.tsv"
            # Nine digits tell any two float32 numbers apart.
            text = "".join("\t".join(f"{value:.9g}" for value in row) + "\n" for row in values.tolist())
            io.write(folder / file, text)
            config += (
                f"embeddings {{\n  tensor_name: {json.dumps(name)}\n  tensor_path: {json.dumps(file)}\n"
                '  metadata_path: "metadata.tsv"\n}\n'
            )
        io.write(folder / "projector_config.pbtxt", config)
    except OSError as error:
        raise LatentsError(f"cannot write to {folder}: {error}") from error
    return folder


def _facts(latents: AnnData, names: Sequence[str] | None = None) -> pd.DataFrame:
    """Return what is known of each row, one value per column; arrays of up to 16 values get a column for each."""
    wide = _wide(latents)
    if names is None:
        chosen = [*map(str, latents.obs.columns), *(n for n in wide if latents.obsm[n].shape[1] <= _MOST_PARTS)]
        if not [name for name in (*latents.obs.columns, *wide) if name not in (*_PLACES, PROBS)]:
            warnings.warn(
                "these latents have no column that says what was true, so only token and position are written: give "
                "world=... or truth=... to nlv.extract to have more to colour by",
                stacklevel=3,
            )
    else:
        if isinstance(names, str):
            raise TypeError(f"columns={names!r} must be a list, such as columns=[{names!r}]")
        chosen = list(names)
    parts: dict[str, Any] = {}
    for name in chosen:
        values = column(latents, name) if name not in latents.obs else latents.obs[name].to_numpy()
        if values.ndim == 1:
            parts[name] = latents.obs[name]
        else:
            parts |= {f"{name}_{k}": values[:, k] for k in range(values.shape[1])}
    return pd.DataFrame(parts, index=latents.obs_names)


def _states(latents: AnnData, names: str | Iterable[str]) -> dict[str, Float[np.ndarray, "rows dim"]]:
    chosen = sites(latents) if names == "all" else [names] if isinstance(names, str) else list(names)
    return {name: site(latents, name) for name in chosen}


def _wide(latents: AnnData) -> list[str]:
    """Return the names of arrays with several values a row: beliefs, distributions, and states of several values."""
    return [str(name) for name in latents.obsm if not str(name).startswith("X_")]


def _plane(latents: AnnData, projection: Any) -> tuple[np.ndarray, Float[np.ndarray, "rows 2"]]:
    """Return the rows that have a place in the plane, and their places."""
    if projection is None:
        projection = project(latents)
    if isinstance(projection, str):
        projection = column(latents, projection)
    if hasattr(projection, "coordinates"):
        places, rows = projection.coordinates, projection.rows
        if rows.max(initial=-1) >= latents.n_obs:
            raise LatentsError("projection is of other latents: it has rows that these do not. Project these")
        return rows, places
    places = np.asarray(projection)
    if places.ndim != 2 or places.shape[0] != latents.n_obs or places.shape[1] < 2 or places.dtype.kind not in "iuf":
        raise LatentsError(
            f"projection must be a result of nlv.project, or {latents.n_obs} rows of 2 numbers, got {shown(projection)}"
        )
    rows = np.flatnonzero(np.isfinite(places[:, :2]).all(axis=1))
    return rows, places[rows, :2]


def _texts(latents: AnnData) -> list[str]:
    """Return the tokens that were read at each row."""
    about = metas(latents)
    if len(about) > 1:
        names = column(latents, "model")
        texts = np.empty(latents.n_obs, dtype=object)
        for name in about:
            texts[names == name] = _texts(select(latents, model=name))
        return list(texts)
    (model,) = about.values()
    tokens = tokens_of(latents)
    # Rows of a recursive model are steps, and each has read the whole puzzle.
    position = np.full(latents.n_obs, tokens.shape[1]) if "recursion_steps" in model else column(latents, "position")
    # A token whose row was sliced away is -1: it is not known.
    names = np.asarray([*model["vocabulary"], "·"], dtype=object)
    return [
        ("… " if count > _TEXT_TOKENS else "") + " ".join(map(str, names[tokens[row, :count][-_TEXT_TOKENS:]]))
        for row, count in zip(episode_index(latents).tolist(), position.tolist(), strict=True)
    ]


def _cell(value: Any) -> str:
    """Write a value into a table of tab-separated values; a gap is empty."""
    return "" if pd.isna(value) else str(value).translate(_TSV)


def _parquet_path(path: str | Path) -> Path:
    """Return the path of a Parquet file that can be written, before anything is computed for it."""
    optional("pyarrow", "Parquet files need the package pyarrow: pip install pyarrow")
    path = io.resolve(path)
    if path.suffix != ".parquet":
        raise LatentsError(f"path must end in .parquet, got {path}")
    return path


def _write_parquet(frame: pd.DataFrame, path: Path, about: Mapping[str, Mapping[str, Any]]) -> Path:
    import pyarrow
    from pyarrow import parquet

    content = pyarrow.Table.from_pandas(frame, preserve_index=False)
    models = {
        label: {key: model[key] for key in ("name", "step", "weights_sha256", "episodes_sha256", "world")}
        for label, model in about.items()
    }
    content = content.replace_schema_metadata({**content.schema.metadata, b"nextlat_viz": json.dumps(models).encode()})
    try:
        with io.draft(path) as temporary:
            parquet.write_table(content, temporary)
    except OSError as error:
        raise LatentsError(str(error)) from error
    return path
