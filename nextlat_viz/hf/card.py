"""The card of a fine-tuned model: its base, its texts, every hyperparameter, losses before and after."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from nextlat_viz.hf.hub import cell_text, markdown_card
from nextlat_viz.training.card import SignedCard
from nextlat_viz.training.config import validated

README = "README.md"


class FinetuneConfig(BaseModel):
    """Every hyperparameter of post-hoc training; each field says what it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["psi", "full"] = Field("psi", description="what is trained: psi alone, or the model with it")
    horizon: PositiveInt = Field(1, description="d: steps of psi")
    lambda_h: NonNegativeFloat = Field(1.0, description="weight of the next-latent loss (eq. 5); 0.05 in mode full")
    lambda_kl: NonNegativeFloat = Field(1.0, description="weight of the KL loss (eq. 5); 0.1 in mode full")
    psi_width: PositiveInt = Field(description="hidden width of psi; that of the hidden state when not given")
    psi_layers: PositiveInt = Field(3, description="linear layers of psi")
    steps: PositiveInt = Field(1000, description="optimiser steps")
    batch_size: PositiveInt = Field(16, description="sequences per step")
    learning_rate: PositiveFloat = Field(1e-3, description="psi's peak rate of AdamW")
    # Not used if psi is trained alone; the cards of such models have always stated this default.
    model_rate: PositiveFloat = Field(0.1, description="the model's rate over psi's; 0.005 in mode full")
    psi_steps: NonNegativeInt = Field(0, description="first steps, which train psi alone; half in mode full")
    warmup_steps: NonNegativeInt = Field(description="steps of linear warm-up; 1 in 20 when not given")
    decay_steps: NonNegativeInt = Field(description="last steps, of linear decay to zero; half when not given")
    weight_decay: NonNegativeFloat = Field(0.01, description="AdamW's decoupled weight decay")
    grad_clip: NonNegativeFloat = Field(1.0, description="largest gradient norm; 0 does not clip")
    validate_every: PositiveInt = Field(100, description="steps between validations")
    save_every: PositiveInt = Field(500, description="steps between saved states, where an interrupted run continues")
    episodes: PositiveInt = Field(10_000, description="episodes drawn of a world to train on")
    held_out: PositiveInt = Field(512, description="most sequences held out and measured on")
    precision: Literal["32-true", "bf16-mixed"] = Field("32-true", description="Lightning Fabric's precision")


class FinetuneCard(SignedCard):
    """What a fine-tuned model is. Written last, so that a folder with a card is complete.

    Attributes
    ----------
    model : the pretrained model: name, class, hashes of its config and weights, dim, vocabulary size.
    corpus : kind, hash, sequences to train on and held out, their length; the spec of a world.
    config, seed : every hyperparameter.
    command : the call that makes this model again.
    files : hash of every file but the card, by its path in the folder.
    parameters : number of trained parameters.
    versions, device : what it was trained with.
    before, metrics : what :func:`nextlat_viz.hf.finetune.finetune` measures, before the first step and at the
        end.
    card_sha256 : hash of all of the above.
    """

    format: Literal["nextlat_viz.finetuned/1"] = "nextlat_viz.finetuned/1"
    model: dict[str, Any]
    corpus: dict[str, Any]
    config: FinetuneConfig
    seed: int
    command: str
    files: dict[str, str]
    parameters: int
    versions: dict[str, str]
    device: str
    before: dict[str, float]
    metrics: dict[str, float]
    card_sha256: str = ""

    @property
    def perplexity_change(self) -> float:
        """Change of the perplexity on the held-out sequences, as a share of that before."""
        return math.expm1(self.metrics["loss"] - self.before["loss"])


def settle(explicit: dict[str, Any], settings: dict[str, Any]) -> FinetuneConfig:
    """Check hyperparameters, and set those that depend on others.

    Raises UnknownNameError for a name that is no hyperparameter, ValueError for a value out of range.

    Examples
    --------
    >>> config = settle({"mode": "full", "steps": 200, "psi_width": 8}, {"warmup_steps": 5})
    >>> config.warmup_steps, config.decay_steps, config.psi_steps
    (5, 100, 100)
    """
    explicit = {name: value for name, value in explicit.items() if value is not None}
    steps = max(explicit["steps"], 0)
    derived: dict[str, float] = {"warmup_steps": steps // 20, "decay_steps": steps // 2}
    if explicit.get("mode") == "full":
        derived |= {"model_rate": 0.005, "lambda_h": 0.05, "lambda_kl": 0.1}
        derived["psi_steps"] = steps // 2 if explicit.get("lambda_h", 1) or explicit.get("lambda_kl", 1) else 0
    config = validated(FinetuneConfig, derived | settings | explicit, "hyperparameter")
    if not (config.lambda_h or config.lambda_kl) and (config.mode == "psi" or config.psi_steps):
        raise ValueError(
            "lambda_h=0 and lambda_kl=0 leave psi nothing to learn: give one of them, or mode='full' and psi_steps=0"
        )
    return config


def call_of(model: Any, corpus: dict[str, Any], config: FinetuneConfig, seed: int) -> str:
    """Return the call that makes a model again. Objects appear as `model` and `corpus`; the card has their hashes."""
    source = repr(str(model)) if isinstance(model, str | Path) else "model"
    data = f"worlds.from_spec({corpus['world']!r})" if "world" in corpus else "corpus"
    data = repr(corpus["source"]) if "source" in corpus else data
    options = {**config.model_dump(), "length": corpus["length"], "seed": seed}
    return f"finetune({source}, {data}, {', '.join(f'{name}={value!r}' for name, value in options.items())})"


def readme_text(card: FinetuneCard) -> str:
    """Write the model card, README.md: the base model, the texts, the recipe and the losses before and after.

    The licences of model and texts are not known here: the text says what they apply to, and the user names them.
    """
    config = card.config
    full = config.mode == "full"
    corpus = json.dumps(card.corpus["world"]) if "world" in card.corpus else Path(card.corpus.get("source", "")).name
    facts = {
        "base model": f"{card.model['name']} ({card.model['class']})",
        "sha256 of the base model's weights": card.model["weights_sha256"],
        "corpus": f"{corpus or card.corpus['kind']}, in sequences of up to {card.corpus['length']:,} tokens",
        "sequences": f"{card.corpus['train']:,} to train on, {card.corpus['held_out']:,} held out by their content",
        "sha256 of the sequences": card.corpus["sha256"],
        "trained parameters": f"{card.parameters:,}, " + ("the model and psi" if full else "psi alone"),
        "recipe": ", ".join(f"{name} {value}" for name, value in config.model_dump().items()),
        "seed": card.seed,
        "device": card.device,
        "versions": ", ".join(f"{package} {version}" for package, version in card.versions.items()),
    }
    measured = [f"| {name} | {card.before[name]:.5g} | {card.metrics[name]:.5g} |" for name in card.metrics]
    changed = ["", f"Perplexity changed by {card.perplexity_change:+.2%}."] if full else []
    weights = "changed from those" if full else "those"
    return markdown_card(
        f"{card.model['name']} + psi",
        {"base_model": card.model["name"], "tags": ["nextlat_viz", "nextlat"]},
        f"A pretrained language model with psi, a latent dynamics that predicts its next hidden state from the current "
        f"one and the next token (NextLat, arXiv:2511.05963). The weights in `model` are {weights} of the base model.",
        'tuned = nlv.load("hf:<this folder>")',
        {name: cell_text(str(value), 1000) for name, value in facts.items()},
        "On the held-out sequences, in nats per token; `transition_error` is that of psi over that of no change:",
        ["| metric | before | after |", "|---|---|---|", *measured, *changed],
        "## Licence\n\n"
        "Not stated: name it here before you publish. The licence of the base model applies to `model`, and that of "
        "the texts to the sequences in `held_out.safetensors` and to what was learnt from them.",
    )
