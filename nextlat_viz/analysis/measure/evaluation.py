"""Evaluation: measure checkpoints by every measure that fits them."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from nextlat_viz import analysis, display, io
from nextlat_viz.analysis.measure.basic import BASIC
from nextlat_viz.analysis.measure.registry import MEASURES, Registered, several
from nextlat_viz.analysis.measure.result import Measure
from nextlat_viz.errors import CheckpointError, UnknownNameError, unknown
from nextlat_viz.latents import heldout
from nextlat_viz.models import OBJECTIVES, TransformerConfig
from nextlat_viz.training.card import Card
from nextlat_viz.training.checkpoint import load, shipped_folders
from nextlat_viz.training.config import resolve_config
from nextlat_viz.training.trained import TrainedModel
from nextlat_viz.worlds import title

PARTS = "parts"
# Hyperparameters that make a run another model than the preset's, not another seed or a longer training of it.
_VARIED = ("horizon", "sharing", "kv_heads")
_SHIPPED = (
    *("next_token_test", "valid_trajectories", "detour_robustness", "compression_vafa", "compression_greedy"),
    *("distinction", "map_reconstruction", "equation_validity", "path_accuracy", "state_tracking"),
    *("latent_geometry", "layer_contributions", "transition_consistency", "rollout_divergence"),
    *("length_generalisation", "acceptance"),
    *("solved_puzzles", "solved_by_step", "steps_needed", "advantage_margin", "guidance_strength", "forward_passes"),
)


def _registered() -> dict[str, Registered]:
    """Return all measures, the package's own in a fixed order, then those of the user."""
    for name in _SHIPPED:
        getattr(analysis, name)  # imports the measure's module, which registers it
    return {name: MEASURES[name] for name in (*BASIC, *_SHIPPED)} | MEASURES


def battery(checkpoint: TrainedModel | None = None) -> list[str]:
    """Return the names of all measures, or of those that fit a checkpoint.

    Examples
    --------
    >>> from nextlat_viz.training.checkpoint import load
    >>> battery(load("rrxor/next_token"))[:3]
    ['loss', 'training_cost', 'belief']
    """
    return [name for name, entry in _registered().items() if checkpoint is None or entry.fits(checkpoint)]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The results of all measures.

    Attributes
    ----------
    measures : dict
        A `Measure` by its name in `battery` and its world, such as ``("detour_robustness", "taxi")``.
    table : DataFrame
        All results, one row per model, measure and setting: ``measure, model, world, objective, seed``, the settings of
        all measures (empty where a measure has no such setting), ``value, unit, error, trials``, and
        ``weights_sha256``.
    left_out : str
        A sentence that names the measures left out because the state and the rules of a world are not known; empty if
        none was.
    """

    measures: Mapping[tuple[str, str], Measure]
    table: pd.DataFrame
    left_out: str = ""

    def __getitem__(self, name: str | tuple[str, str]) -> Measure:
        """Return the measure of a name; if it was taken of several worlds, ask for ``(name, world)``."""
        matches = [key for key in self.measures if name in (key, key[0])]
        if not matches:
            raise unknown("measure", name, self._ipython_key_completions_())
        if len(matches) > 1:
            raise ValueError(
                f"{name!r} was taken of several worlds: ask for [{name!r}, world], where world is "
                f"one of {', '.join(world for _, world in matches)}"
            )
        return self.measures[matches[0]]

    def _ipython_key_completions_(self) -> list[str]:
        return list(dict.fromkeys(name for name, _ in self.measures))

    def __repr__(self) -> str:
        counts = f"{len(self.measures)} measures, {self.table['model'].nunique()} models"
        return f"<Evaluation: {counts}{'. ' * bool(self.left_out)}{self.left_out}>"

    def _repr_html_(self) -> str:
        rows = {f"{name} · {world}": f"{len(result.table)} rows" for (name, world), result in self.measures.items()}
        if self.left_out:
            rows["left out"] = self.left_out
        return display.table(f"Evaluation of {self.table['model'].nunique()} models", rows)


def evaluate(
    checkpoints: Any = None,
    measures: Any = None,
    *,
    out: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Evaluation:
    """Measure checkpoints by every measure that fits them.

    Parameters
    ----------
    checkpoints : Checkpoint, fine-tuned model, name or folder, or several
        By default all shipped ones; of these, one that cannot be read is left out with a warning.
    measures : name, function or several, optional
        Of those in `battery`. By default all that fit. A measure that fits none of the checkpoints is refused.
    out : folder, optional
        Where to keep each result as soon as it is known. The same call continues an interrupted evaluation. A kept
        result that is damaged is measured again.
    progress : bool
        Show a progress bar.

    Raises
    ------
    UnknownNameError
        A measure or a checkpoint that does not exist.
    CheckpointError
        A checkpoint that cannot be read.
    TypeError
        Something that is not a checkpoint.
    ValueError
        No checkpoint, or a measure that fits none of them.

    Examples
    --------
    >>> evaluation = evaluate(["rrxor/nextlat", "rrxor/next_token"], ["loss"], progress=False)
    >>> evaluation["loss"].compare()["quantity"].tolist()
    ['loss', 'floor', 'excess', 'unigram']
    """
    loaded = _loaded(checkpoints)
    registered = _registered()
    names = None if measures is None else [getattr(item, "__name__", item) for item in several(measures)]
    for name in names or ():
        if name not in registered:
            raise unknown("measure", name, registered)
        if not any(registered[name].fits(checkpoint) for checkpoint in loaded):
            worlds = ", ".join(dict.fromkeys(checkpoint.world.name for checkpoint in loaded))
            raise ValueError(f"measures: {name!r} fits none of these checkpoints (worlds: {worlds})")
    models = display.distinct(model.name for model in loaded)
    labelled = list(zip(loaded, world_labels(loaded), models, strict=True))
    jobs = [
        (name, *model)
        for name in (registered if names is None else dict.fromkeys(names))
        for model in labelled
        if registered[name].fits(model[0])
    ]
    folder = None if out is None else io.resolve(out, "out") / PARTS
    if folder is not None:
        io.claim(folder.parent)
    results: dict[tuple[str, str], Measure] = {}
    frames = []
    with tqdm(jobs, desc="evaluate", unit="measure", disable=not progress) as bar:
        for name, checkpoint, world, model in bar:
            bar.set_postfix_str(f"{name} of {model}", refresh=False)
            part = _part(name, registered[name], checkpoint, folder)
            # Rows of the true world or of a control keep their names.
            shown = part.table["model"].replace(checkpoint.name, model)
            own = part.table["model"] == checkpoint.name
            objective = part.table["objective"].mask(own, _objective_label(checkpoint))
            part = replace(part, table=part.table.assign(world=world, model=shown, objective=objective))
            results[name, world] = results[name, world] + part if (name, world) in results else part
            frames.append(part.to_frame().assign(measure=name, weights_sha256=checkpoint.weights_sha256))
    return Evaluation(results, _stacked(frames), "" if names else _left_out(loaded, registered))


def _left_out(loaded: Sequence[TrainedModel], registered: Mapping[str, Registered]) -> str:
    """Name the measures that fit no model of a world without known state and rules."""
    unruled = [checkpoint for checkpoint in loaded if not checkpoint.world.rules_known]
    missing = [
        name
        for name, entry in registered.items()
        # The cost of training does not depend on what is known of the world.
        if unruled and name != "training_cost" and not any(map(entry.fits, unruled))
    ]
    if not missing:
        return ""
    models = ", ".join(checkpoint.name for checkpoint in unruled)
    return f"Not taken of {models}, because the state and the rules of a corpus are not known: {', '.join(missing)}"


def _loaded(checkpoints: Any) -> list[TrainedModel]:
    if checkpoints is None:
        return _readable(shipped_folders())
    single = isinstance(checkpoints, (TrainedModel, str, os.PathLike)) or not isinstance(checkpoints, Iterable)
    items = [checkpoints] if single else list(checkpoints)
    if not items:
        raise ValueError("checkpoints is empty: give at least one, such as 'rrxor/nextlat'")
    for item in items:
        if not isinstance(item, (TrainedModel, str, os.PathLike)):
            raise TypeError(
                f"checkpoints must hold checkpoints, names or folders, got {type(item).__name__}: "
                "measures read a model, such as nlv.load('rrxor/nextlat')"
            )
    return [item if isinstance(item, TrainedModel) else load(item) for item in items]


def world_labels(loaded: Sequence[TrainedModel]) -> list[str]:
    """Name the world of each checkpoint; worlds of one name with different parameters by their titles."""
    names = [checkpoint.world.name for checkpoint in loaded]
    specs = {(name, json.dumps(io.plain(c.world.spec), sort_keys=True)) for name, c in zip(names, loaded, strict=True)}
    several_of = Counter(name for name, _ in specs)
    return [title(c.world) if several_of[name] > 1 else name for name, c in zip(names, loaded, strict=True)]


def _objective_label(checkpoint: TrainedModel) -> str:
    """Name the objective of a checkpoint, with its horizon, sharing and key heads where they differ from the preset's.

    Otherwise runs that differ in these would pass as seeds of one model.
    """
    card = checkpoint.card
    if not isinstance(card, Card):
        return checkpoint.objective
    try:
        defaults = resolve_config(card.preset, checkpoint.world, {})
    except UnknownNameError:
        return checkpoint.objective
    # Next-token models have no horizon, whatever their card says.
    used = {*TransformerConfig.model_fields, *inspect.signature(OBJECTIVES[checkpoint.objective]).parameters}
    changed = (name for name in _VARIED if name in used and getattr(card.config, name) != getattr(defaults, name))
    settings = [f"{name.replace('_', ' ')} {getattr(card.config, name)}" for name in changed]
    return ", ".join([checkpoint.objective, *settings])


def _readable(folders: Iterable[Path]) -> list[TrainedModel]:
    """Load the checkpoints of folders, except those that cannot be read or whose corpus is missing."""
    loaded = []
    left_out: dict[str, list[Path]] = {}
    for folder in folders:
        try:
            checkpoint = load(folder)
            if checkpoint.world.tokenizer:
                # Raises if the corpus of a world of text is missing.
                heldout(checkpoint, 1)
            loaded.append(checkpoint)
        except (CheckpointError, ValueError) as error:
            left_out.setdefault(str(error), []).append(folder)
    for reason, skipped in left_out.items():
        warnings.warn(f"left out {', '.join(map(str, skipped))}: {reason}", stacklevel=4)
    if not loaded:
        raise ValueError("there is no shipped checkpoint that can be read: give checkpoints=")
    return loaded


def _stacked(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Stack tables: first the columns of the run, then all settings and counts, then the scores."""
    columns = dict.fromkeys(name for frame in frames for name in frame.columns)
    first = ["measure", "model", "world", "objective", "seed"]
    last = ["value", "unit", "error", "trials", "weights_sha256"]
    records = [row for frame in frames for row in frame.to_dict("records")]
    table = pd.DataFrame(records, columns=[*first, *(name for name in columns if name not in (*first, *last)), *last])
    return table.astype({"seed": "Int64"})


def _part(name: str, entry: Registered, checkpoint: TrainedModel, folder: Path | None) -> Measure:
    """Measure a checkpoint, or read the result kept in a folder."""
    if folder is None or not entry.take.__module__.startswith("nextlat_viz."):
        # A user's own measure may change without a new version of the package, so its results are not kept.
        return entry.take(checkpoint, progress=False)
    # A kept result is read only if it has the same version, weights and world.
    question = {
        "measure": name,
        "version": metadata.version("nextlat-viz"),
        "weights_sha256": checkpoint.weights_sha256,
        "world": io.plain(checkpoint.world.spec),
    }
    digest = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / io.file_name(f"{name}-{digest}.json")
    try:
        part = io.read_json(path)
        if part["question"] == question:
            return _from_plain(part["result"])
    except (OSError, io.SealError, KeyError):
        pass  # not measured yet, or damaged: measure it
    result = entry.take(checkpoint, progress=False)
    io.write_json(path, {"question": question, "result": _plain(result)})
    return result


def _plain(result: Measure) -> dict[str, Any]:
    rows = result.table.astype(object).where(result.table.notna(), None)
    # JSON has no infinity, which a KL can be; as text it is read back by the type of its column.
    rows = rows.map(lambda value: str(value) if value in (float("inf"), -float("inf")) else value)
    about = {field.name: getattr(result, field.name) for field in fields(Measure) if field.name != "table"}
    types = {name: str(dtype) for name, dtype in result.table.dtypes.items()}
    return about | {"types": types, "table": rows.to_dict("records")}


def _from_plain(part: dict[str, Any]) -> Measure:
    types, rows = part.pop("types"), part.pop("table")
    table = pd.DataFrame(rows, columns=list(types)).astype(types)
    return Measure(table=table, **part | {"by": tuple(part["by"])})
