"""Sources of a widget's latents: tables given by the caller, or checkpoints read on demand."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import pandas as pd
from anndata import AnnData

from nextlat_viz.latents import meta
from nextlat_viz.notebook.threads import Results

if TYPE_CHECKING:
    from nextlat_viz.training import Checkpoint
    from nextlat_viz.worlds import Episodes

# Number of puzzles for a recursive model; each has a row per recursion step.
_PUZZLES = 128

Model: TypeAlias = Union[str, os.PathLike[str], AnnData, "Checkpoint"]


class Source:
    """One model: its latents at every saved training step, and those of the untrained model.

    Checkpoints are loaded and latents extracted once, by any thread, and kept in `results`. For a model given as
    latents, `untrained` holds the same rows of the untrained model; a checkpoint makes them itself.
    """

    def __init__(self, model: Model, untrained: AnnData | None = None) -> None:
        # Do not test for the class: importing it would load torch for a widget of latents alone.
        if not isinstance(model, (str, os.PathLike, AnnData)) and not hasattr(model, "snapshots"):
            raise TypeError(
                "a model must be a checkpoint, its name such as 'rrxor/nextlat', or latents, "
                f"got {type(model).__name__}: make latents of other models with nlv.extract(model, tokens)"
            )
        if untrained is not None and not isinstance(untrained, AnnData):
            raise TypeError(
                "untrained must be latents of the untrained model, one table per model, "
                f"got {type(untrained).__name__}: nlv.extract(checkpoint.untrained(), episodes) makes them"
            )
        self._model = model
        self._untrained = untrained
        self.results = Results()
        # Recursion steps to extract; None for a model that is not recursive.
        self.recursion: int | None = None

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint, loaded on first use; None for given latents."""
        if isinstance(self._model, AnnData):
            return None
        if isinstance(self._model, (str, os.PathLike)):
            from nextlat_viz.training import load

            name = self._model
            return self.results.get("checkpoint", lambda: load(name))
        return self._model

    @property
    def reference(self) -> str:
        """The argument with which `load` reads the checkpoint again; empty for given latents."""
        if isinstance(self._model, AnnData):
            return ""
        return str(self._model if isinstance(self._model, (str, os.PathLike)) else self._model.folder)

    @property
    def label(self) -> str:
        checkpoint = self.checkpoint
        return str(meta(self._model)["label"]) if checkpoint is None else checkpoint.label

    @property
    def world_name(self) -> str:
        if isinstance(self._model, AnnData):
            return str(json.loads(meta(self._model)["world"])["name"])
        checkpoint = self.checkpoint
        assert checkpoint is not None
        return checkpoint.world.name

    @property
    def weights(self) -> str:
        """The hash of a checkpoint's weights; empty for given latents, which may be of any episodes."""
        checkpoint = self.checkpoint
        return "" if checkpoint is None else checkpoint.weights_sha256

    @property
    def steps(self) -> list[int]:
        """Training steps with saved weights, 0 (untrained) first; empty for given latents."""
        return [] if self.checkpoint is None else sorted({0, *self.checkpoint.snapshots})

    def at(self, step: int | None = None) -> Checkpoint | None:
        """Return the checkpoint at a step, by default at the end of training; None for given latents."""
        checkpoint, step = self.checkpoint, self._before_end(step)
        if checkpoint is None or step is None:
            return checkpoint
        return self.results.get(("checkpoint", step), lambda: checkpoint.at(step))

    def _before_end(self, step: int | None) -> int | None:
        """Return the step, or None for this model's last."""
        return None if step is None or step == max(self.steps, default=None) else step

    def has(self, step: int | None = None) -> bool:
        """Whether the latents at a step are available without extracting them."""
        return isinstance(self._model, AnnData) or ("latents", self._before_end(step)) in self.results

    @property
    def history(self) -> pd.DataFrame:
        """The metrics that training logged, a row per validation.

        Raises
        ------
        ValueError
            If there are none, or none with a loss.
        """
        checkpoint = self.checkpoint
        if checkpoint is None:
            raise ValueError(f"{self.label} was given as latents, which have no training history: open its checkpoint")
        logged = self.results.get("metrics", lambda: getattr(checkpoint, "metrics", None))
        if logged is None or not {"step", "loss"} <= set(logged):
            raise ValueError(f"{self.label} has no validation losses over its training steps")
        return logged

    @property
    def measured(self) -> pd.DataFrame:
        """`history`, with the rows that `validate` has added."""
        added = [self.results.peek(("validated", step)) for step in self.steps]
        rows = [*self.history.to_dict("records"), *filter(None, added)]
        return pd.DataFrame(rows).sort_values("step", ignore_index=True)

    def validate(self, step: int) -> dict[str, float]:
        """Measure the losses and the world's headline measure at a step at which training has not logged them."""
        from nextlat_viz.training.data import Validation

        def compute() -> dict[str, float]:
            checkpoint = self.at(step)
            assert checkpoint is not None
            run = self.results.get("validation", lambda: Validation(checkpoint.world, checkpoint.card.config))
            return {"step": float(step), **run(checkpoint.network)}

        return self.results.get(("validated", step), compute)

    def latents(self, step: int | None = None, progress: Callable[[int, int], None] | None = None) -> AnnData:
        """Return the latents at a step, None for the end of training, extracted on first use.

        Parameters
        ----------
        step : int, optional
        progress : callable, optional
            ``progress(done, total)`` is called with the number of episodes read; if it raises, extraction ends.
        """
        if isinstance(self._model, AnnData):
            return self._model

        def compute() -> AnnData:
            checkpoint = self.at(step)
            assert checkpoint is not None
            return self._extract(checkpoint, progress)

        return self.results.get(("latents", self._before_end(step)), compute)

    def untrained(self) -> AnnData | None:
        """Return the untrained model's latents: the given ones, or those of the checkpoint; None without either."""
        checkpoint = self.checkpoint
        if self._untrained is not None or checkpoint is None:
            return self._untrained
        return self.results.get("untrained", lambda: self._extract(checkpoint.untrained()))

    @property
    def trained_recursion(self) -> int:
        """Recursion steps in training; 0 for given latents and for models that do not answer in steps."""
        checkpoint = self.checkpoint
        schedule = None if checkpoint is None else getattr(checkpoint.network.backbone, "schedule", None)
        return 0 if schedule is None else int(schedule.steps)

    def _extract(self, checkpoint: Checkpoint, progress: Callable[[int, int], None] | None = None) -> AnnData:
        from nextlat_viz.latents import extract

        if self.recursion is None:
            return extract(checkpoint, progress=progress or False)
        return extract(checkpoint, puzzles(checkpoint), steps=self.recursion, progress=progress or False)


def common_steps(sources: Sequence[Source]) -> list[int]:
    """Return the training steps at which every model has saved its weights; empty if only the end is saved."""
    common = sorted(set.intersection(*(set(source.steps) for source in sources)))
    return common if len(common) + (not end_together(sources)) > 2 else []


def end_together(sources: Sequence[Source]) -> bool:
    """Whether the last training step of all models is the same."""
    return len({max(source.steps, default=None) for source in sources}) == 1


def extract_missing(
    sources: Sequence[Source], step: int | None, progress: Callable[[float, int, str], None] | None
) -> None:
    """Extract latents at a step where they are missing.

    ``progress(done, total, text)`` is called with the number of models done, of all models, and the present stage; if
    it raises, extraction ends.
    """
    # Models of one world are linked row by row, so all take as many recursion steps as any of them did in training.
    most = max(source.trained_recursion for source in sources)
    for source in sources:
        source.recursion = most or None
    lacking = [source for source in sources if not source.has(step)]
    when = "" if step is None else f" at step {step:,}"
    for i, source in enumerate(lacking):
        text = f"Extracting {source.label}{when} … {i + 1} of {len(lacking)}"

        def report(read: int, episodes: int, i: int = i, text: str = text) -> None:
            if progress is not None:
                progress(i + read / episodes, len(lacking), text)

        report(0, 1)
        source.latents(step, report)


def puzzles(checkpoint: Checkpoint) -> Episodes:
    """Return the held-out puzzles that widgets give to a recursive model."""
    from nextlat_viz.latents import heldout

    return heldout(checkpoint, _PUZZLES)


def by_world(models: Sequence[Any], untrained: Any = None) -> dict[str, list[Source]]:
    """Sort a widget's models by world.

    Parameters
    ----------
    models : sequence
        Models of one or several worlds, or one dict ``{world name: models}``, whose checkpoints are loaded when their
        world is first shown.
    untrained : AnnData, or sequence of AnnData or None, optional
        For given latents, the untrained model's, in the same order.

    Raises
    ------
    TypeError, ValueError
        When there is no model, or something that is not a model.
    """
    if len(models) == 1 and isinstance(models[0], Mapping):
        worlds = {str(name): [Source(model) for model in _listed(group)] for name, group in models[0].items()}
    else:
        flat = [model for group in models for model in _listed(group)]
        controls = [None] * len(flat) if untrained is None else list(_listed(untrained))
        if len(controls) != len(flat):
            raise ValueError(f"untrained must hold one entry per model: {len(flat)}, got {len(controls)}")
        worlds = {}
        for source in map(Source, flat, controls):
            worlds.setdefault(source.world_name, []).append(source)
    if not worlds or not all(worlds.values()):
        raise ValueError("there is no model to show: give checkpoints, their names such as 'rrxor/nextlat', or latents")
    return worlds


def _listed(models: Any) -> Iterable[Any]:
    return models if isinstance(models, (list, tuple)) else [models]
