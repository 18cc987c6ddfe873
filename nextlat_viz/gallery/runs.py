"""What the figures of a gallery are drawn from: runs of one world, and what was measured of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
from anndata import AnnData

from nextlat_viz import analysis, latents
from nextlat_viz.analysis.measure import QUANTITY, Measure
from nextlat_viz.errors import unknown
from nextlat_viz.training.checkpoint import Checkpoint
from nextlat_viz.training.pretrain import folder_name
from nextlat_viz.worlds import Episodes, World

_LENGTH = 16  # of an episode in a world that leaves it open


@dataclass(frozen=True, eq=False)
class Group:
    """The runs of one world.

    Attributes
    ----------
    name : str
        What the world is called: by its kind, and by its settings where there are several of a kind.
    world : World
    runs : sequence of Checkpoint
        None for a world that is shown without models.
    table : DataFrame
        What was measured, as `nextlat_viz.evaluate` gives it; rows of other runs do no harm.
    """

    name: str
    world: World
    runs: Sequence[Checkpoint]
    table: pd.DataFrame

    @cached_property
    def first(self) -> list[Checkpoint]:
        """The run of the lowest seed of each objective: those that are drawn where not all can be."""
        lowest: dict[str, Checkpoint] = {}
        for run in sorted(self.runs, key=lambda run: run.card.seed):
            lowest.setdefault(run.card.objective, run)
        return [lowest[name] for name in dict.fromkeys(run.card.objective for run in self.runs)]

    @cached_property
    def seeds(self) -> str:
        """How many seeds there are of each objective, in words."""
        counts = pd.Series([run.card.objective for run in self.runs]).value_counts(sort=False)
        numbers = sorted(set(counts.tolist()))
        return f"{numbers[0]} seed{'s' * (numbers != [1])} each" if len(numbers) == 1 else (
            f"{numbers[0]} to {numbers[-1]} seeds each"
        )  # fmt: skip

    @cached_property
    def read(self) -> list[AnnData]:
        """Latents of the `first` runs on the standard held-out episodes."""
        return [latents.extract(one, progress=False) for one in self.first]

    @cached_property
    def probes(self) -> list[analysis.ProbeResult]:
        """Linear probes of the `first` runs to the exact belief, with their controls."""
        controls = [latents.extract(one.untrained(), progress=False) for one in self.first]
        return [
            analysis.probe(one, "belief", untrained=control) for one, control in zip(self.read, controls, strict=True)
        ]

    def episode(self) -> Episodes:
        """One episode of the world's; held out from training where there are runs."""
        if self.first:
            return latents.heldout(self.first[0], 1)
        return self.world.sample(1, _LENGTH if self.world.length is None else None, seed=0)

    def measured(self, *measures: str) -> pd.DataFrame:
        """Rows of the table that are of these runs and of one of the measures.

        Raises
        ------
        UnknownNameError
            When there is none.
        """
        ours = self.table["weights_sha256"].isin([run.weights_sha256 for run in self.runs])
        found = self.table[ours & self.table["measure"].isin(measures)]
        if found.empty:
            known = self.table[ours]["measure"].unique()
            raise unknown(f"measure of {self.name} in the table of results", " or ".join(measures), map(str, known))
        return found


def as_measure(rows: pd.DataFrame, name: str, by: tuple[str, ...] = (), **about: object) -> Measure:
    """Return rows of a tidy table as a `Measure` again.

    Examples
    --------
    >>> from nextlat_viz.analysis.measure import results
    >>> rows = results().query("measure == 'next_token_test' and world == 'rrxor'")
    >>> as_measure(rows, "next-token test").unit
    'share'
    """
    units = rows["unit"].unique()
    unit = units[0] if len(units) == 1 else rows.drop_duplicates(QUANTITY).set_index(QUANTITY)["unit"].to_dict()
    table = rows.drop(columns=["measure", "unit", "weights_sha256"]).dropna(axis="columns", how="all")
    return Measure(name, table, by, unit, **about)  # type: ignore[arg-type]


def grouped(runs: Sequence[Checkpoint], table: pd.DataFrame) -> list[Group]:
    """Sort runs by their worlds, in the order in which they come.

    Examples
    --------
    >>> from nextlat_viz.training.checkpoint import load
    >>> runs = [load(name) for name in ("rrxor/nextlat", "mess3/nextlat", "rrxor/next_token")]
    >>> [(group.name, len(group.runs)) for group in grouped(runs, pd.DataFrame())]
    [('rrxor', 2), ('mess3', 1)]
    """
    sorted_runs: dict[str, list[Checkpoint]] = {}
    for run in runs:
        sorted_runs.setdefault(json.dumps(run.card.world, sort_keys=True), []).append(run)
    worlds = [its[0].world for its in sorted_runs.values()]
    kinds = Counter(world.name for world in worlds)
    names = [world.name if kinds[world.name] == 1 else folder_name(world) for world in worlds]
    return [
        Group(name, world, its, table) for name, world, its in zip(names, worlds, sorted_runs.values(), strict=True)
    ]
