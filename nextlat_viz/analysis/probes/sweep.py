"""Hundreds of linear probes at once: how well latents predict targets some steps ahead, by offset, site and run.

The paper trains twenty probes on the hidden state, one for each offset, and plots their cross-entropy minus that of
the next-token model (arXiv:2511.05963, figure 8): NextLat's latents hold more of the far future. `probe_sweep` does
this for any site and any column, with controls.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float
from tqdm.auto import tqdm

from nextlat_viz.analysis._rows import features, latents_of, require_same_rows, sites_named
from nextlat_viz.analysis.measure import Measure, record, several
from nextlat_viz.analysis.prediction import token_ids
from nextlat_viz.analysis.probes.ahead import Ahead, Scores, probe_ahead, rows_ahead
from nextlat_viz.analysis.probes.targets import MOST_CLASSES, TOLERANCE, Classes, Numbers
from nextlat_viz.errors import at_least, listed, one_of
from nextlat_viz.latents.table import meta
from nextlat_viz.models.torch_state import device_of
from nextlat_viz.worlds import checks

CONTROLS = ("shuffled",)
_TOKENS = ("token", "token_id")


@dataclass(frozen=True, eq=False, repr=False)
class ProbeSweep(Measure):
    """The result of `probe_sweep`.

    For classes, ``value`` is the held-out cross-entropy in nats, and the table has the ``accuracy`` and the
    ``balanced_accuracy`` (averaged over classes) too; for numbers it is the held-out R2. Scores are means over columns
    where a target has several columns of classes, such as the squares of a board. Further columns of the table:
    ``prior`` and ``chance``, the scores of class frequencies alone; ``shuffled``, ``shuffled_accuracy``, ``untrained``
    and ``untrained_accuracy``, the scores of the controls; ``selectivity``, accuracy (or R2) minus that on shuffled
    targets (Hewitt & Liang 2019, arXiv:1909.03368); ``fitted``, rows fitted; ``unseen``, held-out rows of classes that
    no fitted row has; ``gradient``, the largest entry of the gradient, 0 at the optimum.
    """

    def scored_by(self, column: str) -> ProbeSweep:
        """Take another column as the value: "accuracy", "selectivity", "shuffled", ...

        With "accuracy", the columns ``untrained``, ``shuffled`` and ``prior`` become accuracies too.

        Raises
        ------
        UnknownNameError
            No such score.
        """
        scores = [name for name in _SCORES if name in self.table and not self.table[name].isna().all()]
        one_of("score", column, scores)
        old = "cross_entropy" if self.unit == "nats" else "r2"
        table = self.table.rename(columns={"value": old}).assign(value=self.table[column], error=np.nan)
        # Controls keep the unit of the score they belong to.
        table = table.drop(columns=[name for name in _CONTROL_OF if name in table])
        for name, of in _CONTROL_OF.items():
            if column == "accuracy" and of in table:
                table[name] = table[of]
        nats = self.unit == "nats" and column in _CONTROL_OF
        unit = "nats" if nats else self.unit if self.unit == "R2" else "share"
        name = f"{self.name}: {column.replace('_', ' ')}"
        return replace(self, name=name, table=table, unit=unit, better="lower" if nats else "higher")


# Columns of controls in the unit of ``value``, and their counterparts for accuracy.
_CONTROL_OF = {"untrained": "untrained_accuracy", "shuffled": "shuffled_accuracy", "prior": "chance"}
_SCORES = (
    "accuracy", "balanced_accuracy", "selectivity", "shuffled", "shuffled_accuracy", "untrained", "untrained_accuracy",
    "prior", "chance",
)  # fmt: skip


def probe_sweep(
    latents: Any,
    target: str | Sequence[str] = "token",
    sites: str | Sequence[str] | None = None,
    offsets: Iterable[int] = range(1, 21),
    *,
    positions: Iterable[int] | None = None,
    untrained: Any = None,
    controls: Sequence[str] = CONTROLS,
    test_size: float = 0.3,
    tol: float = TOLERANCE,
    seed: int = 0,
    device: str = "cpu",
    head: Any = None,
    progress: bool = True,
) -> ProbeSweep:
    """Fit linear probes that read, from the latent at position t, the truth at position t + offset.

    Classes are read by multinomial logistic regression (C = 1) and scored by cross-entropy and accuracy. Numbers are
    read by ridge regression, its penalty from five folds over episodes, and scored by R2. Columns of the latents are
    standardised. The split is by episode, as in `split_episodes`, and the same for all runs, sites and offsets. All
    offsets of a site, and their controls, are fitted together.

    Parameters
    ----------
    latents : AnnData, Checkpoint or name, or several
        One per run; runs of one world on the same rows.
    target : str or several
        "token", or any column or array of the latents; several of one kind, classes or numbers.
    sites : str or several, optional
        Default every site of the latents; "all" is their concatenation.
    offsets : integers
        Steps ahead; 0 is the same position. Default 1 to 20, as in the paper.
    positions : integers, optional
        Read the latents at these positions only (from 1). Targets may lie past them.
    untrained : AnnData, or several, optional
        The same rows from each run's untrained model, for the control.
    controls : sequence of str
        ``"shuffled"``: the same fit to the targets of another episode. Doubles the time.
    test_size : float
        Share of different token sequences held out.
    tol : float
        Largest entry of a classifier's gradient, per standard deviation of its columns. On latents of a story model
        the default came within 0.4 points of accuracy and 0.03 nats of ``tol=1e-4``, in a sixth of the time.
    seed : int
        Of split, folds, shuffle, and the order of the rows in the fit.
    device : str
        ``"cpu"``, or ``"cuda"``.
    head : (V, D) array or tensor, or a list with one per run, optional
        Weights of the model's output head, such as ``checkpoint.network.backbone.head.weight``: tokens are read
        through it, for vocabularies of thousands. The logits are ``head @ (M h + c) + (a h + b) log frequency``, with
        about D x D weights to fit instead of V x D. All tokens are classes then, not only the 499 most frequent. The
        controls are read through the same head.

    Returns
    -------
    ProbeSweep
        By offset and site, and by target where there are several. The standard error is over held-out episodes,
        ``trials`` are held-out rows. A held-out row of a class that no fitted row has counts as wrong. Its
        cross-entropy is finite, because each prediction is mixed with 1 part in (fitted rows + 1) of the uniform one.

    Raises
    ------
    LatentsError
        Too few episodes, NaN in latents or target, a target that is constant at some offset, runs of different rows.
    UnknownNameError
        No such site, target or control.
    ValueError
        An offset beyond the episodes, or below 0; both numbers and classes among the targets; no target or offset; a
        head of another vocabulary, or for a target other than tokens.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> episodes = nlv.worlds.get("rrxor").sample(64, 12, seed=1)
    >>> runs = [nlv.extract(nlv.load(f"rrxor/{name}"), episodes, []) for name in ("next_token", "nextlat")]
    >>> sweep = probe_sweep(runs, offsets=(1, 2), progress=False)
    >>> sweep.table[["objective", "offset", "site", "trials"]].values.tolist()[-1]
    ['nextlat', 2, 'hidden', 200]
    >>> sweep.relative_to("next_token").table["objective"].tolist()
    ['nextlat', 'nextlat']
    """
    seed, device = at_least("seed", seed, 0), str(device_of(device))
    runs = [latents_of(table) for table in several(latents)]
    if not runs:
        raise ValueError("latents is empty: give at least one table of latents")
    blanks = [None if table is None else latents_of(table, "untrained", untrained=True) for table in several(untrained)]
    if untrained is None:
        blanks *= len(runs)
    for name in controls:
        one_of("control", name, CONTROLS)
    if len(blanks) != len(runs):
        raise ValueError(f"untrained must be one table per run, got {len(blanks)} for {len(runs)} runs")
    targets, heads = several(target), _heads(head, len(runs))
    if head is not None and not set(targets) <= set(_TOKENS):
        raise ValueError(f"head reads tokens, and target is {target!r}: leave head out, or take target='token'")
    offsets = listed("offsets", offsets, "range(1, 21)")
    steps = sorted({at_least("offsets", step, 0, "they count steps ahead, and 0 is now") for step in offsets})
    positions = None if positions is None else listed("positions", positions, "[1, 2]")
    if not targets or not steps:
        raise ValueError("target and offsets must each name at least one: offsets=range(1, 21)")
    for run, blank in zip(runs, blanks, strict=True):
        first = next(other for other in runs if meta(other)["world"] == meta(run)["world"])
        require_same_rows(first, run, "runs of one world")
        if blank is not None:
            require_same_rows(run, blank, "the trained and the untrained latents")
    rows: list[dict[str, Any]] = []
    kinds: dict[str, str] = {}
    ahead: dict[str, Ahead] = {}
    jobs = [
        (run, blank, weights, name, site)
        for run, blank, weights in zip(runs, blanks, heads, strict=True)
        for name in targets
        for site in sites_named(run, sites)
    ]
    for run, blank, weights, name, site in tqdm(jobs, desc="probes", unit="site", disable=not progress):
        world = meta(run)["world"]
        if world not in ahead:
            # Runs of one world are paired by seed, so they share rows, split and shuffle.
            ahead[world] = rows_ahead(run, steps, positions, test_size, seed)
        truth = ahead[world].target(run, name, MOST_CLASSES if weights is None else run.n_obs)
        through = None if weights is None else _of_classes(weights, run, truth)
        kinds.setdefault("classes" if isinstance(truth, Classes) else "numbers", name)
        if len(kinds) > 1:
            raise ValueError(
                f"{kinds['numbers']!r} is read as numbers and {kinds['classes']!r} as classes: their scores have no "
                "unit in common, sweep one after the other"
            )
        fit = partial(probe_ahead, truth=truth, name=name, ahead=ahead[world], tol=tol, device=device, head=through)
        scores = fit(features(run, site), shuffle="shuffled" in controls)
        if blank is not None:
            control = fit(features(blank, site), shuffle=False)
            scores = [score | _as_control(other) for score, other in zip(scores, control, strict=True)]
        place = {"site": site} | ({"target": name} if len(targets) > 1 else {})
        rows += [_row(run, {"offset": offset, **place, **score}) for offset, score in zip(steps, scores, strict=True)]
    classes = "classes" in kinds
    return ProbeSweep(
        f"{' and '.join(targets)} read ahead",
        pd.DataFrame(rows),
        ("offset", "site", "target") if len(targets) > 1 else ("offset", "site"),
        unit="nats" if classes else "R2",
        better="lower" if classes else "higher",
        note="Linear probes on frozen latents that read the truth offset steps ahead, on held-out episodes"
        f"{'' if head is None else ', through the output head of the model'}. NextLat (arXiv:2511.05963), figure 8.",
    )


def _heads(head: Any, runs: int) -> list[Float[np.ndarray, "V D"] | None]:
    """Return the head of each run; a single head is used for all."""
    heads = list(head) if isinstance(head, list | tuple) else [head] * runs
    if len(heads) != runs:
        raise ValueError(f"head must be one array, or a list with one per run: got {len(heads)} for {runs} runs")
    arrays = [None if weights is None else checks.array(weights) for weights in heads]
    for values in arrays:
        if values is not None and values.ndim != 2:
            raise ValueError(f"head must be an array of (tokens, width), got shape {values.shape}")
    return arrays


def _of_classes(head: Float[np.ndarray, "V D"], latents: AnnData, truth: Classes | Numbers) -> Float[np.ndarray, "k D"]:
    """Return the rows of a head for the tokens that are the classes of a target."""
    codes, first = np.unique(truth.values[:, 0], return_index=True)
    ids = token_ids(latents, first[codes >= 0])
    if ids.max() >= len(head):
        raise ValueError(f"head has {len(head)} tokens, and token {ids.max()} occurs: give the head of this model")
    return head[ids]


def _row(run: AnnData, scores: dict[str, Any]) -> dict[str, Any]:
    about = meta(run)
    card = json.loads(about["card"])
    objective = str(card.get("objective", about["label"]))
    return record(json.loads(about["world"])["name"], objective, card.get("seed"), about["name"], **scores)


def _as_control(scores: Scores) -> Scores:
    control = {"untrained": scores["value"]}
    return control | ({"untrained_accuracy": scores["accuracy"]} if "accuracy" in scores else {})
