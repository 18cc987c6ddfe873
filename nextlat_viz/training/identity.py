"""What makes two runs the same run, how two that are not differ, and whose a folder is."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from nextlat_viz.errors import CheckpointError
from nextlat_viz.training.presets import TrainConfig

Identity = dict[str, Any]
Spec = dict[str, Any]


def identity(world: Spec, objective: str, config: TrainConfig, seed: int) -> Identity:
    """What is trained, as JSON; the world by its spec."""
    return {"world": world, "objective": objective, "config": config.model_dump(mode="json"), "seed": seed}


def differences(found: Identity, asked: Identity) -> list[str]:
    """What is different in a run found, name by name; empty where it is the same run.

    A hyperparameter that a run knows nothing of is one that came later: it was trained with the default.

    Examples
    --------
    >>> asked = identity({"name": "rrxor"}, "nextlat", TrainConfig(), seed=1)
    >>> differences(asked | {"seed": 0, "config": {"layers": 2}}, asked)
    ['seed 0 there, 1 asked for', 'layers 2 there, 4 asked for']
    """
    return differing(_flat(found), _flat(asked))


def differing(there: Identity, here: Identity) -> list[str]:
    """What is different, name by name, in two runs described without nesting."""
    said = [
        f"{name} {there.get(name)!r} there, {value!r} asked for"
        for name, value in here.items()
        if there.get(name) != value
    ]
    return said + [f"{name} {value!r} there, not known here" for name, value in there.items() if name not in here]


def claim(folder: Path) -> None:
    """Make the folder of a run, or raise OSError before any work is done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Every process asks, each with a file of its own.
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise type(error)(f"out={str(folder)!r} cannot be written ({error}). Choose another folder.") from error


def refuse_another(folder: Path, different: list[str]) -> None:
    """Raise CheckpointError if the run in a folder is different from the one asked for."""
    if different:
        raise CheckpointError(
            f"out={str(folder)!r} holds another run: {'; '.join(different)}. Choose another folder, or delete this one."
        )


def _flat(one: Identity) -> Identity:
    rest = {name: value for name, value in one.items() if name != "config"}
    return rest | TrainConfig().model_dump(mode="json") | one["config"]
