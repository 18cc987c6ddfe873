"""Next-token predictions: a model's distribution and the exact one, at a row, along an episode or at a reading."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any, SupportsIndex

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float, Int
from scipy.special import rel_entr, softmax

from nextlat_viz.analysis._rows import episode_index, latents_of
from nextlat_viz.display import table
from nextlat_viz.errors import LatentsError, at_least
from nextlat_viz.latents.table import NO_WORLD, PROBS, column, episode_rows, meta, site, tokens_of, world_of
from nextlat_viz.worlds import HiddenMarkovWorld
from nextlat_viz.worlds.taxi.traffic import END
from nextlat_viz.worlds.taxi.world import Taxi

EXACT = "next_token_probs_exact"
# Places closer than this share of the map count as equal.
_SAME = 1e-6


@dataclass(frozen=True, eq=False)
class Prediction:
    """The next-token distribution at one row.

    Attributes
    ----------
    vocabulary : tuple of str
    model : (V,) array
        The model's distribution.
    exact : (V,) array or None
        The world's distribution, where it is known.
    label : str
        Name of the model.
    episode, position : int
        The prediction is after `position` tokens of the episode.
    """

    vocabulary: tuple[str, ...] = field(repr=False)
    model: Float[np.ndarray, " V"] = field(repr=False)
    exact: Float[np.ndarray, " V"] | None = field(repr=False)
    label: str
    episode: int
    position: int

    @property
    def kl(self) -> float | None:
        """KL(exact || model) in nats: the expected loss of this prediction above its floor."""
        return None if self.exact is None else float(kl(self.exact, self.model))

    def top(self, k: int = 8) -> pd.DataFrame:
        """Return the `k` tokens likeliest for the model or the world, likeliest first: ``token, model, exact``."""
        at_least("k", k)
        most = self.model if self.exact is None else np.maximum(self.model, self.exact)
        chosen = np.argsort(-most, kind="stable")[:k]
        exact = np.full(chosen.size, np.nan) if self.exact is None else self.exact[chosen]
        return pd.DataFrame(
            {"token": [self.vocabulary[i] for i in chosen], "model": self.model[chosen], "exact": exact},
            index=pd.Index(chosen, name="id"),
        )

    def _repr_html_(self) -> str:
        rows = {
            str(row.token): f"{row.model:.3f}" + ("" if self.exact is None else f" (exact {row.exact:.3f})")
            for row in self.top().itertuples()
        }
        gap = "" if self.kl is None else f"KL from the exact distribution: {self.kl:.4f} nats"
        return table(f"{self.label}: next token after position {self.position}", rows, gap)


def kl(p: Float[np.ndarray, "*rows V"], q: Float[np.ndarray, "*rows V"]) -> Float[np.ndarray, "*rows"]:
    """Return KL(p || q) in nats along the last axis, with ``0 ln 0 = 0``; infinite where `q` is 0 and `p` is not.

    Examples
    --------
    >>> kl(np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([[0.5, 0.5], [0.5, 0.5]])).round(4).tolist()
    [0.0, 0.6931]
    """
    # Rounding can make the sum slightly negative.
    return np.asarray(np.maximum(rel_entr(np.asarray(p, np.float64), np.asarray(q, np.float64)).sum(axis=-1), 0.0))


def prediction(latents: Any, row: SupportsIndex, head: Float[np.ndarray, "V D"] | None = None) -> Prediction:
    """Return the next-token distribution at one row of the latents.

    Parameters
    ----------
    latents : AnnData, Checkpoint or name
        Of one model. A checkpoint is extracted on its held-out episodes.
    row : int
        Row number, from 0.
    head : (V, D) array, optional
        Weights of the output head, for latents without probabilities (vocabularies over 512 tokens): the distribution
        is then ``softmax(head @ h)``.

    Raises
    ------
    LatentsError
        No such row; no probabilities and no head; a head of another width than the latents; NaN.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> checkpoint = nlv.load("rrxor/nextlat")
    >>> latents = nlv.extract(checkpoint, checkpoint.world.sample(4, 6, seed=1))
    >>> next_token = prediction(latents, 3)
    >>> next_token.position, next_token.exact.round(3).tolist(), bool(next_token.kl < 0.05)
    (4, [0.333, 0.667], True)
    """
    latents = latents_of(latents)
    rows = np.array([require_row(latents, row)])
    model = model_probs(latents, rows, head)[0]
    exact = exact_probs(latents, rows, model.size)
    return Prediction(
        vocabulary=token_names(latents, model.size),
        model=model,
        exact=None if exact is None else exact[0],
        label=meta(latents)["label"],
        episode=int(latents.obs["episode"].iloc[rows[0]]),
        position=int(latents.obs["position"].iloc[rows[0]]),
    )


def episode_predictions(latents: Any, episode: int, head: Float[np.ndarray, "V D"] | None = None) -> pd.DataFrame:
    """Return the probability that the model gave the token that came next, at every position of an episode.

    Parameters
    ----------
    latents : AnnData, Checkpoint or name
        Of one model. A checkpoint is extracted on its held-out episodes.
    head : (V, D) array, optional
        As in `prediction`.

    Returns
    -------
    DataFrame
        A row per position: ``position``; the ``token`` read there and the ``next_token``; the probabilities ``model``
        and ``exact`` of the next token (NaN where there is none, or the exact one is unknown); ``kl``, KL(exact ||
        model) in nats. In a world whose models predict a target instead of the next token (the state, for a group),
        ``next_token`` is the target.

    Raises
    ------
    LatentsError
        No such episode, or as in `prediction`.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> checkpoint = nlv.load("rrxor/nextlat")
    >>> latents = nlv.extract(checkpoint, checkpoint.world.sample(4, 6, seed=1))
    >>> table = episode_predictions(latents, 2)
    >>> table["next_token"].iloc[0] == table["token"].iloc[1], int(table["next_token"].isna().sum())
    (True, 1)
    """
    latents = latents_of(latents)
    rows = episode_rows(latents, episode)
    model = model_probs(latents, rows, head)
    exact = exact_probs(latents, rows, model.shape[1])
    names = np.array(token_names(latents, model.shape[1]), dtype=object)
    position = column(latents, "position")[rows]
    next_ids = following(latents, rows, model.shape[1])
    known, unknown = next_ids >= 0, np.full(rows.size, np.nan)

    def of_next(probs: np.ndarray | None) -> np.ndarray:
        return unknown if probs is None else np.where(known, probs[np.arange(rows.size), next_ids], np.nan)

    return pd.DataFrame(
        {
            "position": position,
            # At position 0 no token has been read.
            "token": np.where(position > 0, column(latents, "token")[rows].astype(object), None),
            "next_token": np.where(known, names[next_ids], None),
            "model": of_next(model),
            "exact": of_next(exact),
            "kl": unknown if exact is None else kl(exact, model),
        }
    )


def require_row(latents: AnnData, row: Any) -> int:
    """Return a row number, which must be one of the table."""
    try:
        number = -1 if isinstance(row, bool) else operator.index(row)
    except TypeError:
        number = -1
    if not 0 <= number < latents.n_obs:
        text = repr(row) if np.ndim(row) == 0 else type(row).__name__
        raise LatentsError(f"row={text}: these latents have rows 0 to {latents.n_obs - 1}, take one by its number")
    return number


def token_ids(latents: AnnData, rows: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " rows"]:
    """Return the ids of the tokens read at some rows, as the model takes them."""
    if "token_id" in latents.obs:
        return latents.obs["token_id"].to_numpy()[rows].astype(np.int64)
    names = latents.obs["token"].iloc[rows].astype(str)
    return pd.Index(meta(latents)["vocabulary"]).get_indexer(names).astype(np.int64)


def token_names(latents: AnnData, size: int) -> tuple[str, ...]:
    """Name the tokens of ids 0 to ``size - 1``; a token without a name in the table is named by its number."""
    vocabulary: list[str] = meta(latents)["vocabulary"]
    if len(vocabulary) == size and "token_id" not in latents.obs:
        return tuple(vocabulary)
    known: dict[int, str] = {}
    if "token_id" in latents.obs:
        read = latents.obs.drop_duplicates("token_id")
        known = dict(zip(read["token_id"].tolist(), read["token"].astype(str).tolist(), strict=True))
    return tuple(known.get(number, str(number)) for number in range(size))


def model_probs(
    latents: AnnData, rows: Int[np.ndarray, " rows"], head: Float[np.ndarray, "V D"] | None
) -> Float[np.ndarray, "rows V"]:
    """Return the model's distributions at some rows: those of the table, or those of `head` at the hidden states."""
    if head is not None:
        hidden = site(latents)[rows].astype(np.float64)
        if head.ndim != 2 or head.shape[1] != hidden.shape[1]:
            raise LatentsError(f"head must be (V, {hidden.shape[1]}) to read these latents, got shape {head.shape}")
        return _finite(softmax(hidden @ head.astype(np.float64).T, axis=1), rows)
    if PROBS not in latents.obsm:
        raise LatentsError(
            "these latents hold no next-token probabilities, which are not kept for vocabularies over 512 tokens: give "
            "the output head's weights as head=, such as checkpoint.model.backbone.head.weight"
        )
    return _finite(np.asarray(latents.obsm[PROBS][rows]).astype(np.float64), rows)


def exact_probs(latents: AnnData, rows: Int[np.ndarray, " rows"], size: int) -> Float[np.ndarray, "rows V"] | None:
    """Return the world's distributions at some rows; None where the table has none over `size` tokens."""
    if EXACT not in latents.obsm or latents.obsm[EXACT].shape[1] != size:
        return None
    return np.asarray(latents.obsm[EXACT][rows]).astype(np.float64)


def _finite(probs: Any, rows: Int[np.ndarray, " rows"]) -> Any:
    bad = ~np.isfinite(probs).all(axis=1)
    if bad.any():
        raise LatentsError(
            f"the next-token probabilities at row {rows[bad][0]} are NaN: was the learning rate too high?"
        )
    return probs


def following(latents: AnnData, rows: Int[np.ndarray, " rows"], size: int) -> Int[np.ndarray, " rows"]:
    """Return the id, below `size`, of the token or target to predict at each row; -1 where the table lacks it.

    A table of only some positions has the tokens between them too.
    """
    if meta(latents)["world"] != NO_WORLD and not world_of(latents).predicts_next_token:
        exact = exact_probs(latents, rows, size)
        return np.full(len(rows), -1) if exact is None else np.where(exact.max(axis=1) == 1, exact.argmax(axis=1), -1)
    padded = np.pad(tokens_of(latents), ((0, 0), (0, 1)), constant_values=-1)
    position = np.minimum(column(latents, "position")[rows], padded.shape[1] - 1)
    places = padded[episode_index(latents)[rows], position]
    if "token_id" not in latents.obs:
        return np.asarray(places)
    # Places in the vocabulary of the table, whose tokens have other ids in the model. The last entry is for place -1.
    vocabulary = pd.Index(meta(latents)["vocabulary"])
    ids = np.full(len(vocabulary) + 1, -1)
    ids[vocabulary.get_indexer(column(latents, "token"))] = column(latents, "token_id")
    return ids[places]


def exact_after(
    latents: AnnData,
    row: int,
    target: str,
    names: tuple[str, ...],
    goal: Float[np.ndarray, " k"],
    tokens: Int[np.ndarray, " s"],
) -> Float[np.ndarray, "s1 V"] | None:
    """Return the exact next-token distributions at a target reading, and after each of some tokens from there.

    In a hidden Markov world the reading is a belief or a state. In the taxi world it is a crossing, from where the
    ride keeps the destination and the moves left that it has at the row. `target` and `names` are those of the probe.
    NaN from the first token with probability 0 onwards; None where the distributions are not known.
    """
    if meta(latents)["world"] == NO_WORLD:
        return None
    world = world_of(latents)
    known: list[np.ndarray] = []
    if isinstance(world, HiddenMarkovWorld) and target in ("belief", "state"):
        known = _from_belief(world, target, names, goal, tokens)
    elif isinstance(world, Taxi) and names == ("x", "y"):
        known = _from_crossing(world, latents, row, goal, tokens)
    if not known:
        return None
    unknown = np.full((tokens.size + 1 - len(known), known[0].size), np.nan)
    return np.concatenate([np.stack(known), unknown])


def _from_belief(
    world: HiddenMarkovWorld,
    target: str,
    names: tuple[str, ...],
    goal: Float[np.ndarray, " k"],
    tokens: Int[np.ndarray, " s"],
) -> list[np.ndarray]:
    belief = goal
    if target == "state":
        belief = np.array([goal[names.index(s)] if s in names else 0.0 for s in world.state_names])
    known: list[np.ndarray] = []
    for t in range(tokens.size + 1):
        try:
            # The target may be no belief, such as a point outside the simplex; then `predict` raises.
            now = belief if t == 0 else world.belief(tokens[None, :t], start=belief)[0, -1]
            known.append(world.predict(now))
        except ValueError:
            break
    return known


def _from_crossing(
    world: Taxi, latents: AnnData, row: int, place: Float[np.ndarray, " 2"], tokens: Int[np.ndarray, " s"]
) -> list[np.ndarray]:
    streets, rides = world.streets, world.rides
    distance = np.hypot(streets.x - place[0], streets.y - place[1])
    node, goal = int(distance.argmin()), str(column(latents, "destination")[row])
    if distance[node] > _SAME * max(np.ptp(streets.x), np.ptp(streets.y)) or goal not in streets.nodes:
        return []
    to, left = streets.nodes.index(goal), int(column(latents, "moves_left")[row])
    known: list[np.ndarray] = []
    for t in range(tokens.size + 1):
        if t:
            turn = int(tokens[t - 1]) - rides.n_nodes
            if node == to or not 0 <= turn < END or streets.turns[node, turn] < 0:
                break
            node, left = int(streets.turns[node, turn]), left - 1
        if rides.to_goal[to, node] > left:
            break
        probs = np.zeros(len(world.vocabulary))
        if node == to:
            probs[rides.n_nodes + END] = 1
        else:
            law = rides.law(*(np.array([value]) for value in (node, to, left)))
            probs[rides.n_nodes : rides.n_nodes + END] = law[0]
        known.append(probs)
    return known
