"""The interface of a trained model: what generation, extraction, measures and widgets use, whatever trained it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextlat_viz.models import Objective
from nextlat_viz.worlds import World

HF_PREFIX = "hf:"
"""Prefix of the name of a Hugging Face model, or of a folder with one."""


class TrainedModel(ABC):
    """A model with its world: one of our checkpoints, a fine-tuned model, or a Hugging Face model.

    Attributes
    ----------
    name, label : str
        The name in tables and the label in figures.
    objective : str
        Training objective.
    seed : int or None
    step : int
        Optimiser steps behind the weights; 0 is untrained.
    weights_sha256 : str
        Identifies the weights.
    network : Objective
        The backbone with the modules of its objective, in float32 and evaluation mode.
    world : World
        What it was trained on. Of a corpus, neither the state nor the law is known.
    reads : int or None
        Longest sequence that it read in training, in tokens; None if that is not known and there is no limit.
    snapshots : list of int
        Steps at which there are weights.
    card : SignedCard or None
        How it was made; None for a Hugging Face model, which was not trained here.
    ends : tuple of int
        Tokens that end a text, at which generation stops by default.
    """

    ends: tuple[int, ...] = ()

    # Only for type checkers: a property here would become the default of a field in a dataclass.
    if TYPE_CHECKING:

        @property
        def name(self) -> str: ...
        @property
        def label(self) -> str: ...
        @property
        def objective(self) -> str: ...
        @property
        def seed(self) -> int | None: ...
        @property
        def step(self) -> int: ...
        @property
        def weights_sha256(self) -> str: ...
        @property
        def network(self) -> Objective: ...
        @property
        def world(self) -> World: ...
        @property
        def reads(self) -> int | None: ...
        @property
        def snapshots(self) -> list[int]: ...
        @property
        def card(self) -> Any: ...
        @property
        def folder(self) -> Path: ...

    @abstractmethod
    def at(self, step: int) -> TrainedModel:
        """Return the same run at an earlier step; 0 is before training."""

    @abstractmethod
    def untrained(self) -> TrainedModel:
        """Return the same model with random weights: the control of probes."""
