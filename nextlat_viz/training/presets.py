"""Presets: every hyperparameter of a run, with a name; any of them can be overridden."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from nextlat_viz.errors import unknown


class TrainConfig(BaseModel):
    """Every hyperparameter of a training run, the same for all objectives.

    Attributes
    ----------
    context : tokens the model reads; episodes of context + 1 tokens are sampled.
    layers, heads, dim, mlp_dim : the backbone's sizes.
    steps, batch_size : optimiser steps, episodes per step. Every step sees new episodes.
    learning_rate, warmup_steps, decay_steps : linear warm-up, constant, then linear decay to zero over the last
        `decay_steps`.
    weight_decay, beta1, beta2, grad_clip : AdamW and gradient-norm clipping (0: none).
    horizon, lambda_h, lambda_kl, psi_width : NextLat only (PAPER eq. 5 and 9).
    validate_every, validation_episodes : steps between validations; episodes used for each.
    save_every : steps between the points a killed run goes on from.
    snapshots : steps whose weights are kept, to see how the picture emerges.
    storage : precision of the weights on disk. The metrics in the card are those of the stored weights.
    precision : Lightning Fabric's precision, such as "32-true" or "bf16-mixed".
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    context: PositiveInt = 12
    layers: PositiveInt = 4
    heads: PositiveInt = 4
    dim: PositiveInt = 64
    mlp_dim: PositiveInt = 128
    steps: NonNegativeInt = 4000
    batch_size: PositiveInt = 128
    learning_rate: PositiveFloat = 1e-3
    warmup_steps: NonNegativeInt = 100
    decay_steps: NonNegativeInt = 1000
    weight_decay: NonNegativeFloat = 0.01
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    grad_clip: NonNegativeFloat = 1.0
    horizon: PositiveInt = 1
    lambda_h: NonNegativeFloat = 1.0
    lambda_kl: NonNegativeFloat = 1.0
    psi_width: PositiveInt = 128
    validate_every: PositiveInt = 100
    validation_episodes: PositiveInt = 1024
    save_every: PositiveInt = 500
    snapshots: tuple[PositiveInt, ...] = ()
    storage: Literal["float32", "float16"] = "float16"
    precision: str = "32-true"


TINY = TrainConfig()

PRESETS: dict[str, dict[str, TrainConfig]] = {
    "tiny": {
        "default": TINY,
    },
}


def preset_names() -> list[str]:
    """Names that :func:`resolve` and `nextlat_viz.train` accept.

    Examples
    --------
    >>> preset_names()
    ['tiny']
    """
    return list(PRESETS)


def resolve(preset: str, world: str, overrides: dict[str, Any]) -> TrainConfig:
    """The preset's configuration for a world, with some fields changed.

    Raises
    ------
    UnknownNameError
        If the preset or an overridden field does not exist.
    pydantic.ValidationError
        If a value is out of range.

    Examples
    --------
    >>> resolve("tiny", "rrxor", {"layers": 2}).layers
    2
    """
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    for field in overrides:
        if field not in TrainConfig.model_fields:
            raise unknown("hyperparameter", field, TrainConfig.model_fields)
    table = PRESETS[preset]
    base = table.get(world, table["default"])
    return TrainConfig.model_validate(base.model_dump() | overrides)
