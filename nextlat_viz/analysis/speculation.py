"""What self-speculative decoding saves: how many of a model's own drafts its transformer accepts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Int
from tqdm.auto import tqdm

from nextlat_viz.analysis import _models
from nextlat_viz.analysis.measure import Measure
from nextlat_viz.analysis.worldmodel._episodes import end_token, prompt_length, require_next_token
from nextlat_viz.decoding import DraftCosts, Speculated, speculative_generate
from nextlat_viz.decoding.drafters import drafter_name, make_drafter
from nextlat_viz.decoding.predictor import ModelPredictor
from nextlat_viz.latents.extraction import HELDOUT_SEED

PER_STEP, SHARE, SAVED = "accepted per step", "share accepted", "passes saved"
_DRAFTS: tuple[int | Literal["adaptive"], ...] = (1, 2, 4, 8, "adaptive")


def acceptance(
    models: Any,
    drafts: Sequence[int | Literal["adaptive"]] | None = None,
    n: int = 64,
    *,
    temperature: float = 1.0,
    max_tokens: int | None = None,
    costs: DraftCosts | None = None,
    seed: int = HELDOUT_SEED,
    progress: bool = True,
) -> Measure:
    """Tokens a model drafts itself and its transformer accepts (Teoh et al. 2025, section 5), by draft length.

    Held-out prompts, the first token alone where a world has none, are continued by :func:`speculative_generate` until
    an end or the context.

    Parameters
    ----------
    models : Checkpoint or several
        Trained by ``nextlat``, ``mtp`` or ``jtp``.
    drafts : ints and "adaptive", optional
        Tokens drafted in a step. Default 1, 2, 4, 8 and adaptive, of which a model is measured by those that it can
        draft: MTP and JTP guess no further than they were trained to.
    n : int
        Prompts.
    temperature : float
        1 samples, 0 takes the likeliest.
    max_tokens : int, optional
        Most tokens added to a prompt.
    costs : DraftCosts, optional
        What adaptive drafting reckons with.
    seed : int
        Of the prompts and of sampling.
    progress : bool

    Returns
    -------
    Measure
        By draft and quantity, with the standard error over sequences: ``"accepted per step"``, drafts accepted beyond
        the one token that every pass gives; ``"share accepted"`` of the tokens drafted; ``"passes saved"``, the share
        of the passes that decoding without drafts would make. Column ``drafter``.

    Raises
    ------
    ValueError
        A model that cannot draft, or not so many tokens as asked; a world whose models do not predict its tokens.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> found = acceptance(nlv.load("mess3/nextlat"), drafts=[2, "adaptive"], n=16, progress=False)
    >>> found.table[["draft", "quantity"]].values.tolist()[:3]
    [['2', 'accepted per step'], ['2', 'share accepted'], ['2', 'passes saved']]
    """
    predictors = _models.trained(models)
    world = predictors[0].world
    require_next_token(world, "acceptance")
    if max_tokens is not None:
        _models.check_count("max_tokens", max_tokens, 2, "the first token comes of the prompt alone")
    episodes = _models.heldout_episodes(predictors, n, seed=seed)
    prompts = episodes.tokens[:, : prompt_length(episodes, world)]
    # All are looked at before the first is measured, so that an error does not come late.
    asked = [(one, draft) for one in predictors for draft in (_possible(one) if drafts is None else drafts)]
    if not asked:
        raise ValueError("drafts is empty: give at least one number of tokens, or 'adaptive'")
    end = end_token(world)
    rows = []
    for predictor, draft in tqdm(asked, desc="drafting", disable=not progress):
        made = speculative_generate(
            predictor,
            prompts,
            predictor.model.backbone.config.context if max_tokens is None else max_tokens,
            draft=draft,
            temperature=temperature,
            stop=() if end is None else end,
            seed=seed,
            costs=costs,
        )
        for quantity, (sums, counts) in _sums(made).items():
            found = _models.clustered(sums.astype(np.float64), counts.astype(np.float64))
            what = {"draft": str(draft), "quantity": quantity, "drafter": made.drafter}
            rows.append(_models.row(predictor, **what, **found))
    return Measure(
        "acceptance of drafts",
        pd.DataFrame(rows),
        by=("draft", "quantity"),
        unit={PER_STEP: "tokens", SHARE: "share", SAVED: "share"},
        better="higher",
        note="The model drafts tokens and its transformer verifies them in one pass, which leaves what comes out, or "
        "its law, unchanged. A share of the passes saved is one of the time where a pass over some tokens takes as "
        "long as over one. Draft lengths that a model cannot make are not in the table.",
    )


def _possible(predictor: ModelPredictor) -> list[int | Literal["adaptive"]]:
    """Of the usual draft lengths, those the model can make."""
    longest = make_drafter(predictor, drafter_name(predictor), 1).longest
    most = predictor.model.backbone.config.context - 1
    most = most if longest is None else min(most, longest)
    return [draft for draft in _DRAFTS if isinstance(draft, str) or draft <= most]


def _sums(made: Speculated) -> dict[str, tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]]:
    """What is counted of each sequence, and over what."""
    tokens = made.length - made.prompts
    return {
        PER_STEP: (made.accepted, made.steps),
        SHARE: (made.accepted, made.drafted),
        SAVED: (tokens - made.passes, tokens),
    }
