"""Several probes of one site joined, so that their targets can be set together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from anndata import AnnData
from jaxtyping import Float

from nextlat_viz.analysis.probes.result import ProbeResult
from nextlat_viz.errors import LatentsError


@dataclass(frozen=True, eq=False)
class JointProbe:
    """Linear probes of numbers from one site of one model, joined: probes of x and of y read a place.

    It has no score; its probes keep theirs, each with its controls.

    Parameters
    ----------
    probes : tuple of ProbeResult
        At least one.

    Raises
    ------
    LatentsError
        For probes of several models or sites, and for probes of classes.
    ValueError
        For an empty tuple.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> from nextlat_viz.analysis import probe
    >>> latents = nlv.extract(nlv.load("taxi/nextlat"), progress=False)
    >>> place = JointProbe((probe(latents, "x"), probe(latents, "y")))
    >>> place.names, place.predict(latents[:5]).shape
    (('x', 'y'), (5, 2))
    """

    metric: ClassVar[Literal["R2"]] = "R2"
    probes: tuple[ProbeResult, ...] = field(repr=False)

    def __post_init__(self) -> None:
        if not self.probes:
            raise ValueError("probes is empty: give at least one")
        first = self.probes[0]
        for probe in self.probes:
            if probe.metric != "R2":
                raise LatentsError(f"the probe of {probe.target!r} reads classes: only probes of numbers can be joined")
            if (probe.weights_sha256, probe.site) != (first.weights_sha256, first.site):
                raise LatentsError(
                    f"the probes of {first.target!r} and {probe.target!r} read different models or sites "
                    f"({first.name!r} at {first.site!r}, {probe.name!r} at {probe.site!r}): fit both on one table"
                )

    @property
    def target(self) -> str:
        """The targets, as in ``"x, y"``."""
        return ", ".join(probe.target for probe in self.probes)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the K numbers."""
        return tuple(name for probe in self.probes for name in probe.names)

    @property
    def site(self) -> str:
        """The site that all of them read."""
        return self.probes[0].site

    @property
    def weights_sha256(self) -> str:
        """Weights of the model they were fitted on."""
        return self.probes[0].weights_sha256

    @property
    def coef(self) -> Float[np.ndarray, "k dim"]:
        """``X @ coef.T + intercept`` is what they read, in raw units of the latents."""
        return np.concatenate([probe.coef for probe in self.probes])

    @property
    def intercept(self) -> Float[np.ndarray, " k"]:
        """What they read from latents of zero."""
        return np.concatenate([probe.intercept for probe in self.probes])

    def predict(self, latents: AnnData) -> Float[np.ndarray, "rows k"]:
        """Read all targets from any latents of the same model; raises as `ProbeResult.predict` does."""
        return np.concatenate([probe.predict(latents) for probe in self.probes], axis=1)

    def read(self, X: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, "rows k"]:
        """Read all targets from bare latents ``(rows, D)`` of this model and site, without checks."""
        return np.concatenate([probe.read(X) for probe in self.probes], axis=1)
