"""The two nouns every world shares: episodes, and the world that makes them."""

from __future__ import annotations

import hashlib
import html
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Spec = dict[str, Any]
# The first is what is meant; anything else array-like is let through to one error that says so in words.
Tokens = Int[np.ndarray, "episodes positions"] | ArrayLike


@dataclass(frozen=True, eq=False)
class Episodes:
    """Token sequences together with what was true at every step.

    Parameters
    ----------
    tokens : int64 array (episodes, positions)
        Token ids, indices into the world's ``vocabulary``.
    states : dict of arrays (episodes, positions, ...)
        The truth *after* the token at that position: index 0 is what holds once the first token was read.
    loss_mask : bool array (episodes, positions), optional
        True where the token counts as something to predict; False on prompts and padding. All True by default.
        The first token of an episode has nothing before it and is never predicted, whatever the mask says.
    length : int64 array (episodes,), optional
        Number of tokens before padding. All of them by default.
    targets : int64 array (episodes, positions), optional
        What to predict at each position where that is not the next token.

    Raises
    ------
    ValueError
        If an array's shape or type does not fit the tokens.

    Examples
    --------
    >>> episodes = Episodes(np.array([[0, 1, 1], [1, 0, 1]]), states={"parity": np.array([[0, 1, 0], [1, 1, 0]])})
    >>> len(episodes), episodes[1:].tokens.tolist(), episodes[0].states["parity"].tolist()
    (2, [[1, 0, 1]], [[0, 1, 0]])
    """

    tokens: Int[np.ndarray, "episodes positions"]
    states: Mapping[str, np.ndarray] = field(default_factory=dict)
    loss_mask: Bool[np.ndarray, "episodes positions"] = None  # type: ignore[assignment]
    length: Int[np.ndarray, " episodes"] = None  # type: ignore[assignment]
    targets: Int[np.ndarray, "episodes positions"] | None = None

    def __post_init__(self) -> None:
        tokens = np.asarray(self.tokens)
        if tokens.ndim != 2 or tokens.dtype.kind not in "iu":
            raise ValueError(
                f"tokens must be integers of shape (episodes, positions), got {tokens.dtype} of shape {tokens.shape}; "
                "for one sequence pass tokens[None, :]"
            )
        episodes, positions = tokens.shape
        mask = np.ones(tokens.shape, bool) if self.loss_mask is None else np.asarray(self.loss_mask)
        length = np.full(episodes, positions) if self.length is None else np.asarray(self.length)
        _expect(mask.shape == tokens.shape and mask.dtype == bool, "loss_mask", mask, f"bool of shape {tokens.shape}")
        _expect(
            length.shape == (episodes,) and length.dtype.kind in "iu",
            "length",
            length,
            f"integers of shape ({episodes},)",
        )
        _expect(bool(((length >= 0) & (length <= positions)).all()), "length", length, f"values in 0..{positions}")
        states = {str(name): np.asarray(values) for name, values in self.states.items()}
        for name, values in states.items():
            _expect(
                values.shape[:2] == tokens.shape, f"states[{name!r}]", values, f"shape ({episodes}, {positions}, ...)"
            )
        if self.targets is not None:
            targets = np.asarray(self.targets)
            _expect(
                targets.shape == tokens.shape and targets.dtype.kind in "iu",
                "targets",
                targets,
                f"integers of shape {tokens.shape}",
            )
            object.__setattr__(self, "targets", targets.astype(np.int64))
        object.__setattr__(self, "tokens", tokens.astype(np.int64))
        object.__setattr__(self, "loss_mask", mask)
        object.__setattr__(self, "length", length.astype(np.int64))
        object.__setattr__(self, "states", states)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: Any) -> Episodes:
        """Episodes picked by integer, slice, integer array or boolean array; always Episodes, never a bare row."""
        if isinstance(index, (int, np.integer)):
            index = [int(index)]
        return Episodes(
            tokens=self.tokens[index],
            states={name: values[index] for name, values in self.states.items()},
            loss_mask=self.loss_mask[index],
            length=self.length[index],
            targets=None if self.targets is None else self.targets[index],
        )

    @cached_property
    def sha256(self) -> str:
        """Hash of the content, as hex, the same on every machine.

        Floating-point states, such as a belief, are left out: they follow from the rest, and their last bit may
        depend on the processor.
        """
        digest = hashlib.sha256(b"nextlat_viz.episodes/1")
        arrays = {"tokens": self.tokens, "loss_mask": self.loss_mask, "length": self.length}
        if self.targets is not None:
            arrays["targets"] = self.targets
        arrays |= {f"states/{name}": self.states[name] for name in sorted(self.states)}
        for name, values in arrays.items():
            if values.dtype.kind in "iub":
                digest.update(f"{name}{values.shape}".encode())
                digest.update(np.ascontiguousarray(values, dtype="<i8").tobytes())
        return digest.hexdigest()

    def __repr__(self) -> str:
        return f"Episodes({len(self)} x {self.tokens.shape[1]} tokens, states: {', '.join(self.states) or 'none'})"

    def _repr_html_(self) -> str:
        rows = {
            "episodes": len(self),
            "positions": self.tokens.shape[1],
            "tokens to predict": int(self.loss_mask[:, 1:].sum()),
            "states": ", ".join(f"{name} {values.shape[2:] or ''}".strip() for name, values in self.states.items()),
            "first episode": " ".join(map(str, self.tokens[0, :24])) if len(self) else "",
            "sha256": self.sha256[:12],
        }
        return html_table("Episodes", rows)


class World(ABC):
    """A data-generating process whose true state is known at every step.

    Attributes
    ----------
    name : str
        What the world is registered as, such as ``"rrxor"``.
    spec : dict
        Plain JSON: ``{"name": ..., parameters...}``. ``from_spec`` builds the same world from it.
    vocabulary : tuple of str
        Token names; a token id is an index into it.
    state_names : tuple of str
        Names of the hidden states; the last axis of a belief follows this order.
    """

    name: str
    spec: Spec
    vocabulary: tuple[str, ...]
    state_names: tuple[str, ...]

    @abstractmethod
    def sample(self, n: int, length: int, seed: int) -> Episodes:
        """``n`` episodes of ``length`` tokens; the same seed gives the same bytes."""

    @abstractmethod
    def belief(self, tokens: Tokens) -> Float[np.ndarray, "episodes positions states"]:
        """Exact distribution over the hidden state after each token, given all tokens so far."""

    @abstractmethod
    def next_token_probs(self, tokens: Tokens) -> Float[np.ndarray, "episodes positions tokens"]:
        """Exact distribution of the next token after each token, given all tokens so far."""

    @abstractmethod
    def legal_next(self, tokens: Tokens) -> Bool[np.ndarray, "episodes positions tokens"]:
        """Which tokens may come next, after each token."""

    @abstractmethod
    def floor(self, length: int) -> Float[np.ndarray, " length"]:
        """Bayes floor in nats: entry t - 1 is the entropy of token t + 1 given tokens 1..t, for t = 1..length."""

    @abstractmethod
    def entropy_rate(self) -> float:
        """The floor's limit for long sequences, in nats per token."""

    @abstractmethod
    def draw(self, kind: str = "machine", **options: Any) -> Figure:
        """A picture of the world."""

    def loss_floor(self, length: int) -> float:
        """Mean of ``floor(length)``: no model's mean loss over ``length`` predictions can be lower, in nats.

        An episode of T tokens holds T - 1 predictions, the first token being given: compare its loss with
        ``loss_floor(T - 1)``.
        """
        return float(self.floor(length).mean())

    @property
    def parameters(self) -> Spec:
        """The numbers that set this world apart from others of its name."""
        return {key: value for key, value in self.spec.items() if key != "name"}

    def __repr__(self) -> str:
        return f"<World {self.name}: {len(self.state_names)} states, {len(self.vocabulary)} tokens>"

    def _repr_html_(self) -> str:
        numbers = {key: value for key, value in self.parameters.items() if type(value) in (int, float)}
        rows = {
            "parameters": ", ".join(f"{key} = {value:.4g}" for key, value in numbers.items()) or "none",
            "states": f"{len(self.state_names)}: {', '.join(self.state_names)}",
            "tokens": f"{len(self.vocabulary)}: {', '.join(self.vocabulary)}",
            "entropy rate": f"{self.entropy_rate():.4f} nats per token",
            "chance": f"{math.log(len(self.vocabulary)):.4f} nats per token",
        }
        return html_table(f"World {self.name}", rows)


def html_table(title: str, rows: Mapping[str, object]) -> str:
    """A two-column table for notebooks; every word of it is escaped."""
    body = "".join(
        f'<tr><th style="text-align:left">{html.escape(key)}</th>'
        f'<td style="text-align:left">{html.escape(str(value))}</td></tr>'
        for key, value in rows.items()
    )
    return f'<table><caption style="text-align:left"><b>{html.escape(title)}</b></caption>{body}</table>'


def _expect(ok: bool, name: str, values: np.ndarray, expected: str) -> None:
    if not ok:
        raise ValueError(f"{name} must be {expected}, got {values.dtype} of shape {values.shape}")
