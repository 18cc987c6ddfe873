"""One optimiser step on any devices, and the check that what came of it is a number."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.fsdp import FSDPStrategy
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from nextlat_viz.models import Batch, Objective
from nextlat_viz.training.feed import Piece
from nextlat_viz.training.presets import TrainConfig
from nextlat_viz.training.resume import Moments
from nextlat_viz.training.shares import weighed

FIELDS = tuple(field.name for field in fields(Batch))


class Engine:
    """Model and optimiser as Fabric set them up, stepping.

    Nothing here waits for the device: losses stay there until :meth:`losses` or :meth:`first_failure` asks for them.

    A step minimises the loss of the whole batch, whatever number of pieces and devices it is computed on: each piece
    counts by its share of what the batch scores, term by term, so that gradients are those of one device and one
    piece up to the rounding of sums.
    """

    def __init__(self, model: Objective, optimizer: torch.optim.Optimizer, config: TrainConfig, fabric: Fabric) -> None:
        self.raw_model, self.config, self.fabric = model, config, fabric
        self.weight = model.weights
        called: nn.Module = _Called(model)
        if config.compile:
            called = cast(nn.Module, torch.compile(called))
        self.model, self.optimizer = fabric.setup(called, optimizer)
        self.recent: list[Tensor] = []
        self.last: dict[str, Tensor] = {}

    def step(self, step: int, pieces: list[Piece]) -> None:
        """One optimiser step, from 0."""
        fabric, config = self.fabric, self.config
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * schedule(step, config)
        totals: dict[str, Tensor] = {}
        for i, piece in enumerate(pieces, start=1):
            waits = fabric.world_size > 1 and i < len(pieces)
            with fabric.no_backward_sync(self.model, enabled=waits):
                losses = self.model({name: getattr(piece.batch, name) for name in FIELDS})
                if piece.share is not None:
                    losses = weighed(losses, self.weight, piece.share)
                # Gradients are averaged over devices; the devices' losses are parts of a sum.
                fabric.backward(losses["loss"] * fabric.world_size if fabric.world_size > 1 else losses["loss"])
            for name, value in losses.items():
                totals[name] = totals[name] + value.detach() if name in totals else value.detach()
        if config.grad_clip:
            # A norm that is not finite is found by the check on what is to be kept.
            fabric.clip_gradients(self.model, self.optimizer, max_norm=config.grad_clip, error_if_nonfinite=False)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.last = totals
        self.recent.append(totals["loss"])

    def losses(self) -> dict[str, float]:
        """Losses of the last step's batch, over all devices."""
        values = torch.stack(list(self.last.values()))
        return dict(zip(self.last, self._over_devices(values, "sum").tolist(), strict=True))

    def first_failure(self) -> int | None:
        """How many steps ago a loss was first not finite, 1 being the last step; 0 if only the weights now are not.

        None if all is well. Asks about the steps since it was last asked, on all devices at once.
        """
        # The weights are asked too: a loss can be finite and its gradient not.
        norm = get_total_norm([parameter.detach() for parameter in self.raw_model.parameters()])
        finite = torch.stack([*self.recent, norm]).isfinite().float()
        self.recent.clear()
        failed = (self._over_devices(finite, "mean") < 1).nonzero()
        return None if len(failed) == 0 else len(finite) - 1 - int(failed[0])

    def _over_devices(self, values: Tensor, how: str) -> Tensor:
        reduced: Any = self.fabric.all_reduce(values, reduce_op=how) if self.fabric.world_size > 1 else values
        return reduced

    def moments(self) -> Moments:
        """What the optimiser remembers, whole; on every device at once where weights are spread."""
        if not self.sharded:
            moments: Moments = self.optimizer.state_dict()["state"]
            return moments
        from torch.distributed.fsdp import FullyShardedDataParallel

        module, optimizer = self._spread()
        with _full_states(module):
            by_name = FullyShardedDataParallel.optim_state_dict(module, optimizer)["state"]
        return {i: by_name[name] for i, name in enumerate(self._names()) if name in by_name}

    def restore(self, moments: Moments) -> None:
        """Give the optimiser back what :meth:`moments` said; on every device at once where weights are spread."""
        state: dict[str, Any] = {"state": moments, "param_groups": self.optimizer.state_dict()["param_groups"]}
        if self.sharded:
            from torch.distributed.fsdp import FullyShardedDataParallel

            module, optimizer = self._spread()
            names = self._names()
            groups = [{**group, "params": [names[i] for i in group["params"]]} for group in state["param_groups"]]
            whole = {"state": {names[i]: its for i, its in moments.items()}, "param_groups": groups}
            with _full_states(module):
                state = FullyShardedDataParallel.optim_state_dict_to_load(module, optimizer, whole)
        self.optimizer.load_state_dict(state)

    def _spread(self) -> tuple[Any, torch.optim.Optimizer]:
        """The module whose weights are spread, and the optimiser itself, as torch knows them."""
        return self.model._forward_module, self.optimizer.optimizer

    def _names(self) -> list[str]:
        """Names of the parameters in the optimiser's order."""
        return [f"objective.{name}" for name, _ in self.raw_model.named_parameters()]

    @contextmanager
    def whole(self) -> Iterator[Objective]:
        """The model with all of its weights here, which FSDP spreads over devices."""
        if not self.sharded:
            yield self.raw_model
            return
        from torch.distributed.fsdp import FullyShardedDataParallel

        with FullyShardedDataParallel.summon_full_params(self._spread()[0]):
            yield self.raw_model

    @property
    def sharded(self) -> bool:
        """Whether the weights are spread over devices."""
        return isinstance(self.fabric.strategy, FSDPStrategy)


def _full_states(module: Any) -> AbstractContextManager[Any]:
    """Within, states are gathered from all devices, and each gets all of them."""
    from torch.distributed.fsdp import (
        FullOptimStateDictConfig,
        FullStateDictConfig,
        FullyShardedDataParallel,
        StateDictType,
    )

    # What is on the CPU already is not copied there, and every moment would be a view of the same memory.
    offload = module.compute_device.type != "cpu"
    return FullyShardedDataParallel.state_dict_type(
        module,
        StateDictType.FULL_STATE_DICT,
        FullStateDictConfig(offload_to_cpu=offload, rank0_only=False),
        FullOptimStateDictConfig(offload_to_cpu=offload, rank0_only=False),
    )


class _Called(nn.Module):
    """The objective called with a batch's fields in a dict, which Fabric can take apart to set precisions."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return self.objective(Batch(**batch))


def schedule(step: int, config: TrainConfig) -> float:
    """Learning-rate factor: linear warm-up, constant, linear decay to zero.

    Examples
    --------
    >>> config = TrainConfig(steps=10, warmup_steps=2, decay_steps=4)
    >>> [schedule(step, config) for step in (0, 1, 5, 8)]
    [0.5, 1.0, 1.0, 0.5]
    """
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    decay = min(1.0, (config.steps - step) / config.decay_steps) if config.decay_steps else 1.0
    return warm * decay
