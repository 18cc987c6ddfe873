"""Trajectories of an episode: through belief space, as a probe reads it and exact, or through any other plane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float, Int

from nextlat_viz import display
from nextlat_viz.analysis._rows import picture_world
from nextlat_viz.analysis.probes.result import ProbeResult
from nextlat_viz.errors import LatentsError
from nextlat_viz.latents.table import column, episode_rows, meta


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The path of one episode through belief space or another plane, as read from the model and exact.

    Attributes
    ----------
    positions : (T,) int array
        From 1: the belief at position t is that after t tokens.
    tokens : tuple of str
    read, exact : (T, S) arrays
        The reading of the probe, which may leave the simplex, and the exact belief; NaN where no truth is known.
    coordinates, exact_coordinates : (T, 2) arrays
        Both in the picture coordinates of the world.
    state_names : tuple of str
    label : str
    episode : int
    held_out : bool or None
        Whether the probe was fitted without this episode; None for other episodes than those of the probe.
    axes : tuple of str
        Titles of the two axes; empty for beliefs, whose plane is the world's picture of them.
    """

    positions: Int[np.ndarray, " T"]
    tokens: tuple[str, ...]
    read: Float[np.ndarray, "T S"] = field(repr=False)
    exact: Float[np.ndarray, "T S"] = field(repr=False)
    coordinates: Float[np.ndarray, "T 2"] = field(repr=False)
    exact_coordinates: Float[np.ndarray, "T 2"] = field(repr=False)
    state_names: tuple[str, ...]
    label: str
    episode: int
    held_out: bool | None
    axes: tuple[str, ...] = ()

    @property
    def has_truth(self) -> bool:
        """Whether the exact path is known."""
        return bool(np.isfinite(self.exact).any())

    @property
    def distance(self) -> Float[np.ndarray, " T"]:
        """Euclidean distance between the reading and the exact belief."""
        return np.linalg.norm(self.read - self.exact, axis=1)

    @property
    def total_variation(self) -> Float[np.ndarray, " T"]:
        """Half the sum of absolute differences between the two: the largest error of the probability of an event."""
        return np.abs(self.read - self.exact).sum(axis=1) / 2

    @property
    def step(self) -> Float[np.ndarray, " T"]:
        """Euclidean length of the move into each position, as read; NaN at the first."""
        return _steps(self.read)

    @property
    def exact_step(self) -> Float[np.ndarray, " T"]:
        """Length of the move into each position, exact."""
        return _steps(self.exact)

    def to_frame(self) -> pd.DataFrame:
        """One row per position: ``read_<state>`` and ``exact_<state>`` are beliefs, ``x, y`` picture coordinates."""
        frame = pd.DataFrame(
            {
                "model": self.label,
                "episode": self.episode,
                "held_out": self.held_out,
                "position": self.positions,
                "token": self.tokens,
                "x": self.coordinates[:, 0],
                "y": self.coordinates[:, 1],
                "exact_x": self.exact_coordinates[:, 0],
                "exact_y": self.exact_coordinates[:, 1],
                "distance": self.distance,
                "total_variation": self.total_variation,
                "step": self.step,
                "exact_step": self.exact_step,
            }
        )
        for i, name in enumerate(self.state_names):
            frame[f"read_{name}"] = self.read[:, i]
            frame[f"exact_{name}"] = self.exact[:, i]
        return frame

    def _repr_html_(self) -> str:
        rows = {
            "tokens": " ".join(self.tokens),
            "mean distance to the exact belief": f"{self.distance.mean():.3f}",
            "mean total variation": f"{self.total_variation.mean():.3f}",
        }
        side = {True: "held out", False: "fitted", None: "of other episodes"}[self.held_out]
        return display.table(f"{self.label}: episode {self.episode} ({side})", rows)


def read_trajectory(latents: AnnData, probe: ProbeResult, episode: int) -> Trajectory:
    """Return the path of one episode through belief space.

    Parameters
    ----------
    latents : AnnData
        Of the model the probe was fitted on.
    probe : ProbeResult
        Of target "belief".
    episode : int
        A number of ``obs["episode"]``. Those of ``probe.test_episodes`` were not fitted.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> latents = nlv.extract(nlv.load("mess3/nextlat"), progress=False)
    >>> path = read_trajectory(latents, nlv.probe(latents, "belief"), episode=3)
    >>> path.coordinates.shape == (path.positions.size, 2), bool(path.distance.mean() < 0.1)
    (True, True)
    """
    _require_belief(probe)
    rows = episode_rows(latents, episode)
    about, world = meta(latents), picture_world(latents)
    read, exact = probe.predict(latents[rows]), column(latents, "belief")[rows]
    same_episodes = about["episodes_sha256"] == probe.episodes_sha256
    return Trajectory(
        positions=column(latents, "position")[rows],
        tokens=tuple(map(str, column(latents, "token")[rows])),
        read=read,
        exact=exact,
        coordinates=world.belief_coordinates(read),
        exact_coordinates=world.belief_coordinates(exact),
        state_names=probe.names,
        label=about["label"],
        episode=int(episode),
        held_out=bool(episode in probe.test_episodes) if same_episodes else None,
    )


def plane_trajectory(
    latents: AnnData,
    episode: int,
    coordinates: Float[np.ndarray, "rows 2"],
    axes: tuple[str, str],
    truth: Float[np.ndarray, "rows 2"] | None = None,
    held_out: bool | None = None,
) -> Trajectory:
    """Return the path of one episode through a plane, for models without beliefs.

    Parameters
    ----------
    coordinates : (rows, 2) array
        Places of all rows, such as ``project(latents, "pca").coordinates``.
    axes : (str, str)
        Titles of the axes.
    truth : (rows, 2) array, optional
        True places of all rows.
    held_out : bool, optional
        Whether the coordinates are readings of probes fitted without this episode.
    """
    rows = episode_rows(latents, episode)
    read = np.asarray(coordinates, dtype=float)[rows]
    exact = np.full_like(read, np.nan) if truth is None else np.asarray(truth, dtype=float)[rows]
    return Trajectory(
        positions=column(latents, "position")[rows],
        tokens=tuple(map(str, column(latents, "token")[rows])),
        read=read,
        exact=exact,
        coordinates=read,
        exact_coordinates=exact,
        state_names=axes,
        label=meta(latents)["label"],
        episode=int(episode),
        held_out=held_out,
        axes=axes,
    )


def compare_trajectories(
    latents: Sequence[AnnData], probes: Sequence[ProbeResult], episode: int, names: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return the paths of one episode through several models, in the coordinates of the world: no alignment is needed.

    Parameters
    ----------
    latents, probes : sequences of equal length
        One table and its belief probe per model, all of the same episodes.
    names : sequence of str, optional
        Values of the column ``model``; default the labels of the models.

    Returns
    -------
    DataFrame
        `Trajectory.to_frame` of each model, concatenated.
    """
    if not latents or len(latents) != len(probes):
        raise ValueError(f"give one probe per table of latents, got {len(latents)} tables and {len(probes)} probes")
    if names is not None and len(names) != len(latents):
        raise ValueError(f"names must name each of the {len(latents)} tables, got {len(names)}")
    if len({meta(table)["episodes_sha256"] for table in latents}) > 1:
        raise LatentsError(
            f"episode {episode} is another sequence for each of these models: extract all with the same episodes=..."
        )
    frames = []
    for i, (table, probe) in enumerate(zip(latents, probes, strict=True)):
        frame = read_trajectory(table, probe, episode).to_frame()
        frames.append(frame if names is None else frame.assign(model=names[i]))
    return pd.concat(frames, ignore_index=True)


def mean_trajectory_error(latents: AnnData, probe: ProbeResult) -> pd.DataFrame:
    """Average the distance of the reading from the exact belief over the held-out episodes of the probe.

    Returns
    -------
    DataFrame
        ``position``, ``distance`` and ``total_variation`` (means), ``episodes`` (how many).
    """
    _require_belief(probe)
    if meta(latents)["episodes_sha256"] != probe.episodes_sha256:
        raise LatentsError(
            "the mean is over the held-out episodes of the probe, and these latents are of other episodes"
        )
    rows = np.flatnonzero(np.isin(column(latents, "episode"), probe.test_episodes))
    if rows.size == 0:
        raise LatentsError("none of the probe's held-out episodes is in these latents")
    wrong = probe.predict(latents[rows]) - column(latents, "belief")[rows]
    errors = pd.DataFrame(
        {
            "position": column(latents, "position")[rows],
            "distance": np.linalg.norm(wrong, axis=1),
            "total_variation": np.abs(wrong).sum(axis=1) / 2,
        }
    )
    by_position = errors.groupby("position")
    return by_position.mean().assign(episodes=by_position.size()).reset_index()


def _require_belief(probe: ProbeResult) -> None:
    if probe.target != "belief":
        raise ValueError(f"a trajectory needs a probe of target 'belief', got one of {probe.target!r}")


def _steps(path: np.ndarray) -> np.ndarray:
    return np.concatenate([[np.nan], np.linalg.norm(np.diff(path, axis=0), axis=1)])
