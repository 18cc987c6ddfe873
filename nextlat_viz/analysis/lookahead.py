"""Look-ahead: psi's rollout from one true state, compared with the transformer's states at the same positions."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from jaxtyping import Float, Int

from nextlat_viz.analysis._rows import finite, require_model
from nextlat_viz.analysis.dynamics import with_psi
from nextlat_viz.analysis.prediction import kl, token_ids
from nextlat_viz.display import table
from nextlat_viz.errors import LatentsError, at_least
from nextlat_viz.latents.table import PROBS, column, episode_rows, meta, site
from nextlat_viz.models import NextLat, Objective
from nextlat_viz.models.torch_state import torch_defaults
from nextlat_viz.training.checkpoint import load
from nextlat_viz.training.trained import TrainedModel

# Probabilities kept in a table and those computed again differ by less than this, even with half-precision latents.
_SAME = 0.02


@dataclass(frozen=True, eq=False)
class LookAhead:
    """Psi's rollout from one true state over the next k tokens of the episode.

    Attributes
    ----------
    start : (D,) array
        The true hidden state where the rollout starts.
    rolled, true : (k, D) arrays
        Psi's states, and the transformer's at the same positions.
    distance : (k,) array
        Euclidean distance between the two, in the units of the hidden state.
    no_change : (k,) array
        Distance of `start` from the true state at each step: the error of predicting no change.
    kl : (k,) array
        KL(head(true) || head(rolled)) of next-token distributions, in nats.
    tokens : tuple of str
        The token that psi read at each step.
    positions : (k,) int array
        Position of each step, from ``position + 1``.
    horizon : int
        Steps that psi was trained for.
    label, episode, position
        The model, and where the rollout starts.
    """

    start: Float[np.ndarray, " D"] = field(repr=False)
    rolled: Float[np.ndarray, "k D"] = field(repr=False)
    true: Float[np.ndarray, "k D"] = field(repr=False)
    distance: Float[np.ndarray, " k"]
    no_change: Float[np.ndarray, " k"]
    kl: Float[np.ndarray, " k"]
    tokens: tuple[str, ...]
    positions: Int[np.ndarray, " k"]
    horizon: int
    label: str
    episode: int
    position: int

    def to_frame(self) -> pd.DataFrame:
        """One row per step: ``step, position, token, distance, no_change, kl``."""
        return pd.DataFrame(
            {
                "step": np.arange(1, self.distance.size + 1),
                "position": self.positions,
                "token": self.tokens,
                "distance": self.distance,
                "no_change": self.no_change,
                "kl": self.kl,
            }
        )

    def _repr_html_(self) -> str:
        rows = {
            f"{step.step} steps ahead, token {step.token}": f"distance {step.distance:.3f} "
            f"(no change: {step.no_change:.3f}), KL {step.kl:.4f} nats"
            for step in self.to_frame().itertuples()
        }
        title = f"{self.label}: psi's rollout from position {self.position} of episode {self.episode}"
        return table(title, rows, f"trained for a horizon of {self.horizon}")


@torch_defaults()
def look_ahead(model: Any, latents: AnnData, episode: int, position: int, steps: int = 8) -> LookAhead:
    """Roll psi out from the true state at a position, over the tokens that came next.

    ``h^_{t+i} = psi(h^_{t+i-1}, x_{t+i})`` from the true h_t (NextLat, arXiv:2511.05963, eq. 9 and section 3.2).

    Parameters
    ----------
    model : Objective, Checkpoint or name
        The model that the latents were extracted from, trained by an objective with latent dynamics.
    episode, position : int
        Start after `position` tokens of the episode; positions count from 1.
    steps : int
        Most steps; fewer where the episode, or its document, ends sooner.

    Raises
    ------
    ValueError
        A model without psi; steps under 1.
    LatentsError
        No such episode or position, or nothing after it; latents of another model.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> checkpoint = nlv.load("rrxor/nextlat")
    >>> latents = nlv.extract(checkpoint, checkpoint.world.sample(4, 10, seed=1))
    >>> ahead = look_ahead(checkpoint, latents, episode=2, position=4, steps=8)
    >>> ahead.positions.tolist(), ahead.rolled.shape, bool((ahead.distance < ahead.no_change).all())
    ([5, 6, 7, 8, 9, 10], (6, 64), True)
    """
    at_least("steps", steps)
    objective = with_psi(objective_of(model, latents), f"model {meta(latents)['label']!r}")
    rows = episode_rows(latents, episode)
    places = column(latents, "position")[rows]
    if position not in places:
        raise LatentsError(f"position={position}: episode {episode} has positions {places[0]} to {places[-1]}")
    row = int(rows[np.flatnonzero(places == position)[0]])
    ahead = next_rows(latents, row, steps)
    if ahead.size == 0:
        raise LatentsError(
            f"position={position} is the last of episode {episode} here: there is nothing to look ahead to, "
            "choose an earlier one"
        )
    hidden = finite(site(latents)[np.concatenate([[row], ahead])])
    require_head(objective, latents, row)
    read = token_ids(latents, ahead)
    start, true = hidden[0], hidden[1:]
    rolled = roll(objective, start, read)
    return LookAhead(
        start=start,
        rolled=rolled,
        true=true,
        distance=np.linalg.norm(rolled - true, axis=1),
        no_change=np.linalg.norm(start - true, axis=1),
        kl=kl(read_head(objective, true), read_head(objective, rolled)),
        tokens=tuple(map(str, column(latents, "token")[ahead])),
        positions=column(latents, "position")[ahead],
        horizon=objective.horizon,
        label=meta(latents)["label"],
        episode=int(episode),
        position=int(position),
    )


def objective_of(model: Any, latents: AnnData) -> Objective:
    """Return the model. Raises if it can be told that the latents were extracted from another one."""
    if isinstance(model, (str, os.PathLike)):
        model = load(model)
    if isinstance(model, TrainedModel):
        require_model(latents, model.weights_sha256, "checkpoint")
        model = model.network
    if not isinstance(model, Objective):
        raise TypeError(f"model must be a checkpoint, the name of one or its model, got {type(model).__name__}")
    width = model.backbone.config.dim
    if width != latents.n_vars:
        raise LatentsError(f"model has hidden states of width {width}, these latents have {latents.n_vars}")
    return model


@torch_defaults()
@torch.no_grad()
def roll(model: NextLat, start: Float[np.ndarray, " D"], tokens: Int[np.ndarray, " k"]) -> Float[np.ndarray, "k D"]:
    """Roll psi out from a state over tokens."""
    weight = model.backbone.head.weight
    state = torch.as_tensor(start, dtype=weight.dtype, device=weight.device)
    rolled = model.psi.read(state, model.backbone.embed(torch.as_tensor(tokens, device=weight.device)))
    return rolled.double().cpu().numpy()


@torch_defaults()
@torch.no_grad()
def read_head(model: Objective, hidden: Float[np.ndarray, "rows D"]) -> Float[np.ndarray, "rows V"]:
    """Return the next-token distributions that the model's head reads from hidden states."""
    weight = model.backbone.head.weight
    logits = model.logits(torch.as_tensor(hidden, dtype=weight.dtype, device=weight.device))
    return logits.double().softmax(dim=-1).cpu().numpy()


def require_head(model: Objective, latents: AnnData, row: int) -> None:
    """Raise if the model's next-token distribution at a row differs from the table's, which is then another model's."""
    if PROBS not in latents.obsm:
        return
    stored = np.asarray(latents.obsm[PROBS][row])
    computed = read_head(model, site(latents)[row : row + 1])[0]
    if stored.shape != computed.shape or np.abs(stored - computed).max() > _SAME:
        raise LatentsError(
            f"these latents are of {meta(latents)['name']!r}, and this model predicts other next tokens from them: "
            "give the model they were extracted from"
        )


def next_rows(latents: AnnData, row: int, steps: int) -> Int[np.ndarray, " k"]:
    """Return the rows of up to `steps` tokens after a row, in the same episode and document and without a gap."""
    rows = episode_rows(latents, int(latents.obs["episode"].iloc[row]))
    first = int(np.flatnonzero(rows == row)[0])
    chosen = rows[first : first + steps + 1]
    places = column(latents, "position")[chosen]
    contiguous = places - places[0] == np.arange(chosen.size)
    if "document" in latents.obs:
        document = column(latents, "document")[chosen]
        contiguous &= document == document[0]
    return chosen[np.cumprod(contiguous).astype(bool)][1:]
