"""Probes of tokens through an output head, where the law is known and where a full probe can be fitted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy.special import logsumexp, softmax

import nextlat_viz as nlv
from nextlat_viz.analysis import split_episodes, tokens_ahead
from nextlat_viz.analysis.probes.softmax import fit_softmax
from nextlat_viz.analysis.probes.sweep import probe_sweep
from nextlat_viz.errors import UnknownNameError
from nextlat_viz.latents import extract

TOKENS, WIDTH = 300, 6


class Chain:
    """A Markov chain of many tokens whose law is a linear map of the latent, read through a head."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.latent, self.head = rng.normal(size=(TOKENS, WIDTH)), rng.normal(size=(TOKENS, WIDTH))
        self.logits = self.latent @ rng.normal(size=(WIDTH, WIDTH)) @ self.head.T / 3
        p = softmax(self.logits, 1)
        self.tokens = rng.integers(TOKENS, size=(200, 40))
        for t in range(1, 40):
            self.tokens[:, t] = [rng.choice(TOKENS, p=p[token]) for token in self.tokens[:, t - 1]]

    def loss(self, now: np.ndarray, following: np.ndarray) -> float:
        """Return the cross-entropy of the true law."""
        log_p = self.logits - logsumexp(self.logits, axis=1, keepdims=True)
        return float(-log_p[now, following].mean())


@pytest.fixture(scope="module")
def chain() -> Chain:
    return Chain()


@pytest.fixture(scope="module")
def latents(chain: Chain) -> AnnData:
    embedding = torch.nn.Embedding.from_pretrained(torch.tensor(chain.latent, dtype=torch.float32))
    return extract(torch.nn.Sequential(embedding), chain.tokens, ["0"], progress=False)


def test_the_probe_finds_the_law_and_the_control_finds_frequencies(chain: Chain, latents: AnnData) -> None:
    sweep = probe_sweep(latents, "token", "hidden", (1,), head=chain.head, untrained=noise(latents), progress=False)
    (row,) = sweep.table.to_dict("records")
    _, test = split_episodes(latents)
    episodes = np.unique(latents.obs["episode"].to_numpy()[test])
    best = chain.loss(chain.tokens[episodes, :-1], chain.tokens[episodes, 1:])
    assert row["unseen"] == 0
    assert row["trials"] == len(episodes) * 39
    assert best - 0.05 < row["value"] < best + 0.08
    assert row["value"] < row["prior"] - 0.5
    for control in ("shuffled", "untrained"):
        assert row[control] == pytest.approx(row["prior"], abs=0.12)
    assert row["selectivity"] > 0.05


def noise(latents: AnnData) -> AnnData:
    table = latents.copy()
    table.X = np.random.default_rng(1).normal(size=table.X.shape).astype(np.float32)
    return table


def test_a_head_of_full_rank_gives_the_full_probe() -> None:
    checkpoint = nlv.load("rrxor/nextlat")
    table = nlv.extract(checkpoint, checkpoint.world.sample(150, 12, seed=1), [], progress=False)
    full, through = (
        probe_sweep(table, "token", "hidden", (1, 2), head=head, tol=1e-3, progress=False).table
        for head in (None, checkpoint.network.backbone.head.weight)
    )
    for name in ("value", "shuffled", "prior"):
        np.testing.assert_allclose(through[name], full[name], atol=2e-3)
    np.testing.assert_allclose(through["accuracy"], full["accuracy"], atol=5e-3)


def test_the_objective_equals_that_of_the_full_fit() -> None:
    rng = np.random.default_rng(3)
    X, targets = torch.tensor(rng.normal(size=(400, 4))), torch.tensor(rng.integers(6, size=(400, 2)))
    whole = fit_softmax(X, targets, 6, tol=1e-7, max_iter=1000)
    through = fit_softmax(X, targets, 6, tol=1e-7, max_iter=1000, head=torch.eye(6, dtype=X.dtype))
    assert (through.coef.shape, through.head.shape) == ((2, 7, 4), (6, 7))
    p, q = (fits.logits(X).softmax(2) for fits in (whole, through))
    assert torch.allclose(p, q, atol=1e-3)
    # Many rows are read in batches first.
    many = fit_softmax(X.repeat(20, 1), targets.repeat(20, 1), 6, C=1 / 20, head=torch.eye(6, dtype=X.dtype))
    assert torch.allclose(many.logits(X).softmax(2), p, atol=0.03)


def test_tokens_ahead_reads_through_the_unembedding() -> None:
    checkpoint = nlv.load("mess3/nextlat")
    full, through = (tokens_ahead(checkpoint, [1, 2], 100, through=name).table for name in ("auto", "unembedding"))
    np.testing.assert_allclose(through["value"], full["value"], atol=5e-3)
    np.testing.assert_allclose(through["untrained"], full["untrained"], atol=5e-3)
    of_episodes = tokens_ahead(checkpoint, [1, 2], nlv.latents.heldout(checkpoint, 100)).table
    pd.testing.assert_frame_equal(of_episodes, full)
    with pytest.raises(UnknownNameError, match="through"):
        tokens_ahead(checkpoint, [1], 100, through="unembeding")


def test_heads_of_the_wrong_shape_are_refused(chain: Chain, latents: AnnData) -> None:
    options = {"sites": "hidden", "offsets": (1,), "progress": False}
    with pytest.raises(ValueError, match=r"head has 5 tokens, and token \d+ occurs: give the head of this model"):
        probe_sweep(latents, head=chain.head[:5], **options)
    with pytest.raises(ValueError, match=r"head must be an array of \(tokens, width\), got shape \(300,\)"):
        probe_sweep(latents, head=chain.head[:, 0], **options)
    with pytest.raises(ValueError, match="a list with one per run: got 2 for 1 runs"):
        probe_sweep(latents, head=[chain.head, chain.head], **options)
    with pytest.raises(ValueError, match="head reads tokens, and target is 'position'"):
        probe_sweep(latents, "position", head=chain.head, **options)
