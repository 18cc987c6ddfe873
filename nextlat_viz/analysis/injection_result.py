"""What an injection found: a hidden state before and after, and what follows from each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from nextlat_viz.analysis.prediction import kl
from nextlat_viz.display import table

Metric = Literal["covariance", "euclidean"]


@dataclass(frozen=True, eq=False)
class Injection:
    """A hidden state before and after the smallest edit that makes the probe read the target, and what follows.

    Attributes
    ----------
    hidden_before, hidden_after, edit : (D,) arrays
    size : float
        Euclidean norm of the edit, in the units of the hidden state.
    relative_size : float
        `size` over the mean distance between two rows of the latents: at 1, the state was moved as far as to another
        row.
    target, read_before, read_after : (k,) arrays
        What the probe was to read, reads before, and reads after: numbers, or class probabilities.
    names : tuple of str
        What the k are called.
    vocabulary : tuple of str
    probs_before, probs_after : (V,) arrays
        Next-token distributions that the head reads.
    exact : (V,) array or None
        What the world would predict at the target, where it says.
    probs_control : (c, V) array
        After c random edits of the same size.
    tokens, token_ids : tuple of str, (s,) int array
        What is read after the edit.
    rollout_before, rollout_after : (s, V) arrays or None
        Next-token distributions after each of them by psi's rollout; None for a model without psi.
    exact_rollout : (s, V) array or None
        What the world would predict there; NaN from the first token on that cannot come at the target.
    metric : str
        What "smallest" means.
    label, episode, position
        Whose state it is, and where.
    """

    hidden_before: Float[np.ndarray, " D"] = field(repr=False)
    hidden_after: Float[np.ndarray, " D"] = field(repr=False)
    edit: Float[np.ndarray, " D"] = field(repr=False)
    size: float
    relative_size: float
    target: Float[np.ndarray, " k"]
    read_before: Float[np.ndarray, " k"]
    read_after: Float[np.ndarray, " k"]
    names: tuple[str, ...] = field(repr=False)
    vocabulary: tuple[str, ...] = field(repr=False)
    probs_before: Float[np.ndarray, " V"] = field(repr=False)
    probs_after: Float[np.ndarray, " V"] = field(repr=False)
    exact: Float[np.ndarray, " V"] | None = field(repr=False)
    probs_control: Float[np.ndarray, "c V"] = field(repr=False)
    tokens: tuple[str, ...]
    token_ids: Int[np.ndarray, " s"] = field(repr=False)
    rollout_before: Float[np.ndarray, "s V"] | None = field(repr=False)
    rollout_after: Float[np.ndarray, "s V"] | None = field(repr=False)
    exact_rollout: Float[np.ndarray, "s V"] | None = field(repr=False)
    metric: Metric
    label: str
    episode: int
    position: int

    @property
    def kl_before(self) -> float | None:
        """KL(exact at the target || before) in nats; None where the exact one is not known."""
        return None if self.exact is None else float(kl(self.exact, self.probs_before))

    @property
    def kl_after(self) -> float | None:
        """KL(exact at the target || after) in nats: 0 where the model now predicts what the world would."""
        return None if self.exact is None else float(kl(self.exact, self.probs_after))

    @property
    def kl_control(self) -> float | None:
        """Mean KL(exact at the target || after a random edit of the same size) in nats."""
        if self.exact is None:
            return None
        return float(kl(np.broadcast_to(self.exact, self.probs_control.shape), self.probs_control).mean())

    def to_frame(self) -> pd.DataFrame:
        """One row per token read, the first before any: ``step, token``, and KL(exact || ...) ``before, after``."""
        rows: list[dict[str, Any]] = [{"step": 0, "token": None, "before": self.kl_before, "after": self.kl_after}]
        if self.rollout_before is not None and self.rollout_after is not None:
            for i, token in enumerate(self.tokens):
                known = self.exact_rollout is not None and bool(np.isfinite(self.exact_rollout[i]).all())
                gaps = {"before": np.nan, "after": np.nan}
                if known and self.exact_rollout is not None:
                    gaps["before"] = float(kl(self.exact_rollout[i], self.rollout_before[i]))
                    gaps["after"] = float(kl(self.exact_rollout[i], self.rollout_after[i]))
                rows.append({"step": i + 1, "token": token, **gaps})
        return pd.DataFrame(rows).astype({"before": float, "after": float})

    def _repr_html_(self) -> str:
        rows = {
            "size of the edit": f"{self.size:.3f}, {self.relative_size:.0%} of the mean distance between rows",
            "read before": _listed(self.names, self.read_before),
            "read after": _listed(self.names, self.read_after),
        }
        if self.exact is not None:
            rows["KL from the exact prediction at the target"] = (
                f"{self.kl_before:.4f} nats before, {self.kl_after:.4f} after, "
                f"{self.kl_control:.4f} after random edits of the same size"
            )
        return table(f"{self.label}: episode {self.episode}, position {self.position}", rows)


def _listed(names: tuple[str, ...], values: Any) -> str:
    shown = [f"{name} {value:.2f}" for name, value in zip(names[:8], values.tolist(), strict=False)]
    return ", ".join(shown + ["…"] * (len(names) > 8))
