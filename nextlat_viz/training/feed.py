"""Batches for every step, drawn ahead while the step before is computed."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from nextlat_viz.models import Batch, Objective
from nextlat_viz.training.presets import TrainConfig, episode_length
from nextlat_viz.training.shares import Terms, shares
from nextlat_viz.worlds import Episodes, World


@dataclass(frozen=True)
class Piece:
    """Some rows of a step's batch, with the share each term of the loss has in the whole's; None where it is all."""

    batch: Batch
    share: Terms | None = None


@dataclass(frozen=True)
class Feed:
    """The batches of a run, by seed and step alone: whoever asks, and when, gets the same.

    A step's episodes are dealt out in turn to all pieces of all devices, so that any number of either trains on
    the same episodes. Every device draws them all: that needs no word between devices, and tells each what the
    whole batch scores.
    """

    world: World
    model: Objective
    config: TrainConfig
    seed: int
    rank: int = 0
    devices: int = 1
    device: torch.device | str = "cpu"

    def episodes(self, step: int, *, states: bool = False) -> Episodes:
        """Episodes of one step."""
        seed = int(np.random.SeedSequence([self.seed, step]).generate_state(1, np.uint64)[0])
        length = episode_length(self.world, self.config.context)
        return self.world.sample(self.config.batch_size, length, seed=seed, states=states)

    def pieces(self, step: int) -> list[Piece]:
        """What this device computes in one step."""
        episodes = self.episodes(step)
        parts = self.devices * self.config.accumulate
        if parts == 1:
            return [Piece(Batch.from_episodes(episodes, self.device, seed=step))]
        whole = self.model.counts(Batch.from_episodes(episodes, seed=step))
        mine = [episodes[i::parts] for i in range(self.rank, parts, self.devices)]
        counts = [self.model.counts(Batch.from_episodes(part, seed=step)) for part in mine]
        return [
            Piece(Batch.from_episodes(part, self.device, seed=step), shares(count, whole))
            for part, count in zip(mine, counts, strict=True)
        ]

    def ahead(self, first: int, end: int) -> Generator[list[Piece], None, None]:
        """Pieces of the steps from `first` up to `end`, the next ones drawn in a thread meanwhile."""
        with ThreadPoolExecutor(1, thread_name_prefix="nextlat_viz-feed") as thread:
            coming: Future[list[Piece]] | None = thread.submit(self.pieces, first) if first < end else None
            for step in range(first, end):
                assert coming is not None
                now = coming.result()
                coming = thread.submit(self.pieces, step + 1) if step + 1 < end else None
                yield now
