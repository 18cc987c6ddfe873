"""What a probe reads at one row, beside the truth there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import SupportsIndex

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float

from nextlat_viz.analysis._report import html_table
from nextlat_viz.analysis.prediction import require_row
from nextlat_viz.analysis.probe_result import ProbeResult
from nextlat_viz.latents.table import column, meta


@dataclass(frozen=True, eq=False)
class ReadOut:
    """A probe's reading at one row.

    Attributes
    ----------
    probe : ProbeResult
        With its held-out score and controls.
    read : (k,) array
        Numbers, or class probabilities, by the probe's names.
    truth : (k,) array
        The true numbers; for classes 1 on the true one, all zero for a class the probe has never seen, NaN where the
        truth is missing.
    held_out : bool or None
        Whether the probe was fitted without this episode; None for episodes other than the probe's.
    label, episode, position
        Whose latent it is, and where.
    """

    probe: ProbeResult = field(repr=False)
    read: Float[np.ndarray, " k"]
    truth: Float[np.ndarray, " k"]
    held_out: bool | None
    label: str
    episode: int
    position: int

    def to_frame(self) -> pd.DataFrame:
        """One row per name: ``name, read, truth``."""
        return pd.DataFrame({"name": self.probe.names, "read": self.read, "truth": self.truth})

    def _repr_html_(self) -> str:
        rows = {
            str(one.name): f"{one.read:.3f} (truth {one.truth:.3f})" for one in self.to_frame().itertuples(index=False)
        }
        return html_table(f"{self.label}: {self.probe.target} at position {self.position}", rows, self.probe.note)


def read_out(latents: AnnData, probe: ProbeResult, row: SupportsIndex) -> ReadOut:
    """Read a probe at one row.

    Parameters
    ----------
    latents : AnnData
        Of the model the probe was fitted on.
    probe : ProbeResult
    row : int
        Row number, from 0; one of an episode in ``probe.test_episodes`` for an honest reading.

    Raises
    ------
    LatentsError
        Latents of another model, or no such row.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> from nextlat_viz.analysis import probe
    >>> checkpoint = nlv.load("mess3/nextlat")
    >>> latents = nlv.extract(checkpoint, checkpoint.world.sample(60, 10, seed=1))
    >>> found = read_out(latents, probe(latents, "belief"), row=25)
    >>> found.position, found.probe.names, bool(np.abs(found.read - found.truth).max() < 0.15)
    (6, ('A', 'B', 'C'), True)
    """
    at = require_row(latents, row)
    read = probe.predict(latents[at : at + 1])[0]
    its = meta(latents)
    episode = int(latents.obs["episode"].iloc[at])
    return ReadOut(
        probe=probe,
        read=read,
        truth=_truth(latents, probe, at),
        held_out=None if its["episodes_sha256"] != probe.episodes_sha256 else bool(episode in probe.test_episodes),
        label=its["label"],
        episode=episode,
        position=int(latents.obs["position"].iloc[at]),
    )


def _truth(latents: AnnData, probe: ProbeResult, row: int) -> Float[np.ndarray, " k"]:
    one = latents[row : row + 1]
    if probe.metric == "R2":
        return np.asarray(column(one, probe.target), dtype=np.float64).reshape(-1)
    if one.obs[probe.target].isna().any():
        return np.full(len(probe.names), np.nan)
    name = str(column(one, probe.target)[0])
    return np.array([float(name == known) for known in probe.names])
