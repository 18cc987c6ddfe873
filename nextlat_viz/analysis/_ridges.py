"""Many ridge regressions of the same rows: second moments are all they need, and folds and penalties share them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor


class Ridges(NamedTuple):
    """``values = X @ coef[i].T + intercept[i]`` for problem i, with the penalty that cross-validation chose for it."""

    coef: Float64[Tensor, "problems m dim"]
    intercept: Float64[Tensor, "problems m"]
    alpha: Float64[Tensor, " problems"]


def fit_ridges(
    X: Float[Tensor, "n dim"],
    targets: Float[Tensor, "n problems m"],
    fold: Int[Tensor, " n"],
    alphas: tuple[float, ...],
) -> Ridges:
    """Fit ridge regressions of the same rows on standardised columns, each with the alpha that its folds prefer.

    Each is ``make_pipeline(StandardScaler(), Ridge(alpha))`` of scikit-learn; rows where a problem's target is NaN are
    left out. Folds, penalties and scores are all worked out from second moments, so the rows are read once.
    """
    folds = int(fold.max()) + 1
    wide = X.double()
    centre = wide.mean(0)
    wide = torch.cat([wide - centre, torch.ones_like(wide[:, :1])], 1)
    dim = X.shape[1]
    coefs, intercepts, chosen = [], [], []
    for Y in targets.double().unbind(1):
        used = ~Y.isnan().any(1)
        both = torch.cat([wide[used], Y[used]], 1)
        its = fold[used]
        parts = torch.stack([(rows := both[its == f]).T @ rows for f in range(folds)])
        total = parts.sum(0)
        mean = total[:dim, dim] / total[dim, dim]
        spread = (total.diagonal()[:dim] / total[dim, dim] - mean.square()).clamp(min=0).sqrt()
        scale = torch.where(spread > 1e-10 * centre.abs().clamp(min=1), spread, 1.0)
        errors = torch.zeros(len(alphas), dtype=torch.float64, device=X.device)
        if len(alphas) > 1:
            for part in parts:
                for i, (B, b) in enumerate(_ridge_path(total - part, dim, scale, alphas)):
                    errors[i] += _squares(part, dim, B, b)
        alpha = alphas[int(errors.argmin())]
        ((B, b),) = _ridge_path(total, dim, scale, (alpha,))
        coefs.append(B.T)
        intercepts.append(b - centre @ B)
        chosen.append(alpha)
    return Ridges(torch.stack(coefs), torch.stack(intercepts), torch.tensor(chosen, dtype=torch.float64))


def _ridge_path(moments: Tensor, dim: int, scale: Tensor, alphas: tuple[float, ...]) -> list[tuple[Tensor, Tensor]]:
    """Slopes (dim, m) and intercepts in raw units, for each alpha, from the moments of ``[X, 1, Y]``."""
    count = moments[dim, dim]
    x, y = moments[dim, :dim] / count, moments[dim, dim + 1 :] / count
    XX = (moments[:dim, :dim] - count * torch.outer(x, x)) / torch.outer(scale, scale)
    XY = (moments[:dim, dim + 1 :] - count * torch.outer(x, y)) / scale[:, None]
    values, vectors = torch.linalg.eigh(XX)
    projected = vectors.T @ XY
    path = []
    for alpha in alphas:
        B = vectors @ (projected / (values.clamp(min=0) + alpha)[:, None]) / scale[:, None]
        path.append((B, y - x @ B))
    return path


def _squares(moments: Tensor, dim: int, B: Tensor, b: Tensor) -> Tensor:
    """Sum of squared errors of ``X @ B + b`` over the rows behind the moments."""
    m = len(b)
    map_ = torch.cat([-B, -b[None], torch.eye(m, dtype=B.dtype, device=B.device)])
    return (map_ * (moments @ map_)).sum()
