"""Self-speculative decoding: how many of a model's own drafts its transformer accepts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from nextlat_viz.analysis.episodes import end_token, heldout_episodes, prompt_length, require_next_token
from nextlat_viz.analysis.measure import Models, Rows, clustered, measure, several
from nextlat_viz.decoding import Adaptive, DraftCosts, speculative_generate
from nextlat_viz.decoding.drafters import drafter_name, make_drafter
from nextlat_viz.decoding.predictor import ModelPredictor
from nextlat_viz.errors import at_least
from nextlat_viz.latents.extraction import HELDOUT_SEED

PER_STEP, SHARE, SAVED = "accepted per step", "share accepted", "passes saved"
_DRAFTS: tuple[int | Literal["adaptive"], ...] = (1, 2, 4, 8, "adaptive")


@measure(
    "acceptance of drafts",
    by=("draft", "quantity"),
    unit={PER_STEP: "tokens", SHARE: "share", SAVED: "share"},
    better="higher",
    note="The model drafts tokens and its transformer verifies them in one pass, which leaves the output, or its law, "
    "unchanged. The share of passes saved is the share of time saved where a pass over several tokens takes as long as "
    "over one. Draft lengths that a model cannot make are not in the table.",
    of=ModelPredictor,
    fits=lambda checkpoint: checkpoint.world.predicts_next_token and checkpoint.objective in ("nextlat", "mtp", "jtp"),
)
def acceptance(
    models: Models[ModelPredictor],
    drafts: int | str | Sequence[int | Literal["adaptive"]] | None = None,
    n: int = 64,
    *,
    temperature: float = 1.0,
    max_tokens: int | None = None,
    costs: DraftCosts | None = None,
    seed: int = HELDOUT_SEED,
) -> Rows:
    """How many of a model's drafted tokens its transformer accepts, by draft length (Teoh et al. 2025, section 5).

    Models trained by ``nextlat``, ``mtp`` or ``jtp`` continue held-out prompts (the first token where a world has no
    prompt) with :func:`speculative_generate`, until an end or the context.

    Parameters
    ----------
    drafts : int, "adaptive" or several, optional
        Tokens drafted in a step. By default those of 1, 2, 4, 8 and adaptive that the model can draft: MTP and JTP
        draft no further than they were trained to.
    n : int
        Prompts.
    max_tokens : int, optional
        Most tokens added to a prompt.
    costs : DraftCosts, optional
        Costs that adaptive drafting assumes.

    Returns
    -------
    Measure
        By draft and quantity, with the standard error over sequences: ``"accepted per step"``, accepted drafts in
        addition to the one token that every pass gives; ``"share accepted"`` of the drafted tokens; ``"passes saved"``,
        the share of the passes of decoding without drafts. Column ``drafter``.

    Raises
    ------
    ValueError
        A model that cannot draft, or not as many tokens; a world whose models do not predict its tokens.

    Examples
    --------
    >>> accepted = acceptance("mess3/nextlat", drafts=[2, "adaptive"], n=16, progress=False)
    >>> accepted.table[["draft", "quantity"]].values.tolist()[:3]
    [['2', 'accepted per step'], ['2', 'share accepted'], ['2', 'passes saved']]
    """
    require_next_token(models.world, "acceptance")
    if max_tokens is not None:
        at_least("max_tokens", max_tokens, 2, "the first token follows from the prompt without a draft")
    episodes = heldout_episodes(models, n, seed=seed)
    prompts = episodes.tokens[:, : prompt_length(episodes, models.world)]
    # Check every model before the first is measured, so that an error comes before the work.
    jobs = [
        (model, draft) for model in models.all for draft in (_possible(model) if drafts is None else several(drafts))
    ]
    if not jobs:
        raise ValueError("drafts is empty: give at least one number of tokens, or 'adaptive'")
    end = end_token(models.world)
    for model, draft in models.track(jobs, "setting"):
        decoded = speculative_generate(
            model,
            prompts,
            (models.context or 0) if max_tokens is None else max_tokens,
            draft=Adaptive(costs) if draft == "adaptive" and costs is not None else draft,
            temperature=temperature,
            stop=() if end is None else end,
            seed=seed,
        )
        tokens = decoded.length - decoded.prompts
        quantities = {
            PER_STEP: (decoded.accepted, decoded.steps),
            SHARE: (decoded.accepted, decoded.drafted),
            SAVED: (tokens - decoded.passes, tokens),
        }
        for quantity, (sums, counts) in quantities.items():
            score = clustered(sums.astype(np.float64), counts.astype(np.float64))
            yield model, {"draft": str(draft), "quantity": quantity, "drafter": decoded.drafter, **score}


def _possible(predictor: ModelPredictor) -> list[int | Literal["adaptive"]]:
    """Return those of the default draft lengths that the model can make."""
    longest = make_drafter(predictor, drafter_name(predictor), 1).longest
    most = predictor.model.backbone.config.context - 1
    most = most if longest is None else min(most, longest)
    return [draft for draft in _DRAFTS if isinstance(draft, str) or draft <= most]
