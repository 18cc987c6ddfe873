"""The columns of a table apart from latents: tokens, true states, beliefs, and the user's own columns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from nextlat_viz.errors import LatentsError, shown
from nextlat_viz.worlds import Episodes, World, checks

Positions: TypeAlias = slice | int | Sequence[int]
Truth: TypeAlias = pd.DataFrame | Mapping[str, Any]
# Next-token distributions are kept up to this vocabulary size: larger ones would take more space than the latents.
MOST_TOKENS = 512
_TAKEN = ("episode", "position", "token", "token_id")


@dataclass(frozen=True, eq=False)
class Reading:
    """The episodes that are read, the rows that a table keeps, and their columns.

    Attributes
    ----------
    episodes : Episodes
        (N, T) tokens and the world's states.
    keep : (N, T) booleans, or (N, 1 + T) with `start`
        The rows of the table.
    world : World or None
        None for tokens of no known world: then there are no beliefs and no exact probabilities.
    names : tuple of str
        Names of the tokens in ``ids``, the categories of the column ``token``.
    ids : (V,) integers or None
        Ascending token ids that have a name; None where ids are 0 to V - 1.
    columns : dict of (N, T, ...) arrays
        The user's own columns.
    values : dict of lists of str
        For columns of names: the name of each integer.
    start : bool
        Whether the first column of `keep` is position 0, where nothing has been read.
    first : int
        Number of the first episode; above 0 if these episodes are part of a larger set.
    """

    episodes: Episodes
    keep: Bool[np.ndarray, "N columns"]
    world: World | None
    names: tuple[str, ...]
    ids: Int[np.ndarray, " V"] | None = None
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    start: bool = False
    first: int = 0

    @property
    def rows(self) -> int:
        return int(self.keep.sum())

    @property
    def partial(self) -> bool:
        """Whether the table lacks tokens that were read."""
        return int(self.keep[:, self.start :].sum()) < int(self.episodes.length.sum())


def valid(episodes: Episodes) -> Bool[np.ndarray, "N T"]:
    """Return a mask of the tokens: False on padding."""
    return np.arange(episodes.tokens.shape[1]) < episodes.length[:, None]


def kept(episodes: Episodes, positions: Positions | None) -> Bool[np.ndarray, "N columns"]:
    """Return a mask of the rows at the given positions, with one more column in front if they include position 0.

    Positions of tokens count from 1, and position 0 is the start token. A slice ends before its stop; in a list, -1 is
    the last position of each episode.

    Examples
    --------
    >>> episodes = Episodes(np.zeros((2, 4), int), length=np.array([4, 2]))
    >>> kept(episodes, [1, -1]).astype(int).tolist()
    [[1, 0, 0, 1], [1, 1, 0, 0]]
    >>> kept(episodes, slice(2, 4)).astype(int).tolist()
    [[0, 1, 1, 0], [0, 1, 0, 0]]
    >>> kept(episodes, [0, 1]).astype(int).tolist()
    [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0]]
    """
    real = valid(episodes)
    if positions is None:
        return real
    if isinstance(positions, slice):
        bounds = (positions.start, positions.stop, positions.step)
        if any(bound is not None and bound < least for bound, least in zip(bounds, (0, 1, 1), strict=True)):
            raise LatentsError(
                f"positions={positions}: positions count from 1, or 0 for the start token, so a slice starts at 0 or "
                "later"
            )
        first = 1 if positions.start is None else positions.start
        numbers = np.arange(first, positions.stop or real.shape[1] + 1, positions.step or 1)
    else:
        numbers = np.asarray(list(positions) if isinstance(positions, Iterable) else [positions])
        if numbers.size == 0 or numbers.dtype.kind not in "iu":
            raise LatentsError(
                "positions must be a slice or whole numbers from 1 (0 is the start token, -1 the last), got "
                f"{positions!r}"
            )
    position = np.arange(1, real.shape[1] + 1)
    backwards = position - episodes.length[:, None] - 1
    # Counted backwards, tokens are -1 and less; 0 is past the end.
    keep = real & (np.isin(position, numbers) | np.isin(backwards, numbers[numbers < 0]))
    if 0 in numbers:
        keep = np.pad(keep, ((0, 0), (1, 0)), constant_values=True)
    if not keep.any():
        raise LatentsError(f"positions={positions!r} keeps no row: the longest episode has {episodes.length.max()}")
    return keep


def row_facts(reading: Reading, start: int = 0, stop: int | None = None, probs: bool = True) -> tuple[dict, dict]:
    """Return the columns of episodes `start` to `stop`: those with one value a row, and (rows, k) arrays.

    Without `probs` the exact next-token probabilities, which may take long, are left out.
    """
    episodes, keep, world = reading.episodes[start:stop], reading.keep[start:stop], reading.world
    episode, position = np.nonzero(keep)
    tokens = _rows(episodes.tokens, reading, keep, -1)
    codes = tokens if reading.ids is None else np.searchsorted(reading.ids, tokens)
    obs: dict[str, Any] = {
        "episode": episode + start + reading.first,
        "position": position + 1 - reading.start,
        "token": pd.Categorical.from_codes(codes, categories=list(reading.names)),
    }
    if reading.ids is not None:
        obs["token_id"] = tokens
    exact: dict[str, np.ndarray | None] = {}
    if world is not None:
        before = world.start_states() if reading.start else {}
        exact["belief"] = _exact(world.belief, episodes, reading, keep, before.get("belief"))
        if probs:
            first = world.start_probs() if reading.start else None
            exact["next_token_probs_exact"] = _exact(world.next_token_probs, episodes, reading, keep, first)
    else:
        before = {}
    obsm = {name: values for name, values in exact.items() if values is not None}
    named = dict(reading.values) if world is None else {**world.state_values, **reading.values}
    for name, values in {**episodes.states, **{k: v[start:stop] for k, v in reading.columns.items()}}.items():
        if name in obsm:
            continue
        missing = -1 if name in named or (world is not None and name in world.optional_states) else np.nan
        rows = _rows(values, reading, keep, before.get(name, missing))
        if values.ndim > 2:
            obsm[name] = rows.reshape(episode.size, -1)
        elif name in named:
            # A negative value means "not known yet" and has no name.
            obs[name] = pd.Categorical.from_codes(np.maximum(rows, -1), categories=list(named[name]))
        else:
            obs[name] = rows
    return obs, obsm


def _rows(values: np.ndarray, reading: Reading, keep: Bool[np.ndarray, "N columns"], first: Any) -> np.ndarray:
    """Take the rows of (N, T, ...) values; `first` is the value at position 0, NaN where there is none."""
    if not reading.start:
        return values[keep]
    start = np.broadcast_to(first, (len(values), 1, *values.shape[2:]))
    if np.issubdtype(start.dtype, np.floating):
        values = values.astype(np.float64)
    return np.concatenate([start.astype(values.dtype), values], axis=1)[keep]


def index_of(obs: Mapping[str, Any]) -> list[str]:
    """Return the names of rows: e3p5 is position 5 of episode 3."""
    return [f"e{e}p{p}" for e, p in zip(obs["episode"].tolist(), obs["position"].tolist(), strict=True)]


def _exact(
    function: Any, episodes: Episodes, reading: Reading, keep: Bool[np.ndarray, "N columns"], first: Any
) -> np.ndarray | None:
    """Evaluate a function of prefixes on every row; None if the world does not know it.

    It is called once for each episode length, without padding. `first` is its value at position 0, None if unknown.
    """
    n, t = episodes.tokens.shape
    out: np.ndarray | None = None
    for length in np.unique(episodes.length[episodes.length > 0]):
        rows = episodes.length == length
        values = function(episodes.tokens[rows, :length])
        if values is None:
            return None
        if out is None:
            out = np.zeros((n, t, values.shape[-1]))
        out[rows, :length] = values
    return None if out is None else _rows(out, reading, keep, np.nan if first is None else first)


def own_columns(
    truth: Truth | None, episodes: Episodes, keep: Bool[np.ndarray, "N T"]
) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """Return the user's own columns as (N, T, ...) arrays, and the names of the integers in columns of names.

    `truth` is a table with the columns ``episode`` (from 0), ``position`` (from 1) and more, or a dict of such arrays.
    Raises LatentsError for rows of `keep` that are missing or occur twice, reserved names, arrays of another shape.
    """
    if truth is None:
        return {}, {}
    if not isinstance(truth, (pd.DataFrame, Mapping)):
        raise TypeError(
            "truth must be a table with the columns episode, position and more, or a dict of arrays of the shape of "
            f"the tokens, got {shown(truth)}"
        )
    arrays = _dense(truth, keep) if isinstance(truth, pd.DataFrame) else dict(truth)
    orders = _orders(truth) if isinstance(truth, pd.DataFrame) else {}
    columns, values = {}, {}
    for name, array in arrays.items():
        cells = checks.array(array)
        if name in (*_TAKEN, *episodes.states):
            raise LatentsError(f"truth has a column {name!r}, which the table has already: rename it")
        if cells.shape[:2] != keep.shape:
            raise LatentsError(
                f"truth[{name!r}] must have the shape of the tokens, {keep.shape} and perhaps more axes, "
                f"got {cells.shape}"
            )
        if str(name) in orders:
            columns[str(name)] = pd.Index(orders[str(name)]).get_indexer(cells.ravel()).reshape(cells.shape)
            values[str(name)] = [str(value) for value in orders[str(name)]]
        elif cells.dtype.kind in "iufb":
            columns[str(name)] = cells
        elif cells.ndim == 2:
            codes, names = pd.factorize(cells.ravel(), sort=True)
            columns[str(name)], values[str(name)] = codes.reshape(cells.shape), [str(value) for value in names]
        else:
            raise LatentsError(f"truth[{name!r}] of several values per row must be numbers, got {cells.dtype}")
    return columns, values


def _orders(truth: pd.DataFrame) -> dict[str, list[Any]]:
    """Return the categories of categorical columns, in their order; of booleans with gaps, False and True."""
    orders = {}
    for name in truth:
        values = truth[name]
        if isinstance(values.dtype, pd.CategoricalDtype):
            orders[str(name)] = values.cat.categories.tolist()
        elif isinstance(values.dtype, pd.BooleanDtype) and values.isna().any():
            orders[str(name)] = [False, True]
    return orders


def _dense(truth: pd.DataFrame, keep: Bool[np.ndarray, "N T"]) -> dict[str, np.ndarray]:
    """Turn a table with a row per (episode, position) into (N, T) arrays."""
    for key in ("episode", "position"):
        if key not in truth or not pd.api.types.is_integer_dtype(truth[key]):
            raise LatentsError(f"truth needs a column {key!r} of whole numbers; it has {', '.join(map(str, truth))}")
    episode, position = truth["episode"].to_numpy(), truth["position"].to_numpy() - 1
    n, t = keep.shape
    inside = (episode >= 0) & (episode < n) & (position >= 0) & (position < t)
    episode, position = episode[inside], position[inside]
    count = np.zeros(keep.shape, dtype=np.int64)
    np.add.at(count, (episode, position), 1)
    if twice := int((count > 1).sum()):
        e, p = np.argwhere(count > 1)[0]
        raise LatentsError(
            f"truth has several rows for {twice} (episode, position) pairs, such as episode {e}, position {p + 1}: "
            "give one row each"
        )
    if missing := int((keep & (count == 0)).sum()):
        e, p = np.argwhere(keep & (count == 0))[0]
        raise LatentsError(
            f"truth lacks {missing} of {int(keep.sum())} rows, such as episode {e}, position {p + 1}: episodes count "
            "from 0 and positions from 1; add them, or leave them out with positions="
        )
    if repeated := truth.columns[truth.columns.duplicated()].tolist():
        raise LatentsError(f"truth has several columns named {repeated[0]!r}: rename them")
    dense = {}
    for name in truth.columns.drop(["episode", "position"]):
        values = truth[name][inside]
        if pd.api.types.is_numeric_dtype(values) and not isinstance(values.dtype, pd.BooleanDtype):
            plain = values.to_numpy(dtype=float) if values.isna().any() else values.to_numpy()
        else:
            plain = values.astype(object).where(values.notna(), None).to_numpy()
            if isinstance(values.dtype, pd.BooleanDtype) and not values.isna().any():
                plain = plain.astype(bool)
        arranged = np.full(keep.shape, None) if plain.dtype == object else np.zeros(keep.shape, plain.dtype)
        arranged[episode, position] = plain
        dense[str(name)] = arranged
    return dense


def digest_of(*parts: Any) -> str:
    """Hash arrays and texts, in this order, as hex."""
    digest = hashlib.sha256()
    for part in parts:
        values = part if isinstance(part, np.ndarray) else np.frombuffer(str(part).encode(), dtype=np.uint8)
        digest.update(f"{values.dtype.str}{values.shape}".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
