"""Recursive models step by step: their answers, what is true of them, and a table of their states."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from anndata import AnnData
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from nextlat_viz.errors import LatentsError, at_least, is_number, one_of, shown
from nextlat_viz.latents import table
from nextlat_viz.latents.facts import Reading
from nextlat_viz.latents.inputs import heldout
from nextlat_viz.latents.readers import CheckpointReader
from nextlat_viz.models import TRM, Recursive
from nextlat_viz.training.checkpoint import load
from nextlat_viz.training.trained import TrainedModel
from nextlat_viz.worlds import Episodes, World

_YES_NO = ("no", "yes")
# The sites of a table, and the model's own names of them.
SITES = {"z": "z", table.HIDDEN: "y"}


def is_recursive(model: TrainedModel) -> bool:
    """Whether a model answers in recursion steps."""
    return isinstance(model.network, Recursive)


def recursive_network(model: Any, argument: str) -> Recursive:
    """Return the network of a recursive model; raise for any other, naming the argument that asks for steps."""
    network = getattr(model, "network", None)
    if isinstance(network, Recursive):
        return network
    about = f"{model.name} is trained with {model.objective!r}" if network is not None else f"got {shown(model)}"
    raise LatentsError(
        f"{argument} is for recursive models, which answer in steps, and {about}: leave it out, or give a model "
        "trained with 'trm', 'dis', 'one_pass' or 'equal_depth', such as 'queens/dis'"
    )


@dataclass(frozen=True, eq=False)
class Thinking:
    """The answers of a recursive model to some puzzles, after each recursion step.

    Attributes
    ----------
    world : World
    puzzles : Episodes
    logits : (puzzles, steps, cells, tokens) array
        Of the answer after each step.
    halt : (puzzles, steps) array or None
        Logit of the answer being right, as judged by a model trained with ``"trm"``.
    trained : int
        Steps taken in training; later ones were never trained.
    """

    world: World
    puzzles: Episodes
    logits: Float[np.ndarray, "puzzles steps cells tokens"]
    halt: Float[np.ndarray, "puzzles steps"] | None
    trained: int

    @property
    def steps(self) -> int:
        """Number of recursion steps."""
        return self.logits.shape[1]

    @cached_property
    def before(self) -> Float[np.ndarray, "puzzles steps cells tokens"]:
        """The logits before each step: all 0 before the first, where the answer's state is 0."""
        return np.concatenate([np.zeros_like(self.logits[:, :1]), self.logits[:, :-1]], axis=1)

    def answers(self, guidance: float = 1.0) -> Int[np.ndarray, "puzzles steps cells"]:
        """Return the likeliest token of each cell after each step.

        Parameters
        ----------
        guidance : float
            w in the logits ``before + w (after - before)``: 1 gives the model's own answer, 0 that of the step before,
            and more than 1 goes further in the same direction (arXiv:2511.16886). The states are not changed.
        """
        if not is_number(guidance) or not np.isfinite(guidance):
            raise ValueError(f"guidance={guidance!r} must be a number: 1 is the model's own answer")
        logits = self.logits if guidance == 1 else self.before + guidance * (self.logits - self.before)
        return logits.argmax(axis=-1)

    @cached_property
    def margins(self) -> Float[np.ndarray, "puzzles steps cells"]:
        """Advantage margin of each step and cell: how much it raises the right token over what the answer expected.

        With l the logits, before and after the step, and pi the softmax of those before,
        ``(l_after - l_before)[right] - sum_a pi(a) (l_after - l_before)[a]`` (arXiv:2511.16886). Above 0 the step
        helps; a step whose margins are about 0 is dead. Right is the target of the puzzle.
        """
        change = (self.logits - self.before).astype(np.float64)
        policy = np.exp(self.before - self.before.max(axis=-1, keepdims=True), dtype=np.float64)
        policy /= policy.sum(axis=-1, keepdims=True)
        right = np.take_along_axis(change, self.targets[:, None, :, None], axis=-1)[..., 0]
        return right - (policy * change).sum(axis=-1)

    @property
    def targets(self) -> Int[np.ndarray, "puzzles cells"]:
        """The right answers."""
        if self.puzzles.targets is None:
            raise LatentsError(
                "these puzzles have no answers to compare with: sample them, or give Episodes with targets"
            )
        return self.puzzles.targets

    def facts(self, guidance: float = 1.0) -> dict[str, Int[np.ndarray, "puzzles steps"]]:
        """Return facts of each answer, as integers.

        Returns
        -------
        dict of (puzzles, steps) arrays
            ``changed``, the cells that differ from the answer before (at the first step, from the puzzle); the facts of
            `World.answer_facts`: ``distance``, the cells that differ from the nearest solution, and, of queens,
            ``conflicts``, the pairs that attack each other; and ``solved``, 1 where the distance is 0.
        """
        answers, (n, steps) = self.answers(guidance), self.logits.shape[:2]
        earlier = np.concatenate([self.puzzles.tokens[:, None], answers[:, :-1]], axis=1)
        known = self.world.answer_facts(answers.reshape(n * steps, -1), self.puzzles[np.repeat(np.arange(n), steps)])
        facts = {"changed": (answers != earlier).sum(axis=-1)}
        facts |= {name: values.reshape(n, steps) for name, values in known.items()}
        return facts | {"solved": (facts["distance"] == 0).astype(np.int64)}


def think(
    model: Any,
    puzzles: Any = None,
    steps: int | None = None,
    *,
    batch_size: int = 256,
    device: torch.device | str | None = None,
    progress: bool | Callable[[int, int], None] = False,
) -> Thinking:
    """Run a recursive model on puzzles and return its answer after each recursion step.

    Parameters
    ----------
    model : Checkpoint or its name
        Trained with ``"trm"``, ``"dis"``, ``"one_pass"`` or ``"equal_depth"``.
    puzzles : Episodes or (N, cells) integers, optional
        Default the held-out ones of the model's world.
    steps : int, optional
        Recursion steps; default as many as in training. Later ones are allowed.
    batch_size, device, progress
        As in `extract`.

    Raises
    ------
    LatentsError
        A model that is not recursive; no puzzles.
    ValueError
        Puzzles that have no solution.

    Examples
    --------
    >>> thinking = think("queens/dis", steps=10)
    >>> thinking.steps, thinking.trained, thinking.facts()["solved"].shape[1]
    (10, 8, 10)
    """
    checkpoint = load(model) if isinstance(model, str) else model
    network = recursive_network(checkpoint, "think")
    boards = puzzles_of(checkpoint, puzzles)
    logits, halts = [], []
    for states in passes(checkpoint, boards, steps, batch_size, device, progress):
        logits.append(torch.stack([network.logits(y) for y, _ in states], dim=1).float().cpu().numpy())
        if isinstance(network, TRM):
            halts.append(torch.stack([network.halts(y) for y, _ in states], dim=1).float().cpu().numpy())
    halt = np.concatenate(halts) if halts else None
    return Thinking(checkpoint.world, boards, np.concatenate(logits), halt, network.backbone.schedule.steps)


def puzzles_of(checkpoint: TrainedModel, puzzles: Any) -> Episodes:
    """Return puzzles as Episodes, checked; by default the held-out ones."""
    if puzzles is None:
        return heldout(checkpoint)
    if not isinstance(puzzles, Episodes):
        try:
            puzzles = Episodes(puzzles)
        except ValueError as error:
            raise TypeError(
                f"puzzles must be Episodes or integers of shape (puzzles, cells), got {shown(puzzles)}"
            ) from error
    cells = checkpoint.network.backbone.config.context
    if len(puzzles) == 0 or puzzles.tokens.shape[1] != cells or (puzzles.length != cells).any():
        raise LatentsError(
            f"puzzles must be at least one, each of {cells} cells, got {len(puzzles)} of {puzzles.tokens.shape[1]}: "
            f"sample them from the model's world, {checkpoint.world.name!r}"
        )
    known = len(checkpoint.world.vocabulary)
    wrong = puzzles.tokens[(puzzles.tokens < 0) | (puzzles.tokens >= known)]
    if wrong.size:
        raise LatentsError(
            f"puzzles hold token {wrong[0]}, and those of world {checkpoint.world.name!r} are 0 to {known - 1}"
        )
    if not checkpoint.world.causal:
        checkpoint.world.replay(puzzles.tokens)  # raises for a puzzle that has no solution
    return puzzles


def passes(
    checkpoint: TrainedModel,
    puzzles: Episodes,
    steps: int | None,
    batch_size: int,
    device: torch.device | str | None,
    progress: bool | Callable[[int, int], None],
) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Yield y and z after each step, for each batch of puzzles in turn, with the model in evaluation mode."""
    network = recursive_network(checkpoint, "steps")
    count = network.backbone.schedule.steps if steps is None else at_least("steps", steps)
    batch_size, n = at_least("batch_size", batch_size), len(puzzles)
    reader = CheckpointReader(cast(Any, checkpoint), "all")
    bar = tqdm(
        **{"total": n, "desc": f"steps of {checkpoint.name}", "unit": "puzzle", "delay": 0.5},
        disable=not progress or callable(progress),
    )
    with bar, reader.ready(device) as where:
        for start in range(0, n, batch_size):
            tokens = torch.from_numpy(puzzles.tokens[start : start + batch_size]).to(where)
            yield list(network.backbone.steps(tokens, count))
            bar.update(len(tokens))
            if callable(progress):
                progress(start + len(tokens), n)


def extract_steps(
    checkpoint: TrainedModel,
    puzzles: Episodes,
    sites: str | Sequence[str],
    steps: int | None,
    cells: bool,
    batch_size: int,
    device: torch.device | str | None,
    progress: bool | Callable[[int, int], None],
    dtype: str,
) -> AnnData:
    """Build the table of a recursive model's states; see `extract`."""
    network = recursive_network(checkpoint, "steps")
    names = list(SITES) if sites == "all" else [sites] if isinstance(sites, str) else list(sites)
    for name in names:
        one_of("site", name, [*SITES, "y"])
    names = [name for name in SITES if name in names or name == table.HIDDEN]
    states: dict[str, list[np.ndarray]] = {name: [] for name in names}
    logits = []
    for batch in passes(checkpoint, puzzles, steps, batch_size, device, progress):
        both = {table.HIDDEN: [y for y, _ in batch], "z": [z for _, z in batch]}
        for name in names:
            # (puzzles, steps, cells, dim)
            values = torch.stack(both[name], dim=1)
            states[name].append((values if cells else values.mean(dim=2)).float().cpu().numpy())
        logits.append(torch.stack([network.logits(y) for y in both[table.HIDDEN]], dim=1).float().cpu().numpy())
    thinking = Thinking(checkpoint.world, puzzles, np.concatenate(logits), None, network.backbone.schedule.steps)
    read, tokens = (_cell_rows if cells else _puzzle_rows)(thinking)
    arrays = {}
    for name, parts in states.items():
        whole = np.concatenate(parts)
        # A row per puzzle and step, or per puzzle, cell and step.
        whole = whole.swapaxes(1, 2) if cells else whole
        arrays[name] = whole.reshape(-1, whole.shape[-1]).astype(dtype)
    reader = CheckpointReader(cast(Any, checkpoint), "all")
    others = [name for name in names if name != table.HIDDEN]
    uns = table.origin(read, reader.meta | {"hidden_site": SITES[table.HIDDEN]}, others)
    uns[table.KEY] |= {
        "episodes_sha256": puzzles.sha256,
        "vocabulary": list(checkpoint.world.vocabulary),
        "world": json.dumps(checkpoint.world.spec),
        "recursion_steps": thinking.trained,
    }
    # The rows are steps: the tokens are those of the puzzle.
    return table.assemble(arrays, read, uns | {table.TOKENS: tokens.astype(np.int32)})


def _puzzle_rows(thinking: Thinking) -> tuple[Reading, Int[np.ndarray, "episodes cells"]]:
    """Return the reading of a table with an episode per puzzle, and the puzzles' tokens."""
    given = np.repeat((thinking.puzzles.tokens != 0).sum(axis=1, keepdims=True), thinking.steps, axis=1)
    return _reading(thinking, thinking.facts() | {"given": given}, ("solved",)), thinking.puzzles.tokens


def _cell_rows(thinking: Thinking) -> tuple[Reading, Int[np.ndarray, "episodes cells"]]:
    """Return the reading of a table with an episode per cell of a puzzle, and the tokens of its puzzle."""
    n, steps, cells = thinking.logits.shape[:3]
    answers = thinking.answers().swapaxes(1, 2)
    tokens = thinking.puzzles.tokens
    before = np.concatenate([tokens[..., None], answers[..., :-1]], axis=-1)
    columns = {
        "board": np.broadcast_to(np.arange(n)[:, None, None], answers.shape),
        "cell": np.broadcast_to(np.arange(cells)[:, None], answers.shape),
        "given": np.broadcast_to(tokens[..., None] != 0, answers.shape).astype(np.int64),
        "answer": answers,
        "changed": (answers != before).astype(np.int64),
        "solved": np.broadcast_to(thinking.facts()["solved"][:, None], answers.shape),
    }
    names = ["given", "changed", "solved"]
    if thinking.puzzles.targets is not None:
        columns["right"] = (answers == thinking.targets[..., None]).astype(np.int64)
        columns["margin"] = thinking.margins.swapaxes(1, 2)
        names.append("right")
    known = {} if thinking.world.causal else thinking.world.replay(tokens)
    if "posterior" in known:
        columns["posterior"] = np.broadcast_to(known["posterior"][..., None], answers.shape)
    flat = {name: values.reshape(n * cells, steps) for name, values in columns.items()}
    read = _reading(thinking, flat, names, {"answer": list(thinking.world.vocabulary)})
    return read, np.repeat(tokens, cells, axis=0)


def _reading(
    thinking: Thinking,
    columns: dict[str, np.ndarray],
    yes_no: Sequence[str],
    values: dict[str, list[str]] | None = None,
) -> Reading:
    """Return (episodes, steps) columns as a reading whose positions are steps, and whose tokens name them."""
    episodes, steps = len(next(iter(columns.values()))), thinking.steps
    trained: Bool[np.ndarray, " steps"] = np.arange(steps) < thinking.trained
    columns = columns | {"trained": np.tile(trained.astype(np.int64), (episodes, 1))}
    return Reading(
        Episodes(np.tile(np.arange(steps), (episodes, 1)), columns),
        np.ones((episodes, steps), bool),
        None,
        tuple(f"step {step}" + ("" if known else ", not trained") for step, known in enumerate(trained, start=1)),
        values={name: list(_YES_NO) for name in (*yes_no, "trained")} | (values or {}),
    )
