"""The identity of an extraction: what the stored states depend on, so that a file is never taken for another call's."""

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
from torch import Tensor, nn

from nextlat_viz.latents.facts import Positions, Reading, digest_of
from nextlat_viz.latents.readers import LatentsReader, weights_of

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, PurePath, range, slice)
# What torch keeps in every module: hooks and children are read separately, and extraction sets the training flag.
_OF_TORCH = set(vars(nn.Module()))


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
        "computation_sha256": digest_of(weights_of(reader.module), computation_of(reader.module, call)),
        "episodes_sha256": read.episodes.sha256,
        "sites": reader.sites,
        "hidden_site": reader.meta.get("hidden_site"),
        "name": reader.meta["name"],
        "positions": str(positions) if positions is None or isinstance(positions, slice) else list(map(int, positions)),
        "rows": read.rows,
        "dtype": dtype,
        "batch_size": batch_size,
        "device": None if device is None else str(device),
        "torch": torch.__version__,
        "vocabulary_sha256": digest_of(read.names),
        "truth_sha256": digest_of(*(part for key, v in read.columns.items() for part in (key, v)), read.values),
    }


def computation_of(module: nn.Module, call: Any = None) -> str:
    """Hash what a forward pass depends on apart from its parameters.

    That is the structure of the module, the code of its forward methods and hooks, its buffers, its other attributes,
    and `call`. Global variables that the code reads, and the state of objects written in C, are not covered.

    Examples
    --------
    >>> computation_of(nn.Sequential(nn.ReLU())) == computation_of(nn.Sequential(nn.ReLU()))
    True
    >>> computation_of(nn.LeakyReLU(0.1)) == computation_of(nn.LeakyReLU(0.2))
    False
    """
    digest = hashlib.sha256()
    seen: dict[int, int] = {}
    for value in (module, call):
        for part in _parts(value, seen):
            digest.update(f"{len(part)} ".encode() + part)
    return digest.hexdigest()


def _parts(value: Any, seen: dict[int, int]) -> Iterator[bytes]:
    """Yield the content of a value. Addresses in memory are left out: they differ in every process."""
    kind = type(value).__qualname__
    if isinstance(value, _PLAIN):
        yield f"{kind} {value!r}".encode()
        return
    if id(value) in seen:
        yield f"again {seen[id(value)]}".encode()
        return
    seen[id(value)] = len(seen)
    yield kind.encode()
    if isinstance(value, nn.Module):
        yield from _module_parts(value, seen)
    elif isinstance(value, Tensor):
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        if not value.is_meta and value.layout == torch.strided:
            yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype} {value.shape}".encode()
        yield repr(value.tolist()).encode() if value.dtype.hasobject else value.tobytes()
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _parts(key, seen)
            yield from _parts(item, seen)
    elif isinstance(value, (set, frozenset)):
        yield repr(sorted(map(repr, value))).encode()
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _parts(item, seen)
    elif isinstance(value, CodeType):
        yield value.co_code + repr(value.co_names).encode()
        yield from _parts(value.co_consts, seen)
    elif isinstance(value, partial):
        for item in (value.func, value.args, value.keywords):
            yield from _parts(item, seen)
    elif isinstance(value, MethodType):
        yield from _parts(value.__func__, seen)
        yield from _parts(value.__self__, seen)
    elif hasattr(value, "__code__"):
        yield from _parts(value.__code__, seen)
        yield from _parts(value.__defaults__, seen)
        yield from _parts(value.__kwdefaults__, seen)
        for cell in value.__closure__ or ():
            yield from _parts(cell.cell_contents, seen)
    elif isinstance(value, (type, ModuleType, logging.Logger)) or not hasattr(value, "__dict__"):
        yield str(getattr(value, "__qualname__", getattr(value, "__name__", ""))).encode()
    else:
        yield from _attributes(value, set(), seen)
        if callable(value):
            yield from _parts(type(value).__call__, seen)


def _module_parts(module: nn.Module, seen: dict[int, int]) -> Iterator[bytes]:
    yield module.extra_repr().partition(" at 0x")[0].encode()
    yield from _parts(type(module).forward, seen)
    yield from _attributes(module, _OF_TORCH, seen)
    for hooks in (module._forward_pre_hooks, module._forward_hooks):
        for hook in hooks.values():
            yield from _parts(hook, seen)
    for name, tensor in module.named_buffers(recurse=False):
        yield name.encode()
        yield from _parts(tensor, seen)
    for name, child in module.named_children():
        yield name.encode()
        yield from _parts(child, seen)


def _attributes(value: Any, left_out: set[str], seen: dict[int, int]) -> Iterator[bytes]:
    # Libraries keep caches in private attributes, which change while a model runs.
    theirs = type(value).__module__.split(".")[0] in ("torch", "transformers")
    for name, item in vars(value).items():
        if name not in left_out and not (theirs and name.startswith("_")):
            yield name.encode()
            yield from _parts(item, seen)
