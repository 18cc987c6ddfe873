"""Measures keep every seed, compare by seed, and have intervals by Student's t."""

from __future__ import annotations

import inspect

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import nextlat_viz as nlv
from nextlat_viz.analysis import measure as measures
from nextlat_viz.analysis.measure import Measure, Models, Rows, interval, record, share
from nextlat_viz.errors import UnknownNameError


def of(values: dict[str, list[float]], **options: object) -> Measure:
    rows = [record("w", name, seed, value=value) for name, its in values.items() for seed, value in enumerate(its)]
    return Measure("m", pd.DataFrame(rows), **options)  # type: ignore[arg-type]


def test_summary_keeps_bad_seeds_and_counts_solved_runs() -> None:
    row = of({"nextlat": [1.0, 1.0, 0.1]}, solved=0.99).summary().iloc[0]
    assert (row["seeds"], row["lowest"], row["highest"]) == (3, 0.1, 1.0)
    assert row["solved"] == pytest.approx(2 / 3)
    assert row["mean"] == pytest.approx(0.7)


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_interval_equals_students_t(confidence: float) -> None:
    scores = np.array([0.3, 0.5, 0.9, 0.4])
    low, high = stats.t.interval(confidence, 3, loc=scores.mean(), scale=stats.sem(scores))
    assert interval(scores, confidence) == pytest.approx((scores.mean(), low, high))


def test_one_seed_has_no_interval() -> None:
    row = of({"nextlat": [0.5]}).summary().iloc[0]
    assert row["mean"] == 0.5
    assert np.isnan(row["low"])
    assert np.isnan(row["high"])


def test_objectives_are_paired_by_seed_and_unpaired_seeds_left_out() -> None:
    result = of({"nextlat": [0.5, 0.9, 0.7], "next_token": [0.4, 0.6]})
    row = result.compare("nextlat", "next_token").iloc[0]
    assert (row["seeds"], row["above"]) == (2, 2)
    assert row["difference"] == pytest.approx(0.2)
    assert (row["low"], row["high"]) == pytest.approx(interval([0.1, 0.3])[1:])


def test_each_setting_is_compared_separately() -> None:
    rows = [
        record("w", name, 0, p=p, value=value + p)
        for name, value in (("nextlat", 0.5), ("next_token", 0.25))
        for p in (0.0, 0.25)
    ]
    table = Measure("m", pd.DataFrame(rows), by=("p",)).compare()
    assert table["p"].tolist() == [0.0, 0.25]
    assert table["difference"].tolist() == [0.25, 0.25]


def test_bad_comparisons_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown objective 'mtp'"):
        of({"nextlat": [1.0]}).compare("mtp")
    unpaired = [record("w", "nextlat", 0, value=1.0), record("w", "next_token", 1, value=1.0)]
    with pytest.raises(ValueError, match="no seed in common"):
        Measure("m", pd.DataFrame(unpaired)).compare()


def test_addition_and_to_frame() -> None:
    both = of({"nextlat": [1.0]}) + of({"next_token": [0.5]})
    frame = both.to_frame()
    assert frame["objective"].tolist() == ["nextlat", "next_token"]
    assert frame.columns[:8].tolist() == ["measure", "model", "world", "objective", "seed", "value", "unit", "error"]
    with pytest.raises(ValueError, match="different measures"):
        of({"nextlat": [1.0]}) + of({"nextlat": [1.0]}, unit="nats")


def test_a_missing_column_is_named() -> None:
    with pytest.raises(UnknownNameError, match="'p'"):
        of({"nextlat": [1.0]}, by=("p",))


def test_names_are_escaped_in_html() -> None:
    result = Measure("<b>m</b>", pd.DataFrame([record("w", "<i>", None, "x", value=0.5)]), references={"<u>": 1.0})
    page = result._repr_html_()
    assert "&lt;b&gt;m&lt;/b&gt;" in page
    assert "<i>" not in page
    assert "<u>" not in page
    assert "0.5" in repr(result)


def test_share_of_no_trials_is_nan() -> None:
    assert np.isnan(share(0, 0)["value"])
    assert share(0, 0)["trials"] == 0


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> object:
    """A user's own measure, registered only for this test."""
    monkeypatch.setattr(measures.registry, "MEASURES", {})

    @measures.measure("weights", unit="weights", by=("part",), note="By default.")
    def weights(models: Models, parts: tuple[str, ...] = ("model", "head"), *, doubled: bool = False) -> Rows:
        """Count weights.

        Parameters
        ----------
        parts : names

        Returns
        -------
        Measure
        """
        for model in models:
            for part in parts:
                yield model, {"part": part, "value": 2.0 if doubled else 1.0} | ({"heads": 4} if part == "head" else {})
        return {"note": "Doubled."} if doubled else None

    return weights


def test_a_measure_takes_checkpoints_names_or_several(weights) -> None:
    checkpoint = nlv.load("mess3/nextlat")
    alone = weights(checkpoint, progress=False).table
    pd.testing.assert_frame_equal(alone, weights("mess3/nextlat", progress=False).table)
    several = weights([checkpoint, "mess3/next_token"], ("model",), progress=False)
    assert several.table[["objective", "value"]].values.tolist() == [["nextlat", 1.0], ["next_token", 1.0]]
    with pytest.raises(TypeError, match="a model to measure is a Checkpoint or a Predictor, got int"):
        weights(3)
    with pytest.raises(ValueError, match="measure models of one world together"):
        weights(["mess3/nextlat", "rrxor/nextlat"])


def test_fields_that_depend_on_options_are_returned_by_the_function(weights) -> None:
    assert weights("mess3/nextlat", progress=False).note == "By default."
    assert weights("mess3/nextlat", doubled=True, progress=False).note == "Doubled."


def test_a_count_that_some_rows_lack_stays_whole(weights) -> None:
    assert weights("mess3/nextlat", progress=False).table["heads"].dtype == "Int64"


def test_a_measure_documents_the_arguments_of_all_measures(weights) -> None:
    assert str(inspect.signature(weights)) == (
        "(models: 'Any', parts: 'tuple[str, ...]' = ('model', 'head'), *, doubled: 'bool' = False, "
        "progress: 'bool' = True) -> 'Measure'"
    )
    head, _, rest = weights.__doc__.partition("parts : names\n")
    assert head.endswith("models : Checkpoint, name, World (its exact law), Predictor, or several of one world\n")
    assert rest.startswith("progress : bool")
    assert list(measures.registry.MEASURES) == ["weights"]


def test_a_measure_that_describes_no_argument_has_the_shared_ones() -> None:
    *_, section = str(nlv.analysis.solved_puzzles.__doc__).partition("\n\nParameters\n----------\n")
    assert section.startswith(
        "models : Checkpoint, name, or several of one world\nn : int\n    Held-out episodes, or puzzles of a recursive "
        "model.\nseed : int"
    )


@pytest.mark.parametrize(
    ("name", "options", "alone"),
    [
        ("acceptance", {"drafts": [2], "n": 4}, {"drafts": 2}),
        ("latent_geometry", {"quantities": ["curvature"], "snapshots": [200], "n": 4}, {"snapshots": 200}),
        ("compression_greedy", {"state": ["belief"], "n": 4}, {"state": "belief"}),
    ],
)
def test_a_setting_may_be_a_single_value(name: str, options: dict, alone: dict) -> None:
    function = getattr(nlv.analysis, name)
    several = function("rrxor/nextlat", **options, progress=False).table
    pd.testing.assert_frame_equal(several, function("rrxor/nextlat", **options | alone, progress=False).table)


@pytest.mark.parametrize("wrong", [np.zeros((3, 4)), None, 3, nlv.load("mess3/nextlat").model], ids=type)
def test_objects_that_are_no_model_are_refused(wrong: object) -> None:
    for measure in (nlv.analysis.layer_contributions, nlv.analysis.valid_trajectories):
        with pytest.raises(TypeError, match=f"Checkpoint or a Predictor, got {type(wrong).__name__}"):
            measure(wrong)


def test_a_world_stands_for_its_exact_law() -> None:
    world = nlv.worlds.get("mess3")
    table = nlv.analysis.next_token_test(["mess3/nextlat", world], n=8, progress=False).table
    assert table["objective"].tolist() == ["nextlat", "true world"]
    with pytest.raises(ValueError, match="rollout divergence can only be measured of checkpoints"):
        nlv.analysis.rollout_divergence(world)


def test_evaluate_takes_a_measure_by_its_function() -> None:
    evaluation = nlv.evaluate("mess3/nextlat", nlv.analysis.transition_consistency, progress=False)
    assert evaluation["transition_consistency"].name == "transition consistency"
