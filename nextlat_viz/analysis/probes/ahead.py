"""Targets k steps ahead of each latent, and the linear probes that read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from anndata import AnnData
from jaxtyping import Float, Int

from nextlat_viz.analysis._rows import contents, episode_index, split_episodes, swap_episodes
from nextlat_viz.analysis.measure.result import clustered
from nextlat_viz.analysis.probes.fit import fit_ridges, folds_of, standard
from nextlat_viz.analysis.probes.softmax import BATCH, Fits, fit_softmax
from nextlat_viz.analysis.probes.targets import (
    MOST_CLASSES,
    Classes,
    Numbers,
    balanced_accuracy,
    deviations,
    target_of,
    varies,
)
from nextlat_viz.errors import LatentsError
from nextlat_viz.latents.table import column, describe
from nextlat_viz.models.torch_state import torch_defaults

# Weights of one fit. L-BFGS remembers twenty times as many numbers.
MOST_WEIGHTS = 8_000_000
# Logits held at once: of a batch while fitting through a head, few enough for the processor's cache; and while scoring.
BATCH_LOGITS, MOST_LOGITS = 1 << 21, 1 << 24
MOST_PASSES = 200
Scores = dict[str, float | int]


@dataclass(frozen=True, eq=False)
class Ahead:
    """Rows to fit and to hold out, and for each offset the row that many steps ahead of each row.

    `row` is the row ahead in the same episode, and `shuffled` that in the partner episode of the shuffled control; -1
    where there is none. `groups` are the token sequences of the rows.
    """

    offsets: Sequence[int]
    train: Int[np.ndarray, " train"]
    test: Int[np.ndarray, " test"]
    row: Int[np.ndarray, "offsets rows"]
    shuffled: Int[np.ndarray, "offsets rows"]
    groups: Int[np.ndarray, " rows"]
    seed: int

    def rows(self, truth: Classes | Numbers) -> Int[np.ndarray, "offsets rows"]:
        """Return the rows ahead for the shuffled control; where the position fixes the target, rows are shuffled."""
        both = (self.row >= 0) & (self.shuffled >= 0)
        if not truth.fixed(self.row[both], self.shuffled[both]):
            return self.shuffled
        rng, mixed = np.random.default_rng(self.seed), self.row.copy()
        for rows in mixed:
            for side in (self.train, self.test):
                known = side[rows[side] >= 0]
                rows[known] = rng.permutation(rows[known])
        return mixed

    def target(self, latents: AnnData, name: str, most_classes: int = MOST_CLASSES) -> Classes | Numbers:
        """Return the column that is predicted, checked on the rows ahead."""
        train, test = (np.unique(self.row[:, side][self.row[:, side] >= 0]) for side in (self.train, self.test))
        return target_of(latents, name, train, test, most_classes)


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
    head: Float[np.ndarray, "k r"] | None = None,
) -> list[Scores]:
    """Fit the probes of all offsets together, score each on held-out rows, and return the scores of each offset.

    With a `head`, a vector for each class, classes are read through it.
    """
    rows = np.concatenate([ahead.row, ahead.rows(truth)]) if shuffle else ahead.row
    if isinstance(truth, Classes):
        scores, compared = _classes(X, truth, name, ahead, rows, tol, device, head), "accuracy"
    else:
        scores, compared = _numbers(X, truth, name, ahead, rows, device), "value"
    real, controls = scores[: len(ahead.offsets)], scores[len(ahead.offsets) :]
    for score, control in zip(real, controls, strict=False):
        score["shuffled"] = control["value"]
        if compared == "accuracy":
            score["shuffled_accuracy"] = control["accuracy"]
        score["selectivity"] = score[compared] - control[compared]
    return real


@torch_defaults()
def _classes(
    X: np.ndarray,
    truth: Classes,
    name: str,
    ahead: Ahead,
    rows: np.ndarray,
    tol: float,
    device: str,
    head: np.ndarray | None,
) -> list[Scores]:
    # Class k stands for all classes that no fitted row has at any offset; nothing is fitted to it.
    k = truth.classes
    codes = np.where((rows >= 0)[..., None], np.where(truth.values < 0, k, truth.values)[rows], -1)
    k += int((codes[:, ahead.test] == k).any())
    for code, offset in zip(codes, ahead.offsets, strict=False):
        fitted = code[ahead.train][code[ahead.train, 0] >= 0]
        if (fitted == fitted[0]).all():
            raise LatentsError(
                f"target {name!r} has one class ({truth.labels[fitted[0, 0]]}) {offset} steps ahead of every row to "
                "fit: leave out this offset, or read other positions"
            )
    mean, scale = standard(X[ahead.train])
    Z = torch.from_numpy(((X - mean) / scale).astype(np.float32)).to(device)
    fit, held_out = (Z[torch.from_numpy(side).to(device)] for side in (ahead.train, ahead.test))
    width = max(1, MOST_WEIGHTS // (k * len(truth.columns) * (X.shape[1] + 1)))
    weights = None
    if head is not None:
        width = max(1, BATCH_LOGITS // (BATCH * k))
        weights = torch.from_numpy(np.pad(head, ((0, k - len(head)), (0, 0))).astype(np.float32)).to(device)
    scores: list[Scores] = []
    for start in range(0, len(rows), width):
        group = codes[start : start + width]
        goal = np.concatenate(list(group[:, ahead.train].transpose(0, 2, 1))).T
        targets = torch.from_numpy(goal.copy()).to(device)
        # Through a head a few passes over all rows reach the tolerance, and each takes long.
        passes = MOST_PASSES if head is None else MOST_PASSES // 10
        fits = fit_softmax(fit, targets, k, tol=tol, max_iter=passes, seed=ahead.seed, head=weights)
        for i, code in enumerate(group):
            columns = slice(i * len(truth.columns), (i + 1) * len(truth.columns))
            read = _read(fits, columns, held_out, code[ahead.test])
            score = _score_classes(*read, code[ahead.test], code[ahead.train], ahead.groups[ahead.test], k)
            scores.append({**score, "gradient": float(fits.gradient[columns].max())})
    return scores


def _read(
    fits: Fits, columns: slice, X: Float[torch.Tensor, "test dim"], true: Int[np.ndarray, "test m"]
) -> tuple[Float[np.ndarray, "test m"], Float[np.ndarray, "test m"]]:
    """Return the probability of the true class in each row, and whether another class is likelier."""
    codes = torch.from_numpy(true.clip(0)).to(X.device)
    p, wrong = [], []
    size = max(1, MOST_LOGITS // (fits.coef.shape[1] if fits.base is None else len(fits.base)))
    for rows, code in zip(X.split(size), codes.split(size), strict=True):
        logits = fits.logits(rows, columns)
        wrong.append(logits.argmax(2) != code)
        p.append(torch.log_softmax(logits, 2).gather(2, code[..., None])[..., 0].double().exp())
    return torch.cat(p).cpu().numpy(), torch.cat(wrong).double().cpu().numpy()


def _score_classes(
    p: Float[np.ndarray, "test m"],
    wrong: Float[np.ndarray, "test m"],
    true: Int[np.ndarray, "test m"],
    fitted: Int[np.ndarray, "train m"],
    groups: Int[np.ndarray, " test"],
    k: int,
) -> Scores:
    """Score the probes of one offset, one for each of m columns of classes; -1 marks rows without a row ahead."""
    use = np.flatnonzero(true[:, 0] >= 0)
    p, wrong, true, fitted, groups = p[use], wrong[use], true[use], fitted[fitted[:, 0] >= 0], groups[use]
    n, column = len(fitted), np.arange(true.shape[1])
    counts = np.stack([np.bincount(codes, minlength=k) for codes in fitted.T])
    # Mixed with the uniform distribution, which weighs as much as one row, so that no class has probability 0.
    losses, prior = -np.log((n * p + 1 / k) / (n + 1)), -np.log((counts + 1 / k) / (n + 1))
    return {
        "value": float(losses.mean()),
        "error": ratio_error(losses.mean(1), np.ones(len(use)), groups),
        "trials": len(use),
        "accuracy": float(1 - wrong.mean()),
        "balanced_accuracy": balanced_accuracy(true, wrong, k),
        "chance": float((true == counts.argmax(1)).mean()),
        "prior": float(prior[column, true].mean()),
        "fitted": n,
        "unseen": int((counts[column, true] == 0).sum()),
    }


def _numbers(X: np.ndarray, truth: Numbers, name: str, ahead: Ahead, rows: np.ndarray, device: str) -> list[Scores]:
    values = np.where((rows >= 0)[..., None], truth.values[rows], np.nan)
    targets = values[:, ahead.train].transpose(1, 0, 2)
    if truth.gaps:
        # Columns are known on different rows then, so each is a problem.
        targets = targets.reshape(len(ahead.train), -1, 1)
    fits = fit_ridges(
        torch.from_numpy(X[ahead.train]).to(device),
        torch.from_numpy(targets.copy()).to(device),
        torch.from_numpy(folds_of(ahead.groups[ahead.train], ahead.seed)).to(device),
    )
    coefs = fits.coef.cpu().numpy().reshape(len(values), -1, X.shape[1])
    intercepts = fits.intercept.cpu().numpy().reshape(len(values), -1)
    alphas = fits.alpha.reshape(len(values), -1).median(dim=1).values
    scores: list[Scores] = []
    for i, value in enumerate(values):
        offset = ahead.offsets[i % len(ahead.offsets)]
        known = ~np.isnan(value).all(1)
        for side, chosen in {"to fit": ahead.train, "held out": ahead.test}.items():
            if not varies(value[chosen]):
                raise LatentsError(
                    f"target {name!r} is constant {offset} steps ahead of the rows {side}: R2 needs it to vary, leave "
                    "out this offset"
                )
        use = ahead.test[known[ahead.test]]
        read = X[use].astype(np.float64) @ coefs[i].T + intercepts[i]
        mistakes, spread = np.nansum(np.square(value[use] - read), 1), np.square(deviations(value[use])).sum(1)
        scores.append(
            {
                "value": float(1 - mistakes.sum() / spread.sum()),
                "error": ratio_error(mistakes, spread, ahead.groups[use]),
                "trials": len(use),
                "fitted": int(known[ahead.train].sum()),
                "penalty": float(alphas[i]),
            }
        )
    return scores


def ratio_error(above: Float[np.ndarray, " n"], below: Float[np.ndarray, " n"], groups: Int[np.ndarray, " n"]) -> float:
    """Return the standard error of ``sum(above) / sum(below)`` over draws of whole groups; NaN for a single group."""
    _, which = np.unique(groups, return_inverse=True)
    return clustered(np.bincount(which, above), np.bincount(which, below))["error"]
