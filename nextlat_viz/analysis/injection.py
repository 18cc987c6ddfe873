"""Belief injection: the smallest edit of a hidden state that makes a probe read something else, and what follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsIndex, get_args

import numpy as np
from anndata import AnnData
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from nextlat_viz.analysis._rows import features, require_model
from nextlat_viz.analysis.injection_exact import exact_after
from nextlat_viz.analysis.injection_result import Injection, Metric
from nextlat_viz.analysis.lookahead import next_rows, objective_of, read_head, require_head, roll
from nextlat_viz.analysis.prediction import require_row, token_ids, token_names
from nextlat_viz.analysis.probes.joint import JointProbe
from nextlat_viz.analysis.probes.result import ProbeResult
from nextlat_viz.errors import LatentsError, unknown
from nextlat_viz.latents.table import HIDDEN, meta
from nextlat_viz.models import NextLat, Objective
from nextlat_viz.training.checkpoint import Checkpoint
from nextlat_viz.worlds import HiddenMarkovWorld, World

CONTROLS = 32
# A class counts as read once the probe gives it this probability.
SURE = 0.9
# What the probe cannot see: directions this much weaker than its strongest are rounding.
_RANK = 1e-7
_REACHED = 1e-4
_SAMPLED = 4096


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
    """Make the smallest edit of a hidden state that lets a linear probe read a target, and see what follows.

    A probe that reads ``W h + b`` reads the target exactly after the edit ``e = C W' (W C W')^+ (target - W h - b)``,
    which is the least in the Mahalanobis norm ``e' C^-1 e`` for the covariance C of the latents: it keeps to
    directions in which latents do differ. With ``metric="euclidean"`` C is the identity. A probe of classes is made to
    give the target class a probability of at least 0.9, each other class an equal part of the rest at most, by the
    least such edit (least distance programming; Lawson & Hanson 1974, chapter 23).

    Parameters
    ----------
    model : Objective or Checkpoint
        The model the latents are of.
    latents : AnnData
    probe : ProbeResult or JointProbe
        Of site "hidden", fitted on latents of this model.
    row : int
        Which hidden state to edit.
    target : (k,) numbers, or str
        What the probe is to read, one number per name of the probe; for a probe of classes, the name of one.
    steps : int
        Let psi read this many of the episode's next tokens after the edit, as far as there are any.
    tokens : sequence of int, optional
        Let psi read these token ids in their place.
    metric : {"covariance", "euclidean"}
        What "smallest" means. A Euclidean edit is smaller by far and fools the probe alone: it goes where latents
        hardly differ, which a probe may lean on and the model does not.
    seed : int
        Of the random edits, and of the rows that sizes are measured on.

    Returns
    -------
    Injection
        If the model predicts by what the probe reads, ``kl_after`` is far below ``kl_before`` and ``kl_control``.
        Where it stays near ``kl_before``, the probe reads what the model has but does not use.

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
    >>> found = inject(checkpoint, latents, probe(latents, "belief"), row=25, target=belief, steps=3)
    >>> bool(np.allclose(found.read_after, belief)), found.rollout_after.shape
    (True, (3, 3))
    >>> bool(found.kl_after < found.kl_control)
    True
    """
    if metric not in get_args(Metric):
        raise unknown("metric", metric, get_args(Metric))
    if steps < 0 or (steps and tokens is not None):
        raise ValueError(f"steps={steps}: give how many of the episode's tokens to read, or tokens, not both")
    objective = objective_of(model, latents)
    require_model(latents, probe.weights_sha256, "probe")
    if probe.site != HIDDEN:
        raise LatentsError(
            f"this probe reads site {probe.site!r}, and only an edit of the last site, 'hidden', is read by the head "
            "as it is: fit the probe with site='hidden'"
        )
    at = require_row(latents, row)
    require_head(objective, latents, at)
    X = features(latents)
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(len(X), min(len(X), _SAMPLED), replace=False))
    sample = X[rows].astype(np.float64)
    root = _root(sample) if metric == "covariance" else np.eye(X.shape[1])
    before = X[at].astype(np.float64)
    wanted, edit = (
        _to_class(probe, before, target, root) if isinstance(target, str) else _to(probe, before, target, root)
    )
    size = float(np.linalg.norm(edit))
    after = before + edit
    noise = rng.normal(size=(CONTROLS, X.shape[1])) @ root.T
    controls = before + size * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    probs = read_head(objective, np.concatenate([[before, after], controls]))
    names = token_names(latents, probs.shape[1])
    read = token_ids(latents, next_rows(latents, at, steps)) if tokens is None else _ids(tokens, len(names))
    psi = objective if isinstance(objective, NextLat) and read.size else None
    exact = exact_after(latents, at, probe.target, probe.names, wanted, read)
    return Injection(
        hidden_before=before,
        hidden_after=after,
        edit=edit,
        size=size,
        relative_size=size / _typical(sample, rng),
        target=wanted,
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
        metric=metric,
        label=meta(latents)["label"],
        episode=int(latents.obs["episode"].iloc[at]),
        position=int(latents.obs["position"].iloc[at]),
    )


def belief_target(world: World, state: str | ArrayLike) -> Float[np.ndarray, " states"]:
    """Return a belief as a target of `inject`: certainty of a state by its name, or a distribution, checked.

    Raises
    ------
    UnknownNameError
        No such state.
    ValueError
        A world without beliefs; a vector that is none of its beliefs.

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
    # Says what is wrong with a vector that is no belief.
    world.predict(belief)
    return belief


def _to(
    probe: ProbeResult | JointProbe, before: Float[np.ndarray, " D"], target: ArrayLike, root: Float[np.ndarray, "D D"]
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " D"]]:
    """The target as an array, and the least edit after which the probe reads it."""
    wanted = np.asarray(target, dtype=np.float64)
    if wanted.shape != (len(probe.names),) or not np.isfinite(wanted).all():
        raise ValueError(
            f"target must be {len(probe.names)} finite numbers, one for each of {', '.join(probe.names[:8])}, got "
            f"shape {wanted.shape}"
        )
    if probe.metric == "accuracy":
        raise ValueError(
            f"target must be the name of a class for a probe of classes: one of {', '.join(probe.names[:8])}"
        )
    missing = wanted - probe.coef @ before - probe.intercept
    edit = root @ (np.linalg.pinv(probe.coef @ root, rcond=_RANK) @ missing)
    left = np.abs(missing - probe.coef @ edit).max()
    if left > _REACHED * max(1.0, float(np.abs(wanted).max())):
        raise ValueError(
            f"target={wanted.round(3).tolist()}: no edit makes the probe read it, the nearest misses by {left:.2g}. "
            "What the probe reads keeps to a plane, such as beliefs that sum to 1: choose a target on it"
        )
    return wanted, edit


def _to_class(
    probe: ProbeResult | JointProbe, before: Float[np.ndarray, " D"], target: str, root: Float[np.ndarray, "D D"]
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " D"]]:
    """The class as a one-hot array, and the least edit after which the probe names it."""
    from scipy.optimize import nnls

    if probe.metric != "accuracy":
        raise ValueError(f"target={target!r}: this probe reads numbers, give {len(probe.names)} of them")
    if target not in probe.names:
        raise unknown(f"class of {probe.target!r}", target, probe.names)
    chosen = probe.names.index(target)
    logits = probe.coef @ before + probe.intercept
    # Least z with G z >= h: each other class is left at most its part of the rest, for an edit `root @ z`.
    G = np.delete(probe.coef[chosen] - probe.coef, chosen, axis=0) @ root
    h = np.log(SURE / (1 - SURE) * len(G)) - np.delete(logits[chosen] - logits, chosen)
    unit = np.append(np.zeros(G.shape[1]), 1.0)
    dual, _ = nnls(np.vstack([G.T, h]), unit)
    residual = np.vstack([G.T, h]) @ dual - unit
    if -residual[-1] < 1e-10:
        raise ValueError(f"target={target!r}: no edit makes the probe name it, its classes cannot be told apart")
    return np.eye(len(probe.names))[chosen], root @ (-residual[:-1] / residual[-1])


def _root(sample: Float[np.ndarray, "rows D"]) -> Float[np.ndarray, "D D"]:
    """A square root of the covariance of the latents."""
    values, vectors = np.linalg.eigh(np.cov(sample, rowvar=False))
    return vectors * np.sqrt(np.maximum(values, 0))


def _typical(sample: Float[np.ndarray, "rows D"], rng: np.random.Generator) -> float:
    """Mean distance between two rows."""
    apart = float(np.linalg.norm(sample - sample[rng.permutation(len(sample))], axis=1).mean())
    if apart == 0:
        raise LatentsError("all latents are alike: there is no distance to compare an edit with")
    return apart


def _ids(tokens: Sequence[int], known: int) -> Int[np.ndarray, " s"]:
    ids = np.asarray(tokens)
    if ids.size == 0:
        return np.zeros(0, np.int64)
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= known:
        raise ValueError(f"tokens must be ids from 0 to {known - 1}, got {list(tokens)}")
    return ids.astype(np.int64)
