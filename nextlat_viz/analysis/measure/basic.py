"""The basic measures: loss, training cost, belief, board and tokens ahead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nextlat_viz import analysis, latents
from nextlat_viz.analysis.measure.registry import MEASURES, Models, Registered, Rows, measure
from nextlat_viz.analysis.measure.result import Measure
from nextlat_viz.decoding.predictor import ModelPredictor
from nextlat_viz.errors import one_of
from nextlat_viz.latents.table import column
from nextlat_viz.training.trained import TrainedModel
from nextlat_viz.worlds import Episodes
from nextlat_viz.worlds.othello.world import Othello

_RESAMPLES = 200
# Vocabularies from this size on are read through the unembedding, from at most this many states, to take only minutes.
_LARGE_VOCABULARY, _MOST_ROWS = 1000, 128_000
AHEAD = (1, 2, 3, 4, 6, 8, 12, 20)
BASIC = ("loss", "training_cost", "belief", "board", "tokens_ahead")


@measure(
    "loss",
    by=("quantity",),
    unit="nats per token",
    better="lower",
    note="Cross-entropy on held-out episodes. The floor is the loss of the ideal observer, excess the loss above the "
    "floor, and unigram the loss of always predicting by token frequency.",
    of=ModelPredictor,
    fits=lambda checkpoint: checkpoint.card is not None,
)
def loss(models: Models[ModelPredictor]) -> Rows:
    """Validation loss on the card, and the losses to compare it with.

    Returns
    -------
    Measure
        By quantity: those of ``"loss"``, ``"floor"``, ``"excess"`` and ``"unigram"`` that the card has.

    Examples
    --------
    >>> table = loss("rrxor/nextlat", progress=False).table.set_index("quantity")["value"]
    >>> bool(table["loss"] >= table["floor"])
    True
    """
    for model in models:
        metrics = model.checkpoint.card.metrics
        for quantity in ("loss", "floor", "excess", "unigram"):
            if quantity in metrics:
                yield model, {"quantity": quantity, "value": metrics[quantity]}


@measure(
    "training cost",
    by=("quantity",),
    unit={"steps": "steps", "step": "10⁹ operations", "training": "10¹² operations"},
    better="lower",
    note="Matrix products of the training, forward and backward, in floating-point operations.",
    of=ModelPredictor,
    # Looked up on the class: reading it from a checkpoint counts the operations, which takes a second.
    fits=lambda checkpoint: hasattr(type(checkpoint), "operations"),
)
def training_cost(models: Models[ModelPredictor]) -> Rows:
    """What the training of each model cost, for comparisons at equal compute.

    Returns
    -------
    Measure
        By quantity: the number of ``"steps"``, the operations of one ``"step"`` and those of the whole ``"training"``.

    Examples
    --------
    >>> table = training_cost("rrxor/nextlat", progress=False).table.set_index("quantity")["value"]
    >>> int(table["steps"])
    4000
    """
    for model in models:
        checkpoint: Any = model.checkpoint
        steps, operations = checkpoint.card.steps, checkpoint.operations
        cost = {"steps": steps, "step": operations / 1e9, "training": steps * operations / 1e12}
        for quantity, value in cost.items():
            yield model, {"quantity": quantity, "value": value}


@measure(
    "belief",
    by=("reader",),
    unit="held-out R2",
    better="higher",
    note="Share of the exact belief's variance that a ridge probe recovers on held-out episodes, at all positions. "
    "Shuffled labels are the beliefs of other episodes; the error is of the bootstrap over held-out episodes.",
    of=ModelPredictor,
    fits=lambda checkpoint: bool(checkpoint.world.state_names),
    key="belief",
)
def belief_read(models: Models[ModelPredictor], min_position: int = 1) -> Rows:
    """How much of the exact belief a ridge probe recovers, and the scores of its controls.

    Parameters
    ----------
    min_position : int
        First position (tokens read) at which the probe is fitted and scored.

    Returns
    -------
    Measure
        By reader: R2 from the ``"hidden state"``, from ``"all sites"`` together, from the ``"untrained model"``, and
        with ``"shuffled labels"``.

    Examples
    --------
    >>> table = belief_read("rrxor/nextlat", progress=False).table.set_index("reader")["value"]
    >>> bool(table["hidden state"] > table["untrained model"] > table["shuffled labels"])
    True
    """
    for model in models:
        trained = latents.extract(model.checkpoint, progress=False)
        untrained = latents.extract(model.checkpoint.untrained(), progress=False)
        hidden = analysis.probe(
            trained, "belief", untrained=untrained, min_position=min_position, n_bootstrap=_RESAMPLES
        )
        everywhere = analysis.probe(trained, "belief", site="all", min_position=min_position, n_bootstrap=1)
        low, high = hidden.interval
        scores = {
            "hidden state": (hidden.score, (high - low) / (2 * 1.96)),
            "all sites": (everywhere.score, math.nan),
            "untrained model": (hidden.untrained, math.nan),
            "shuffled labels": (hidden.shuffled, math.nan),
        }
        for reader, (value, error) in scores.items():
            yield model, {"reader": reader, "value": value, "error": error, "trials": hidden.test_episodes.size}


@measure(
    "board",
    by=("site", "discs"),
    better="higher",
    note="Accuracy of linear probes of the squares of the board on held-out games, averaged over the squares. Nanda et "
    "al. 2023 (arXiv:2309.00941) read the discs as those of the side to move and the other side's.",
    of=ModelPredictor,
    fits=lambda checkpoint: isinstance(checkpoint.world, Othello),
    key="board",
)
def board_read(models: Models[ModelPredictor], games: int = 200, sites: str | Sequence[str] | None = None) -> Rows:
    """How much of an Othello board a linear probe of each layer reads.

    The discs are told apart by whose they are: ``"mine, theirs"`` for the side to move, or ``"black, white"``, which
    depends on the side to move too (Nanda et al. 2023, arXiv:2309.00941).

    Parameters
    ----------
    games : int
        Held-out games for fitting and scoring the probes. Every third position is read, so that each side is to move in
        half of them.
    sites : str or several, optional
        Layers to read; all by default.

    Returns
    -------
    Measure
        By site and discs: the share of squares read right. Columns ``untrained`` and ``shuffled``, the same probe of
        the untrained model and of the boards of other games; ``prior``, always the most frequent value of a square.
    """
    for model in models:
        episodes = latents.heldout(model.checkpoint, games)
        trained, untrained = (
            latents.extract(checkpoint, episodes, positions=range(3, episodes.tokens.shape[1], 3), progress=False)
            for checkpoint in (model.checkpoint, model.checkpoint.untrained())
        )
        mine = trained.obsm["board"]
        white = (column(trained, "turn") == "white")[:, None]
        black = np.where(white & (mine > 0), 3 - mine, mine)
        for discs, board in (("mine, theirs", mine), ("black, white", black)):
            trained.obsm["board"] = board
            sweep = analysis.probe_sweep(trained, "board", sites, [0], untrained=untrained, progress=False).table
            for row in sweep.to_dict("records"):
                controls = {"untrained": row["untrained_accuracy"], "shuffled": row["shuffled_accuracy"]}
                scores = {"value": row["accuracy"], "trials": row["trials"], **controls, "prior": row["chance"]}
                yield model, {"site": row["site"], "discs": discs, **scores}


def _held_out(checkpoint: TrainedModel, through: bool) -> int:
    """Return the default number of held-out episodes, for reading directly or through the unembedding."""
    length = checkpoint.reads if checkpoint.world.length is None else checkpoint.world.length
    return min(1000, max(1, _MOST_ROWS // (length or 1))) if through else 1000


def tokens_ahead(
    checkpoint: TrainedModel,
    offsets: Sequence[int] = AHEAD,
    episodes: int | Episodes | None = None,
    *,
    through: str = "auto",
    progress: bool = False,
) -> Measure:
    """How much a linear probe of the final hidden state knows of the tokens ahead (NextLat, figure 8).

    Parameters
    ----------
    checkpoint : Checkpoint or fine-tuned model
        Of a world whose tokens are predicted.
    offsets : ints
        Steps ahead; offsets longer than the episodes are left out.
    episodes : int or Episodes, optional
        How many held-out episodes the probes are fitted to and scored on; each has different tokens. By default 1,000;
        through the unembedding, as many as have 128,000 tokens. A language model without a corpus needs them here, such
        as ``model.tokens(texts, 128)``.
    through : {"auto", "unembedding", "nothing"}
        ``"unembedding"`` fits a linear map to states that the model's own output head reads: D x D weights for any
        number of tokens. The controls do the same. ``"nothing"`` fits D weights for each of the 499 most frequent
        tokens, and D for all others together. The default is the unembedding for vocabularies of 1,000 tokens or more.
    progress : bool
        Show a progress bar.

    Raises
    ------
    UnknownNameError
        For any other value of `through`.

    Examples
    --------
    >>> from nextlat_viz.training.checkpoint import load
    >>> ahead = tokens_ahead(load("mess3/nextlat"), [1, 2], 60)
    >>> ahead.table["offset"].tolist(), bool((ahead.table["value"] < ahead.table["shuffled"]).all())
    ([1, 2], True)
    """
    one_of("through", through, ("auto", "unembedding", "nothing"))
    large = len(checkpoint.world.vocabulary) >= _LARGE_VOCABULARY
    head = (
        checkpoint.network.backbone.head.weight if through == "unembedding" or (through == "auto" and large) else None
    )
    if not isinstance(episodes, Episodes):
        count = _held_out(checkpoint, head is not None) if episodes is None else episodes
        episodes = latents.heldout(checkpoint, count)
    longest = int(episodes.length.max())
    # A prompt is given, not predicted: start at the state before the first scored token.
    first = max(1, int(episodes.loss_mask.any(axis=0).argmax()))
    trained, untrained = (
        latents.extract(model, episodes, ["hidden"], progress=False) for model in (checkpoint, checkpoint.untrained())
    )
    ahead = [offset for offset in offsets if offset < longest - first]
    positions = range(first, longest)
    return analysis.probe_sweep(
        trained, "token", "hidden", ahead, positions=positions, untrained=untrained, head=head, progress=progress
    )


MEASURES["tokens_ahead"] = Registered(tokens_ahead, lambda checkpoint: checkpoint.world.predicts_next_token)
