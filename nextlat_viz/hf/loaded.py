"""Hugging Face models as trained models: their network, tokenizer and world, with or without psi."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nextlat_viz.errors import LatentsError
from nextlat_viz.hf.backbone import Pretrained, weights_sha256
from nextlat_viz.hf.corpus import Corpus
from nextlat_viz.hf.load import load_module, load_tokenizer, quiet, require_transformers, tokens_from
from nextlat_viz.models import NextToken, Objective
from nextlat_viz.models.torch_state import torch_defaults
from nextlat_viz.training.trained import HF_PREFIX, TrainedModel
from nextlat_viz.worlds import Episodes, World


class HubModel(TrainedModel):
    """A causal language model of Hugging Face with its tokenizer.

    Attributes
    ----------
    module : transformers.PreTrainedModel
    tokenizer : transformers tokenizer or None
        None where the folder has none.
    """

    module: nn.Module
    tokenizer: Any

    def tokens(self, texts: Sequence[str], max_length: int | None = None) -> Episodes:
        """Tokenise texts, by default up to the model's context; see `tokens_from`."""
        if self.tokenizer is None:
            raise LatentsError(f"{self.name} has no tokenizer: give token ids instead of texts")
        return tokens_from(texts, self.tokenizer, max_length or self.context)

    @property
    def context(self) -> int | None:
        """Most tokens it can read; None where it states no limit."""
        return getattr(self.module.config, "max_position_embeddings", None)

    @property
    def ends(self) -> tuple[int, ...]:  # type: ignore[override]
        """Tokens that end a text by the model's generation config; none if its tokens are those of a world."""
        if not isinstance(self.world, Corpus):
            return ()
        module: Any = self.module
        ends = getattr(getattr(module, "generation_config", None), "eos_token_id", None)
        ends = module.config.eos_token_id if ends is None else ends
        return () if ends is None else tuple(ends) if isinstance(ends, Sequence) else (int(ends),)

    @torch_defaults()
    def random_module(self, seed: int) -> nn.Module:
        """Return a module of the same architecture with random weights."""
        with torch.random.fork_rng(devices=[]), quiet():
            torch.manual_seed(seed)
            config = copy.deepcopy(self.module.config)
            module = require_transformers().AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        return module.float().eval()


@dataclass(frozen=True, eq=False)
class LoadedModel(HubModel):
    """A causal language model as it was published, and its tokenizer.

    Attributes
    ----------
    module : transformers.PreTrainedModel
    tokenizer : transformers tokenizer or None
        None where the folder has none.
    name : str
        The name or folder it was loaded by.
    step : int
        1, or 0 for random weights: the number of steps is not known.
    """

    module: nn.Module
    tokenizer: Any
    name: str
    step: int = 1

    objective = "next_token"
    seed = None
    card = None

    @property
    def label(self) -> str:
        """Name in figures: the last part of its name."""
        return Path(self.name).name + ("" if self.step else " (untrained)")

    @cached_property
    def weights_sha256(self) -> str:
        return weights_sha256(self.module)

    @cached_property
    def network(self) -> Objective:
        """The model in float32; a copy if its weights are of another type."""
        is_float32 = all(weights.dtype == torch.float32 for weights in self.module.parameters())
        return NextToken(Pretrained(self.module if is_float32 else copy.deepcopy(self.module).float())).eval()

    @cached_property
    def world(self) -> World:
        """The tokens of the model, without sequences to sample, because the corpus it was trained on is not known."""
        config: Any = self.module.config
        return Corpus(self.name, int(config.vocab_size), self.tokenizer)

    @property
    def reads(self) -> int | None:
        return self.context

    @property
    def snapshots(self) -> list[int]:
        return [1]

    def at(self, step: int) -> LoadedModel:
        if step not in (0, 1):
            raise ValueError(
                f"step={step}: {self.name} has only its published weights, step 1, and random ones, step 0"
            )
        return self if step else self.untrained()

    def untrained(self) -> LoadedModel:
        return replace(self, module=self.random_module(0), step=0)

    def __repr__(self) -> str:
        return f"LoadedModel({self.name!r}, {type(self.module).__name__})"


def load_hf(name_or_path: str | Path, revision: str | None = None) -> LoadedModel:
    """Load a causal language model from a local folder, or by its name from the Hugging Face Hub.

    Weights are read from safetensors only, and no code of the model's authors is ever run.

    Parameters
    ----------
    name_or_path : str or Path
        A folder, or a name such as ``"gpt2"``; a leading ``"hf:"`` is dropped.
    revision : str, optional
        Which version on the Hub.

    Returns
    -------
    LoadedModel
        Pass it to `extract` or `generate`; its ``tokens(texts)`` makes episodes.

    Raises
    ------
    ImportError
        transformers is not installed; the message says how to install it.
    LatentsError
        The model needs its own code, does not exist, cannot be reached, or has no safetensors.

    Examples
    --------
    >>> load_hf("./no/such/folder")
    Traceback (most recent call last):
    ...
    nextlat_viz.errors.LatentsError: ./no/such/folder is not a folder with a config.json: ...
    """
    name = str(name_or_path).removeprefix(HF_PREFIX)
    is_path = isinstance(name_or_path, Path) or name.startswith((".", "/", "~")) or "\\" in name
    if is_path and not Path(name).expanduser().is_dir():
        raise LatentsError(f"{name} is not a folder with a config.json: give one, or a name on the Hugging Face Hub")
    try:
        module, tokenizer = load_module(name, revision=revision), load_tokenizer(name, revision)
    except ValueError as error:
        raise LatentsError(str(error)) from error
    return LoadedModel(module.eval(), tokenizer, name)
