"""Presets: those of the paper equal its table, compact ones are small, and every world has all of them."""

from __future__ import annotations

import pytest
import torch

from nextlat_viz import worlds
from nextlat_viz.models import NextLat, Transformer, TransformerConfig
from nextlat_viz.training.config import PRESETS, TrainConfig, preset_table, resolve_config
from nextlat_viz.worlds.groups import GroupWorld

# arXiv:2511.05963, Table 5: steps, batch, rate, decay, clip, layers, heads, D, lambdas, psi, d.
TABLE_5 = {
    ("paper", "taxi"): (400_000, 256, 1e-4, 0.01, 0, 48, 8, 384, 1, 0.1, 1536, 8),
    ("paper", "countdown"): (100_000, 1024, 3e-4, 0.1, 1, 12, 12, 768, 2, 1, 768, 8),
    ("paper", "path_star"): (20_000, 512, 5e-4, 0.1, 100, 12, 6, 384, 1, 1, 384, 3),
    ("paper", "text"): (100_000, 256, 3e-4, 0.1, 1, 8, 8, 768, 1, 1, 2048, 8),
    ("paper", "group"): (400_000, 1024, 1e-4, 0.01, 1, 2, 8, 512, 1, 0, 1024, 1),
    ("paper_web", "default"): (191_000, 512, 4e-4, 0.1, 1, 22, 16, 2048, 1, 1, 6528, 2),
}


@pytest.mark.parametrize("where", list(TABLE_5))
def test_paper_presets_equal_table_5(where):
    preset, world = where
    config = PRESETS[preset][world]
    result = (
        *(config.steps, config.batch_size, config.learning_rate, config.weight_decay, config.grad_clip),
        *(config.layers, config.heads, config.dim, config.lambda_h, config.lambda_kl, config.psi_width),
        config.horizon,
    )
    assert result == TABLE_5[where]
    assert (config.beta1, config.beta2) == (0.9, 0.95)
    assert config.mlp_dim % 64 == 0
    assert 0 <= config.mlp_dim - 8 / 3 * config.dim < 64
    assert PRESETS["paper"]["path_star"].horizon == worlds.get("path_star").spec["nodes_per_arm"] - 2


@pytest.mark.parametrize("world", [*worlds.names(), "text"])
def test_compact_checkpoints_are_under_16_megabytes(world):
    table = PRESETS["compact"]
    config = table["text"] if world == "text" else resolve_config("compact", worlds.get(world), {})
    vocabulary = 1000 if world == "text" else len(worlds.get(world).vocabulary)
    sizes = config.model_dump(include={"context", "layers", "heads", "dim", "mlp_dim"})
    with torch.device("meta"):
        backbone = Transformer(TransformerConfig(vocabulary_size=vocabulary, **sizes))
        model = NextLat(backbone, config.horizon, psi_width=config.psi_width)
    assert 2 * sum(parameter.numel() for parameter in model.parameters()) < 16e6
    assert config.storage == "float16"


def test_every_preset_works_for_every_world():
    for preset, table in PRESETS.items():
        assert "default" in table
        for config in table.values():
            assert TrainConfig.model_validate(config.model_dump()) == config
        for name in worlds.names():
            config = resolve_config(preset, worlds.get(name), {"batch_size": 3})
            assert config.batch_size == 3
            assert config.dim % (2 * config.heads) == 0
            assert config.warmup_steps + config.decay_steps <= config.steps


def test_a_users_group_has_the_preset_of_groups():
    turns = GroupWorld("turns", [[0, 1, 2], [1, 2, 0], [2, 0, 1]], ["0", "1", "2"], [1])
    for preset in PRESETS:
        assert resolve_config(preset, turns, {}) == resolve_config(preset, worlds.get("a5"), {})
    assert resolve_config("paper", turns, {}).lambda_kl == 0


def test_presets_lists_all_presets():
    table = preset_table()
    assert len(table) == sum(map(len, PRESETS.values()))
    assert table.columns.tolist()[:5] == ["preset", "world", "layers", "heads", "dim"]
    assert {"(any group)", "(any other)"} <= set(table["world"])
    assert {"steps", "batch_size", "learning_rate", "horizon", "lambda_h", "lambda_kl"} <= set(table)
