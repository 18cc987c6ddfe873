"""Causal language models of Hugging Face: loaded from data alone, and read at the sites that all of them have."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nextlat_viz.errors import LatentsError
from nextlat_viz.latents.facts import MOST_TOKENS
from nextlat_viz.latents.readers import Call, ModuleReader, Place, States
from nextlat_viz.latents.table import HIDDEN
from nextlat_viz.models.foreign import refuse_code, require_transformers
from nextlat_viz.worlds import Episodes

PREFIX = "hf:"


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A causal language model and its tokenizer.

    Attributes
    ----------
    module : transformers.PreTrainedModel
    tokenizer : transformers tokenizer or None
        None where the folder has none.
    name : str
        As it was asked for.
    """

    module: nn.Module
    tokenizer: Any
    name: str

    def tokens(self, texts: Sequence[str], max_length: int | None = None) -> Episodes:
        """Tokenise texts; see `tokens_from`."""
        if self.tokenizer is None:
            raise LatentsError(f"{self.name} came without a tokenizer: give token ids instead of texts")
        return tokens_from(texts, self.tokenizer, max_length)

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
        Hand it to `extract`; its ``tokens(texts)`` makes the episodes.

    Raises
    ------
    ImportError
        transformers is not installed; the message says how to install it.
    LatentsError
        The model needs code of its own, is not there, cannot be reached, or has no safetensors.

    Examples
    --------
    >>> load_hf("./no/such/folder")
    Traceback (most recent call last):
    ...
    nextlat_viz.errors.LatentsError: ./no/such/folder is not a folder with a config.json: ...
    """
    name = str(name_or_path).removeprefix(PREFIX)
    folder = Path(name)
    if not folder.is_dir() and (isinstance(name_or_path, Path) or name.startswith((".", "/", "~")) or "\\" in name):
        raise LatentsError(f"{name} is not a folder with a config.json: give one, or a name on the Hugging Face Hub")
    transformers = require_transformers()
    config = _config(transformers, name, revision)
    try:
        refuse_code(config, name)
    except ValueError as error:
        raise LatentsError(f"{error}, or load it yourself and hand the module to extract") from None
    options = {"trust_remote_code": False, "revision": revision or "main"}
    try:
        module = transformers.AutoModelForCausalLM.from_pretrained(name, use_safetensors=True, **options)
    except (OSError, ValueError) as error:
        raise LatentsError(f"{name} cannot be loaded as a causal language model in safetensors: {error}") from error
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **options)
    except (OSError, ValueError, TypeError, KeyError, ImportError):
        tokenizer = None
    return LoadedModel(module.eval(), tokenizer, name)


def _config(transformers: Any, name: str, revision: str | None) -> dict[str, Any]:
    """Read a model's config as plain data."""
    try:
        if Path(name).is_dir():
            found: Any = json.loads(Path(name, "config.json").read_text(encoding="utf-8"))
        else:
            found, _ = transformers.PretrainedConfig.get_config_dict(name, revision=revision or "main")
    except (OSError, ValueError) as error:
        where = "in this folder" if Path(name).is_dir() else "by this name on the Hugging Face Hub, or no network"
        raise LatentsError(
            f"no model {name!r}: there is no config.json {where}. Check the name, or give a folder you downloaded: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error
    if not found:
        raise LatentsError(f"no model {name!r}: its config.json is empty or missing. Check the name")
    return dict(found)


def tokens_from(texts: Sequence[str], tokenizer: Any, max_length: int | None = None) -> Episodes:
    """Tokenise texts into episodes, one per text, padded at the end.

    Parameters
    ----------
    texts : sequence of str
    tokenizer : callable
        ``tokenizer(texts)["input_ids"]`` is a list of token ids for each text, as Hugging Face tokenizers give it.
    max_length : int, optional
        Cut texts after so many tokens.

    Returns
    -------
    Episodes
        ``tokens`` (texts, longest), ``length`` (texts,); padding is 0 and is no row of any table.

    Raises
    ------
    LatentsError
        No texts, or something else than a list of them.

    Examples
    --------
    >>> by_letter = lambda texts: {"input_ids": [[ord(letter) - 97 for letter in text] for text in texts]}
    >>> episodes = tokens_from(["abc", "c"], by_letter)
    >>> episodes.tokens.tolist(), episodes.length.tolist()
    ([[0, 1, 2], [2, 0, 0]], [3, 1])
    """
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise LatentsError("texts must be a list of str, one per episode: for one text give [text]")
    if not len(texts):
        raise LatentsError("texts is empty: there is nothing to tokenise")
    ids = [list(one)[:max_length] for one in tokenizer(list(texts))["input_ids"]]
    length = np.array([len(one) for one in ids])
    tokens = np.zeros((len(ids), max(int(length.max()), 1)), dtype=np.int64)
    for row, one in zip(tokens, ids, strict=True):
        row[: len(one)] = one
    return Episodes(tokens, length=length, loss_mask=np.arange(tokens.shape[1]) < length[:, None])


def is_causal_lm(module: nn.Module) -> bool:
    """Say whether a module looks like a causal language model of transformers, without importing that."""
    config, generates = getattr(module, "config", None), getattr(module, "can_generate", None)
    if generates is None or not hasattr(config, "num_hidden_layers") or not generates():
        return False
    return not getattr(config, "is_encoder_decoder", False) and module.get_output_embeddings() is not None  # type: ignore[operator]


class CausalLMReader(ModuleReader):
    """Reads a causal language model of Hugging Face at "embed", "block0", ... and "hidden".

    "embed" is what the first block is given, "block<i>" what a block returns, and "hidden" exactly what the output
    head is given: the state after the last norm. Names of submodules are sites too.
    """

    def __init__(
        self,
        module: nn.Module,
        sites: str | Sequence[str],
        hidden: str | None = None,
        call: Call | None = None,
        name: str | None = None,
    ) -> None:
        config: Any = module.config
        self._head: nn.Module = module.get_output_embeddings()  # type: ignore[operator]
        wanted = sites if sites == "all" else [sites] if isinstance(sites, str) else list(sites)
        super().__init__(module, wanted, hidden or HIDDEN, call, name or _name_of(config) or type(module).__name__)
        self.context = getattr(config, "max_position_embeddings", None)
        self.vocabulary_size = int(config.vocab_size)
        self.meta["card"] = json.dumps({"class": type(module).__name__, "config": json.loads(config.to_json_string())})

    def places(self, module: nn.Module) -> dict[str, Place]:
        layers = int(module.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]
        stacks = [one for one in module.modules() if isinstance(one, nn.ModuleList) and len(one) == layers]
        known: dict[str, Place] = {}
        if stacks:
            known["embed"] = Place(stacks[0][0], given=True)
            known |= {f"block{i}": Place(block) for i, block in enumerate(stacks[0])}
        known[HIDDEN] = Place(self._head, given=True)
        return known | {name: place for name, place in super().places(module).items() if name not in known}

    def default_sites(self, module: nn.Module) -> list[str]:
        blocks = [name for name, place in self.places(module).items() if name == "embed" or name.startswith("block")]
        layers = int(module.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]
        return [*blocks[: layers + 1], HIDDEN]

    def call(self, module: nn.Module, tokens: Tensor, real: Tensor) -> Any:
        """Run the model; without padding it needs no mask, which is faster."""
        mask = None if bool(real.all()) else real.long()
        return module(input_ids=tokens, attention_mask=mask, use_cache=False)

    def read(
        self, tokens: Int[Tensor, "b t"], real: Bool[Tensor, "b t"], documents: Int[Tensor, "b t"] | None
    ) -> tuple[States, Float[Tensor, "b t vocabulary"] | None]:
        if self.vocabulary_size is not None and self.vocabulary_size <= MOST_TOKENS:
            states, result = self._watched(tokens, real)
            logits = getattr(result, "logits", None)
            return states, logits
        # A head of many tokens costs as much as several blocks, and nobody looks at what it gives.
        states, _ = self._watched(tokens, real, stop=self._head)
        return states, None


def _name_of(config: Any) -> str:
    return Path(str(getattr(config, "_name_or_path", "") or "")).name
