"""Linear probes by the hundred: what a latent knows of the steps ahead, by offset, layer, run and seed.

The paper trains twenty probes on the hidden state, one for each offset, and plots their cross-entropy minus the
next-token model's (arXiv:2511.05963, figure 8): NextLat's latents hold more of the far future. Here the same is asked
of any site and of any column, beside the controls without which a probe says little.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from tqdm.auto import tqdm

from nextlat_viz.analysis._ahead import Ahead, Found, foretell, look_ahead
from nextlat_viz.analysis._rows import ALL_SITES, features, require_same_rows
from nextlat_viz.analysis._targets import Classes
from nextlat_viz.analysis.measure import Measure, record
from nextlat_viz.errors import unknown
from nextlat_viz.latents.table import meta
from nextlat_viz.latents.table import sites as sites_of

CONTROLS = ("shuffled",)
TOLERANCE = 2e-3


@dataclass(frozen=True, eq=False, repr=False)
class ProbeSweep(Measure):
    """What `probe_sweep` found: a `Measure`, and what can be made of it.

    Of classes, ``value`` is the held-out cross-entropy in nats, and the table has ``accuracy`` beside it; of numbers it
    is held-out R2. Further columns: ``prior`` and ``chance``, what class frequencies alone score; ``shuffled``,
    ``shuffled_accuracy``, ``untrained`` and ``untrained_accuracy``, the controls' scores; ``selectivity``, accuracy (or
    R2) minus that on shuffled targets (Hewitt & Liang 2019, arXiv:1909.03368); ``fitted``, rows fitted; ``unseen``,
    held-out rows of classes that no fitted row has; ``gradient``, how far the fit is from its optimum (0).
    """

    def relative_to(self, baseline: str = "next_token") -> Measure:
        """Subtract the baseline's value, seed by seed: the paper's figure 8.

        Returns
        -------
        Measure
            A row for each run of another objective; the error is NaN, as runs of one seed share their held-out rows.

        Raises
        ------
        UnknownNameError
            If no run is of objective `baseline`, or all are.
        ValueError
            If it lacks a seed that another objective has.
        """
        known = list(dict.fromkeys(map(str, self.table["objective"])))
        if baseline not in known:
            raise unknown("objective", baseline, known)
        keys = ["world", "seed", *self.by]
        own = self.table["objective"] == baseline
        against = self.table[own].groupby(keys, dropna=False, sort=False)["value"].mean().rename("_baseline")
        others = self.table[~own].merge(against.reset_index(), on=keys, how="left")
        if others.empty:
            raise ValueError(f"all runs are of {baseline}: sweep runs of another objective too, of the same seeds")
        alone = others[others["_baseline"].isna()]
        if len(alone):
            raise ValueError(
                f"{baseline} has no run of world {alone['world'].iloc[0]!r} and seed {alone['seed'].iloc[0]}, which "
                f"{alone['objective'].iloc[0]} has: sweep {baseline} with the same seeds, sites and offsets"
            )
        others["value"] -= others.pop("_baseline")
        return Measure(
            f"{self.name}, minus {baseline}",
            others.assign(error=np.nan).drop(columns=[name for name in _BESIDE if name in others]),
            self.by,
            self.unit if self.unit == "nats" else f"{self.unit}, difference",
            self.better,
            {baseline: 0.0},
            note=f"Each run minus the run of {baseline} with its seed, on the same held-out rows. {self.note}",
        )

    def scored_by(self, column: str) -> ProbeSweep:
        """The same probes with another column as their value: "accuracy", "selectivity", "shuffled", ...

        Beside accuracy, ``untrained``, ``shuffled`` and ``prior`` are the controls' accuracies.

        Raises
        ------
        UnknownNameError
            If there is no such score.
        """
        scores = [name for name in _SCORES if name in self.table and not self.table[name].isna().all()]
        if column not in scores:
            raise unknown("score", column, scores)
        old = "cross_entropy" if self.unit == "nats" else "r2"
        table = self.table.rename(columns={"value": old}).assign(value=self.table[column], error=np.nan)
        # Controls stand beside what they control, in its unit.
        table = table.drop(columns=[name for name in _BESIDE if name in table])
        for name, of in _BESIDE.items():
            if column == "accuracy" and of in table:
                table[name] = table[of]
        nats = self.unit == "nats" and column in _BESIDE
        unit = "nats" if nats else self.unit if self.unit == "R2" else "share"
        name = f"{self.name}: {column.replace('_', ' ')}"
        return replace(self, name=name, table=table, unit=unit, better="lower" if nats else "higher")


# Controls in the unit of ``value``, and those they have for accuracy.
_BESIDE = {"untrained": "untrained_accuracy", "shuffled": "shuffled_accuracy", "prior": "chance"}
_SCORES = (
    "accuracy", "selectivity", "shuffled", "shuffled_accuracy", "untrained", "untrained_accuracy", "prior", "chance",
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
    progress: bool = True,
) -> ProbeSweep:
    """Fit linear probes that read, from the latent at position t, what is true at position t + offset.

    Classes are read by multinomial logistic regression (C = 1) and scored by cross-entropy and accuracy; numbers by
    ridge regression, its penalty by five folds over episodes, and scored by R2. Columns of the latents are
    standardised. Fitted and scored are different episodes, those that read the same tokens on one side; the same ones
    for all runs, sites and offsets. All offsets of a site, and their controls, are fitted together.

    Parameters
    ----------
    latents : AnnData, or several
        One table per run; runs of one world of the same rows.
    target : str or several
        "token", or any column or array of the latents; several of one kind, classes or numbers.
    sites : str or several, optional
        Default every site of the latents; "all" reads them side by side.
    offsets : integers
        Steps ahead, from 0, which is now; default 1 to 20, the paper's.
    positions : integers, optional
        Read the latents at these positions only (from 1); what they are to foretell may lie past them.
    untrained : AnnData, or several, optional
        The same rows from each run's untrained model, for the control.
    controls : sequence of str
        ``"shuffled"``: the same fit when each episode is to foretell another one's targets. Doubles the time.
    test_size : float
        Share of different token sequences held out.
    tol : float
        Largest entry of a classifier's gradient, per standard deviation of its columns. On latents of a story model
        the default came within 0.4 points of accuracy and 0.03 nats of ``tol=1e-4``, in a sixth of the time.
    seed : int
        Of split, folds, shuffle, and the order in which rows are read.
    device : str
        ``"cpu"``, or ``"cuda"``.
    progress : bool

    Returns
    -------
    ProbeSweep
        By offset and site, and by target where several were asked for. The standard error is over held-out episodes,
        ``trials`` are held-out rows. A held-out row of a class that no fitted row has is counted as wrong; so that its
        cross-entropy is finite, every class has at least one part in (fitted rows + 1) of uniform probability.

    Raises
    ------
    LatentsError
        Too few episodes, NaN in latents or target, a target that is constant at some offset, runs of different rows.
    UnknownNameError
        No such site, target or control.
    ValueError
        An offset beyond the episodes, or below 0; targets of both kinds; nothing to sweep.

    Examples
    --------
    >>> import nextlat_viz as nlv
    >>> episodes = nlv.worlds.get("rrxor").sample(64, 12, seed=1)
    >>> runs = [nlv.extract(nlv.load(f"rrxor/{name}"), episodes, []) for name in ("next_token", "nextlat")]
    >>> found = probe_sweep(runs, offsets=(1, 2), progress=False)
    >>> found.table[["objective", "offset", "site", "trials"]].values.tolist()[-1]
    ['nextlat', 2, 'hidden', 200]
    >>> found.relative_to("next_token").table["objective"].tolist()
    ['nextlat', 'nextlat']
    """
    runs = _several(latents, "latents")
    blank: Sequence[AnnData | None] = [None] * len(runs) if untrained is None else _several(untrained, "untrained")
    for name in controls:
        if name not in CONTROLS:
            raise unknown("control", name, CONTROLS)
    if len(blank) != len(runs):
        raise ValueError(f"untrained must be one table per run, got {len(blank)} for {len(runs)} runs")
    targets = [target] if isinstance(target, str) else list(target)
    wanted = sorted(set(map(int, offsets)))
    if not targets or not wanted:
        raise ValueError("target and offsets must each name at least one: offsets=range(1, 21)")
    if wanted[0] < 0:
        raise ValueError(f"offsets count steps ahead from 0, which is now, got {wanted[0]}")
    for run, without in zip(runs, blank, strict=True):
        first = next(one for one in runs if meta(one)["world"] == meta(run)["world"])
        require_same_rows(first, run, "runs of one world")
        if without is not None:
            require_same_rows(run, without, "the trained and the untrained latents")
    rows: list[dict[str, Any]] = []
    kinds: dict[str, str] = {}
    work = [(run, *each) for run in zip(runs, blank, strict=True) for each in _each(run[0], targets, sites)]
    ahead: dict[str, Ahead] = {}
    for (run, without), name, site in tqdm(work, desc="probes", unit="site", disable=not progress):
        world = meta(run)["world"]
        if world not in ahead:
            # Runs of one world are paired by seed, so they share rows, split and shuffle.
            ahead[world] = look_ahead(run, wanted, positions, test_size, seed)
        truth = ahead[world].target(run, name)
        kinds.setdefault("classes" if isinstance(truth, Classes) else "numbers", name)
        if len(kinds) > 1:
            raise ValueError(
                f"{kinds['numbers']!r} is read as numbers and {kinds['classes']!r} as classes: their scores have no "
                "unit in common, sweep one after the other"
            )
        found = foretell(features(run, site), truth, name, ahead[world], "shuffled" in controls, tol, device)
        if without is not None:
            control = foretell(features(without, site), truth, name, ahead[world], False, tol, device)
            found = [one | _as_control(its) for one, its in zip(found, control, strict=True)]
        own = {"site": site} | ({"target": name} if len(targets) > 1 else {})
        rows += [_row(run, {"offset": offset, **own, **one}) for offset, one in zip(wanted, found, strict=True)]
    classes = "classes" in kinds
    return ProbeSweep(
        f"{' and '.join(targets)} read ahead",
        pd.DataFrame(rows),
        ("offset", "site", "target") if len(targets) > 1 else ("offset", "site"),
        unit="nats" if classes else "R2",
        better="lower" if classes else "higher",
        note="Linear probes on frozen latents that read what is true offset steps ahead, on held-out episodes. "
        "NextLat (arXiv:2511.05963), figure 8.",
    )


def _several(given: Any, what: str) -> list[AnnData]:
    several = [given] if isinstance(given, AnnData) else list(given)
    if not several:
        raise ValueError(f"{what} is empty: give at least one table of latents")
    for one in several:
        if not isinstance(one, AnnData):
            raise TypeError(f"{what} must be tables of latents, got {type(one).__name__}: make them with nlv.extract")
    return several


def _each(run: AnnData, targets: Sequence[str], sites: str | Sequence[str] | None) -> list[tuple[str, str]]:
    chosen = sites_of(run) if sites is None else [sites] if isinstance(sites, str) else list(sites)
    if not chosen:
        raise ValueError("sites is empty: name at least one site, or leave it out for all")
    for site in chosen:
        if site not in (ALL_SITES, *sites_of(run)):
            raise unknown("site", site, sites_of(run))
    return [(name, site) for name in targets for site in chosen]


def _row(run: AnnData, found: dict[str, Any]) -> dict[str, Any]:
    its = meta(run)
    card = json.loads(its["card"])
    objective = str(card.get("objective", its["label"]))
    return record(json.loads(its["world"])["name"], objective, card.get("seed"), its["name"], **found)


def _as_control(found: Found) -> Found:
    scores = {"untrained": found["value"]}
    return scores | ({"untrained_accuracy": found["accuracy"]} if "accuracy" in found else {})
