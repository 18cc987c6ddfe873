"""Where every row of a table is in one view of the latent space: for clouds that draw all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from nextlat_viz.figures.clouds import NAMES
from nextlat_viz.figures.rows import BELIEF
from nextlat_viz.latents import site
from nextlat_viz.notebook.scene import Scene

if TYPE_CHECKING:
    from nextlat_viz.analysis import ProbeResult, Projection

PLACE = ("x", "y")
VIEWS = {**NAMES, BELIEF: "Belief, by a linear probe", "place": "Place, by linear probes"}
Readings = Mapping[str, "ProbeResult | str"]


@dataclass(frozen=True, eq=False)
class Places:
    """Rows in the plane.

    Attributes
    ----------
    rows : int array
        Row numbers of the table, ascending.
    coordinates : (rows, 2) array
    title, note : str
        What is shown, and how far to trust it.
    """

    rows: Int[np.ndarray, " rows"] = field(repr=False)
    coordinates: Float[np.ndarray, "rows 2"] = field(repr=False)
    title: str
    note: str


def read_by_probes(scene: Scene) -> tuple[str, ...]:
    """The targets whose probes say where a row is: the belief where the world has a picture of it, or the place."""
    targets = scene.targets
    beliefs = BELIEF in targets and hasattr(scene.world, "belief_coordinates")
    return ((BELIEF,) if beliefs else ()) + (PLACE if set(PLACE) <= set(targets) else ())


def views(scene: Scene) -> list[str]:
    """The views there are of a scene, by their names in `VIEWS`."""
    read = read_by_probes(scene)
    return ["pca", "umap", *([BELIEF] if BELIEF in read else []), *(["place"] if PLACE[0] in read else [])]


def places(
    scene: Scene, model: int, view: str, where: str, readings: Readings, umap: Projection | str = ""
) -> Places | str:
    """Where the rows of one model are, or in words why they are nowhere.

    Parameters
    ----------
    scene : Scene
    model : int
    view : str
        One of `views`.
    where : str
        The layer.
    readings : {target: ProbeResult or str}
        The model's probes, as `read_by_probes` names them.
    umap : Projection or str
        The model's UMAP, or a message in place of one.
    """
    latents = scene.latents[model]
    everything = np.arange(latents.n_obs)
    if view == "umap":
        if isinstance(umap, str):
            return umap
        # A layout places rows it has not seen between those it has: shown would be what is not there.
        return Places(umap.rows, umap.coordinates, f"UMAP{_trust(umap)}", umap.note)
    if view == "pca":
        plane = scene.pca(where)[model]
        coordinates = plane.transform(site(latents, where))
        return Places(everything, coordinates, f"PCA{_variance(plane)}", plane.note)
    probes = [readings[name] for name in ((BELIEF,) if view == BELIEF else PLACE)]
    for one in probes:
        if isinstance(one, str):
            return one
    fitted: Any = probes
    read = np.concatenate([one.predict(latents) for one in fitted], axis=1)
    if view == BELIEF:
        world: Any = scene.world
        read = world.belief_coordinates(read)
    note = "" if view == BELIEF else "x and y as linear probes read them. "
    return Places(everything, read, f"{VIEWS[view]}: {_scores(fitted)}", f"{note}{fitted[0].note}")


def _variance(plane: Projection) -> str:
    shares = plane.explained_variance
    return "" if shares is None else f", {100 * sum(shares):.0f}% of the variance"


def _trust(umap: Projection) -> str:
    trust = umap.trustworthiness
    return "" if trust is None else f", trustworthiness {trust:.2f}"


def _scores(fitted: Sequence[ProbeResult]) -> str:
    """Held-out scores beside their controls."""
    said = [f"R² {_listed([one.score for one in fitted])}"]
    said.append(f"shuffled {_listed([one.shuffled for one in fitted])}")
    untrained = [one.untrained for one in fitted if one.untrained is not None]
    return ", ".join([*said, f"untrained {_listed(untrained)}"] if untrained else said)


def _listed(values: Sequence[float]) -> str:
    return " and ".join(f"{value:.2f}".replace("-", "−") for value in values)
