"""Latents made without a model: a known linear picture of the exact belief, for tests that need no training."""

from __future__ import annotations

import hashlib
import json
import zlib
from typing import Any

import numpy as np
from anndata import AnnData

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
    that starts with "untrained" holds none anywhere. Episodes depend on the world, n, length and seed alone, so two
    labels with the same ones can be compared row by row.
    """
    truth = _world(world)
    episodes = truth.sample(n, length, seed)
    belief = truth.belief(episodes.tokens)
    rng = np.random.default_rng([seed, zlib.crc32(label.encode())])
    vocabulary = len(truth.vocabulary)
    trained = not label.lower().startswith("untrained")

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
    objective = label.lower().replace(" ", "_")
    meta = {
        "card": json.dumps({"world": truth.spec, "objective": objective, "preset": "synthetic", "seed": seed}),
        "weights_sha256": hashlib.sha256(f"{world} {label} {dim} {blocks} {seed}".encode()).hexdigest(),
        "label": label,
        "name": f"{world}/{objective}/seed{seed}",
        "step": 100 if trained else 0,
    }
    own = 0.98 * truth.next_token_probs(episodes.tokens) + 0.02 / vocabulary
    return table.build(at(1.0), layers, episodes, truth, meta, own)


def _world(name: str) -> Any:
    try:
        from nextlat_viz import worlds
        return worlds.get(name)
    except (ImportError, AttributeError):
        return _StandIn(name)


class _StandIn:
    """RRXOR or Mess3 until `nextlat_viz.worlds` is there."""

    def __init__(self, name: str) -> None:
        self.name, self.spec = name, {"name": name}
        if name == "mess3":
            a, x = 0.85, 0.05
            b, y = (1 - a) / 2, 1 - 2 * x
            move = np.where(np.eye(3, dtype=bool), y, x)
            self.T = np.stack([move * np.where(np.arange(3) == k, a, b)[None, :] for k in range(3)])
            self.vocabulary: tuple[str, ...] = ("0", "1", "2")
            self.state_names: tuple[str, ...] = ("A", "B", "C")
        else:
            self.T = np.zeros((2, 5, 5))
            for token, source, target, p in [
                (0, 0, 1, 0.5), (1, 0, 2, 0.5), (0, 1, 4, 0.5), (1, 1, 3, 0.5),
                (0, 2, 3, 0.5), (1, 2, 4, 0.5), (1, 3, 0, 1.0), (0, 4, 0, 1.0),
            ]:
                self.T[token, source, target] = p
            self.vocabulary, self.state_names = ("0", "1"), ("S", "0", "1", "T", "F")
        step = np.linalg.matrix_power(self.T.sum(0) / 2 + np.eye(len(self.state_names)) / 2, 500)
        self.stationary = step[0]

    def sample(self, n: int, length: int, seed: int) -> Any:
        from types import SimpleNamespace
        rng = np.random.default_rng(seed)
        S = len(self.state_names)
        state = rng.choice(S, size=n, p=self.stationary)
        tokens, states = np.zeros((n, length), np.int64), np.zeros((n, length), np.int64)
        for t in range(length):
            joint = self.T[:, state].transpose(1, 0, 2).reshape(n, -1).cumsum(1)
            drawn = (joint < rng.random((n, 1)) * joint[:, -1:]).sum(1)
            tokens[:, t], state = np.divmod(drawn, S)
            states[:, t] = state
        return SimpleNamespace(
            tokens=tokens, states={"state": states, "belief": self.belief(tokens)}, length=np.full(n, length),
            loss_mask=np.ones_like(tokens, bool), targets=None, sha256=hashlib.sha256(tokens.tobytes()).hexdigest(),
        )

    def belief(self, tokens: np.ndarray) -> np.ndarray:
        now, out = np.tile(self.stationary, (len(tokens), 1)), []
        for t in range(tokens.shape[1]):
            now = np.einsum("ns,nsu->nu", now, self.T[tokens[:, t]])
            now = now / now.sum(1, keepdims=True)
            out.append(now)
        return np.stack(out, 1)

    def next_token_probs(self, tokens: np.ndarray) -> np.ndarray:
        return self.belief(tokens) @ self.T.sum(2).T
