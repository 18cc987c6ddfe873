"""Several probes read as one, so that what they read can be moved together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from anndata import AnnData
from jaxtyping import Float

from nextlat_viz.analysis.probe_result import ProbeResult
from nextlat_viz.errors import LatentsError


@dataclass(frozen=True, eq=False)
class JointProbe:
    """Linear probes of numbers, of one site of one model, side by side: two coordinates make a place.

    It has no score of its own: those of its probes, each with its controls, stand.

    Parameters
    ----------
    probes : tuple of ProbeResult
        At least one.

    Raises
    ------
    LatentsError
        For probes of several models or sites, and probes of classes.
    ValueError
        For no probe at all.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> from nextlat_viz.analysis import probe
    >>> latents = nlv.extract(nlv.load("taxi/nextlat"), progress=False)
    >>> place = JointProbe((probe(latents, "x"), probe(latents, "y")))
    >>> place.names, place.predict(latents[:5]).shape
    (('x', 'y'), (5, 2))
    """

    probes: tuple[ProbeResult, ...] = field(repr=False)

    def __post_init__(self) -> None:
        if not self.probes:
            raise ValueError("probes is empty: give at least one")
        first = self.probes[0]
        for one in self.probes:
            if one.metric != "R2":
                raise LatentsError(f"the probe of {one.target!r} names classes: only probes of numbers can be joined")
            if (one.weights_sha256, one.site) != (first.weights_sha256, first.site):
                raise LatentsError(
                    f"the probes of {first.target!r} and {one.target!r} read other models or sites "
                    f"({first.name!r} at {first.site!r}, {one.name!r} at {one.site!r}): fit both on the same latents"
                )

    @property
    def target(self) -> str:
        """The targets, as in ``"x, y"``."""
        return ", ".join(one.target for one in self.probes)

    @property
    def names(self) -> tuple[str, ...]:
        """What the K numbers read are called."""
        return tuple(name for one in self.probes for name in one.names)

    @property
    def site(self) -> str:
        """Where all of them read."""
        return self.probes[0].site

    @property
    def metric(self) -> Literal["R2"]:
        """What probes of numbers are scored by."""
        return "R2"

    @property
    def weights_sha256(self) -> str:
        """Whose latents they were fitted on."""
        return self.probes[0].weights_sha256

    @property
    def coef(self) -> Float[np.ndarray, "k dim"]:
        """The map in raw units of the latents, with `intercept`."""
        return np.concatenate([one.coef for one in self.probes])

    @property
    def intercept(self) -> Float[np.ndarray, " k"]:
        """What is read at latents of zero."""
        return np.concatenate([one.intercept for one in self.probes])

    def predict(self, latents: AnnData) -> Float[np.ndarray, "rows k"]:
        """Read all targets from any latents of the same model; raises as `ProbeResult.predict` does."""
        return np.concatenate([one.predict(latents) for one in self.probes], axis=1)

    def read(self, X: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, "rows k"]:
        """Do what `predict` does on bare latents ``(rows, D)`` of this model and site, which is not checked."""
        return np.concatenate([one.read(X) for one in self.probes], axis=1)
