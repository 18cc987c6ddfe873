"""Targets k steps ahead of each latent, and the linear probes that read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from anndata import AnnData
from jaxtyping import Float, Int

from nextlat_viz.analysis._rows import contents, episode_index
from nextlat_viz.analysis.probes.controls import split_episodes, swap_episodes
from nextlat_viz.analysis.probes.fit import fit_ridges, folds_of, standard
from nextlat_viz.analysis.probes.softmax import fit_softmax
from nextlat_viz.analysis.probes.targets import ROUNDING, Classes, Numbers, target_of
from nextlat_viz.errors import LatentsError
from nextlat_viz.latents.table import column, describe

# Weights of one fit. L-BFGS remembers twenty times as many numbers.
MOST_WEIGHTS = 8_000_000
Scores = dict[str, float | int]


@dataclass(frozen=True, eq=False)
class Ahead:
    """Rows to read, fitted and held out, and for each offset the row so many steps ahead of each row.

    Attributes
    ----------
    offsets : sequence of int
    train, test : int arrays
        Row numbers.
    row, shuffled : (offsets, rows) int arrays
        The row ahead, in the same episode and in its partner of the shuffled control; -1 where there is none.
    groups : (rows,) int array
        The token sequence of each row.
    seed : int
    """

    offsets: Sequence[int]
    train: Int[np.ndarray, " train"]
    test: Int[np.ndarray, " test"]
    row: Int[np.ndarray, "offsets rows"]
    shuffled: Int[np.ndarray, "offsets rows"]
    groups: Int[np.ndarray, " rows"]
    seed: int

    def target(self, latents: AnnData, name: str) -> Classes | Numbers:
        """Return the column that is predicted, checked on the rows ahead."""
        train, test = (np.unique(self.row[:, side][self.row[:, side] >= 0]) for side in (self.train, self.test))
        return target_of(latents, name, train, test)


def rows_ahead(
    latents: AnnData, offsets: Sequence[int], positions: Iterable[int] | None, test_size: float, seed: int
) -> Ahead:
    """Split the rows by episode and find the rows ahead of each."""
    train, test = split_episodes(latents, test_size=test_size, seed=seed)
    episode, position = episode_index(latents), column(latents, "position")
    last = int(position.max())
    row_at = np.full((episode.max() + 1, last + max(offsets) + 1), -1)
    row_at[episode, position] = np.arange(len(position))
    row = np.stack([row_at[episode, position + offset] for offset in offsets])
    moved, source = swap_episodes(latents, train, test, seed)
    shuffled = np.full_like(row, -1)
    shuffled[:, moved] = row[:, source]
    if positions is not None:
        chosen = np.array(sorted(set(positions)))
        train, test = (side[np.isin(position[side], chosen)] for side in (train, test))
        if min(train.size, test.size) == 0:
            raise ValueError(f"no row is at positions={describe(chosen)}: the latents have positions 1 to {last}")
    for rows, offset in zip(row, offsets, strict=True):
        if (rows[train] < 0).all() or (rows[test] < 0).all():
            raise ValueError(
                f"offset {offset} is beyond the episodes: none has a row so many steps ahead of the positions read, "
                f"and the latents end at position {last}; leave out offsets from {offset} on"
            )
    return Ahead(offsets, train, test, row, shuffled, contents(latents), seed)


def probe_ahead(
    X: Float[np.ndarray, "rows dim"],
    truth: Classes | Numbers,
    name: str,
    ahead: Ahead,
    shuffle: bool,
    tol: float,
    device: str,
) -> list[Scores]:
    """Fit the probes of all offsets together, score each on held-out rows, and return the scores of each offset."""
    rows = np.concatenate([ahead.row, ahead.shuffled]) if shuffle else ahead.row
    if isinstance(truth, Classes):
        scores, compared = _classes(X, truth, name, ahead, rows, tol, device), "accuracy"
    else:
        scores, compared = _numbers(X, truth, name, ahead, rows, device), "value"
    real, controls = scores[: len(ahead.offsets)], scores[len(ahead.offsets) :]
    for score, control in zip(real, controls, strict=False):
        score["shuffled"] = control["value"]
        if compared == "accuracy":
            score["shuffled_accuracy"] = control["accuracy"]
        score["selectivity"] = score[compared] - control[compared]
    return real


def _classes(
    X: np.ndarray, truth: Classes, name: str, ahead: Ahead, rows: np.ndarray, tol: float, device: str
) -> list[Scores]:
    # Class k stands for all classes that no fitted row has at any offset; nothing is fitted to it.
    k = len(truth.names)
    codes = np.where(rows >= 0, np.where(truth.codes < 0, k, truth.codes)[rows], -1)
    k += int((codes[:, ahead.test] == k).any())
    for code, offset in zip(codes, ahead.offsets, strict=False):
        seen = np.unique(code[ahead.train][code[ahead.train] >= 0])
        if seen.size < 2:
            raise LatentsError(
                f"target {name!r} has one class ({truth.names[seen[0]]}) {offset} steps ahead of every row to fit: "
                "leave out this offset, or read other positions"
            )
    mean, scale = standard(X[ahead.train])
    Z = torch.from_numpy(((X - mean) / scale).astype(np.float32)).to(device)
    fit, held_out = (Z[torch.from_numpy(side).to(device)] for side in (ahead.train, ahead.test))
    width = max(1, MOST_WEIGHTS // (k * (X.shape[1] + 1)))
    scores: list[Scores] = []
    for start in range(0, len(rows), width):
        some = codes[start : start + width]
        goal = torch.from_numpy(np.ascontiguousarray(some[:, ahead.train].T)).to(device)
        fits = fit_softmax(fit, goal, k, tol=tol, seed=ahead.seed)
        for code, coef, intercept, gradient in zip(some, fits.coef, fits.intercept, fits.gradient, strict=True):
            logits = held_out @ coef.T + intercept
            counts = np.bincount(code[ahead.train][code[ahead.train] >= 0], minlength=k)
            score = _score_classes(logits, code[ahead.test], counts, ahead.groups[ahead.test])
            scores.append({**score, "gradient": float(gradient)})
    return scores


def _score_classes(
    logits: torch.Tensor, true: Int[np.ndarray, " n"], counts: Int[np.ndarray, " k"], groups: Int[np.ndarray, " n"]
) -> Scores:
    use, n, k = np.flatnonzero(true >= 0), int(counts.sum()), len(counts)
    true, groups = true[use], groups[use]
    logits = logits[torch.from_numpy(use).to(logits.device)]
    right = logits.argmax(1).cpu().numpy() == true
    log_p = torch.log_softmax(logits, 1).gather(1, torch.from_numpy(true)[:, None].to(logits.device))
    p = log_p[:, 0].double().exp().cpu().numpy()
    # Mixed with the uniform distribution at the weight of one more row, so that no class has probability 0.
    losses, prior = -np.log((n * p + 1 / k) / (n + 1)), -np.log((counts + 1 / k) / (n + 1))
    return {
        "value": float(losses.mean()),
        "error": ratio_error(losses, np.ones(len(use)), groups),
        "trials": len(use),
        "accuracy": float(right.mean()),
        "chance": float((true == counts.argmax()).mean()),
        "prior": float(prior[true].mean()),
        "fitted": n,
        "unseen": int((counts[true] == 0).sum()),
    }


def _numbers(X: np.ndarray, truth: Numbers, name: str, ahead: Ahead, rows: np.ndarray, device: str) -> list[Scores]:
    values = np.where((rows >= 0)[..., None], truth.values[rows], np.nan)
    fits = fit_ridges(
        torch.from_numpy(X[ahead.train]).to(device),
        torch.from_numpy(values[:, ahead.train].transpose(1, 0, 2).copy()).to(device),
        torch.from_numpy(folds_of(ahead.groups[ahead.train], ahead.seed)).to(device),
    )
    scores: list[Scores] = []
    for i, value in enumerate(values):
        offset = ahead.offsets[i % len(ahead.offsets)]
        for side, chosen in {"to fit": ahead.train, "held out": ahead.test}.items():
            known = value[chosen][~np.isnan(value[chosen]).any(1)]
            if np.square(known - known.mean(0)).sum() <= ROUNDING * np.square(known).sum():
                raise LatentsError(
                    f"target {name!r} is constant {offset} steps ahead of the rows {side}: R2 needs it to vary, leave "
                    "out this offset"
                )
        use = ahead.test[~np.isnan(value[ahead.test]).any(1)]
        read = X[use].astype(np.float64) @ fits.coef[i].cpu().numpy().T + fits.intercept[i].cpu().numpy()
        mistakes, spread = (np.square(value[use] - about).sum(1) for about in (read, value[use].mean(0)))
        scores.append(
            {
                "value": float(1 - mistakes.sum() / spread.sum()),
                "error": ratio_error(mistakes, spread, ahead.groups[use]),
                "trials": len(use),
                "fitted": int((~np.isnan(value[ahead.train]).any(1)).sum()),
                "penalty": float(fits.alpha[i]),
            }
        )
    return scores


def ratio_error(above: Float[np.ndarray, " n"], below: Float[np.ndarray, " n"], groups: Int[np.ndarray, " n"]) -> float:
    """Return the standard error of ``sum(above) / sum(below)`` over draws of whole groups (delta method).

    NaN for a single group.

    Examples
    --------
    >>> round(ratio_error(np.array([1.0, 1.0, 0.0, 0.0]), np.ones(4), np.array([0, 0, 1, 1])), 3)
    0.5
    """
    _, which = np.unique(groups, return_inverse=True)
    count = int(which.max()) + 1
    if count < 2:
        return float("nan")
    left = np.bincount(which, above - above.sum() / below.sum() * below)
    return float(np.sqrt(count / (count - 1) * np.square(left).sum()) / below.sum())
