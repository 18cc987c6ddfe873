"""A fitted probe with its scores, and its reading at one row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, SupportsIndex

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float, Int
from scipy.special import softmax

from nextlat_viz import display
from nextlat_viz.analysis._rows import features, require_model
from nextlat_viz.analysis.prediction import require_row
from nextlat_viz.analysis.probes.targets import MOST_CLASSES, OTHER
from nextlat_viz.errors import LatentsError
from nextlat_viz.latents.table import column, meta

Shuffled = Literal["episodes", "rows"]


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """A linear probe with its held-out score, controls and interval.

    Attributes
    ----------
    target, site, metric : str
        The target, the site it was read from, and its score: ``"R2"`` for numbers (ridge regression), ``"accuracy"``
        for classes (logistic regression).
    score : float
        On held-out episodes. R2 is ``1 - SSE / SST``, both summed over all target dimensions, SST about the held-out
        mean: dimensions count by their variance (scikit-learn's ``variance_weighted``).
    interval : (float, float)
        95 % bootstrap interval over held-out episodes, for this fit.
    shuffled : float
        Control: the same fit and score after whole episodes have swapped their targets, position by position. A score
        above zero comes from the position alone. If the position fixes the target, rows are shuffled instead.
    shuffled_by : str
        ``"episodes"`` or ``"rows"``: how the targets of that control were shuffled.
    untrained : float or None
        Control: the same probe, rows and targets, on the latents of the untrained model.
    balanced : float or None
        Held-out accuracy averaged over classes, so that rare classes count as much as others, as scikit-learn's
        ``balanced_accuracy_score``; chance is 1 / classes. Classes that no fitted row has count as one. None for
        numbers.
    chance : float or None
        Accuracy on the held-out rows of always giving the most frequent class of the fitted rows.
    ceiling : float or None
        The best score possible: 1 where the target follows from the tokens; for the state of a hidden Markov world the
        Bayes accuracy, the mean over the held-out rows of the largest exact belief.
    unseen : float or None
        R2 over those held-out rows whose whole prefix no fitted row had (`unseen_rows` of them; None under 30, and for
        accuracy). Held-out episodes are new, but their first few tokens rarely are.
    coef, intercept : (K, D), (K,) arrays
        The map in raw units of the latents: ``X @ coef.T + intercept`` is the target (R2) or the logits (accuracy).
    names : tuple of str
        Names of the K rows of `coef`: states, tokens, classes; ``"board[3]=empty"`` where there are several columns of
        classes, such as the squares of a board.
    columns : int
        Columns of classes; 1 for numbers.
    penalty : float
        Ridge's alpha, chosen by cross-validation over episodes of the fitted rows only; or 1/C.
    train_rows, test_rows : int arrays
        Row numbers in the latents given; `train_episodes` and `test_episodes` are the episodes they belong to.
    label, name, step, weights_sha256, episodes_sha256
        The model and the episodes.
    most_classes, merged : int
        Most classes told apart, and the number of rarer ones that are together in the last class; `note` says so.
    """

    target: str
    site: str
    metric: Literal["R2", "accuracy"]
    score: float
    interval: tuple[float, float]
    shuffled: float
    untrained: float | None
    chance: float | None
    ceiling: float | None
    unseen: float | None
    unseen_rows: int
    coef: Float[np.ndarray, "k dim"] = field(repr=False)
    intercept: Float[np.ndarray, " k"] = field(repr=False)
    names: tuple[str, ...]
    penalty: float
    train_rows: Int[np.ndarray, " train"] = field(repr=False)
    test_rows: Int[np.ndarray, " test"] = field(repr=False)
    train_episodes: Int[np.ndarray, " fitted"] = field(repr=False)
    test_episodes: Int[np.ndarray, " held_out"] = field(repr=False)
    min_position: int
    seed: int
    columns: int
    balanced: float | None
    shuffled_by: Shuffled
    label: str
    name: str
    step: int
    weights_sha256: str = field(repr=False)
    episodes_sha256: str = field(repr=False)
    most_classes: int = MOST_CLASSES
    merged: int = 0

    @property
    def note(self) -> str:
        """How to read the score."""
        fitted, held_out = self.train_episodes.size, self.test_episodes.size
        note = (
            f"Fitted on {fitted} episodes and scored on {held_out} others. No token sequence is on both sides, so the "
            "score is not memorised."
        )
        if self.shuffled_by == "rows":
            note += " The position fixes this target, so the control shuffles rows, not episodes."
        if self.merged:
            note += (
                f" The {self.most_classes - 1:,} most frequent of {self.most_classes - 1 + self.merged:,} classes are "
                "told apart, and the others are one class: most_classes=... sets how many."
            )
        return note

    def predict(self, latents: AnnData) -> Float[np.ndarray, "rows k"]:
        """Read the target from any latents of the same model.

        Returns
        -------
        (rows, K) array
            In the target's units (a belief read so need not sum to one or be positive); class probabilities for an
            accuracy probe.

        Raises
        ------
        LatentsError
            When the latents are another model's (or another step's), or hold NaN.
        """
        require_model(latents, self.weights_sha256, "probe")
        return self.read(features(latents, self.site))

    def read(self, X: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, "rows k"]:
        """Read the target from bare latents ``(rows, D)`` of this model and site, without checks."""
        if X.shape[1] != self.coef.shape[1]:
            raise LatentsError(
                f"this probe reads latents of width {self.coef.shape[1]} (site {self.site!r}), got width {X.shape[1]}"
            )
        values = X.astype(np.float64) @ self.coef.T + self.intercept
        if self.metric == "R2":
            return values
        probabilities: np.ndarray = softmax(values.reshape(len(X), self.columns, -1), axis=2)
        return probabilities.reshape(values.shape)

    def to_frame(self) -> pd.DataFrame:
        """One row with everything but the arrays."""
        values = {name: getattr(self, name) for name in ("label", "name", "step", "target", "site", "metric", "score")}
        values |= {"low": self.interval[0], "high": self.interval[1], "shuffled": self.shuffled}
        for name in ("untrained", "balanced", "chance", "ceiling", "unseen"):
            value = getattr(self, name)
            values[name] = np.nan if value is None else value
        values["unseen_rows"] = self.unseen_rows
        for name in ("train_episodes", "test_episodes", "train_rows", "test_rows"):
            values[name] = getattr(self, name).size
        return pd.DataFrame([values | {name: getattr(self, name) for name in ("min_position", "penalty", "seed")}])

    def _repr_html_(self) -> str:
        low, high = self.interval
        rows = {
            f"held-out {self.metric}": f"{self.score:.3f} (95 %: {low:.3f} to {high:.3f})",
            "shuffled labels": f"{self.shuffled:.3f}",
            "untrained model": "not given" if self.untrained is None else f"{self.untrained:.3f}",
        }
        if self.balanced is not None:
            rows["balanced over classes"] = f"{self.balanced:.3f}"
        if self.chance is not None:
            rows["most frequent class"] = f"{self.chance:.3f}"
        if self.ceiling is not None:
            rows["ceiling"] = f"{self.ceiling:.3f}"
        if self.unseen is not None:
            rows["new prefixes only"] = f"{self.unseen:.3f} ({self.unseen_rows} of {self.test_rows.size} rows)"
        return display.table(f"{self.label}: {self.target} read from {self.site}", rows, self.note)


@dataclass(frozen=True, eq=False)
class ReadOut:
    """The reading of a probe at one row, with the truth.

    Attributes
    ----------
    probe : ProbeResult
        With its held-out score and controls.
    read : (k,) array
        Numbers, or class probabilities, by the names of the probe.
    truth : (k,) array
        The true numbers. For classes 1 on the true class, all zero for a class that no fitted row had, NaN where the
        truth is missing.
    held_out : bool or None
        Whether the probe was fitted without this episode; None for other episodes than those of the probe.
    label, episode, position
        The model, and the place of the row.
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
            name: f"{read:.3f} (truth {truth:.3f})"
            for name, read, truth in zip(self.probe.names, self.read, self.truth, strict=True)
        }
        return display.table(f"{self.label}: {self.probe.target} at position {self.position}", rows, self.probe.note)


def read_out(latents: AnnData, probe: ProbeResult, row: SupportsIndex) -> ReadOut:
    """Read a probe at one row.

    Parameters
    ----------
    latents : AnnData
        Of the model the probe was fitted on.
    row : int
        Row number, from 0. Rows of ``probe.test_episodes`` were not fitted.

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
    >>> reading = read_out(latents, probe(latents, "belief"), row=25)
    >>> reading.position, reading.probe.names, bool(np.abs(reading.read - reading.truth).max() < 0.15)
    (6, ('A', 'B', 'C'), True)
    """
    row = require_row(latents, row)
    require_model(latents, probe.weights_sha256, "probe")
    about, obs = meta(latents), latents.obs
    episode = int(obs["episode"].iloc[row])
    same_episodes = about["episodes_sha256"] == probe.episodes_sha256
    return ReadOut(
        probe=probe,
        read=probe.read(features(latents, probe.site, [row]))[0],
        truth=_truth(latents, row, probe),
        held_out=bool(episode in probe.test_episodes) if same_episodes else None,
        label=about["label"],
        episode=episode,
        position=int(obs["position"].iloc[row]),
    )


def _truth(latents: AnnData, row: int, probe: ProbeResult) -> Float[np.ndarray, " k"]:
    obs = latents.obs
    value = obs[probe.target].iloc[row] if probe.target in obs else column(latents, probe.target)[row]
    if probe.metric == "R2":
        return np.asarray(value, dtype=np.float64).reshape(-1)
    if probe.columns > 1:
        return np.eye(len(probe.names) // probe.columns)[value.reshape(-1)].reshape(-1)
    if pd.isna(value):
        return np.full(len(probe.names), np.nan)
    true = str(value)
    if probe.merged and true not in probe.names:
        true = OTHER
    return np.array([float(name == true) for name in probe.names])
