"""Where a widget's latents come from: tables at hand, or checkpoints read when they are first looked at."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from anndata import AnnData

from nextlat_viz.latents import meta
from nextlat_viz.notebook.once import Once

if TYPE_CHECKING:
    from nextlat_viz.training import Checkpoint

What: TypeAlias = Union[str, os.PathLike[str], AnnData, "Checkpoint"]


class Source:
    """One model: its latents at any step that was kept, and those of the untrained model.

    Parameters
    ----------
    what : AnnData, Checkpoint, or the name or folder of a checkpoint
    untrained : AnnData, optional
        For latents at hand, the same rows of the untrained model; a checkpoint makes its own.
    """

    def __init__(self, what: What, untrained: AnnData | None = None) -> None:
        if not isinstance(what, (str, os.PathLike, AnnData)) and not hasattr(what, "untrained"):
            raise TypeError(
                f"a model must be a checkpoint, its name such as 'rrxor/nextlat', or latents, got {type(what).__name__}"
            )
        self._what = what
        self._untrained = untrained
        self._made = Once()

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint, loaded on first use; None for latents at hand."""
        if isinstance(self._what, AnnData):
            return None
        if isinstance(self._what, (str, os.PathLike)):
            from nextlat_viz.training import load

            name = self._what
            return self._made.get("checkpoint", lambda: load(name))
        return self._what

    @property
    def label(self) -> str:
        """What the model is called."""
        checkpoint = self.checkpoint
        return str(meta(self._what)["label"]) if checkpoint is None else checkpoint.label

    @property
    def world_name(self) -> str:
        """The name of the model's world."""
        if isinstance(self._what, AnnData):
            return str(json.loads(meta(self._what)["world"])["name"])
        checkpoint = self.checkpoint
        assert checkpoint is not None
        return checkpoint.world.name

    @property
    def steps(self) -> list[int]:
        """Steps at which the model can be seen, 0 (untrained) first; nothing for latents at hand."""
        return [] if self.checkpoint is None else sorted({0, *self.checkpoint.snapshots})

    def at(self, step: int | None = None) -> Checkpoint | None:
        """The checkpoint at a step, None for the end of training; None for latents at hand."""
        checkpoint = self.checkpoint
        if checkpoint is None or step is None:
            return checkpoint
        return self._made.get(("checkpoint", step), lambda: checkpoint.at(step))

    def has(self, step: int | None = None) -> bool:
        """Whether the latents at a step are there already."""
        return isinstance(self._what, AnnData) or ("latents", step) in self._made

    def latents(self, step: int | None = None, progress: Callable[[int, int], None] | None = None) -> AnnData:
        """Return the latents at a step, None for the end of training; extracted once.

        Parameters
        ----------
        step : int, optional
        progress : callable, optional
            Told how many episodes are read, of how many; what it raises ends the reading.
        """
        if isinstance(self._what, AnnData):
            return self._what

        def extracted() -> AnnData:
            checkpoint = self.at(step)
            assert checkpoint is not None
            return _extract(checkpoint, progress)

        return self._made.get(("latents", step), extracted)

    def untrained(self) -> AnnData | None:
        """Return the untrained model's latents, where they can be had."""
        checkpoint = self.checkpoint
        if self._untrained is not None or checkpoint is None:
            return self._untrained
        return self._made.get("untrained", lambda: _extract(checkpoint.untrained()))


def _extract(checkpoint: Checkpoint, progress: Callable[[int, int], None] | None = None) -> AnnData:
    from nextlat_viz.latents import extract

    return extract(checkpoint, progress=progress or False)


def by_world(what: Sequence[Any], untrained: Sequence[AnnData | None] | None = None) -> dict[str, list[Source]]:
    """Sort what a widget was given into worlds.

    Parameters
    ----------
    what : sequence
        Models of one or several worlds, or one dict ``{world name: models}``, whose checkpoints are loaded when
        their world is first chosen.
    untrained : sequence of AnnData or None, optional
        For latents at hand, the untrained model's, in the same order.

    Raises
    ------
    TypeError, ValueError
        When there is nothing to show, or something that is not a model.
    """
    if len(what) == 1 and isinstance(what[0], Mapping):
        worlds = {str(name): [Source(one) for one in _several(models)] for name, models in what[0].items()}
    else:
        models = [one for group in what for one in _several(group)]
        controls = list(untrained or [None] * len(models))
        if len(controls) != len(models):
            raise ValueError(f"untrained must hold one entry per model: {len(models)}, got {len(controls)}")
        worlds = {}
        for source in (Source(one, control) for one, control in zip(models, controls, strict=True)):
            worlds.setdefault(source.world_name, []).append(source)
    if not worlds or not all(worlds.values()):
        raise ValueError("there is no model to show: give checkpoints, their names such as 'rrxor/nextlat', or latents")
    return worlds


def _several(models: Any) -> Iterable[Any]:
    return models if isinstance(models, (list, tuple)) else [models]
