"""One string as models and the ideal observer read it: surprise, distributions and beliefs, token by token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from nextlat_viz.analysis.probes.result import ProbeResult
from nextlat_viz.analysis.trajectories import Trajectory
from nextlat_viz.display import distinct
from nextlat_viz.errors import one_of
from nextlat_viz.worlds import World, checks
from nextlat_viz.worlds.strings import legal_part, parse_string, prompt_tokens, require_short

if TYPE_CHECKING:
    from nextlat_viz.decoding.predictor import ModelPredictor

IDEAL = "ideal observer"
"""The reader that knows the world: what it predicts is the world's exact distribution."""


@dataclass(frozen=True, eq=False)
class StringReading:
    """Predictions and latents of models, and predictions of the ideal observer, along a string of T tokens.

    Attributes
    ----------
    world : World
    tokens : (T,) int array
    laws : dict of label to (T + 1, V) array
        What each model predicts after 0, 1, ..., T tokens: the distribution of the next token, or of the target in a
        world that has targets. NaN after 0 tokens for a model without a start token.
    exact : (T + 1, V) array or None
        The same for the ideal observer; NaN where it is not known.
    states : dict of label to (T + 1, D) array
        Latents of each model at one site, NaN as in `laws`.
    prompt : int
        Tokens at the start that no model is trained to predict.
    """

    world: World
    tokens: Int[np.ndarray, " T"]
    laws: Mapping[str, Float[np.ndarray, "T1 V"]] = field(repr=False)
    exact: Float[np.ndarray, "T1 V"] | None = field(repr=False)
    states: Mapping[str, Float[np.ndarray, "T1 D"]] = field(repr=False)
    prompt: int

    @cached_property
    def truth(self) -> dict[str, np.ndarray]:
        """What is true after 0, 1, ..., T tokens, such as the exact belief; NaN where it is not known."""
        world, before = self.world, self.world.start_states()
        if not self.tokens.size:
            return {name: np.asarray(value, dtype=float)[None] for name, value in before.items()}
        after = {name: values[0] for name, values in world.replay(self.tokens[None]).items()}
        belief = world.belief(self.tokens[None])
        if belief is not None:
            after["belief"] = belief[0]
        first = {name: np.broadcast_to(before.get(name, np.nan), values.shape[1:]) for name, values in after.items()}
        return {name: np.concatenate([first[name][None], values]) for name, values in after.items()}

    @property
    def predicted(self) -> str:
        """What the models predict: "next token" or, in a world with targets, "product" or "target"."""
        if self.world.predicts_next_token:
            return "next token"
        return "product" if "state" in self.world.state_values else "target"

    @property
    def surprise(self) -> pd.DataFrame:
        """Surprise in bits, -log2 of the probability: a row per token, a column per reader, NaN in the prompt.

        The columns are ``position`` from 1, ``token``, then the ideal observer, where it is known, and the models. In
        a world with targets the surprise is that of the target after the token.
        """
        names, rows = self.world.vocabulary, np.arange(self.tokens.size)
        frame = pd.DataFrame({"position": rows + 1, "token": [names[token] for token in self.tokens]})
        targets, known = self.tokens, rows >= self.prompt
        if not self.world.predicts_next_token:
            # The target follows from the tokens, so the exact distribution is certain of it.
            exact = np.zeros((rows.size + 1, 1)) if self.exact is None else self.exact
            targets, rows = exact[1:].argmax(axis=1), rows + 1
            known &= exact[1:].max(axis=1, initial=0) == 1
        for label, law in self.readers.items():
            with np.errstate(divide="ignore"):
                frame[label] = np.where(known, -np.log2(law[rows, targets]), np.nan)
        # Turns -0 into 0.
        return frame.assign(**{label: frame[label].abs() for label in self.readers})

    def path(self, label: str, probes: Sequence[ProbeResult]) -> Trajectory:
        """Return the path that a model's latents take, read by a probe of the belief, or by probes of x and y."""
        belief = probes[0].target == "belief"
        read = np.concatenate([probe.read(self.states[label]) for probe in probes], axis=1)
        unknown = np.full(len(read), np.nan)
        truth = [self.truth.get(probe.target, unknown) for probe in probes]
        exact = truth[0] if belief else np.stack(truth, axis=1)
        place = getattr(self.world, "belief_coordinates") if belief else np.asarray  # noqa: B009  (only some have it)
        return Trajectory(
            positions=np.arange(len(read)),
            tokens=("start", *(self.world.vocabulary[token] for token in self.tokens)),
            read=read,
            exact=exact,
            coordinates=place(read),
            exact_coordinates=place(exact),
            state_names=self.world.state_names if belief else tuple(probe.target for probe in probes),
            label=label,
            episode=-1,
            held_out=None,
            axes=() if belief else tuple(probe.target for probe in probes),
        )

    def changed(self, other: StringReading) -> Int[np.ndarray, " changed"]:
        """Return the positions, from 1, at which the tokens of two strings differ, up to the end of the shorter one."""
        both = min(self.tokens.size, other.tokens.size)
        return np.flatnonzero(self.tokens[:both] != other.tokens[:both]) + 1

    def more_surprise(self, other: StringReading) -> dict[str, float]:
        """Return each reader's surprise minus that in another string, in bits, up to the end of the shorter one."""
        both = min(self.tokens.size, other.tokens.size)
        mine, others = self.surprise, other.surprise
        more = {label: (mine[label] - others[label]).iloc[:both].sum(min_count=1) for label in self.readers}
        return {label: float(bits) for label, bits in more.items() if np.isfinite(bits)}

    @property
    def readers(self) -> dict[str, Float[np.ndarray, "T1 V"]]:
        """What each reader predicts after 0, 1, ..., T tokens: `exact`, where it is known, and `laws`."""
        return {**({} if self.exact is None else {IDEAL: self.exact}), **self.laws}


def read_string(
    models: Any, string: str | ArrayLike, *, site: str = "hidden", labels: Sequence[str] | None = None
) -> StringReading:
    """Let models and the ideal observer read any string.

    Parameters
    ----------
    models : Checkpoint, fine-tuned or Hugging Face model, name, or several of one world
    string : str or (T,) integers
        Tokens of the models' world, as `worlds.strings.parse_string` takes them, or their ids. It may be empty.
    site : str
        The latents to keep.
    labels : sequence of str, optional
        One per model, all different; default their own.

    Raises
    ------
    ValueError
        For a token that is unknown or not legal after those before it, more tokens than a model can read, models that
        answer whole puzzles, and labels that are not one per model.
    UnknownNameError
        For a site that a model does not have.

    Examples
    --------
    >>> reading = read_string(["rrxor/next_token", "rrxor/nextlat"], "0 1 1")
    >>> reading.surprise.round(2)
       position token  ideal observer  next-token  NextLat
    0         1     0            1.00        0.98     0.99
    1         2     1            1.00        1.00     1.00
    2         3     1            0.58        0.60     0.60
    """
    from nextlat_viz.decoding.predictor import as_predictors

    predictors: list[Any] = as_predictors(models)
    world = predictors[0].world
    if not world.causal:
        raise ValueError(f"models of world {world.name!r} answer whole puzzles, and have no string to read by tokens")
    tokens = parse_string(world, string) if isinstance(string, str) else _ids(world, string)
    require_short(tokens, longest(predictors))
    _, problem = legal_part(world, tokens)
    if problem:
        raise ValueError(problem)
    labels = distinct(predictor.checkpoint.label for predictor in predictors) if labels is None else labels
    if len(set(labels)) != len(predictors) or len(labels) != len(predictors):
        raise ValueError(f"labels must be {len(predictors)} different names, one per model, got {list(labels)}")
    results = zip(*(_read(predictor, tokens, site) for predictor in predictors), strict=True)
    laws, states = (dict(zip(labels, values, strict=True)) for values in results)
    return StringReading(world, tokens, laws, _exact(world, tokens), states, prompt_tokens(world))


def longest(models: Sequence[Any]) -> int | None:
    """Return how many tokens all predictors can read; None where there is no limit."""
    contexts = [model.context for model in models if model.context is not None]
    return min(contexts, default=None)


def _ids(world: World, tokens: ArrayLike) -> Int[np.ndarray, " T"]:
    ids = checks.array(tokens)
    return checks.tokens(world, ids[None])[0] if ids.size else np.zeros(0, np.int64)


def _read(
    predictor: ModelPredictor, tokens: Int[np.ndarray, " T"], site: str
) -> tuple[Float[np.ndarray, "T1 V"], Float[np.ndarray, "T1 D"]]:
    """Run a model: its distributions and its latents after 0, 1, ..., T tokens."""
    import torch

    model, world = predictor.model, predictor.world
    backbone = model.backbone
    # In a text, attention stays inside a document, as in training.
    documents = world.replay(tokens[None]).get("document") if hasattr(world, "encode") and tokens.size else None
    if documents is not None:
        documents = np.concatenate([documents[:, : backbone.offset], documents], axis=1)
    with torch.no_grad():
        inputs = backbone.started(predictor.tensor(tokens[None]))
        if not inputs.shape[1]:
            size, width = len(world.vocabulary), backbone.head.weight.shape[1]
            return np.full((1, size), np.nan), np.full((1, width), np.nan)
        states = backbone.states(inputs, None if documents is None else torch.from_numpy(documents))
        laws = model.logits(states["hidden"])[0].double().softmax(dim=-1).cpu().numpy()
        latents = states[one_of("site", site, states)][0].double().cpu().numpy()
    lacking = ((1 - backbone.offset, 0), (0, 0))
    return tuple(np.pad(values, lacking, constant_values=np.nan) for values in (laws, latents))  # type: ignore[return-value]


def _exact(world: World, tokens: Int[np.ndarray, " T"]) -> Float[np.ndarray, "T1 V"] | None:
    after = world.next_token_probs(tokens[None]) if tokens.size else np.zeros((1, 0, len(world.vocabulary)))
    first = world.start_probs() if world.predicts_next_token else None
    if after is None or (first is None and not tokens.size):
        return None
    return np.concatenate([np.full((1, after.shape[2]), np.nan) if first is None else first[None], after[0]])
