"""Extraction: run a model over episodes and keep what it held at every position."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from anndata import AnnData
from tqdm.auto import tqdm

from nextlat_viz.errors import LatentsError, unknown
from nextlat_viz.latents import table
from nextlat_viz.training.checkpoint import Checkpoint
from nextlat_viz.worlds import Episodes, World

# Not a seed that training uses: each of its batches has a 64-bit seed hashed from (run seed, step), and validation
# has a constant of its own. Where a world is so small that few sequences exist, the same sequence can still turn up
# in training: held out means drawn apart, not unseen.
HELDOUT_SEED = 20_260_000
HELDOUT_EPISODES = 512
# Next-token distributions are kept up to this vocabulary: past it they would outweigh the latents themselves.
MOST_TOKENS = 512


def heldout(checkpoint: Checkpoint, n: int = HELDOUT_EPISODES, seed: int = HELDOUT_SEED) -> Episodes:
    """Draw held-out episodes of a checkpoint's world: the standard ones, or as many of another seed.

    They are as long as an episode of the world, or else as the model's context, and from the test split where the
    world has one. Models of one world and context get the same episodes, so their latents can be compared row by row.
    """
    world = checkpoint.world
    length = checkpoint.model.backbone.config.context if world.length is None else world.length
    return world.sample(n, length, seed=seed, split="test" if "test" in world.splits else "train")


def extract(
    checkpoint: Checkpoint,
    episodes: Episodes | None = None,
    sites: str | Sequence[str] = "all",
    batch_size: int = 256,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> AnnData:
    """Read a model's latents at every position of every episode, with the exact truth beside them.

    Parameters
    ----------
    checkpoint : Checkpoint
    episodes : Episodes, optional
        What the model reads, ``tokens (N, T)``; default `heldout`. Positions past an episode's length are dropped.
    sites : "all", or names of ``checkpoint.model.backbone.sites``
        ``"hidden"``, the state the head reads, always comes along, as ``X``.
    batch_size : int
        Episodes per forward pass; it changes speed and memory only.
    device : torch device, optional
        Where to run; default where the model is. The model goes back there afterwards.
    progress : bool
        Show a bar when it takes more than half a second.

    Returns
    -------
    AnnData
        One row per (episode, position), float32; see `nextlat_viz.latents.build`.

    Raises
    ------
    LatentsError
        No episodes, sequences longer than the model's context, or tokens outside its vocabulary.
    UnknownNameError
        A site the model does not have; the nearest is suggested.
    TypeError
        Anything but a Checkpoint and Episodes.

    Examples
    --------
    >>> from nextlat_viz.training.checkpoint import load
    >>> checkpoint = load("rrxor/nextlat")
    >>> latents = extract(checkpoint, checkpoint.world.sample(4, length=6, seed=1), sites=["block0"])
    >>> latents.shape, latents.obs_names[0], table.sites(latents)
    ((24, 64), 'e0p1', ['block0', 'hidden'])
    """
    if not isinstance(checkpoint, Checkpoint):
        raise TypeError(f"checkpoint must be a Checkpoint, such as nlv.load('rrxor/nextlat'), got {checkpoint!r:.80}")
    if not isinstance(episodes, Episodes | None):
        raise TypeError(f"episodes must be Episodes, got {type(episodes).__name__}: wrap tokens as Episodes(tokens)")
    backbone = checkpoint.model.backbone
    names = _chosen(sites, backbone.sites)
    if batch_size < 1:
        raise LatentsError(f"batch_size must be at least 1, got {batch_size}")
    if episodes is None:
        episodes = heldout(checkpoint)
    tokens = _readable(episodes, backbone.config.context, checkpoint.world)

    n, width = tokens.shape
    packed = episodes.states["document"][:, :width] if "document" in episodes.states else None
    home, was_training = next(backbone.parameters()).device, backbone.training
    where = home if device is None else torch.device(device)
    full = (n, episodes.tokens.shape[1])
    states = {name: np.zeros((*full, backbone.config.dim), dtype=np.float32) for name in names}
    vocabulary = len(checkpoint.world.vocabulary)
    probs = np.zeros((*full, vocabulary), dtype=np.float32) if vocabulary <= MOST_TOKENS else None
    try:
        checkpoint.model.to(where).eval()
        with (
            torch.inference_mode(),
            tqdm(total=n, desc=f"latents of {checkpoint.name}", unit="episode", delay=0.5, disable=not progress) as bar,
        ):
            for start in range(0, n, batch_size):
                rows = slice(start, start + batch_size)
                documents = None if packed is None else torch.from_numpy(packed[rows]).to(where)
                read = backbone.states(torch.from_numpy(tokens[rows]).to(where), documents)
                for name in names:
                    states[name][rows, :width] = read[name].float().cpu().numpy()
                if probs is not None:
                    logits = checkpoint.model.logits(read[table.HIDDEN]).float()
                    probs[rows, :width] = logits.softmax(dim=-1).cpu().numpy()
                bar.update(len(tokens[rows]))
    finally:
        checkpoint.model.to(home).train(was_training)

    meta = {
        "card": checkpoint.card.model_dump_json(),
        "weights_sha256": checkpoint.weights_sha256,
        "label": checkpoint.label,
        "name": checkpoint.name,
        "step": checkpoint.step,
    }
    hidden = states.pop(table.HIDDEN)
    return table.build(hidden, states, episodes, checkpoint.world, meta, probs)


def _chosen(sites: str | Sequence[str], known: list[str]) -> list[str]:
    """Names of the wanted sites in the model's own order, "hidden" among them."""
    wanted = known if sites == "all" else [sites] if isinstance(sites, str) else list(sites)
    for name in wanted:
        if name not in known:
            raise unknown("site", name, known)
    return [name for name in known if name in wanted or name == table.HIDDEN]


def _readable(episodes: Episodes, context: int, world: World) -> np.ndarray:
    """Tokens as the model can read them: no longer than the longest episode, token 0 on padding."""
    longest = int(episodes.length.max(initial=0))
    if longest == 0:
        raise LatentsError("episodes hold no tokens: there is nothing to extract")
    if longest > context:
        raise LatentsError(
            f"episodes have up to {longest} tokens, but this model's context is {context}: "
            "give shorter ones, e.g. world.sample(n, length=context, seed)"
        )
    tokens = episodes.tokens[:, :longest]
    valid = np.arange(longest) < episodes.length[:, None]
    wrong = valid & ((tokens < 0) | (tokens >= len(world.vocabulary)))
    if wrong.any():
        episode, position = np.argwhere(wrong)[0]
        raise LatentsError(
            f"token {tokens[episode, position]} of episode {episode}, position {position + 1}, is outside the "
            f"vocabulary of {world.name}: ids go from 0 to {len(world.vocabulary) - 1}"
        )
    return np.where(valid, tokens, 0)
