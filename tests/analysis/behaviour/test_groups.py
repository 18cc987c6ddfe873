from __future__ import annotations

import numpy as np
import pytest
import torch

from nextlat_viz import worlds
from nextlat_viz.analysis import state_tracking
from nextlat_viz.decoding import UniformLegal
from nextlat_viz.latents import HELDOUT_SEED
from nextlat_viz.training import Checkpoint, load
from tests.analysis.models import Given, fresh

WORLD = worlds.get("a5")


@pytest.fixture(scope="module")
def exact() -> Checkpoint:
    """A transformer that repeats the token it has read, and a psi that multiplies."""
    checkpoint = fresh(WORLD, start_token=False)
    backbone, size = checkpoint.model.backbone, len(WORLD.vocabulary)
    table = torch.as_tensor(WORLD.table)
    with torch.no_grad():
        for weight in (backbone.embed.weight, backbone.head.weight):
            weight.copy_(torch.eye(size, backbone.config.dim))
        for block in backbone.blocks:
            block.attention.out.weight.zero_()
            block.mlp.down.weight.zero_()

    def multiply(hidden: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        label, token = backbone.head(hidden).argmax(-1), embedding[..., :size].argmax(-1)
        return backbone.norm(backbone.embed(table[label, token]))

    checkpoint.model.psi = Given(multiply)
    return checkpoint


def test_a_psi_that_multiplies_tracks_every_state(exact: Checkpoint) -> None:
    result = state_tracking(exact, lengths=(1, 2, 12, 40), n=200, progress=False)
    table = result.table.set_index(["length", "reader"])
    episodes = WORLD.sample(200, 40, seed=HELDOUT_SEED, split="test")
    for length in (1, 2, 12, 40):
        assert table.loc[(length, "psi"), "value"] == 1
        repeated = episodes.tokens[:, length - 1] == episodes.targets[:, length - 1]
        assert table.loc[(length, "transformer"), "value"] == repeated.mean()
    always = (episodes.tokens == episodes.targets).cumprod(axis=1).mean(axis=0)
    assert table.loc[(2, "transformer"), "all_right"] == pytest.approx(always[1])
    assert table.loc[(40, "psi"), "all_right"] == 1
    assert result.table["trained"].eq(result.table["length"] <= 12).all()
    assert result.references["chance"] == pytest.approx(1 / 60)


def test_models_without_psi_and_controls_have_one_reader() -> None:
    models = [fresh(WORLD, "next_token"), UniformLegal(WORLD)]
    result = state_tracking(models, lengths=[12], n=200, progress=False).table
    assert result["reader"].tolist() == ["transformer", "uniform legal"]
    assert (result["value"] < 0.1).all()


def test_wrong_arguments_are_refused(exact: Checkpoint) -> None:
    with pytest.raises(ValueError, match="lengths=0 must be at least 1"):
        state_tracking(exact, lengths=(3, 0))
    with pytest.raises(ValueError, match="state tracking is measured on GroupWorld"):
        state_tracking(load("rrxor/nextlat"))
    with pytest.raises(ValueError, match="n=0"):
        state_tracking(exact, n=0)


def test_a_single_length_of_one_token(exact: Checkpoint) -> None:
    result = state_tracking(exact, lengths=[1], n=50, progress=False).table
    assert len(result) == 2
    np.testing.assert_array_equal(result["value"], 1)
