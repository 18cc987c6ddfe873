"""Inputs of extraction: convert tokens to episodes, check and name them, and hash all that the result depends on."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import PurePath
from types import CodeType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from nextlat_viz.errors import LatentsError, shown
from nextlat_viz.hf.corpus import documents_of
from nextlat_viz.latents.facts import MOST_TOKENS, Positions, Reading, Truth, digest_of, kept, own_columns, valid
from nextlat_viz.latents.readers import LatentsReader
from nextlat_viz.models.torch_state import AUTOCAST_DEVICES
from nextlat_viz.training.trained import TrainedModel
from nextlat_viz.worlds import Episodes, World, checks

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, PurePath, range, slice)
# Attributes of every module of torch. Hooks and children are hashed separately; extraction sets the training flag.
_OF_TORCH = set(vars(nn.Module()))

# Training uses other seeds: each of its batches has a 64-bit seed hashed from (run seed, step), and validation another
# constant. In a small world the same sequence can still occur in training: held out means drawn separately.
HELDOUT_SEED = 20_260_000
"""Seed of the held-out episodes, which no training run draws."""
HELDOUT_EPISODES = 512


def heldout(checkpoint: TrainedModel, n: int = HELDOUT_EPISODES, seed: int = HELDOUT_SEED) -> Episodes:
    """Draw held-out episodes of a trained model's world, by default the standard ones.

    Their length is that of the world's episodes, or else the model's context; they are from the test split where the
    world has one, and windows of text do not overlap if the split has enough of them. Models of one world and context
    get the same episodes, so their latents can be compared row by row. A model that was fine-tuned on a corpus gets
    sequences held out of it.
    """
    world = checkpoint.world
    length = checkpoint.reads if world.length is None else world.length
    return world.sample_held_out(n, length, seed)


def episodes_from(episodes: Any, lengths: Any, mask: Any, truth: Truth | None) -> tuple[Episodes, Truth | None]:
    """Convert tokens to Episodes, with padding last; arrays in `truth` are shifted with them."""
    if isinstance(episodes, Episodes):
        if lengths is not None or mask is not None:
            raise LatentsError("lengths and mask are for arrays of tokens: Episodes have their own lengths")
        return episodes, truth
    try:
        tokens: np.ndarray = checks.array(episodes) if episodes is not None else np.zeros(0)
    except ValueError as error:
        raise LatentsError(
            "episodes are lists of different lengths: pad them to one length, and give lengths=[...] or mask="
        ) from error
    if tokens.ndim != 2 or tokens.dtype.kind not in "iu":
        raise TypeError(
            "episodes must be Episodes or integers of shape (episodes, positions), got "
            f"{type(episodes).__name__} of {tokens.dtype}, shape {tokens.shape}"
        )
    if mask is not None:
        mask = checks.array(mask)
        if lengths is not None:
            raise LatentsError("give lengths or mask, not both")
        if mask.shape != tokens.shape:
            raise LatentsError(f"mask must have the shape of the tokens, {tokens.shape}, got {mask.shape}")
        if not np.isin(mask, (0, 1)).all():
            raise LatentsError(f"mask must hold 1 at tokens and 0 at padding, got {mask[~np.isin(mask, (0, 1))][0]}")
        columns = {name: checks.array(v) for name, v in truth.items()} if isinstance(truth, Mapping) else {}
        lengths, moved = shifted(mask, {"": tokens, **columns})
        tokens = moved.pop("")
        truth = moved if isinstance(truth, Mapping) else truth
    if lengths is None:
        return Episodes(tokens), truth
    count, longest = tokens.shape
    real = checks.array(lengths)
    if real.shape != (count,) or real.dtype.kind not in "iu" or ((real < 0) | (real > longest)).any():
        raise LatentsError(
            f"lengths must be {count} integers from 0 to {longest}, one per episode, got {shown(lengths)}"
        )
    return Episodes(tokens, length=real), truth


def texts_of(episodes: Any) -> list[str] | None:
    """Return the texts if `episodes` is a list of texts or the path of a file of texts, else None.

    Examples
    --------
    >>> texts_of(["once", "upon"]), texts_of([[1, 2]])
    (['once', 'upon'], None)
    """
    try:
        episodes = documents_of(episodes)
    except ValueError as error:
        raise LatentsError(f"episodes must be a file of texts, or a list of them, such as [text]: {error}") from error
    if isinstance(episodes, (list, tuple)) and episodes and all(isinstance(text, str) for text in episodes):
        return list(episodes)
    return None


def make_reading(
    episodes: Episodes,
    world: World | None,
    vocabulary: Any,
    size: int | None,
    truth: Truth | None,
    positions: Positions | None,
) -> Reading:
    """Combine the rows to keep, the names of their tokens, and the user's own columns.

    In a large vocabulary only the tokens that occur get a name.
    """
    keep = kept(episodes, positions)
    start = keep.shape[1] > episodes.tokens.shape[1]
    columns, values = own_columns(truth, episodes, keep[:, start:])
    size = size or int(episodes.tokens.max(where=valid(episodes), initial=0)) + 1
    ids = None if world is not None or size <= MOST_TOKENS else np.unique(episodes.tokens[valid(episodes)])
    names = names_of(vocabulary, np.arange(size) if ids is None else ids) if world is None else world.vocabulary
    return Reading(episodes, keep, world, tuple(names), ids, columns, values, start)


def require_readable(episodes: Episodes, reader: LatentsReader, world: World | None) -> None:
    """Raise LatentsError if the model or the world does not know the tokens, or the sequences are too long."""
    longest = int(episodes.length.max(initial=0))
    if longest == 0:
        raise LatentsError("episodes hold no tokens: there is nothing to extract")
    if reader.context is not None and longest > reader.context:
        raise LatentsError(
            f"episodes have up to {longest} tokens, but this model's context is {reader.context}: "
            "give shorter ones, e.g. world.sample(n, length=context, seed)"
        )
    known = [size for size in (reader.vocabulary_size, None if world is None else len(world.vocabulary)) if size]
    most = min(known, default=np.iinfo(np.int64).max)
    wrong = valid(episodes) & ((episodes.tokens < 0) | (episodes.tokens >= most))
    if wrong.any():
        episode, position = np.argwhere(wrong)[0]
        raise LatentsError(
            f"token {episodes.tokens[episode, position]} of episode {episode}, position {position + 1}, is outside "
            f"the vocabulary of {reader.meta['name'] if world is None else world.name}: ids go from 0 to {most - 1}"
            + (". Padding is left out with lengths= or mask=" if episodes.tokens[episode, position] < 0 else "")
        )


def names_of(vocabulary: Any, ids: Int[np.ndarray, " n"]) -> list[str]:
    """Return the names of token ids: from a list of all names, from a tokenizer, or their numbers.

    Tokens with the same name get their number added.

    Examples
    --------
    >>> names_of(["a", "b", "a"], np.arange(3)), names_of(None, np.array([7]))
    (['a', 'b', 'a (2)'], ['7'])
    """
    if vocabulary is None:
        return [str(token) for token in ids.tolist()]
    if hasattr(vocabulary, "convert_ids_to_tokens"):
        raw = vocabulary.convert_ids_to_tokens(ids.tolist())
    else:
        if ids.size and int(ids.max()) >= len(vocabulary):
            raise LatentsError(
                f"vocabulary has {len(vocabulary)} names, and the tokens need at least {int(ids.max()) + 1}: give all"
            )
        raw = [vocabulary[token] for token in ids.tolist()]
    names: list[str] = []
    taken: set[str] = set()
    for token, name in zip(ids.tolist(), raw, strict=True):
        text = str(token) if name is None else str(name)
        text = f"{text} ({token})" if text in taken else text
        names.append(text)
        taken.add(text)
    return names


def shifted(mask: np.ndarray, arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the length of each row, and arrays (N, T, ...) whose real tokens are moved to the start of each row.

    The mask is 1 at tokens, which are contiguous, and 0 at padding before or after.

    Examples
    --------
    >>> lengths, moved = shifted(np.array([[0, 1, 1]]), {"tokens": np.array([[9, 4, 5]])})
    >>> lengths.tolist(), moved["tokens"].tolist()
    ([2], [[4, 5, 9]])
    """
    real = np.asarray(mask).astype(bool)
    lengths = real.sum(axis=1)
    first = np.where(lengths > 0, real.argmax(axis=1), 0)
    order = (np.arange(real.shape[1]) + first[:, None]) % real.shape[1]
    ordered = np.take_along_axis(real, order, axis=1)
    holes = (ordered != (np.arange(real.shape[1]) < lengths[:, None])).any(axis=1)
    if holes.any():
        raise LatentsError(
            f"mask has holes in {int(holes.sum())} of {len(real)} rows, such as row {int(holes.argmax())}: real tokens "
            "must be contiguous, with padding before or after"
        )
    return lengths, {
        name: np.take_along_axis(values, order.reshape(*order.shape, *[1] * (values.ndim - 2)), axis=1)
        for name, values in arrays.items()
    }


def identity_of(
    reader: LatentsReader,
    read: Reading,
    positions: Positions | None,
    batch_size: int,
    device: torch.device | str | None,
    dtype: str,
    call: Any,
) -> dict[str, Any]:
    """Return everything that the bytes of a table depend on, as JSON."""
    return {
        "weights_sha256": reader.meta["weights_sha256"],
        "computation_sha256": digest_of(reader.weights, computation_of(reader.module, call)),
        "episodes_sha256": read.episodes.sha256,
        "sites": reader.sites,
        "hidden_site": reader.meta.get("hidden_site"),
        "name": reader.meta["name"],
        "positions": str(positions)
        if positions is None or isinstance(positions, slice)
        else np.atleast_1d(positions).tolist(),
        "rows": read.rows,
        "dtype": dtype,
        "batch_size": batch_size,
        "device": None if device is None else str(device),
        "torch": torch.__version__,
        "vocabulary_sha256": digest_of(read.names),
        "truth_sha256": digest_of(*(part for key, v in read.columns.items() for part in (key, v)), read.values),
    }


def computation_of(module: nn.Module, call: Any = None) -> str:
    """Hash everything that a forward pass depends on, except parameters.

    That is the structure of the module, the code of its forward methods and hooks, its buffers, its other attributes,
    `call`, and torch's global precision and autocast where they are not the defaults. Global variables that the code
    reads, and the state of objects written in C, are not covered.

    Examples
    --------
    >>> computation_of(nn.Sequential(nn.ReLU())) == computation_of(nn.Sequential(nn.ReLU()))
    True
    >>> computation_of(nn.LeakyReLU(0.1)) == computation_of(nn.LeakyReLU(0.2))
    False
    """
    digest = hashlib.sha256()
    visited: dict[int, int] = {}
    for value in (module, call, *_torch_settings()):
        for part in _parts(value, visited):
            digest.update(f"{len(part)} ".encode() + part)
    return digest.hexdigest()


def _torch_settings() -> Iterator[str]:
    if torch.get_default_dtype() != torch.float32:
        yield f"{torch.get_default_dtype()}"
    if torch.get_float32_matmul_precision() != "highest":
        yield f"matmul {torch.get_float32_matmul_precision()}"
    for kind in AUTOCAST_DEVICES:
        if torch.is_autocast_enabled(kind):
            yield f"autocast {kind} {torch.get_autocast_dtype(kind)}"


def _parts(value: Any, visited: dict[int, int]) -> Iterator[bytes]:
    """Yield the content of a value. Addresses in memory are left out: they differ in every process."""
    kind = type(value).__qualname__
    if isinstance(value, _PLAIN):
        yield f"{kind} {value!r}".encode()
        return
    if id(value) in visited:
        yield f"again {visited[id(value)]}".encode()
        return
    visited[id(value)] = len(visited)
    yield kind.encode()
    if isinstance(value, nn.Module):
        yield from _module_parts(value, visited)
    elif isinstance(value, Tensor):
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        if not value.is_meta and value.layout == torch.strided:
            yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype} {value.shape}".encode()
        yield repr(value.tolist()).encode() if value.dtype.hasobject else value.tobytes()
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _parts(key, visited)
            yield from _parts(item, visited)
    elif isinstance(value, (set, frozenset)):
        yield repr(sorted(map(repr, value))).encode()
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _parts(item, visited)
    elif isinstance(value, CodeType):
        yield value.co_code + repr(value.co_names).encode()
        yield from _parts(value.co_consts, visited)
    elif isinstance(value, partial):
        for item in (value.func, value.args, value.keywords):
            yield from _parts(item, visited)
    elif isinstance(value, MethodType):
        yield from _parts(value.__func__, visited)
        yield from _parts(value.__self__, visited)
    elif hasattr(value, "__code__"):
        yield from _parts(value.__code__, visited)
        yield from _parts(value.__defaults__, visited)
        yield from _parts(value.__kwdefaults__, visited)
        for cell in value.__closure__ or ():
            yield from _parts(cell.cell_contents, visited)
    elif isinstance(value, (type, ModuleType, logging.Logger)) or not hasattr(value, "__dict__"):
        yield str(getattr(value, "__qualname__", getattr(value, "__name__", ""))).encode()
    else:
        yield from _attributes(value, set(), visited)
        if callable(value):
            yield from _parts(type(value).__call__, visited)


def _module_parts(module: nn.Module, visited: dict[int, int]) -> Iterator[bytes]:
    yield module.extra_repr().partition(" at 0x")[0].encode()
    yield from _parts(type(module).forward, visited)
    yield from _attributes(module, _OF_TORCH, visited)
    for hooks in (module._forward_pre_hooks, module._forward_hooks):
        for hook in hooks.values():
            yield from _parts(hook, visited)
    for name, tensor in module.named_buffers(recurse=False):
        yield name.encode()
        yield from _parts(tensor, visited)
    for name, child in module.named_children():
        yield name.encode()
        yield from _parts(child, visited)


def _attributes(value: Any, left_out: set[str], visited: dict[int, int]) -> Iterator[bytes]:
    # Libraries keep caches in private attributes, which change while a model runs.
    of_library = type(value).__module__.split(".")[0] in ("torch", "transformers")
    for name, item in vars(value).items():
        if name not in left_out and not (of_library and name.startswith("_")):
            yield name.encode()
            yield from _parts(item, visited)
