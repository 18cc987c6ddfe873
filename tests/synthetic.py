"""Latents made without a model: a known linear picture of the exact belief, for tests that need no training."""

from __future__ import annotations

import hashlib
import json
import zlib

import numpy as np
from anndata import AnnData

from nextlat_viz import worlds
from nextlat_viz.latents import table


def make_latents(
    world: str = "rrxor",
    label: str = "NextLat",
    n: int = 64,
    length: int = 12,
    dim: int = 16,
    noise: float = 0.05,
    blocks: int = 2,
    seed: int = 0,
) -> AnnData:
    """Return latents in the exact format `nlv.extract` gives.

    The hidden state is ``belief @ W`` for a random ``W`` of the label, plus a nonlinear function of token and
    position, plus Gaussian noise. Sites before it hold less of the belief: "embed" none, each block more. A label
    that says "untrained" holds none anywhere. Episodes depend on the world, n, length and seed alone, so two
    labels with the same ones can be compared row by row.
    """
    truth = worlds.get(world)
    episodes = truth.sample(n, length, seed)
    belief = truth.belief(episodes.tokens)
    rng = np.random.default_rng([seed, zlib.crc32(label.encode())])
    vocabulary = len(truth.vocabulary)
    trained = "untrained" not in label.lower()

    read = np.concatenate(
        [
            np.eye(vocabulary)[episodes.tokens],
            np.broadcast_to(np.linspace(-1, 1, length)[None, :, None], (n, length, 1)),
        ],
        axis=-1,
    )
    nuisance = np.tanh(2 * read @ rng.normal(size=(vocabulary + 1, 4))) @ rng.normal(size=(4, dim)) / 2
    known = belief @ rng.normal(size=(belief.shape[-1], dim))

    def at(share: float) -> np.ndarray:
        spread = noise + (1 - share) / 2
        return (share * known * trained + nuisance + spread * rng.normal(size=known.shape)).astype(np.float32)

    layers = {"embed": at(0.0)} | {f"block{i}": at((i + 1) / (blocks + 1)) for i in range(blocks)}
    objective = label.lower().replace("-", "_").replace(" ", "_")
    meta = {
        "card": json.dumps({"world": truth.spec, "objective": objective, "preset": "synthetic", "seed": seed}),
        "weights_sha256": hashlib.sha256(f"{world} {label} {dim} {blocks} {seed}".encode()).hexdigest(),
        "label": label,
        "name": f"{world}/{objective}/seed{seed}",
        "step": 100 if trained else 0,
    }
    own = 0.98 * truth.next_token_probs(episodes.tokens) + 0.02 / vocabulary
    return table.build(at(1.0), layers, episodes, truth, meta, own)
