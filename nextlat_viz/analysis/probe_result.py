"""What a probe found, and the probe itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float, Int

from nextlat_viz.analysis._linear import softmax
from nextlat_viz.analysis._report import html_table
from nextlat_viz.analysis._rows import features, require_model
from nextlat_viz.errors import LatentsError


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """A linear probe with its held-out score, controls and interval.

    Attributes
    ----------
    target, site, metric : str
        What was read from where; ``"R2"`` for numbers (ridge regression), ``"accuracy"`` for classes (logistic
        regression).
    score : float
        On held-out episodes. R2 is ``1 - SSE / SST``, both summed over all target dimensions, SST about the held-out
        mean: dimensions count by their variance (scikit-learn's ``variance_weighted``).
    interval : (float, float)
        95 % bootstrap interval over held-out episodes, the fitted probe kept as it is.
    shuffled : float
        Control: the same fit and score after whole episodes have swapped their targets, position by position. What is
        left above zero is what position alone tells.
    untrained : float or None
        Control: the same probe, rows and targets, on the latents of the untrained model.
    chance : float or None
        Accuracy, on the held-out rows, of always naming the class commonest in the fitted rows.
    ceiling : float or None
        What a reader of everything could reach: 1 where the target follows from the tokens; for the state of a hidden
        Markov world the Bayes accuracy, the mean over the held-out rows of the largest exact belief.
    unseen : float or None
        R2 over those held-out rows whose whole prefix no fitted row had (`unseen_rows` of them; None under 30, and for
        accuracy). Held-out episodes are new, but their first few tokens rarely are.
    coef, intercept : (K, D), (K,) arrays
        The map in raw units of the latents: ``X @ coef.T + intercept`` is the target (R2) or the logits (accuracy).
    names : tuple of str
        What the K rows of `coef` stand for: states, tokens, classes.
    penalty : float
        Ridge's alpha, chosen by cross-validation over episodes of the fitted rows only; or 1/C.
    train_rows, test_rows : int arrays
        Row numbers in the latents given; `train_episodes` and `test_episodes` are the episodes they belong to.
    label, name, step, weights_sha256, episodes_sha256
        Whose latents these were.
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
    label: str
    name: str
    step: int
    weights_sha256: str = field(repr=False)
    episodes_sha256: str = field(repr=False)

    @property
    def note(self) -> str:
        """How to read the score, in one sentence."""
        fitted, held_out = self.train_episodes.size, self.test_episodes.size
        return (
            f"Fitted on {fitted} episodes, scored on {held_out} others: no token sequence is on both sides, because a "
            "probe scored on what it was fitted on would only show how well it can memorise."
        )

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
        """Do what `predict` does on bare latents ``(rows, D)`` of this model and site, which is not checked."""
        if X.shape[1] != self.coef.shape[1]:
            raise LatentsError(
                f"this probe reads latents of width {self.coef.shape[1]} (site {self.site!r}), got width {X.shape[1]}"
            )
        values = X.astype(np.float64) @ self.coef.T + self.intercept
        return softmax(values) if self.metric == "accuracy" else values

    def to_frame(self) -> pd.DataFrame:
        """One row with everything but the arrays."""
        return pd.DataFrame(
            [
                {
                    "label": self.label,
                    "name": self.name,
                    "step": self.step,
                    "target": self.target,
                    "site": self.site,
                    "metric": self.metric,
                    "score": self.score,
                    "low": self.interval[0],
                    "high": self.interval[1],
                    "shuffled": self.shuffled,
                    "untrained": np.nan if self.untrained is None else self.untrained,
                    "chance": np.nan if self.chance is None else self.chance,
                    "ceiling": np.nan if self.ceiling is None else self.ceiling,
                    "unseen": np.nan if self.unseen is None else self.unseen,
                    "unseen_rows": self.unseen_rows,
                    "train_episodes": self.train_episodes.size,
                    "test_episodes": self.test_episodes.size,
                    "train_rows": self.train_rows.size,
                    "test_rows": self.test_rows.size,
                    "min_position": self.min_position,
                    "penalty": self.penalty,
                    "seed": self.seed,
                }
            ]
        )

    def _repr_html_(self) -> str:
        low, high = self.interval
        rows = {
            f"held-out {self.metric}": f"{self.score:.3f} (95 %: {low:.3f} to {high:.3f})",
            "shuffled labels": f"{self.shuffled:.3f}",
            "untrained model": "not given" if self.untrained is None else f"{self.untrained:.3f}",
        }
        if self.chance is not None:
            rows["commonest class"] = f"{self.chance:.3f}"
        if self.ceiling is not None:
            rows["ceiling"] = f"{self.ceiling:.3f}"
        if self.unseen is not None:
            rows["new prefixes only"] = f"{self.unseen:.3f} ({self.unseen_rows} of {self.test_rows.size} rows)"
        return html_table(f"{self.label}: {self.target} read from {self.site}", rows, self.note)
