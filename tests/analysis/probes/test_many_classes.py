"""Targets of more classes than a probe tells apart, such as the tokens of a real vocabulary."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from anndata import AnnData

from nextlat_viz.analysis import probe, probe_mistakes, probe_positions, read_out
from nextlat_viz.analysis.probes.targets import MOST_CLASSES, OTHER
from nextlat_viz.latents import extract


@pytest.fixture(scope="module")
def words() -> AnnData:
    """Latents that are the embeddings of 600 tokens with Zipf's frequencies."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, 601)
    tokens = rng.choice(600, (120, 30), p=share / share.sum())
    model = torch.nn.Sequential(torch.nn.Embedding(600, 24))
    return extract(model, tokens, ["0"], vocabulary=[f"w{i}" for i in range(600)], progress=False)


def test_rare_classes_are_one_class_and_the_note_says_so(words: AnnData, capsys: pytest.CaptureFixture[str]) -> None:
    result = probe(words, "token", most_classes=20)
    assert result.names[-1] == OTHER
    assert len(result.names) == 20
    assert set(result.names[:8]) <= {f"w{i}" for i in range(30)}
    assert "The 19 most frequent of" in result.note
    assert result.score > 0.9 > result.shuffled
    assert result.chance is not None
    assert result.chance < result.score
    assert capsys.readouterr().err == ""
    assert probe_mistakes(words, result)[result.test_rows].mean() == pytest.approx(1 - result.score)
    assert probe_positions(words, result)["rows"].sum() == len(result.test_rows)
    rare = int(np.flatnonzero(~words.obs["token"].isin(result.names))[0])
    assert read_out(words, result, rare).truth.tolist() == [0.0] * 19 + [1.0]


def test_many_classes_show_progress(words: AnnData, capsys: pytest.CaptureFixture[str]) -> None:
    result = probe(words, "token", most_classes=150, n_bootstrap=5)
    assert "probe of token, 150 classes" in capsys.readouterr().err
    assert result.merged > 0
    probe(words, "token", most_classes=150, n_bootstrap=5, progress=False)
    assert capsys.readouterr().err == ""
    assert "one class" not in probe(words, "position").note
    assert MOST_CLASSES == 500
    with pytest.raises(ValueError, match="most_classes"):
        probe(words, "token", most_classes=1)
