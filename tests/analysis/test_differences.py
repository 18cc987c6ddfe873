"""Differences between two models, compared with literal formulas and on latents of known difference."""

from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData

from nextlat_viz.analysis import (
    jensen_shannon,
    layer_similarity,
    linear_cka,
    nearest_rows,
    next_token_scores,
    prediction_differences,
)
from nextlat_viz.analysis._rows import prefixes
from nextlat_viz.analysis.differences import largest
from nextlat_viz.errors import LatentsError
from nextlat_viz.latents.table import PROBS, column, site, sites, tokens_of
from tests.synthetic import make_latents

N, LENGTH = 30, 8


@pytest.fixture(scope="module")
def pair() -> list[AnnData]:
    return [make_latents(label=label, n=N, length=LENGTH, dim=dim) for label, dim in (("NextLat", 16), ("mine", 12))]


def test_jensen_shannon_equals_its_formula() -> None:
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(5), size=(2, 7))
    m = (p + q) / 2
    literal = [(sum(a * np.log2(a / c) + b * np.log2(b / c) for a, b, c in zip(*laws, strict=True))) / 2
               for laws in zip(p, q, m, strict=True)]  # fmt: skip
    np.testing.assert_allclose(jensen_shannon(p, q), literal)
    np.testing.assert_allclose(jensen_shannon(q, p), literal)
    assert jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 1


def test_layer_similarity_equals_linear_cka(pair: list[AnnData]) -> None:
    reports: list[int] = []
    table = layer_similarity(*pair, report=lambda done, total: reports.append(total))
    assert list(table.index) == sites(pair[0])
    assert list(table.columns) == sites(pair[1])
    assert reports == [len(table)] * len(table)
    for down in table.index:
        for across in table.columns:
            # Kornblith et al. 2019, by the Gram matrices of the rows.
            A, B = (site(item, name).astype(float) for item, name in zip(pair, (down, across), strict=True))
            centre = np.eye(len(A)) - 1 / len(A)
            K, L = centre @ A @ A.T @ centre, centre @ B @ B.T @ centre
            literal = (K * L).sum() / np.sqrt((K * K).sum() * (L * L).sum())
            assert table.loc[down, across] == pytest.approx(literal)
            assert table.loc[down, across] == pytest.approx(linear_cka(A, B))
    some = layer_similarity(*pair, max_rows=100, seed=1)
    assert some.equals(layer_similarity(*pair, max_rows=100, seed=1))
    assert not some.equals(table)


def test_layer_similarity_refuses_tables_that_do_not_match(pair: list[AnnData]) -> None:
    with pytest.raises(LatentsError, match="same episodes"):
        layer_similarity(pair[0], make_latents(n=N, length=LENGTH, seed=1))
    with pytest.raises(LatentsError, match="look similar: extract more"):
        layer_similarity(*pair, max_rows=10)
    flat = pair[1].copy()
    flat.layers["embed"][:] = 1.0
    assert layer_similarity(pair[0], flat)["embed"].isna().all()


def test_the_rows_that_were_changed_are_ranked_first(pair: list[AnnData]) -> None:
    first, other = pair[0], pair[0].copy()
    changed = {17: 0.9, 100: 0.5, 203: 0.2}
    for row, share in changed.items():
        other.obsm[PROBS][row] = (1 - share) * other.obsm[PROBS][row] + share * other.obsm[PROBS][row][::-1]
    bits = prediction_differences(first, other)
    assert set(np.flatnonzero(bits)) <= set(changed)
    rows = np.arange(10, 240)
    top = rows[largest(first, rows, bits[rows], 5)]
    assert set(top) <= set(changed)
    assert (np.diff(bits[top]) <= 0).all()
    assert len(largest(first, rows, prediction_differences(first, first, rows), 5)) == 0
    bare = first.copy()
    del bare.obsm[PROBS]
    with pytest.raises(LatentsError, match="no next-token probabilities"):
        prediction_differences(first, bare)


def test_each_history_is_ranked_once(pair: list[AnnData]) -> None:
    rows = np.arange(pair[0].n_obs)
    top = largest(pair[0], rows, np.ones(len(rows)), len(rows))
    assert len(top) == len(set(prefixes(pair[0])))
    values = np.where(rows == 3, np.nan, rows.astype(float))
    assert 3 not in largest(pair[0], rows, values, len(rows))


def test_surprise_and_entropy_equal_their_formulas(pair: list[AnnData]) -> None:
    scores, tokens, probs = next_token_scores(pair[0]), tokens_of(pair[0]), pair[0].obsm[PROBS]
    for row in (0, 5, 7, 100):
        episode, position = column(pair[0], "episode")[row], column(pair[0], "position")[row]
        law = probs[row].astype(float)
        assert scores["entropy"].iloc[row] == pytest.approx(-(law * np.log2(law)).sum())
        if position == LENGTH:
            assert np.isnan(scores["surprise"].iloc[row])
        else:
            assert scores["surprise"].iloc[row] == pytest.approx(-np.log2(law[tokens[episode, position]]))


def test_nearest_rows_equals_a_literal_search(pair: list[AnnData]) -> None:
    latents, row = pair[0], 50
    near = nearest_rows(latents, row, k=5)
    X = latents.X.astype(float)
    distance, history = np.linalg.norm(X - X[row], axis=1), prefixes(latents)
    assert history[row] not in history[near["row"]]
    assert len(set(history[near["row"]])) == 5
    others = [distance[history == item].min() for item in set(history) - {history[row]}]
    np.testing.assert_allclose(near["distance"], np.sort(others)[:5])
    assert column(latents, "episode")[near["row"]].tolist() == near["episode"].tolist()
    with pytest.raises(LatentsError, match="row"):
        nearest_rows(latents, 10_000)
