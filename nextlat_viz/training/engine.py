"""One optimiser step on any number of devices, and the check that losses and weights are finite."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields
from typing import Any, SupportsIndex, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.fsdp import FSDPStrategy
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from nextlat_viz.models import Batch, Objective
from nextlat_viz.training.config import TrainConfig
from nextlat_viz.training.data import Piece
from nextlat_viz.training.resume import Moments

FIELDS = tuple(field.name for field in fields(Batch))


def start_fabric(**options: Any) -> Fabric:
    """Return Lightning Fabric for a run.

    Raises
    ------
    ValueError
        For an accelerator or devices that this machine does not have, and for other options that Fabric refuses.

    Examples
    --------
    >>> start_fabric(accelerator="cpu", devices=-3)
    Traceback (most recent call last):
    ValueError: accelerator='cpu', devices=-3: `devices` selected with `CPUAccelerator` should be an int > 0. ...
    """
    if isinstance(options.get("devices"), SupportsIndex):
        # Fabric takes no numpy integers.
        options["devices"] = operator.index(options["devices"])
    try:
        return Fabric(**options)
    except (RuntimeError, TypeError, ValueError, MisconfigurationException) as error:
        text = ", ".join(f"{name}={value!r}" for name, value in options.items())
        hint = "accelerator='auto' with devices=1 fits any machine"
        raise ValueError(f"{text}: {str(error).rstrip('.')}. {hint}") from error


class Engine:
    """Takes optimiser steps with a model and an optimiser that Fabric has set up.

    No step waits for the device: losses stay there until :meth:`losses` or :meth:`first_failure` reads them.

    A step minimises the loss of the whole batch, on any number of pieces and devices: each piece is weighted by its
    share of what the batch scores, term by term, so that gradients are those of one device and one piece up to the
    rounding of sums.
    """

    def __init__(self, model: Objective, optimizer: torch.optim.Optimizer, config: TrainConfig, fabric: Fabric) -> None:
        self.raw_model, self.config, self.fabric = model, config, fabric
        self.weight = model.weights
        wrapped: nn.Module = _TakesFields(model)
        if config.compile:
            wrapped = cast(nn.Module, torch.compile(wrapped))
        self.raw_optimizer = optimizer
        self.model, self.optimizer = fabric.setup(wrapped, optimizer)
        self.recent: list[Tensor] = []
        self.last: dict[str, Tensor] = {}

    def step(self, step: int, pieces: list[Piece]) -> None:
        """Take the optimiser steps on one batch, one for most objectives; the first batch is step 0.

        An objective that takes several is given one piece: see `Objective.following`.
        """
        for group in self.optimizer.param_groups:
            # Groups may have rates of their own, as in fine-tuning.
            group["lr"] = self.config.learning_rate * schedule(step, self.config) * group.get("factor", 1.0)
        self.last, losses = self._update(pieces)
        updates, episodes, batch = 1, len(pieces[0].batch.inputs), pieces[0].batch
        rows = episodes
        while (following := self.raw_model.following(batch, losses)) is not None:
            batch = following
            totals, losses = self._update([Piece(batch)])
            self.last = {name: total + totals[name] for name, total in self.last.items()}
            updates, rows = updates + 1, rows + len(batch.inputs)
        if self.raw_model.updates > 1:
            self.last = {name: total / updates for name, total in self.last.items()}
            self.last["updates"] = self.last["loss"].new_tensor(rows / episodes)
        self.recent.append(self.last["loss"])

    def _update(self, pieces: list[Piece]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Take one optimiser step; return the losses of all pieces, and all that the model returned for the last."""
        fabric, config = self.fabric, self.config
        totals: dict[str, Tensor] = {}
        for i, piece in enumerate(pieces, start=1):
            # Gradients are exchanged between devices once, after the last piece.
            skip_sync = fabric.world_size > 1 and i < len(pieces)
            with fabric.no_backward_sync(self.model, enabled=skip_sync):
                outputs = losses = self.model({name: getattr(piece.batch, name) for name in FIELDS})
                if piece.share is not None:
                    losses = weighted(losses, self.weight, piece.share)
                # Fabric averages gradients over devices, but the losses here are parts of a sum.
                fabric.backward(losses["loss"] * fabric.world_size if fabric.world_size > 1 else losses["loss"])
            for name in ("loss", *self.weight):
                value = losses[name].detach()
                totals[name] = totals[name] + value if name in totals else value
        if config.grad_clip:
            # A norm that is not finite makes weights that are not finite: `first_failure` notices.
            fabric.clip_gradients(self.model, self.optimizer, max_norm=config.grad_clip, error_if_nonfinite=False)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if config.ema:
            self._average()
        return totals, outputs

    @torch.no_grad()
    def _average(self) -> None:
        """Move the average of the weights, which is kept with the optimiser's moments, towards the weights."""
        states = [(self.raw_optimizer.state[weight], weight) for weight in self.raw_model.parameters()]
        # A weight without a gradient has no state.
        states = [(state, weight) for state, weight in states if state]
        for state, weight in states:
            if "average" not in state:
                state["average"] = weight.clone()
        averages = [state["average"] for state, _ in states]
        torch._foreach_lerp_(averages, [weight for _, weight in states], 1 - self.config.ema)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the moving average of the weights, if there is one, into the model inside the block."""
        if not self.config.ema:
            yield
            return
        weights = list(self.raw_model.parameters())
        originals = [weight.detach().clone() for weight in weights]
        with torch.no_grad():
            for weight in weights:
                weight.copy_(self.raw_optimizer.state[weight].get("average", weight))
        try:
            yield
        finally:
            with torch.no_grad():
                for weight, original in zip(weights, originals, strict=True):
                    weight.copy_(original)

    def losses(self) -> dict[str, float]:
        """Losses of the last step's batch, over all devices."""
        values = torch.stack(list(self.last.values()))
        return dict(zip(self.last, self._over_devices(values, "sum").tolist(), strict=True))

    def first_failure(self) -> int | None:
        """Number of steps since a loss was first not finite: 1 is the last step, 0 means that only the weights are not.

        None if everything is finite. Checks the steps since the last call. All devices must call it together.
        """
        # The weights are checked too: a loss can be finite while its gradient is not.
        norm = get_total_norm([parameter.detach() for parameter in self.raw_model.parameters()])
        finite = torch.stack([*self.recent, norm]).isfinite().float()
        self.recent.clear()
        failed = (self._over_devices(finite, "mean") < 1).nonzero()
        return None if len(failed) == 0 else len(finite) - 1 - int(failed[0])

    def _over_devices(self, values: Tensor, how: str) -> Tensor:
        reduced: Any = self.fabric.all_reduce(values, reduce_op=how) if self.fabric.world_size > 1 else values
        return reduced

    def moments(self) -> Moments:
        """Return the optimiser's state, gathered. With FSDP all devices must call it together."""
        if not self.sharded:
            moments: Moments = self.optimizer.state_dict()["state"]
            return moments
        from torch.distributed.fsdp import FullyShardedDataParallel

        module, optimizer = self._fsdp()
        with _full_states(module):
            by_name = FullyShardedDataParallel.optim_state_dict(module, optimizer)["state"]
        return {i: by_name[name] for i, name in enumerate(self._names()) if name in by_name}

    def restore(self, moments: Moments) -> None:
        """Load the optimiser's state as :meth:`moments` returned it. With FSDP all devices must call it together."""
        state: dict[str, Any] = {"state": moments, "param_groups": self.optimizer.state_dict()["param_groups"]}
        if self.sharded:
            from torch.distributed.fsdp import FullyShardedDataParallel

            module, optimizer = self._fsdp()
            # FSDP knows parameters by name, the saved state by index: so it also loads into a run that is not sharded.
            names = self._names()
            groups = [{**group, "params": [names[i] for i in group["params"]]} for group in state["param_groups"]]
            full_state = {"state": {names[i]: tensors for i, tensors in moments.items()}, "param_groups": groups}
            with _full_states(module):
                state = FullyShardedDataParallel.optim_state_dict_to_load(module, optimizer, full_state)
        self.optimizer.load_state_dict(state)

    def _fsdp(self) -> tuple[Any, torch.optim.Optimizer]:
        """Unwrap what Fabric wrapped: torch's FSDP functions take its own module and optimiser."""
        return self.model._forward_module, self.optimizer.optimizer

    def _names(self) -> list[str]:
        """Names of the parameters in the optimiser's order."""
        return [f"objective.{name}" for name, _ in self.raw_model.named_parameters()]

    @contextmanager
    def whole(self) -> Iterator[Objective]:
        """Yield the model with all of its weights on this device, even if FSDP spreads them over several."""
        if not self.sharded:
            yield self.raw_model
            return
        from torch.distributed.fsdp import FullyShardedDataParallel

        with FullyShardedDataParallel.summon_full_params(self._fsdp()[0]):
            yield self.raw_model

    @property
    def sharded(self) -> bool:
        """Whether FSDP spreads the weights over devices."""
        return isinstance(self.fabric.strategy, FSDPStrategy)


def _full_states(module: Any) -> AbstractContextManager[Any]:
    """Context in which state dicts are gathered from all devices, complete on each."""
    from torch.distributed.fsdp import (
        FullOptimStateDictConfig,
        FullStateDictConfig,
        FullyShardedDataParallel,
        StateDictType,
    )

    # Offloading does not copy what is on the CPU already: every moment would be a view of the same memory.
    offload = module.compute_device.type != "cpu"
    return FullyShardedDataParallel.state_dict_type(
        module,
        StateDictType.FULL_STATE_DICT,
        FullStateDictConfig(offload_to_cpu=offload, rank0_only=False),
        FullOptimStateDictConfig(offload_to_cpu=offload, rank0_only=False),
    )


class _TakesFields(nn.Module):
    """The objective, called with a dict of a batch's fields: Fabric converts tensors in dicts to its precision."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return self.objective(Batch(**batch))


def weighted(losses: dict[str, Tensor], weight: dict[str, float], share: dict[str, float]) -> dict[str, Tensor]:
    """Return a piece's part of every term and of the loss; summed over pieces they are those of the batch."""
    terms = {name: losses[name] * share[name] for name in weight}
    # Zero times the whole loss keeps every weight in the graph: DDP waits for the gradients of all weights.
    loss = sum((terms[name] * factor for name, factor in weight.items() if factor), start=losses["loss"] * 0)
    return {"loss": loss, **terms}


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
