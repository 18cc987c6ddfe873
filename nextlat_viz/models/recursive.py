"""Tiny recursive models: one small network, applied again and again to a puzzle, an answer and a latent.

`TRM` is the Tiny Recursive Model (arXiv:2510.04871), `DIS` its training with a target for every step
(arXiv:2511.16886). `OnePass` and `EqualDepth` are their baselines: the same network, trained on its last answer alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nextlat_viz.models.attention import KVCache, TransformerConfig, fits
from nextlat_viz.models.objective import Batch, Objective, next_token_loss
from nextlat_viz.models.transformer import Transformer
from nextlat_viz.worlds import World


class Schedule(NamedTuple):
    """Numbers of applications of a recursive model's network.

    Attributes
    ----------
    updates : n, updates of the latent before an update of the answer.
    cycles : T, how often both are updated in a recursion step; only the last cycle has a gradient.
    steps : S, recursion steps: after each there is an answer, and in training a loss.

    Examples
    --------
    >>> Schedule(updates=6, cycles=3, steps=16).passes, Schedule(updates=2, cycles=1, steps=6).passes
    (336, 18)
    """

    updates: int
    cycles: int
    steps: int

    @property
    def passes(self) -> int:
        """Number of applications of the network to a puzzle."""
        return self.steps * self.cycles * (self.updates + 1)


class RecursiveNetwork(Transformer):
    """The network of a recursive model; calling it gives the answer's state in every cell after the last step.

    Three states have the same shape (cells, dim): x, the embedded puzzle; y, the answer; z, the latent. Both y and z
    begin at zero. The blocks are not causal. A norm after the last block keeps the states at one scale, however often
    the network is applied. x has a learned vector for each cell, because rotary positions tell only how far apart two
    cells are.

    Parameters
    ----------
    config : TransformerConfig
        Sizes; `start_token` and `causal` are off, whatever it says.
    schedule : Schedule
        By default that of `DIS`.

    Examples
    --------
    >>> sizes = TransformerConfig(vocabulary_size=2, context=16, layers=2, dim=16, heads=2, mlp_dim=32)
    >>> network = RecursiveNetwork(sizes, Schedule(updates=2, cycles=1, steps=3))
    >>> boards = torch.zeros(5, 16, dtype=torch.long)
    >>> answers = [network.logits(y).argmax(dim=-1) for y, z in network.steps(boards)]
    >>> len(answers), answers[0].shape, bool((network.logits(network(boards)).argmax(dim=-1) == answers[-1]).all())
    (3, torch.Size([5, 16]), True)
    """

    def __init__(self, config: TransformerConfig, schedule: Schedule | None = None) -> None:
        super().__init__(config.model_copy(update={"start_token": False, "causal": False}))
        self.schedule = Schedule(updates=2, cycles=1, steps=8) if schedule is None else schedule
        self.cell = nn.Embedding(config.context, config.dim)
        # At the scale of y and z, which are normalised: a small x would be lost in x + y + z.
        for embedding in (self.embed, self.cell):
            nn.init.normal_(embedding.weight, std=0.5**0.5)

    def puzzle(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t dim"]:
        """x, the embedded puzzle."""
        fits(tokens.shape[1], self.config.context)
        return self.embed(tokens) + self.cell.weight[: tokens.shape[1]]

    def net(self, state: Float[Tensor, "b t dim"]) -> Float[Tensor, "b t dim"]:
        """Apply the network once."""
        for block in self.blocks:
            state = block(state, self.rotation[:, : state.shape[1]], None, None, 0)
        return self.norm(state)

    def latent_recursion(
        self, x: Float[Tensor, "b t dim"], y: Float[Tensor, "b t dim"], z: Float[Tensor, "b t dim"]
    ) -> tuple[Float[Tensor, "b t dim"], Float[Tensor, "b t dim"]]:
        """Update the latent n times, z <- net(x + y + z), then the answer once, y <- net(y + z)."""
        for _ in range(self.schedule.updates):
            z = self.net(x + y + z)
        return self.net(y + z), z

    def deep_recursion(
        self, x: Float[Tensor, "b t dim"], y: Float[Tensor, "b t dim"], z: Float[Tensor, "b t dim"]
    ) -> tuple[Float[Tensor, "b t dim"], Float[Tensor, "b t dim"]]:
        """One recursion step: T latent recursions, all but the last without gradient."""
        with torch.no_grad():
            for _ in range(self.schedule.cycles - 1):
                y, z = self.latent_recursion(x, y, z)
        return self.latent_recursion(x, y, z)

    def steps(
        self, tokens: Int[Tensor, "b t"], count: int | None = None
    ) -> Iterator[tuple[Float[Tensor, "b t dim"], Float[Tensor, "b t dim"]]]:
        """Yield y and z after each recursion step: S of them, or `count`."""
        x = self.puzzle(tokens)
        y = z = torch.zeros_like(x)
        for _ in range(self.schedule.steps if count is None else count):
            y, z = self.deep_recursion(x, y, z)
            yield y, z

    @property
    def sites(self) -> list[str]:
        return ["z", "hidden"]

    def states(
        self,
        tokens: Int[Tensor, "b t"],
        documents: Int[Tensor, "b t"] | None = None,
        cache: KVCache | None = None,
        counts: Int[Tensor, " b"] | None = None,
    ) -> dict[str, Float[Tensor, "b t dim"]]:
        """z, and y as ``"hidden"``, after the last recursion step."""
        if documents is not None or cache is not None:
            raise ValueError("a recursive model reads all cells of a puzzle at once: no documents, and no cache")
        *_, (y, z) = self.steps(tokens)
        return {"z": z, "hidden": y}

    def cache(self, batch_size: int) -> KVCache:
        raise ValueError("a recursive model reads all cells of a puzzle at once: it does not generate token by token")


class Recursive(Objective):
    """Deep supervision: an optimiser step after every recursion step; y and z are carried on to the next, detached.

    Parameters
    ----------
    backbone : RecursiveNetwork
    latent_updates, cycles, recursion_steps : n, T and S of the `Schedule`; None takes the objective's own.

    Attributes
    ----------
    every_step : whether every recursion step has a loss, or only the last.
    defaults : the objective's own `Schedule`.
    """

    next_tokens = False
    network = RecursiveNetwork
    every_step = True
    defaults: Schedule

    backbone: RecursiveNetwork

    def __init__(
        self,
        backbone: RecursiveNetwork,
        latent_updates: int | None = None,
        cycles: int | None = None,
        recursion_steps: int | None = None,
    ) -> None:
        super().__init__(backbone)
        counts = {"updates": latent_updates, "cycles": cycles, "steps": recursion_steps}
        changes = {name: count for name, count in counts.items() if count is not None}
        backbone.schedule = self.defaults._replace(**changes)
        self.updates, self.passes = backbone.schedule.steps if self.every_step else 1, backbone.schedule.passes

    @classmethod
    def require_world(cls, world: World, start_token: bool) -> None:
        """Raise ValueError unless all cells of the world's puzzles can be read at once."""
        if world.predicts_next_token:
            raise ValueError(
                f"objective={cls.name!r} answers all cells of a puzzle at once, and models of world {world.name!r} "
                "predict the next token, which such a model would see: choose a world with an answer for each cell, "
                "such as 'queens', or another objective"
            )
        if world.length is None:
            raise ValueError(
                f"objective={cls.name!r} reads puzzles of one size, and episodes of world {world.name!r} have any "
                "length: choose a world with a length, such as 'queens', or another objective"
            )
        if start_token:
            raise ValueError(
                f"start_token=True: objective={cls.name!r} reads all cells of a puzzle at once, so there is nothing "
                "before the first: give start_token=False"
            )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of one recursion step, and ``"carried"``, the y and z after it."""
        x = self.backbone.puzzle(batch.inputs)
        y, z = torch.zeros_like(x).expand(2, *x.shape) if batch.carried is None else batch.carried
        y, z = self.backbone.deep_recursion(x, y, z)
        return self.losses(y, batch) | {"carried": torch.stack([y, z]).detach()}

    def losses(self, y: Float[Tensor, "b t dim"], batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the answer in every scored cell."""
        answer = next_token_loss(self.backbone, y, batch)
        return {"loss": answer, "answer": answer}

    def following(self, batch: Batch, losses: dict[str, Tensor]) -> Batch | None:
        if batch.step + 1 == self.updates:
            return None
        return replace(batch, step=batch.step + 1, carried=losses["carried"])

    @property
    def weights(self) -> dict[str, float]:
        return {"answer": 1.0}

    def counts(self, batch: Batch) -> dict[str, int]:
        return {"answer": int(batch.target_mask.sum())}


class TRM(Recursive):
    """L = CE(head(y), answer) + BCE(halt(y), whether every cell is right), after each of up to S recursion steps.

    A puzzle takes no further steps once halt(y) > 0: the model then takes its answer to be right. halt(y) is a linear
    map of the mean of y over cells.
    """

    name = "trm"
    label = "TRM"
    defaults = Schedule(updates=6, cycles=3, steps=16)

    def __init__(
        self,
        backbone: RecursiveNetwork,
        latent_updates: int | None = None,
        cycles: int | None = None,
        recursion_steps: int | None = None,
    ) -> None:
        super().__init__(backbone, latent_updates, cycles, recursion_steps)
        self.halt = nn.Linear(backbone.config.dim, 1)
        nn.init.zeros_(self.halt.weight)
        # An untrained model takes no answer to be right.
        nn.init.constant_(self.halt.bias, -5.0)

    def losses(self, y: Float[Tensor, "b t dim"], batch: Batch) -> dict[str, Tensor]:
        answer, halt = super().losses(y, batch)["answer"], self.halts(y)
        with torch.no_grad():
            wrong = (self.logits(y).argmax(dim=-1) != batch.targets) & batch.target_mask
        right = ~wrong.any(dim=1)
        confidence = F.binary_cross_entropy_with_logits(halt, right.to(halt.dtype))
        return {"loss": answer + confidence, "answer": answer, "halt": confidence, "halted": halt.detach() > 0}

    def halts(self, y: Float[Tensor, "b t dim"]) -> Float[Tensor, " b"]:
        """Logit of the answer being right."""
        return self.halt(y.mean(dim=1))[:, 0]

    def following(self, batch: Batch, losses: dict[str, Tensor]) -> Batch | None:
        following = super().following(batch, losses)
        return None if following is None else remaining(following, ~losses["halted"])

    @property
    def weights(self) -> dict[str, float]:
        return {"answer": 1.0, "halt": 1.0}

    def counts(self, batch: Batch) -> dict[str, int]:
        return {**super().counts(batch), "halt": len(batch.inputs)}


def remaining(batch: Batch, rows: Bool[Tensor, " b"]) -> Batch | None:
    """Return some rows of a batch of puzzles; None for no rows."""
    if bool(rows.all()):
        return batch
    if not bool(rows.any()):
        return None
    parts = {name: getattr(batch, name)[rows] for name in ("inputs", "targets", "target_mask", "valid")}
    return replace(batch, **parts, carried=None if batch.carried is None else batch.carried[:, rows])


class DIS(Recursive):
    """Deep improvement supervision: the target of step s of S has a share 1 - s / S of its cells corrupted.

    A corrupted cell holds the puzzle's token, and a cell that is right in one step's target is right in all later ones;
    the last target is the answer. There is no halting, and every pass has a gradient.
    """

    name = "dis"
    label = "DIS"
    defaults = Schedule(updates=2, cycles=1, steps=8)

    def losses(self, y: Float[Tensor, "b t dim"], batch: Batch) -> dict[str, Tensor]:
        return super().losses(y, replace(batch, targets=self.target(batch)))

    def target(self, batch: Batch) -> Int[Tensor, "b t"]:
        """The target of the batch's step."""
        generator = torch.Generator().manual_seed(batch.seed)
        order = torch.rand(batch.inputs.shape, generator=generator).to(batch.inputs.device)
        corrupted = order < 1 - (batch.step + 1) / self.updates
        return torch.where(corrupted, batch.inputs, batch.targets)


class OnePass(Recursive):
    """The baseline: one recursion step, trained on its answer with a gradient through every application.

    With more layers, say ``layers=16``, it is a plain network with more depth and more weights.
    """

    name = "one_pass"
    label = "one pass"
    defaults = Schedule(updates=2, cycles=1, steps=1)
    every_step = False

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self.losses(self.backbone(batch.inputs), batch)


class EqualDepth(OnePass):
    """The baseline of the same weights and the same depth as `DIS`: all steps in one pass, trained on the last answer.

    It differs from `DIS` only in the supervision: between the steps there is no loss and no detaching.
    """

    name = "equal_depth"
    label = "equal depth"
    defaults = Schedule(updates=2, cycles=1, steps=8)
