"""The two numbers every claim starts from: the loss beside its floor, and the belief a linear probe reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from nextlat_viz import analysis, latents
from nextlat_viz.analysis.measure import Measure, record
from nextlat_viz.training.checkpoint import Checkpoint

_RESAMPLES = 200
AHEAD = (1, 2, 3, 4, 6, 8, 12)


def loss(checkpoint: Checkpoint) -> Measure:
    """The validation loss that is on the card, and what it is to be seen beside.

    Examples
    --------
    >>> from nextlat_viz.training.checkpoint import load
    >>> table = loss(load("rrxor/nextlat")).table.set_index("quantity")["value"]
    >>> bool(table["loss"] >= table["floor"])
    True
    """
    metrics = checkpoint.card.metrics
    rows = [
        record(**_who(checkpoint), quantity=name, value=metrics[name])
        for name in ("loss", "floor", "excess", "unigram")
        if name in metrics
    ]
    return Measure(
        "loss", pd.DataFrame(rows), by=("quantity",), unit="nats per token", better="lower",
        note="Cross-entropy on held-out episodes. The floor is the ideal observer's, excess what the model loses to "
        "it; unigram is that of always predicting by frequency.",
    )  # fmt: skip


def belief(checkpoint: Checkpoint, min_position: int = 1) -> Measure:
    """How much of the exact belief a ridge probe recovers, beside its controls.

    Parameters
    ----------
    checkpoint : of a world with hidden states.
    min_position : first position (tokens read) the probe is fitted and scored on.

    Examples
    --------
    >>> from nextlat_viz.training.checkpoint import load
    >>> table = belief(load("rrxor/nextlat")).table.set_index("reader")["value"]
    >>> bool(table["hidden state"] > table["untrained model"] > table["shuffled labels"])
    True
    """
    trained = latents.extract(checkpoint, progress=False)
    untrained = latents.extract(checkpoint.untrained(), progress=False)
    found = analysis.probe(trained, "belief", untrained=untrained, min_position=min_position, n_bootstrap=_RESAMPLES)
    everywhere = analysis.probe(trained, "belief", site="all", min_position=min_position, n_bootstrap=1)
    trials = found.test_episodes.size
    low, high = found.interval
    readers = {
        "hidden state": (found.score, (high - low) / (2 * 1.96)),
        "all sites": (everywhere.score, math.nan),
        "untrained model": (found.untrained, math.nan),
        "shuffled labels": (found.shuffled, math.nan),
    }
    rows = [
        record(**_who(checkpoint), reader=name, value=value, error=error, trials=trials)
        for name, (value, error) in readers.items()
    ]
    return Measure(
        "belief", pd.DataFrame(rows), by=("reader",), unit="held-out R2", better="higher",
        note="Share of the exact belief's variance that a ridge probe recovers on held-out episodes, at all positions. "
        "Shuffled labels are the beliefs of other episodes; the error is of the bootstrap over held-out episodes.",
    )  # fmt: skip


def tokens_ahead(checkpoint: Checkpoint, offsets: Sequence[int] = AHEAD, episodes: int = 1000) -> Measure:
    """How much a linear probe of the final hidden state knows of the tokens ahead (NextLat, figure 8).

    Parameters
    ----------
    checkpoint : of a world whose tokens are predicted.
    offsets : steps ahead; those beyond the episodes are left out.
    episodes : held-out episodes that probes are fitted and scored on, of different token sequences each.

    Examples
    --------
    >>> from nextlat_viz.training.checkpoint import load
    >>> found = tokens_ahead(load("mess3/nextlat"), [1, 2], 60)
    >>> found.table["offset"].tolist(), bool((found.table["value"] < found.table["shuffled"]).all())
    ([1, 2], True)
    """
    read = latents.heldout(checkpoint, episodes)
    longest = int(read.length.max())
    # A prompt is given, not foretold: the first state that predicts is the one before the first token that is scored.
    first = max(1, int(read.loss_mask.any(axis=0).argmax()))
    tables = [latents.extract(one, read, ["hidden"], progress=False) for one in (checkpoint, checkpoint.untrained())]
    ahead = [offset for offset in offsets if offset < longest - first]
    return analysis.probe_sweep(
        tables[0], "token", "hidden", ahead, positions=range(first, longest), untrained=tables[1], progress=False
    )


def _who(checkpoint: Checkpoint) -> dict[str, Any]:
    card = checkpoint.card
    return {"world": card.world["name"], "objective": card.objective, "seed": card.seed, "model": checkpoint.name}
