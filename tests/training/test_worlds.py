"""Every world can be trained on with one line, and the loss falls."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nextlat_viz as nlv
from nextlat_viz import worlds

# A smaller tiny preset, enough to see that a model learns from the world.
SHORT = {
    **{"layers": 1, "dim": 32, "heads": 2, "mlp_dim": 64, "psi_width": 64, "batch_size": 16},
    **{"steps": 60, "decay_steps": 20, "warmup_steps": 5, "learning_rate": 1e-2, "validation_episodes": 64},
}
# Bloch walk offers only 0.007 nats to learn; a word problem, at first, only that the first product is the first token.
SUBTLE = {
    "bloch_walk": {"steps": 500, "decay_steps": 250, "batch_size": 64, "validation_episodes": 512},
    "even": {"steps": 200, "batch_size": 64},
    **{group: {"steps": 200, "batch_size": 64} for group in ("a5", "s5", "a4xz5", "z60")},
}


def corpus(folder: Path) -> str:
    """A text that is easy to learn: sentences of a few words in one order."""
    rng = np.random.default_rng(0)
    people, things = ["anna", "ben", "cleo"], ["hat", "ball", "key"]
    stories = [
        " ".join(f"{rng.choice(people)} has the {rng.choice(things)}." for _ in range(rng.integers(3, 9)))
        for _ in range(300)
    ]
    path = folder / "stories.txt"
    path.write_text("\n<|endoftext|>\n".join(stories), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", [*worlds.names(), "text"])
def test_the_loss_falls_below_the_unigram_baseline(name: str, tmp_path: Path) -> None:
    world = worlds.get("text", source=corpus(tmp_path), vocabulary_size=300) if name == "text" else worlds.get(name)
    options = SHORT | SUBTLE.get(name, {})
    checkpoint = nlv.train(world, "next_token", preset="tiny", out=tmp_path / "run", progress=False, **options)
    metrics = checkpoint.card.metrics
    assert metrics["loss"] < metrics["unigram"], metrics
    assert metrics.get("floor", 0.0) <= metrics["loss"]
    assert ("floor" in metrics) == ("excess" in metrics) == (world.next_token_probs(one(world)) is not None)


@pytest.mark.parametrize("name", ["taxi", "path_star", "countdown", "a5", "story", "othello", "queens"])
def test_latents_hold_the_true_states(name: str, tmp_path: Path) -> None:
    world = worlds.get(name)
    checkpoint = nlv.train(
        world, "nextlat", out=tmp_path / "run", progress=False, **SHORT | {"steps": 3, "decay_steps": 0}
    )
    latents = nlv.extract(checkpoint, progress=False)
    episodes = nlv.latents.heldout(checkpoint)
    read = np.arange(episodes.tokens.shape[1]) < episodes.length[:, None]
    assert latents.n_obs == read.sum()
    for state, values in episodes.states.items():
        kept = nlv.latents.column(latents, state)
        names = world.state_values.get(state)
        for row in (0, 17, latents.n_obs - 1):
            truth = values[read][row]
            if names is not None and truth.ndim == 0:
                assert kept[row] == (names[truth] if truth >= 0 else "nan")
            else:
                np.testing.assert_array_equal(kept[row], truth.ravel() if truth.ndim else truth)


def one(world: worlds.World) -> np.ndarray:
    return world.sample(1, 8 if world.length is None else None, seed=0).tokens


class Counter(worlds.World):
    """A world from outside the package: it counts up from a random digit, and its state is the present digit."""

    pictures = ("digits",)

    def __init__(self, base: int) -> None:
        self.name, self.spec = "counter", {"name": "counter", "base": base}
        self.vocabulary = tuple(map(str, range(base)))

    def sample(
        self, n: int, length: int | None = None, seed: int = 0, *, split: str = "train", states: bool = True
    ) -> worlds.Episodes:
        first = np.random.default_rng(seed).integers(len(self.vocabulary), size=(n, 1))
        tokens = (first + np.arange(length or 8)) % len(self.vocabulary)
        return worlds.Episodes(tokens, self.replay(tokens) if states else {})

    def replay(self, tokens: np.ndarray) -> dict[str, np.ndarray]:
        return {"digit": np.asarray(tokens)}

    def legal_next(self, tokens: np.ndarray) -> np.ndarray:
        base = len(self.vocabulary)
        return (np.asarray(tokens)[..., None] + 1) % base == np.arange(base)

    def draw(self, kind: str = "digits", *, episode=None, position=None, **options):
        raise NotImplementedError


def counter(base: int = 4) -> Counter:
    return Counter(base)


def test_a_world_from_outside_is_trained_loaded_and_probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worlds.registry, "_factories", dict(worlds.registry._factories))
    worlds.register("counter", counter)
    checkpoint = nlv.train("counter:base=5", out=tmp_path / "run", progress=False, **SHORT | {"context": 6})
    assert checkpoint.card.metrics["loss"] < checkpoint.card.metrics["unigram"]
    assert "train counter:base=5 nextlat" in checkpoint.card.command
    again = nlv.load(tmp_path / "run")
    assert again.world.spec == {"name": "counter", "base": 5}
    latents = nlv.extract(again, progress=False)
    assert nlv.probe(latents, "digit").score > 0.9
    explorer = nlv.LatentExplorer(latents)
    assert explorer.state.color == "digit"
    explorer.close()
