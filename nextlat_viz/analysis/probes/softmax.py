"""Many softmax regressions of the same rows, fitted at once: most of the work of a sweep of probes.

The problems share everything but their targets. With their weights side by side, one matrix product gives all logits
and one more all gradients. Rows are read in pieces small enough for the processor's cache.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nextlat_viz.analysis._rows import few_threads
from nextlat_viz.models.torch_state import torch_defaults

# Adam: rows of a batch, least passes and steps, and the rate at the start.
BATCH, EPOCHS, STEPS, RATE, RATE_THROUGH = 512, 6, 300, 0.1, 0.03
# Fewer rows are fitted by L-BFGS alone, whose passes over all rows are cheap then.
SMALL = 8 * BATCH
# L-BFGS: steps remembered, and times a step may be shortened.
MEMORY, TRIES = 10, 20
# Logits computed at a time.
PIECE = 1 << 18
# Logit of a class without a row: its probability is too low for the fit to move it.
ABSENT = -30.0


class Fits(NamedTuple):
    """``logits = X @ coef[i].T + intercept[i]`` for problem i, read through the `head` where there is one.

    ``gradient`` is the largest entry of the objective's gradient, 0 at the optimum; ``passes`` counts whole passes of
    L-BFGS over the rows; ``base`` are the logits of the classes' frequencies.
    """

    coef: Float[Tensor, "problems r dim"]
    intercept: Float[Tensor, "problems r"]
    gradient: Float[Tensor, " problems"]
    passes: int
    head: Float[Tensor, "k r"] | None = None
    base: Float[Tensor, " k"] | None = None

    def logits(self, X: Float[Tensor, "n dim"], which: slice = slice(None)) -> Float[Tensor, "n some k"]:
        """Logits of all classes for some of the problems."""
        read = torch.einsum("nd,mrd->nmr", X, self.coef[which]) + self.intercept[which]
        return read if self.head is None or self.base is None else read @ self.head.T + self.base


@torch_defaults()
def fit_softmax(
    X: Float[Tensor, "n dim"],
    targets: Int[Tensor, "n problems"],
    k: int,
    C: float = 1.0,
    tol: float = 1e-4,
    max_iter: int = 200,
    seed: int = 0,
    head: Float[Tensor, "k r"] | None = None,
) -> Fits:
    """Fit multinomial logistic regressions of the same rows, one for each column of `targets`, all at once.

    The objective is that of scikit-learn's ``LogisticRegression(C=C)``: the mean cross-entropy over the rows of the
    problem plus ``|coef|^2 / (2 C rows)``, in the precision of `X`. Columns should be of similar size; the fit itself
    decorrelates them.

    Many rows are first read in shuffled batches, by Adam with a rate that falls to zero along a cosine: six passes
    come as close to the optimum as fifty of a batch method. L-BFGS over all rows then removes the rest of the gradient,
    until none of its entries is larger than `tol`, or for `max_iter` iterations.

    `targets` are classes below `k`, and -1 where the problem leaves the row out. A class without a row in a problem
    gets a probability of almost zero there. `seed` is that of the order of the batches.

    With a `head`, a vector for each class, the logits are ``head @ (M x + c) + (a x + b) log frequency``, and M, c, a
    and b are fitted: r x dim weights, however many classes there are. The objective is the same, of all coefficients
    of x. The head is whitened, so that the objective has about the same curvature in all directions.
    """
    n, dim = X.shape
    problem = _Problem(X, targets, k, C, head)
    V = problem.start()
    with few_threads(n * targets.shape[1] * k):
        if n >= SMALL:
            V = _adam(problem, V, seed)
        V, gradient, passes = _lbfgs(problem, V, tol, max_iter)
    W = (problem.back @ V.flatten(1)).reshape(V.shape).permute(1, 2, 0)
    intercept = W[..., dim] - W[..., :dim] @ problem.centre
    return Fits(W[..., :dim], intercept, gradient, passes, problem.head, problem.base)


class _Problem:
    """The objective in decorrelated coordinates V: ``W = back @ V``, rows ``Z = [X - centre, 1] @ back``."""

    head: Tensor | None = None
    base: Tensor | None = None

    def __init__(self, X: Tensor, targets: Tensor, k: int, C: float, head: Tensor | None = None) -> None:
        self.k, self.targets = k, targets
        self.counts = (targets >= 0).sum(0)
        self.complete = bool((self.counts == len(X)).all())
        # scikit-learn fits two classes by one vector of weights, whose penalty is twice that of its two halves.
        two = (self.rows_of_classes() > 0).sum(1) == 2
        self.decay = torch.where(two, 2, 1) / (C * self.counts.double())
        wide = X.double()
        centre = wide.mean(0)
        wide = torch.cat([wide - centre, torch.ones_like(wide[:, :1])], 1)
        moments = wide.T @ wide / len(wide)
        # Without this, directions that hardly vary, or that the penalty keeps small anyway, would be blown up.
        moments.diagonal().add_(1e-5 * moments.diagonal()[:-1].mean() + self.decay.min())
        # The inverse of the Cholesky factor, so that back @ back.T is the inverse of the moments.
        self.ahead = torch.linalg.cholesky(moments).T
        identity = torch.eye(len(moments), dtype=wide.dtype, device=X.device)
        back = torch.linalg.solve_triangular(self.ahead, identity, upper=True)
        self.Z = (wide @ back).to(X.dtype)
        self.penalty = (back[:-1].T @ back[:-1]).to(X.dtype)
        self.back, self.ahead, self.centre = back.to(X.dtype), self.ahead.to(X.dtype), centre.to(X.dtype)
        self.decay = self.decay.to(X.dtype)
        if head is not None:
            self._whiten(head)

    def _whiten(self, head: Tensor) -> None:
        share = self.rows_of_classes().sum(0).double()
        share /= share.sum()
        base = torch.where(share > 0, share.clamp(min=1e-300).log(), ABSENT)
        # One more column, so that a probe can take back the frequencies that it starts from.
        wide = torch.cat([head.double(), torch.where(share > 0, base, 0)[:, None]], 1)
        wide -= share @ wide
        # The curvature of the objective: of the loss at the frequencies, and of the penalty.
        moments = (wide.T * (share + float(self.decay.min()))) @ wide
        moments.diagonal().add_(1e-6 * moments.diagonal().mean())
        lower = torch.linalg.cholesky(moments)
        self.head = torch.linalg.solve_triangular(lower, wide.T, upper=False).T.to(self.Z.dtype).contiguous()
        self.base = base.to(self.Z.dtype)

    def rows_of_classes(self) -> Tensor:
        """Number of rows of each class, (problems, k)."""
        return torch.stack([torch.bincount(column[column >= 0], minlength=self.k) for column in self.targets.T])

    def start(self) -> Tensor:
        """Weights of zero, and intercepts that give each class its frequency."""
        rows = self.rows_of_classes()
        if self.head is not None:
            return self.Z.new_zeros(len(self.back), len(rows), self.head.shape[1])
        logits = torch.where(rows > 0, rows.double().clamp(min=1).log() - rows.sum(1, keepdim=True).log(), ABSENT)
        W = torch.zeros(len(self.back), len(rows), self.k, dtype=self.Z.dtype, device=self.Z.device)
        W[-1] = logits.to(W.dtype)
        return (self.ahead @ W.flatten(1)).view(W.shape)

    def residuals(self, Z: Tensor, V: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities minus the one-hot truth, 0 in rows a problem leaves out; and the probability of the truth."""
        logits = (Z @ V.flatten(1)).view(len(Z), -1, V.shape[2])
        if self.head is not None and self.base is not None:
            logits = (logits @ self.head.T).add_(self.base)
        p = torch.softmax(logits, 2)
        true = targets.clamp(min=0).unsqueeze(2)
        hit = p.gather(2, true)
        if self.complete:
            p.scatter_add_(2, true, torch.full_like(hit, -1))
        else:
            used = (targets >= 0).unsqueeze(2).to(p.dtype)
            hit = hit * used + (1 - used)
            p.mul_(used).scatter_add_(2, true, -used)
        return p, hit.squeeze(2)

    def slope(self, Z: Tensor, p: Tensor) -> Tensor:
        """Sum over rows of the gradient of their loss, (dim + 1, problems, r), from what `residuals` returns."""
        back = p if self.head is None else p @ self.head
        return (Z.T @ back.flatten(1)).view(len(self.back), *back.shape[1:])

    def shrunk(self, V: Tensor) -> Tensor:
        """Gradient of half the sum of squared coefficients of all classes, (dim + 1, problems, r)."""
        shrunk = (self.penalty @ V.flatten(1)).view(V.shape)
        return shrunk if self.head is None else shrunk @ (self.head.T @ self.head)

    def __call__(self, V: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """Objective (float64) and gradient of some of the problems, over all rows."""
        loss = torch.zeros(len(which), dtype=torch.float64, device=V.device)
        gradient = torch.zeros_like(V)
        for at in torch.arange(len(self.Z), device=V.device).split(max(256, PIECE // (len(which) * self.k))):
            rows = slice(int(at[0]), int(at[-1]) + 1)
            p, hit = self.residuals(self.Z[rows], V, self.targets[rows][:, which])
            loss -= hit.clamp(min=1e-30).log().sum(0, dtype=torch.float64)
            gradient += self.slope(self.Z[rows], p)
        gradient /= self.counts[which, None]
        shrunk = self.shrunk(V) * self.decay[which, None]
        return loss / self.counts[which] + _dot(V, shrunk).double() / 2, gradient + shrunk

    def steepest(self, gradient: Tensor) -> Tensor:
        """Largest entry of each problem's gradient, in the columns' own units."""
        return (self.ahead.T @ gradient.flatten(1)).view(gradient.shape).abs().amax((0, 2))


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((0, 2))


def _adam(problem: _Problem, V: Tensor, seed: int) -> Tensor:
    order = torch.Generator().manual_seed(seed)
    n = len(problem.Z)
    share = (n / problem.counts.to(V.dtype) / BATCH)[:, None]
    mean, square = torch.zeros_like(V), torch.zeros_like(V)
    epochs = max(EPOCHS, math.ceil(STEPS / (n // BATCH)))
    steps, step = epochs * (n // BATCH), 0
    # Through a head a step in one weight moves all logits.
    top = RATE if problem.head is None else RATE_THROUGH
    for _ in range(epochs):
        shuffled = torch.randperm(n, generator=order).to(V.device)
        for rows in shuffled[: n // BATCH * BATCH].split(BATCH):
            step += 1
            Z = problem.Z[rows]
            p, _ = problem.residuals(Z, V, problem.targets[rows])
            gradient = problem.slope(Z, p) * share
            gradient += problem.shrunk(V) * problem.decay[:, None]
            mean.lerp_(gradient, 0.1)
            square.lerp_(gradient.square(), max(0.02, 1 / step))
            rate = top * (1 + math.cos(math.pi * step / steps)) / 2
            V = V.addcdiv(mean / (1 - 0.9**step), square.sqrt() + 1e-4, value=-rate)
    return V


def _lbfgs(problem: _Problem, V: Tensor, tol: float, max_iter: int) -> tuple[Tensor, Tensor, int]:
    """Minimise all problems at once, each with its own step length; those that are solved are left out."""
    which = torch.arange(V.shape[1], device=V.device)
    result, steepest = V.clone(), torch.zeros(V.shape[1], dtype=V.dtype, device=V.device)
    value, gradient = problem(V, which)
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []
    stuck = torch.zeros_like(which, dtype=torch.bool)
    for passes in range(max_iter + 1):
        steepest[which], result[:, which] = problem.steepest(gradient), V
        open_ = (steepest[which] > tol) & ~stuck
        if passes == max_iter or not open_.any():
            break
        if not open_.all():
            which, V, value, gradient = which[open_], V[:, open_], value[open_], gradient[:, open_]
            pairs = [(s[:, open_], y[:, open_], r[open_]) for s, y, r in pairs]
        step = _direction(gradient, pairs)
        # Rounding can turn a direction uphill; that of steepest descent never is.
        uphill = _dot(gradient, step) >= 0
        step[:, uphill] = -gradient[:, uphill]
        length, after, slopes = _search(problem, which, V, value, gradient, step)
        moved, turned = length[:, None] * step, slopes - gradient
        curved = _dot(moved, turned)
        pairs = [*pairs, (moved, turned, torch.where(curved > 1e-20, 1 / curved.clamp(min=1e-20), 0))][-MEMORY:]
        stuck = length == 0
        V, value, gradient = V + moved, after, slopes
    return result, steepest, passes


def _direction(gradient: Tensor, pairs: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Two loops over the last steps and the changes of the gradient (Nocedal & Wright, algorithm 7.4)."""
    d, along = gradient.clone(), []
    for s, y, r in reversed(pairs):
        along.append(r * _dot(s, d))
        d -= along[-1][:, None] * y
    if pairs:
        s, y, r = pairs[-1]
        # Without a usable pair, scale by Boehning's bound on the curvature.
        d *= torch.where(r > 0, _dot(s, y) / _dot(y, y).clamp(min=1e-30), 2)[:, None]
    else:
        d *= 2
    for (s, y, r), a in zip(pairs, reversed(along), strict=True):
        d += (a - r * _dot(y, d))[:, None] * s
    return -d


def _search(
    problem: _Problem, which: Tensor, V: Tensor, value: Tensor, gradient: Tensor, step: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Shorten each problem's step until its objective falls enough (Armijo); length 0 where it never does."""
    slope = _dot(gradient, step).double()
    noise = 4 * torch.finfo(V.dtype).eps * value.abs()
    length = torch.zeros(len(value), dtype=V.dtype, device=V.device)
    after, slopes = value.clone(), gradient.clone()
    left, t = torch.arange(len(value), device=V.device), 1.0
    for _ in range(TRIES):
        reached, descent = problem(V[:, left] + t * step[:, left], which[left])
        good = reached <= value[left] + 1e-4 * t * slope[left] + noise[left]
        here = left[good]
        length[here], after[here], slopes[:, here] = t, reached[good], descent[:, good]
        left = left[~good]
        if not len(left):
            break
        t *= 0.4
    return length, after, slopes
