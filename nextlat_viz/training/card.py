"""The card: what a checkpoint is, how it was made and what it scores."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from nextlat_viz.training.presets import TrainConfig

FORMAT = "nextlat_viz.checkpoint/1"


class Card(BaseModel):
    """What a checkpoint is. Written as `card.json` beside the weights, last, so that a folder with a card is whole.

    Attributes
    ----------
    name : folder under which it is shipped or saved, such as ``rrxor/nextlat/seed0``.
    world : the world's spec, enough to build it again.
    objective, preset, config, seed, steps : what was trained, and with which hyperparameters.
    command : the command that makes this checkpoint again.
    data_sha256 : hash of the validation episodes and of the first training batch.
    weights_sha256, snapshots : hash of the weights file, and of each snapshot's by its step.
    parameters : number of trained parameters, with psi's among them.
    versions : Python and library versions it was trained with.
    device : kind of device it was trained on.
    metrics : losses in nats per token, each with its floor; and `train_seconds`, over all sittings of the run.
    card_sha256 : hash of all of the above.
    """

    model_config = ConfigDict(extra="forbid")

    format: str = FORMAT
    name: str
    world: dict[str, Any]
    objective: str
    preset: str
    config: TrainConfig
    seed: int
    steps: int
    command: str
    data_sha256: str
    weights_sha256: str
    snapshots: dict[int, str] = Field(default_factory=dict)
    parameters: int
    versions: dict[str, str]
    device: str
    metrics: dict[str, float]
    card_sha256: str = ""

    def digest(self) -> str:
        """Hash of every field of the file but `card_sha256`.

        Hyperparameters that came later than a card are not in its file, and not in its hash.
        """
        fields = self.model_dump(mode="json", exclude={"card_sha256"}, exclude_unset=True)
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    def signed(self) -> Card:
        """Return the card with every field set, `card_sha256` among them."""
        whole = Card.model_validate(self.model_dump())
        return whole.model_copy(update={"card_sha256": whole.digest()})


def sha256_of(path: Path) -> str:
    """Hash of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
