"""Presets: every hyperparameter of a run, with a name; any of them can be overridden."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from nextlat_viz.errors import invalid, unknown
from nextlat_viz.worlds import World


class TrainConfig(BaseModel):
    """Every hyperparameter of a training run, the same for all objectives; each field says what it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    context: PositiveInt = Field(12, description="most tokens the model reads; a world's own length where it has one")
    layers: PositiveInt = Field(4, description="transformer blocks")
    heads: PositiveInt = Field(4, description="attention heads")
    dim: PositiveInt = Field(64, description="width of the residual stream and of the hidden state")
    mlp_dim: PositiveInt = Field(128, description="hidden width of the SwiGLU sublayer")
    steps: PositiveInt = Field(4000, description="optimiser steps")
    batch_size: PositiveInt = Field(64, description="episodes per step; every step sees new ones")
    accumulate: PositiveInt = Field(1, description="pieces a step's batch is computed in, one after another")
    learning_rate: PositiveFloat = Field(1e-3, description="peak learning rate of AdamW")
    warmup_steps: NonNegativeInt = Field(100, description="steps of linear warm-up")
    decay_steps: NonNegativeInt = Field(2000, description="last steps, over which the rate falls linearly to zero")
    weight_decay: NonNegativeFloat = Field(0.01, description="AdamW's decoupled weight decay")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's first moment decay")
    beta2: float = Field(0.95, ge=0, lt=1, description="AdamW's second moment decay")
    grad_clip: NonNegativeFloat = Field(1.0, description="largest gradient norm; 0 does not clip")
    horizon: PositiveInt = Field(1, description="d: NextLat's steps of psi, the tokens after the next of MTP and JTP")
    lambda_h: NonNegativeFloat = Field(1.0, description="NextLat's weight of the next-latent loss (eq. 5)")
    lambda_kl: NonNegativeFloat = Field(1.0, description="NextLat's weight of the KL loss (eq. 5)")
    psi_width: PositiveInt = Field(128, description="hidden width of psi")
    psi_layers: PositiveInt = Field(3, description="linear layers of psi")
    token_term: Literal["kl", "ce"] = Field("kl", description="NextLat's loss on tokens: KL, or cross-entropy instead")
    stop_target: bool = Field(True, description="NextLat's stop-gradient on the states psi is to predict")
    freeze_head: bool = Field(True, description="NextLat's stop-gradient on the head within the KL loss")
    lambda_future: NonNegativeFloat = Field(1.0, description="MTP's and JTP's weight of the tokens after the next")
    pairs: PositiveInt = Field(256, description="BST's pairs of prefix and suffix per row and step")
    validate_every: PositiveInt = Field(100, description="steps between validations")
    validation_episodes: PositiveInt = Field(512, description="episodes in a validation")
    save_every: PositiveInt = Field(500, description="steps between the points a killed run goes on from")
    snapshots: tuple[PositiveInt, ...] = Field((), description="steps whose weights are kept")
    storage: Literal["float32", "float16"] = Field("float16", description="precision of stored weights")
    precision: str = Field("32-true", description="Lightning Fabric's precision, such as bf16-mixed")
    compile: bool = Field(False, description="torch.compile; leave it off for Path-Star and A5, where rounding decides")


# Chosen on RRXOR by the belief read from NextLat, with seeds 100 and 101, which are not shipped; the same for both
# objectives.
TINY = TrainConfig()


def _tiny(**changes: Any) -> TrainConfig:
    return TINY.model_copy(update=changes)


PRESETS: dict[str, dict[str, TrainConfig]] = {
    "tiny": {
        "default": TINY,
        # The next-token law of Mess3 gives its belief away: half the depth and half the steps are enough.
        "mess3": _tiny(layers=2, steps=2000, decay_steps=1000),
        # Lambdas as in the paper's Table 5. Longer episodes, fewer of them in a step.
        "taxi": _tiny(batch_size=32, lambda_kl=0.1),
        "path_star": _tiny(horizon=3),
        "countdown": _tiny(batch_size=32, lambda_h=2.0),
        "othello": _tiny(batch_size=32),
        "story": _tiny(batch_size=32, context=64),
        "text": _tiny(batch_size=32, context=64),
        **{group: _tiny(layers=2, lambda_kl=0.0) for group in ("a5", "s5", "a4xz5", "z60")},
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


def episode_length(world: World, context: int) -> int:
    """Tokens to sample for a model of this context: the world's own length, or what the model reads and predicts.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> episode_length(worlds.get("rrxor"), 12)
    13
    """
    if world.length is not None:
        return world.length
    return context + 1 if world.predicts_next_token else context


def resolve(preset: str, world: World, overrides: dict[str, Any]) -> TrainConfig:
    """The preset's configuration for a world, with some fields changed.

    Raises
    ------
    UnknownNameError
        If the preset or an overridden field does not exist.
    ValueError
        If a value is out of range.

    Examples
    --------
    >>> from nextlat_viz import worlds
    >>> resolve("tiny", worlds.get("rrxor"), {"layers": 2}).layers
    2
    """
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    for field in overrides:
        if field not in TrainConfig.model_fields:
            raise unknown("hyperparameter", field, TrainConfig.model_fields)
    table = PRESETS[preset]
    base = table.get(world.name, table["default"]).model_dump()
    if world.length is not None:
        base["context"] = world.length
    try:
        config = TrainConfig.model_validate(base | overrides)
    except ValidationError as error:
        raise invalid(error.errors()) from error
    if world.length is not None and config.context < world.length:
        raise ValueError(
            f"context={config.context} is too short: an episode of world {world.name!r} has {world.length} tokens; "
            "leave context out, or build the world with other parameters"
        )
    return config
