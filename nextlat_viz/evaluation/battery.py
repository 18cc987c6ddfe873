"""Which measures there are, and what each needs of a checkpoint."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nextlat_viz.analysis.measure import Measure
from nextlat_viz.training.checkpoint import Checkpoint


@dataclass(frozen=True)
class Entry:
    """A measure with its options, and of which checkpoints it can be taken.

    Attributes
    ----------
    home, function : where it lives, imported when it is used.
    fits : whether it can be taken of a checkpoint.
    options : what it is called with beside the checkpoint.
    """

    home: str
    function: str
    fits: Callable[[Checkpoint], bool]
    options: dict[str, Any]

    def __call__(self, checkpoint: Checkpoint) -> Measure:
        """Take the measure of one checkpoint."""
        call = getattr(importlib.import_module(f"nextlat_viz.{self.home}"), self.function)
        found: Measure = call(checkpoint, **self.options)
        return found


def _any(checkpoint: Checkpoint) -> bool:
    return True


def _hidden_states(checkpoint: Checkpoint) -> bool:
    return bool(checkpoint.world.state_names)


def _next_token(checkpoint: Checkpoint) -> bool:
    return checkpoint.world.predicts_next_token


def _few_tokens(checkpoint: Checkpoint) -> bool:
    """Whether a probe of every token is one of a thousand classes at most."""
    return checkpoint.world.predicts_next_token and len(checkpoint.world.vocabulary) <= 1000


def _psi(checkpoint: Checkpoint) -> bool:
    return hasattr(checkpoint.model, "psi")


def _drafts(checkpoint: Checkpoint) -> bool:
    return checkpoint.world.predicts_next_token and checkpoint.card.objective in ("nextlat", "mtp", "jtp")


def _of(*names: str) -> Callable[[Checkpoint], bool]:
    return lambda checkpoint: checkpoint.world.name in names


_taxi = _of("taxi")
_QUIET = {"progress": False}
BATTERY: dict[str, Entry] = {
    "loss": Entry("evaluation.basics", "loss", _any, {}),
    "belief": Entry("evaluation.basics", "belief", _hidden_states, {}),
    "tokens_ahead": Entry("evaluation.basics", "tokens_ahead", _few_tokens, {}),
    "next_token_test": Entry("analysis", "next_token_test", _next_token, _QUIET),
    "valid_trajectories": Entry("analysis", "valid_trajectories", _taxi, _QUIET),
    "detour_robustness": Entry("analysis", "detour_robustness", _taxi, _QUIET),
    "compression_vafa": Entry("analysis", "compression_vafa", _taxi, _QUIET),
    "compression_greedy": Entry("analysis", "compression_greedy", _taxi, _QUIET),
    "distinction": Entry("analysis", "distinction", _taxi, _QUIET),
    "map_reconstruction": Entry("analysis", "map_reconstruction", _taxi, _QUIET),
    "equation_validity": Entry("analysis", "equation_validity", _of("countdown"), _QUIET),
    "path_accuracy": Entry("analysis", "path_accuracy", _of("path_star"), _QUIET),
    "state_tracking": Entry("analysis", "state_tracking", _of("a5", "s5", "a4xz5", "z60"), _QUIET),
    "latent_geometry": Entry("analysis", "latent_geometry", _any, _QUIET),
    "layer_contributions": Entry("analysis", "layer_contributions", _any, _QUIET),
    "transition_consistency": Entry("analysis", "transition_consistency", _psi, {}),
    "rollout_divergence": Entry("analysis", "rollout_divergence", _psi, _QUIET),
    "length_generalisation": Entry("analysis", "length_generalisation", _hidden_states, _QUIET),
    "acceptance": Entry("analysis", "acceptance", _drafts, _QUIET),
}


def battery(checkpoint: Checkpoint | None = None) -> list[str]:
    """Names of the measures there are, or of those that can be taken of a checkpoint.

    Examples
    --------
    >>> from nextlat_viz.training.checkpoint import load
    >>> battery(load("rrxor/next_token"))[:3]
    ['loss', 'belief', 'tokens_ahead']
    """
    return [name for name, entry in BATTERY.items() if checkpoint is None or entry.fits(checkpoint)]
