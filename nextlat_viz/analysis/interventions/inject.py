"""Belief injection: the smallest edit of a hidden state that makes a probe read a target, and its consequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, SupportsIndex, get_args

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from nextlat_viz.analysis._rows import features, require_model
from nextlat_viz.analysis.interventions.plane import JointProbe, least_distance
from nextlat_viz.analysis.lookahead import next_rows, objective_of, read_head, require_head, roll
from nextlat_viz.analysis.prediction import exact_after, kl, require_row, token_ids, token_names
from nextlat_viz.analysis.probes.result import ProbeResult
from nextlat_viz.display import table
from nextlat_viz.errors import LatentsError, one_of, unknown
from nextlat_viz.latents.table import HIDDEN, meta
from nextlat_viz.models import NextLat, Objective
from nextlat_viz.training.checkpoint import Checkpoint
from nextlat_viz.worlds import HiddenMarkovWorld, World

Metric = Literal["covariance", "euclidean"]

CONTROLS = 32
# An edit to a class gives it at least this probability.
SURE = 0.9
# Directions of the probe this much weaker than its strongest are rounding errors.
_RANK = 1e-7
_REACHED = 1e-4
# Rows that the covariance and the mean distance are estimated from.
_SAMPLED = 4096


@dataclass(frozen=True, eq=False)
class Injection:
    """A hidden state before and after the smallest edit that makes the probe read the target.

    Attributes
    ----------
    hidden_before, hidden_after, edit : (D,) arrays
    size : float
        Euclidean norm of the edit, in the units of the hidden state.
    relative_size : float
        `size` over the mean distance between two rows of the latents: at 1, the edit is as large as the step to
        another row.
    target, read_before, read_after : (k,) arrays
        Target of the probe, and its reading before and after: numbers, or class probabilities.
    names : tuple of str
        Names of the k.
    vocabulary : tuple of str
    probs_before, probs_after : (V,) arrays
        Next-token distributions of the head.
    exact : (V,) array or None
        Next-token distribution of the world at the target, where it is known.
    probs_control : (c, V) array
        Next-token distributions after c random edits of the same size.
    tokens, token_ids : tuple of str, (s,) int array
        Tokens read after the edit.
    rollout_before, rollout_after : (s, V) arrays or None
        Next-token distributions after each of these tokens, by rolling psi out; None for a model without psi.
    exact_rollout : (s, V) array or None
        Those of the world; NaN from the first token on that is impossible at the target.
    metric : str
        The norm that the edit minimises.
    label, episode, position
        The model, and the place of the state.
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
        """KL(exact at the target || before) in nats; None where the exact distribution is not known."""
        return None if self.exact is None else float(kl(self.exact, self.probs_before))

    @property
    def kl_after(self) -> float | None:
        """KL(exact at the target || after) in nats: 0 where the model predicts as the world does at the target."""
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
            nowhere = np.full_like(self.rollout_before, np.nan)
            exact = nowhere if self.exact_rollout is None else self.exact_rollout
            before, after = kl(exact, self.rollout_before), kl(exact, self.rollout_after)
            for i, token in enumerate(self.tokens):
                rows.append({"step": i + 1, "token": token, "before": before[i], "after": after[i]})
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


def inject(
    model: Objective | Checkpoint,
    latents: AnnData,
    probe: ProbeResult | JointProbe,
    row: SupportsIndex,
    target: ArrayLike | str,
    steps: int = 0,
    tokens: Sequence[int] | None = None,
    metric: Metric = "covariance",
    seed: int = 0,
) -> Injection:
    """Make the smallest edit of a hidden state that makes a linear probe read a target, and predict from there.

    A probe that reads ``W h + b`` reads the target exactly after the edit ``e = C W' (W C W')^+ (target - W h - b)``,
    which is smallest in the Mahalanobis norm ``e' C^-1 e`` for the covariance C of the latents: it goes along
    directions in which latents differ. With ``metric="euclidean"`` C is the identity. A probe of classes gives the
    target class a probability of at least 0.9, and each other class at most an equal part of the rest, after the
    smallest such edit (least distance programming; Lawson & Hanson 1974, chapter 23).

    Parameters
    ----------
    model : Objective or Checkpoint
        The model of the latents.
    probe : ProbeResult or JointProbe
        Of site "hidden", fitted on latents of this model.
    row : int
        Row number of the hidden state to edit.
    target : (k,) numbers, or str
        Target reading, one number per name of the probe; for a probe of classes, the name of a class.
    steps : int
        Roll psi out over this many of the next tokens of the episode, or over all where fewer follow.
    tokens : sequence of int, optional
        Roll psi out over these token ids instead.
    metric : {"covariance", "euclidean"}
        The norm that the edit minimises. A Euclidean edit is much shorter, but moves the probe alone: it goes along
        directions in which latents hardly differ, which the probe may use and the model does not.
    seed : int
        Of the random edits, and of the rows that distances are estimated from.

    Returns
    -------
    Injection
        If the model predicts from what the probe reads, ``kl_after`` is far below ``kl_before`` and ``kl_control``.
        If it stays near ``kl_before``, the model does not use what the probe reads.

    Raises
    ------
    LatentsError
        A probe of another model or site, no such row, latents of another model.
    UnknownNameError
        No such class.
    ValueError
        A target of another length, one that no edit can make the probe read, unknown tokens, both steps and tokens.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> from nextlat_viz.analysis import probe
    >>> checkpoint = nlv.load("mess3/nextlat")
    >>> latents = nlv.extract(checkpoint, checkpoint.world.sample(60, 10, seed=1))
    >>> belief = belief_target(checkpoint.world, "B")
    >>> injection = inject(checkpoint, latents, probe(latents, "belief"), row=25, target=belief, steps=3)
    >>> bool(np.allclose(injection.read_after, belief)), injection.rollout_after.shape
    (True, (3, 3))
    >>> bool(injection.kl_after < injection.kl_control)
    True
    """
    return Injector(model, latents, probe, metric, seed).inject(row, target, steps, tokens)


class Injector:
    """Injections into one table of latents by one probe. Checks and computes once what does not depend on the row.

    Parameters and errors are those of `inject`, which makes a single injection.
    """

    def __init__(
        self,
        model: Objective | Checkpoint,
        latents: AnnData,
        probe: ProbeResult | JointProbe,
        metric: Metric = "covariance",
        seed: int = 0,
    ) -> None:
        one_of("metric", metric, get_args(Metric))
        self._objective = objective_of(model, latents)
        require_model(latents, probe.weights_sha256, "probe")
        if probe.site != HIDDEN:
            raise LatentsError(
                f"this probe reads site {probe.site!r}, but only an edit of 'hidden', the last site, goes straight "
                "into the output head: fit the probe with site='hidden'"
            )
        require_head(self._objective, latents, 0)
        self._latents, self._probe, self._metric = latents, probe, metric
        self._label = meta(latents)["label"]
        X = features(latents)
        rng = np.random.default_rng(seed)
        rows = np.sort(rng.choice(len(X), min(len(X), _SAMPLED), replace=False))
        sample = X[rows].astype(np.float64)
        self._root = np.eye(X.shape[1])
        if metric == "covariance":
            # A square root of the covariance of the latents.
            values, vectors = np.linalg.eigh(np.cov(sample, rowvar=False))
            self._root = vectors * np.sqrt(np.maximum(values, 0))
        noise = rng.normal(size=(CONTROLS, X.shape[1])) @ self._root.T
        self._directions = noise / np.linalg.norm(noise, axis=1, keepdims=True)
        self._mean_distance = float(np.linalg.norm(sample - sample[rng.permutation(len(sample))], axis=1).mean())
        if self._mean_distance == 0:
            raise LatentsError("all latents are equal, so the size of an edit cannot be compared with their distance")

    def inject(
        self, row: SupportsIndex, target: ArrayLike | str, steps: int = 0, tokens: Sequence[int] | None = None
    ) -> Injection:
        """Edit the hidden state of a row."""
        if steps < 0 or (steps and tokens is not None):
            raise ValueError(f"steps={steps}: give how many of the episode's tokens to read, or tokens, not both")
        latents, objective, probe = self._latents, self._objective, self._probe
        row = require_row(latents, row)
        before = np.asarray(latents.X[row], dtype=np.float64)
        edit_to = _edit_to_class if isinstance(target, str) else _edit_to_numbers
        goal, edit = edit_to(probe, before, target, self._root)  # type: ignore[arg-type]
        size = float(np.linalg.norm(edit))
        after = before + edit
        probs = read_head(objective, np.concatenate([[before, after], before + size * self._directions]))
        names = token_names(latents, probs.shape[1])
        read = token_ids(latents, next_rows(latents, row, steps)) if tokens is None else _ids(tokens, len(names))
        psi = objective if isinstance(objective, NextLat) and read.size else None
        exact = exact_after(latents, row, probe.target, probe.names, goal, read)
        return Injection(
            hidden_before=before,
            hidden_after=after,
            edit=edit,
            size=size,
            relative_size=size / self._mean_distance,
            target=goal,
            read_before=probe.read(before[None])[0],
            read_after=probe.read(after[None])[0],
            names=probe.names,
            vocabulary=names,
            probs_before=probs[0],
            probs_after=probs[1],
            exact=None if exact is None else exact[0],
            probs_control=probs[2:],
            tokens=tuple(names[token] for token in read.tolist()),
            token_ids=read,
            rollout_before=None if psi is None else read_head(psi, roll(psi, before, read)),
            rollout_after=None if psi is None else read_head(psi, roll(psi, after, read)),
            exact_rollout=None if exact is None or psi is None else exact[1:],
            metric=self._metric,
            label=self._label,
            episode=int(latents.obs["episode"].iloc[row]),
            position=int(latents.obs["position"].iloc[row]),
        )


def belief_target(world: World, state: str | ArrayLike) -> Float[np.ndarray, " states"]:
    """Return a belief as a target of `inject`: certainty of a named state, or a distribution, checked.

    Raises
    ------
    UnknownNameError
        No such state.
    ValueError
        A world without beliefs; a vector that is not a belief of the world.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> belief_target(worlds.get("mess3"), "B").tolist()
    [0.0, 1.0, 0.0]
    """
    if not isinstance(world, HiddenMarkovWorld):
        raise ValueError(f"world {world.name!r} has no beliefs to inject: this needs a hidden Markov world")
    if isinstance(state, str):
        if state not in world.state_names or world.generalised:
            raise unknown("state", state, () if world.generalised else world.state_names)
        return np.eye(world.n_states)[world.state_names.index(state)]
    belief = np.asarray(state, dtype=np.float64)
    if belief.ndim != 1:
        raise ValueError(f"state must be the name of a state or one belief, of shape ({world.n_states},)")
    # Raises for a vector that is not a belief.
    world.predict(belief)
    return belief


def _edit_to_numbers(
    probe: ProbeResult | JointProbe, before: Float[np.ndarray, " D"], target: ArrayLike, root: Float[np.ndarray, "D D"]
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " D"]]:
    """Return the target as an array, and the smallest edit after which the probe reads it."""
    goal = np.asarray(target, dtype=np.float64)
    if goal.shape != (len(probe.names),) or not np.isfinite(goal).all():
        raise ValueError(
            f"target must be {len(probe.names)} finite numbers, one for each of {', '.join(probe.names[:8])}, got "
            f"shape {goal.shape}"
        )
    if probe.metric == "accuracy":
        raise ValueError(
            f"target must be the name of a class for a probe of classes: one of {', '.join(probe.names[:8])}"
        )
    missing = goal - probe.coef @ before - probe.intercept
    edit = root @ (np.linalg.pinv(probe.coef @ root, rcond=_RANK) @ missing)
    left = np.abs(missing - probe.coef @ edit).max()
    if left > _REACHED * max(1.0, float(np.abs(goal).max())):
        raise ValueError(
            f"target={goal.round(3).tolist()}: no edit makes the probe read it, the nearest misses by {left:.2g}. "
            "The readings of this probe lie in a plane, as beliefs that sum to 1 do: choose a target in it"
        )
    return goal, edit


def _edit_to_class(
    probe: ProbeResult | JointProbe, before: Float[np.ndarray, " D"], target: str, root: Float[np.ndarray, "D D"]
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " D"]]:
    """Return the class as a one-hot array, and the smallest edit after which the probe is sure of it."""
    if isinstance(probe, JointProbe) or probe.metric != "accuracy":
        raise ValueError(f"target={target!r}: this probe reads numbers, give {len(probe.names)} of them")
    one_of(f"class of {probe.target!r}", target, probe.names)
    chosen = probe.names.index(target)
    logits = probe.coef @ before + probe.intercept
    # h: how much the target's lead over each other class must still grow, for that class to keep at most its part of
    # 1 - SURE.
    size = len(probe.names) // probe.columns
    others = np.delete(np.arange(size), chosen % size) + chosen // size * size
    G = (probe.coef[chosen] - probe.coef[others]) @ root
    h = np.log(SURE / (1 - SURE) * len(G)) - (logits[chosen] - logits[others])
    z = least_distance(G, h)
    if z is None:
        raise ValueError(f"target={target!r}: no edit makes the probe read it, its classes cannot be told apart")
    return np.eye(len(probe.names))[chosen], root @ z


def _ids(tokens: Sequence[int], known: int) -> Int[np.ndarray, " s"]:
    ids = np.asarray(tokens)
    if ids.size == 0:
        return np.zeros(0, np.int64)
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= known:
        raise ValueError(f"tokens must be ids from 0 to {known - 1}, got {list(tokens)}")
    return ids.astype(np.int64)
