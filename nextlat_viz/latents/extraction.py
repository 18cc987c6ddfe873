"""Extraction: run a model over episodes and keep its states at every position."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from anndata import AnnData
from torch import nn
from tqdm.auto import tqdm

from nextlat_viz import io, worlds
from nextlat_viz.errors import LatentsError, at_least, is_out_of_memory, shown
from nextlat_viz.hf.load import is_causal_lm, tokens_from
from nextlat_viz.hf.loaded import HubModel, LoadedModel, load_hf
from nextlat_viz.latents import table
from nextlat_viz.latents.facts import Positions, Reading, Truth, valid
from nextlat_viz.latents.inputs import (
    HELDOUT_EPISODES,
    HELDOUT_SEED,
    episodes_from,
    heldout,
    identity_of,
    make_reading,
    require_readable,
    texts_of,
)
from nextlat_viz.latents.layout import narrow, stored_type
from nextlat_viz.latents.parts import own_device, own_part, processes
from nextlat_viz.latents.readers import Call, CausalLMReader, CheckpointReader, LatentsReader, ModuleReader
from nextlat_viz.latents.store import open_backed, require_names
from nextlat_viz.latents.streaming import Growing
from nextlat_viz.latents.thinking import extract_steps, is_recursive, puzzles_of, recursive_network
from nextlat_viz.training.checkpoint import Checkpoint, load
from nextlat_viz.worlds import Episodes, World

__all__ = ["HELDOUT_EPISODES", "HELDOUT_SEED", "extract", "heldout", "load_hf", "tokens_from"]

# Sequences of a corpus are long and language models wide: the latents of all held-out sequences can take gigabytes.
_MOST_CORPUS_TOKENS = 40_000


def extract(
    model: Any,
    episodes: Any = None,
    sites: str | Iterable[str] = "all",
    batch_size: int = 256,
    device: torch.device | str | None = None,
    progress: bool | Callable[[int, int], None] = True,
    *,
    hidden: str | None = None,
    lengths: Any = None,
    mask: Any = None,
    call: Call | None = None,
    vocabulary: Any = None,
    name: str | None = None,
    world: World | str | None = None,
    truth: Truth | None = None,
    positions: Positions | None = None,
    steps: int | None = None,
    cells: bool = False,
    out: str | Path | None = None,
    dtype: Literal["float32", "float16"] = "float32",
) -> AnnData:
    """Extract a model's latents at every position of every episode, with the true states in the same table.

    The episodes of a recursive model are puzzles, and positions are recursion steps. A row is a puzzle after a step;
    its states are means over cells, at the sites ``"z"``, the latent, and ``"y"``, the answer, which is ``X``. The
    columns say what is true of the answer: ``conflicts`` (of queens), ``distance`` to the nearest solution in cells,
    ``solved``, the cells ``changed`` by the step, the cells ``given``, and whether the step was ``trained``.

    Parameters
    ----------
    model : Checkpoint or its name, Finetuned, torch.nn.Module, LoadedModel or "hf:<name or folder>"
        One of our checkpoints, any module (in nnsight's wrapper too), or a Hugging Face causal language model.
    episodes : Episodes, (N, T) integers, list of texts, or path of a file of texts
        Input of the model. A checkpoint needs Episodes, default `heldout`; for a fine-tuned model of a corpus the
        default has up to 40,000 tokens. Texts are for a model with a tokenizer, and are cut at its context; a file
        is as :func:`nextlat_viz.worlds.text` reads it. Positions past an episode's length are dropped.
    sites : "all", or names
        For a checkpoint or a Hugging Face model: "embed", "block0", ..., "hidden", which is always included, as ``X``.
        For other modules: submodules as in ``named_modules()``, the first tensor of their output, (B, T, D); ``"h.*"``
        takes all that match. Hook points of TransformerLens have their own names: ``"blocks.*.hook_resid_post"``.
    batch_size : int
        Episodes per forward pass; it changes speed and memory only.
    device : torch device, optional
        Where to run; default where the model is. Afterwards the model is moved back.
    progress : bool or callable
        Show a bar after half a second; or ``progress(read, total)`` is called with episodes after every batch, and an
        exception from it ends the extraction.
    hidden : str, optional
        For a module: which site becomes ``X``; default the last of `sites`, or the input of a Hugging Face model's
        output head.
    lengths : (N,) integers, or mask : (N, T) of 0 and 1, optional
        For an array of tokens: how many of each row are real, or which ones. Padding is before or after them, and
        positions count from the first real token.
    call : callable, optional
        ``call(model, tokens, real)`` runs a module whose forward takes other arguments than tokens; real is a (B, T)
        boolean tensor, False on padding, which always comes last.
    vocabulary : list of str, or a tokenizer, optional
        Names of the tokens; default their numbers.
    name : str, optional
        Name of a module in figures.
    world : World or its name, optional
        For a module: the world of the tokens, so that beliefs are in the table.
    truth : DataFrame, or dict of (N, T, ...) arrays, optional
        Further columns: a table with ``episode`` (from 0), ``position`` (from 1) and the columns to add.
    positions : slice, int or several, optional
        Keep only these, counted from 1; in a list, -1 is each episode's last. A checkpoint with a start token also has
        position 0, where nothing has been read: ``slice(0, None)`` keeps all.
    steps : int, optional
        Recursion steps of a recursive model; default as many as in training, and later ones are allowed.
    cells : bool
        For a recursive model: a row per cell of a puzzle and step, in place of the mean over cells. An episode is a
        cell then, ``puzzles x cells`` in all, with the columns ``board``, ``cell``, ``given``, ``answer``, ``changed``,
        ``solved``, ``right``, ``margin`` (see `Thinking.margins`) and, of queens, the exact ``posterior``.
    out : path of an .h5ad file, optional
        Write batch by batch to disk, in constant memory. Making the same call again continues an extraction that was
        interrupted, and opens one that is finished. Two calls are the same if their arguments and the model's
        weights, structure, buffers, attributes and code are equal.
        Under torchrun `out` may be a folder, a name without ``.h5ad``: each process then reads its share of the
        episodes and gets the table of that share; ``nlv.load_latents(out)`` reads the whole table.
    dtype : {"float32", "float16"}
        Type of the stored latents.

    Returns
    -------
    AnnData
        One row per (episode, position); see `nextlat_viz.latents.build`. With `out`, opened with ``backed="r"``:
        arrays are read from disk when they are used.

    Raises
    ------
    LatentsError
        No episodes, sequences longer than the model's context, tokens outside its vocabulary, rows without truth, a
        site without one state per position, or a file of another call at `out`.
    UnknownNameError
        A site the model does not have; the nearest is suggested.
    TypeError
        `model` is not a model, or `episodes` are not tokens.

    Examples
    --------
    >>> from nextlat_viz.training.checkpoint import load
    >>> checkpoint = load("rrxor/nextlat")
    >>> latents = extract(checkpoint, checkpoint.world.sample(4, length=6, seed=1), sites=["block0"])
    >>> latents.shape, latents.obs_names[0], table.sites(latents)
    ((24, 64), 'e0p1', ['block0', 'hidden'])

    Any module, with a further column:

    >>> model = nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 8), nn.Tanh())
    >>> tokens = np.arange(10).reshape(2, 5)
    >>> latents = extract(model, tokens, sites=["0", "2"], truth={"even": tokens % 2 == 0})
    >>> latents.shape, table.sites(latents), table.column(latents, "even")[:3].tolist()
    ((10, 8), ['0', 'hidden'], [True, False, True])
    """
    batch_size = at_least("batch_size", batch_size)
    if dtype not in ("float32", "float16"):
        raise LatentsError(f"dtype must be 'float32' or 'float16', got {dtype!r}")
    names = [sites] if isinstance(sites, str) else list(sites) if isinstance(sites, Iterable) else [None]
    if not all(isinstance(site, str) for site in names):
        raise TypeError(f"sites must be 'all', a name or a list of names, got {sites!r:.80}")
    sites = sites if isinstance(sites, str) else names
    if isinstance(model, (str, os.PathLike)):
        model = load(model)
    if (steps is not None or cells) and not (isinstance(model, Checkpoint) and is_recursive(model)):
        recursive_network(model, "steps" if steps is not None else "cells")
    if isinstance(model, Checkpoint):
        foreign = {"hidden": hidden, "lengths": lengths, "mask": mask, "call": call, "vocabulary": vocabulary,
                   "name": name, "world": world}  # fmt: skip
        if refused := [key for key, value in foreign.items() if value is not None]:
            raise LatentsError(f"{', '.join(refused)} cannot be given for a Checkpoint, which has its own")
        if not isinstance(episodes, Episodes | None):
            raise TypeError(
                f"episodes must be Episodes, got {shown(episodes)}: wrap tokens as Episodes(tokens), or sample some "
                "with checkpoint.world.sample(n, length, seed)"
            )
        if is_recursive(model):
            unsupported = {"truth": truth, "positions": positions, "out": out}
            if refused := [key for key, value in unsupported.items() if value is not None]:
                raise LatentsError(
                    f"{', '.join(refused)} cannot be given for a recursive model, whose rows are recursion steps, in "
                    "memory: choose rows of the table, and save it with nlv.save_latents"
                )
            puzzles = puzzles_of(model, episodes)
            return extract_steps(model, puzzles, sites, steps, cells, batch_size, device, progress, dtype)
        world = model.world
        reader: LatentsReader = CheckpointReader(model, sites)
        episodes = heldout(model) if episodes is None else episodes
    else:
        world = None if world is None else worlds.get(world)
        if isinstance(model, HubModel):
            known = model.world if world is None and model.world.rules_known else world
            if episodes is None:
                episodes = heldout(model)
                if known is None:
                    episodes = episodes[: max(8, _MOST_CORPUS_TOKENS // episodes.tokens.shape[1])]
            elif texts := texts_of(episodes):
                episodes = model.tokens(texts)
            world = known
        elif texts_of(episodes):
            raise LatentsError(
                "episodes are texts, and a module has no tokenizer: give token ids, (N, T) integers, or a Hugging Face "
                "model by its name or folder, 'hf:<name or folder>'"
            )
        reader, vocabulary = _foreign(model, sites, hidden, call, vocabulary, name)
        episodes, truth = episodes_from(episodes, lengths, mask, truth)
    require_readable(episodes, reader, world)
    read = make_reading(episodes, world, vocabulary, reader.vocabulary_size, truth, positions)
    if read.start > reader.offset:
        raise LatentsError(f"positions holds 0, and {reader.meta['name']} has no start token: positions count from 1")
    uns = table.origin(read, reader.meta, reader.sites[:-1])
    if out is None:
        with closing(_batches(reader, read, 0, batch_size, device, progress)) as batches:
            return table.assemble(_collected(batches, read.rows, dtype), read, uns)
    path = io.as_path(out, "out")
    require_names([*reader.sites, *episodes.states, *read.columns])
    identity = identity_of(reader, read, positions, batch_size, device, dtype, call)
    rank, count = processes()
    if count > 1 and path.suffix != ".h5ad":
        read, path, identity = own_part(read, path, identity, rank, count)
        device = own_device(device)
    with closing(Growing(path, identity)) as growing:
        if not growing.finished:
            with closing(_batches(reader, read, growing.episodes, batch_size, device, progress)) as batches:
                growing.fill(batches, read, uns, dtype)
    return open_backed(path)


def _batches(
    reader: LatentsReader,
    read: Reading,
    first: int,
    batch_size: int,
    device: torch.device | str | None,
    progress: bool | Callable[[int, int], None],
) -> Generator[tuple[dict[str, np.ndarray], int], None, None]:
    """Extract episodes from `first` on. Yield the rows of each batch by site, and the number of episodes then done."""
    documents = read.episodes.states.get("document")
    real, longest, n = valid(read.episodes), read.episodes.length, len(read.episodes)
    bar = tqdm(
        total=n,
        initial=first,
        desc=f"latents of {reader.meta['name']}",
        unit="episode",
        delay=0.5,
        disable=not progress or callable(progress),
    )
    with bar, reader.ready(device) as where:
        for start in range(first, n, batch_size):
            rows = slice(start, start + batch_size)
            # Only as wide as the longest episode of the batch: padding costs time.
            width = max(1, int(longest[rows].max()))
            mask = real[rows, :width]
            tokens = torch.from_numpy(np.where(mask, read.episodes.tokens[rows, :width], 0)).to(where)
            packed = None if documents is None else torch.from_numpy(documents[rows, :width]).to(where)
            try:
                states, logits = reader.read(tokens, torch.from_numpy(mask).to(where), packed)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                raise LatentsError(
                    f"{where} ran out of memory on {len(tokens)} sequences of {width} tokens: give a batch_size below "
                    f"{batch_size}, or shorter sequences"
                ) from error
            keep, columns = read.keep[rows, : width + read.start], slice(reader.offset - read.start, None)
            arrays = {name: _rows(states[name][:, columns], keep) for name in reader.sites}
            if logits is not None:
                arrays[table.PROBS] = _rows(logits[:, columns].float().softmax(dim=-1), keep)
            done = min(start + batch_size, n)
            yield arrays, done
            bar.update(done - start)
            if callable(progress):
                progress(done, n)


def _collected(batches: Iterable[tuple[dict[str, np.ndarray], int]], rows: int, dtype: str) -> dict[str, np.ndarray]:
    """Put the rows of all batches into one array for each site."""
    arrays: dict[str, np.ndarray] = {}
    row = 0
    for batch, _ in batches:
        for name, values in batch.items():
            if name not in arrays:
                arrays[name] = np.empty((rows, values.shape[1]), stored_type(name, dtype))
            arrays[name][row : row + len(values)] = narrow(name, values, arrays[name].dtype)
        row += len(values)
    return arrays


def _rows(values: torch.Tensor, keep: np.ndarray) -> np.ndarray:
    if keep.all():
        return values.float().flatten(0, 1).cpu().numpy()
    chosen = torch.from_numpy(keep).to(values.device)
    return values[chosen].float().cpu().numpy()


def _foreign(
    model: Any,
    sites: str | Sequence[str],
    hidden: str | None,
    call: Call | None,
    vocabulary: Any,
    name: str | None,
) -> tuple[LatentsReader, Any]:
    if isinstance(model, HubModel):
        vocabulary = model.tokenizer if vocabulary is None else vocabulary
        short = Path(model.name).name if isinstance(model, LoadedModel) else model.name
        return CausalLMReader(model.module, sites, hidden, call, name or short, model), vocabulary
    if any(kind.__module__.partition(".")[0] == "nnsight" for kind in type(model).__mro__):
        # The wrapper of nnsight names submodules as the wrapped module does.
        model = getattr(model, "_module", model)
    if not isinstance(model, nn.Module):
        raise TypeError(
            "model must be a Checkpoint, such as nlv.load('rrxor/nextlat'), a fine-tuned model, a torch.nn.Module, or "
            f"the name of a Hugging Face model, such as 'hf:gpt2', got {shown(model)}"
        )
    kind = CausalLMReader if is_causal_lm(model) else ModuleReader
    return kind(model, sites, hidden, call, name), vocabulary
