"""Load causal language models of Hugging Face from config and safetensors alone, and tokenise texts for them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from nextlat_viz import io
from nextlat_viz.errors import LatentsError, optional
from nextlat_viz.worlds import Episodes, checks

# The config's names of the number of layers, by family. Each layer has at least one weight.
_LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers")


def load_module(name: str, revision: str | None = None, dtype: torch.dtype | None = None) -> nn.Module:
    """Load a causal language model, in `dtype` or else in its own.

    Raises ValueError if it needs its own code, does not exist, cannot be reached, or has no safetensors.
    """
    transformers = require_transformers()
    # Only a path is expanded: a folder of the same name in the working directory comes before the Hub.
    place = str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name
    config = _read_config(transformers, place, revision)
    try:
        refuse_code(config, name)
    except RecursionError as error:
        raise ValueError(f"{name} is refused: its config is nested too deeply") from error
    if config.get("is_encoder_decoder"):
        raise ValueError(
            f"{name} is an encoder-decoder ({config.get('model_type')}), which reads a whole input before it writes: "
            "give a causal language model, such as GPT-2"
        )
    options = {} if dtype is None else {"dtype": dtype}
    try:
        if Path(place).is_dir():
            _refuse_empty_sizes(transformers, Path(place), config)
        with quiet():
            module = transformers.AutoModelForCausalLM.from_pretrained(
                place, use_safetensors=True, trust_remote_code=False, revision=revision or "main", **options
            )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        method = (config.get("quantization_config") or {}).get("quant_method")
        advice = f". Its weights are quantised ({method}): give the model it was made from" if method else ""
        raise ValueError(
            f"{name} cannot be loaded as a causal language model in safetensors: {error}{advice}"
        ) from error
    return cast(nn.Module, module)


def load_tokenizer(name: str, revision: str | None = None) -> Any:
    """Load the tokenizer of a model; None if it has none that loads without code."""
    try:
        tokenizer = require_transformers().AutoTokenizer.from_pretrained(
            str(Path(name).expanduser()), trust_remote_code=False, revision=revision or "main"
        )
    except (OSError, ValueError, TypeError, KeyError, ImportError):
        return None
    # Without its files, transformers makes some tokenizers with nothing but special tokens.
    return tokenizer if len(tokenizer) > len(tokenizer.all_special_ids) else None


def _read_config(transformers: Any, place: str, revision: str | None) -> dict[str, Any]:
    """Read a model's config as plain data, before any class of transformers interprets it."""
    is_folder = Path(place).is_dir()
    try:
        if is_folder:
            config: Any = io.parse_json(Path(place, "config.json").read_bytes())
        else:
            config, _ = transformers.PretrainedConfig.get_config_dict(place, revision=revision or "main")
    except (OSError, ValueError, RecursionError) as error:
        where = "in this folder" if is_folder else "by this name on the Hugging Face Hub, or no network"
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"no model {place!r}: there is no readable config.json {where}. Check the name, or give a folder you "
            f"downloaded: {reason}"
        ) from error
    if not config or not isinstance(config, dict):
        raise ValueError(f"no model {place!r}: its config.json is empty or missing. Check the name")
    return config


def _refuse_empty_sizes(transformers: Any, folder: Path, config: Mapping[str, Any]) -> None:
    """Raise ValueError if a config asks for more weights than its files hold, before memory is allocated for them."""
    shapes = []
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            shapes += [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118 (not a dict)
    for key, value in _nested(config):
        if key in _LAYER_COUNTS and isinstance(value, int) and value > len(shapes):
            raise ValueError(f"its config has {key}={value:,}, and its safetensors hold {len(shapes):,} weights")
    with quiet(), torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.from_pretrained(str(folder), trust_remote_code=False), trust_remote_code=False
        )
    parameters, stored = sum(part.numel() for part in model.parameters()), sum(map(math.prod, shapes))
    # A quantised model packs at most eight parameters into a stored number.
    if parameters > 8 * stored:
        raise ValueError(f"its config asks for {parameters:,} parameters, and its safetensors hold {stored:,} numbers")


def is_quantised(module: nn.Module) -> bool:
    """Whether weights of a module are stored as integers with scales, or its config says so."""
    quantised = getattr(getattr(module, "config", None), "quantization_config", None) is not None
    return quantised or not all(weights.is_floating_point() for weights in module.parameters())


def require_transformers() -> Any:
    """Import the package transformers; the ImportError where it is missing says how to install it."""
    return optional("transformers", 'Hugging Face models need the package transformers: pip install "nextlat-viz[hf]"')


def refuse_code(config: Any, name: str) -> None:
    """Raise ValueError if a model's config, or any config nested in it, names code to download and run.

    Such code is a class in ``auto_map``, or an attention implementation that is a repository (``"owner/kernel"``).

    Examples
    --------
    >>> refuse_code({"text_config": {"attn_implementation": "owner/kernel"}}, "a model")
    Traceback (most recent call last):
    ...
    ValueError: a model is refused: its config asks for code to be run (attn_implementation: owner/kernel)...
    """
    for key, value in _nested(config):
        code = key == "auto_map" or (key.endswith("_implementation") and "/" in str(value))
        if code and value:
            values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
            raise ValueError(
                f"{name} is refused: its config asks for code to be run ({key}: "
                f"{', '.join(sorted({str(item) for item in values}))}), and code that comes with weights is never run "
                "here. Use a model whose class is part of transformers, or load it yourself and pass the module"
            )


def _nested(config: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key and value of a config, at any depth."""
    for key, value in config.items() if isinstance(config, dict) else ():
        yield str(key), value
        yield from _nested(value)
    for item in config if isinstance(config, list) else ():
        yield from _nested(item)


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the progress bar that transformers shows for every file."""
    logging = require_transformers().utils.logging
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


def tokens_from(texts: Sequence[str], tokenizer: Any, max_length: int | None = None) -> Episodes:
    """Tokenise texts into episodes, one per text, padded at the end.

    Parameters
    ----------
    texts : sequence of str
    tokenizer : callable
        ``tokenizer(texts)["input_ids"]`` is a list of token ids for each text, as Hugging Face tokenizers give it.
    max_length : int, optional
        Most tokens of a text; the rest is cut off.

    Returns
    -------
    Episodes
        ``tokens`` (texts, longest), ``length`` (texts,); padding is 0 and gives no row in a table of latents.

    Raises
    ------
    LatentsError
        No texts, or something other than a list of them.

    Examples
    --------
    >>> by_letter = lambda texts: {"input_ids": [[ord(letter) - 97 for letter in text] for text in texts]}
    >>> episodes = tokens_from(["abc", "c"], by_letter)
    >>> episodes.tokens.tolist(), episodes.length.tolist()
    ([[0, 1, 2], [2, 0, 0]], [3, 1])
    >>> tokens_from([""], by_letter).tokens.tolist()
    [[0]]
    """
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise LatentsError("texts must be a list of str, one per episode: for one text give [text]")
    if not len(texts):
        raise LatentsError("texts is empty: there is nothing to tokenise")
    rows = [list(ids)[:max_length] for ids in tokenizer(list(texts))["input_ids"]]
    tokens, length = checks.padded(rows)
    if not tokens.size:
        # One position of padding, because episodes without positions cannot be read.
        tokens = np.zeros((len(rows), 1), np.int64)
    return Episodes(tokens, length=length, loss_mask=np.arange(tokens.shape[1]) < length[:, None])


def blocks_of(module: nn.Module) -> nn.ModuleList | None:
    """Return the blocks of a causal language model; None if they are not in one list."""
    layers = int(module.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]
    return next((part for part in module.modules() if isinstance(part, nn.ModuleList) and len(part) == layers), None)


def name_of(module: Any) -> str:
    """Return the last part of the name or folder that a model was loaded by, or else its class."""
    return Path(str(getattr(module.config, "_name_or_path", "") or "")).name or type(module).__name__


def is_causal_lm(module: nn.Module) -> bool:
    """Whether a module looks like a causal language model of transformers; does not import transformers."""
    # A bridge of TransformerLens has the attributes of the model inside it, but is called in another way.
    if isinstance(getattr(module, "hook_dict", None), dict):
        return False
    config, generates = getattr(module, "config", None), getattr(module, "can_generate", None)
    if generates is None or not hasattr(config, "num_hidden_layers") or not generates():
        return False
    return not getattr(config, "is_encoder_decoder", False) and module.get_output_embeddings() is not None  # type: ignore[operator]
