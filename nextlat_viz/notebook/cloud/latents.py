"""A cloud of latents: every row of the table, however many, coloured by any column."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from jaxtyping import Float, UInt8

from nextlat_viz.figures.rows import coloring, prefix
from nextlat_viz.latents import metas, tokens_of
from nextlat_viz.notebook.cloud.widget import Cloud

if TYPE_CHECKING:
    from anndata import AnnData

    from nextlat_viz.analysis import Projection


class Paint(TypedDict):
    """Colour arguments of `Cloud` and `Cloud.recolor`."""

    codes: UInt8[np.ndarray, " rows"]
    palette: list[str]
    key: dict[str, str]


def latent_cloud(
    latents: AnnData, where: Projection | Float[np.ndarray, "rows 2"], color: str = "state", **options: Any
) -> Cloud:
    """Show every row of a table of latents as a point; row numbers of the cloud are the table's.

    Parameters
    ----------
    latents : AnnData
    where : Projection or (rows, 2) array
        Where each row is, such as ``nlv.project(latents)``; of every row, not a sample.
    color : str
        A column of ``obs``, ``"belief"`` or ``"belief:<state>"``, as in `nextlat_viz.figures.color_options`.
    **options
        Handed to `Cloud`: ``title``, ``on_select``, ``on_click``, ``cursor``, ``height``.

    Returns
    -------
    Cloud
        ``latents[cloud.selection]`` is what is selected. Recolour it with ``cloud.recolor(**paint(latents, name))``.

    Raises
    ------
    ValueError
        When `where` has another number of rows.
    UnknownNameError
        When there is no such column or state.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> latents = nlv.extract(nlv.load("rrxor/nextlat"), progress=False)
    >>> cloud = latent_cloud(latents, nlv.project(latents, "pca"))
    >>> cloud.recolor(**paint(latents, "position"))
    >>> cloud.select([0, 1])
    >>> latents[cloud.selection].obs["position"].tolist()
    [1, 2]
    >>> cloud.close()
    """
    places = where if isinstance(where, np.ndarray) else where.coordinates
    if len(places) != latents.n_obs:
        raise ValueError(f"where must hold one place for each of {latents.n_obs:,} rows, got {len(places):,}")
    return Cloud(places, labels=_labels(latents), **paint(latents, color), **options)


def paint(latents: AnnData, color: str) -> Paint:
    """Return codes, palette and key of a column, as `Cloud` takes them.

    The key of numbers holds the two ends of the scale, the key of names every name.

    Raises
    ------
    UnknownNameError
        When there is no such column or state.
    """
    colors = coloring(latents, color)
    key: dict[str, str] = {}
    if colors.key is not None:
        names = colors.key["colorbar"].get("ticktext")
        if names is None:
            low, high = colors.key["cmin"], colors.key["cmax"]
            key = {f"{color} {low:.4g}": colors.palette[0], f"{high:.4g}": colors.palette[-2]}
        else:
            # The bar runs from the last name to the first, two stops each. A cloud needs no escaping.
            shades = [shade for _, shade in colors.key["colorscale"][::2]]
            for name, shade in zip(names[::-1], shades[::-1], strict=True):
                text = html.unescape(name)
                # Long names were cut, and may be the same now.
                key[f"{text} ({len(key) + 1})" if text in key else text] = shade
    return {"codes": colors.codes, "palette": colors.palette, "key": key}


def _labels(latents: AnnData) -> Any:
    """The label of a row, made when the mouse is over it."""
    tokens = tokens_of(latents)
    names = list(next(iter(metas(latents).values()))["vocabulary"])
    episodes = latents.obs["episode"].to_numpy()
    positions = latents.obs["position"].to_numpy()
    line = {episode: i for i, episode in enumerate(np.unique(episodes).tolist())}

    def label(row: int) -> str:
        episode, position = int(episodes[row]), int(positions[row])
        text = f"read {prefix(tokens[line[episode], :position], names)}\nepisode {episode}, position {position}"
        return f"{text}\ntrue state {latents.obs['state'].iloc[row]}" if "state" in latents.obs else text

    return label
