"""Properties of every public figure: reproducible bytes, axes with titles, readable without colour."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from types import FunctionType
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

import nextlat_viz as nlv
from nextlat_viz import analysis, figures, worlds
from nextlat_viz.analysis.behaviour.reconstruction import map_from_rides
from nextlat_viz.analysis.interventions.inject import inject
from nextlat_viz.analysis.lookahead import look_ahead
from nextlat_viz.analysis.measure import Measure, record
from nextlat_viz.analysis.prediction import Prediction
from nextlat_viz.analysis.probes.result import read_out
from nextlat_viz.analysis.reading import read_string
from nextlat_viz.figures import theme as themes
from nextlat_viz.plotting import CATEGORICAL, DISTINCT
from tests.figures.test_recursion import measures as recursion_measures
from tests.figures.test_recursion import thinking
from tests.synthetic import make_latents

HELPERS = {"color_options", "figure_caption", "for_print", "one_browser", "print_options", "provenance_of"}
HELPERS |= {"contact_sheet", "template", "write_figure"}
NAMES = ("next-token", "NextLat")
# Least distance of two colours of models, or of five states, in CIE 1976 L*a*b*; 2.3 is just noticeable.
LEAST_DISTANCE = 10.0
# Machado, Oliveira & Fernandes 2009, severity 1, for linear RGB.
BLINDNESS = {
    "none": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@cache
def _latents() -> list[Any]:
    return [make_latents(label=label, n=30, length=8) for label in NAMES]


@cache
def _probes() -> list[Any]:
    return [analysis.probe(table, n_bootstrap=10) for table in _latents()]


def _clouds() -> Any:
    return figures.clouds(_latents(), [{"pca": analysis.project(table, "pca")} for table in _latents()], _probes())


def _runs(by: dict[str, tuple[Any, ...]], **more: Any) -> pd.DataFrame:
    rows = []
    for values in itertools.product(*by.values()):
        more |= dict(zip(by, values, strict=True)) | {"error": 0.02}
        rows += [record("w", name, i, value=0.3 + i, **more) for name in ("next_token", "nextlat") for i in range(2)]
    return pd.DataFrame(rows)


def _every_seed() -> Any:
    numbers = {"belief_r2": 0.8, "belief_r2_shuffled": 0.0, "belief_r2_untrained": 0.3, "loss": 0.6, "floor": 0.5}
    return figures.every_seed(_runs({}).assign(**numbers))


@cache
def _shipped() -> tuple[Any, Any, Any]:
    checkpoint = nlv.load("mess3/nextlat")
    latents = nlv.extract(checkpoint, checkpoint.world.sample(40, 10, seed=1), progress=False)
    return checkpoint, latents, analysis.probe(latents, n_bootstrap=10)


def _injection() -> Any:
    injection = inject(*_shipped(), 25, [0.1, 0.8, 0.1], steps=3)
    return figures.injection_figure(dict.fromkeys(NAMES, injection))


def _look_ahead() -> Any:
    ahead = look_ahead(*_shipped()[:2], 2, 4, steps=4)
    return figures.look_ahead_path(dict.fromkeys(NAMES, (ahead, lambda hidden: hidden[:, :2])), axes=("PCA 1", "PCA 2"))


def _overview() -> Any:
    by_site, by_position = [analysis.probe_sites(table) for table in _latents()], []
    by_position = [analysis.probe_positions(table, probe) for table, probe in zip(_latents(), _probes(), strict=True)]
    return figures.probe_overview(_probes(), by_site, by_position)


def _reconstruction() -> Any:
    world = worlds.get("taxi", width=3, height=3)
    rides = world.sample(5, seed=0)
    return figures.reconstruction(map_from_rides(world, rides.tokens, rides.length), world)


def _trajectories() -> Any:
    paths = [analysis.read_trajectory(table, probe, 4) for table, probe in zip(_latents(), _probes(), strict=True)]
    return figures.trajectories(_latents(), paths, 3)


def _prediction() -> Any:
    shown = Prediction(("a", "b"), np.array([0.25, 0.75]), np.array([0.5, 0.5]), "x", 1, 3)
    return figures.prediction_bars(dict.fromkeys(NAMES, shown))


def _curves() -> Any:
    table = pd.DataFrame({"step": [100, 200], "loss": [0.6, 0.5], "floor": 0.4})
    return figures.loss_curves(dict.fromkeys(NAMES, table))


def _training() -> Any:
    table = pd.DataFrame({"step": [0, 200], "loss": [0.6, 0.5], "floor": 0.4, "belief_r2": [0.1, 0.8]})
    return figures.training_curves(dict.fromkeys(NAMES, table), step=200, snapshots=[0, 200])


def _clouds_over_training() -> Any:
    start, end = (analysis.project(table, "pca") for table in _latents())
    planes = {0: start, 200: "not there", 400: analysis.aligned([start, end])[1]}
    return figures.clouds_over_training(dict.fromkeys(NAMES, planes), _latents()[0], step=400)


def _claims() -> Any:
    row = {"claim": "It is so", "world": "w", "measure": "m", "unit": "R²", "better": "higher", "verdict": "holds"}
    seeds = {"next_token": (0.1, 0.2), "nextlat": (0.8, 0.9), "controls": {"untrained": 0.05}}
    long = {"claim": "No difference where the next token needs the belief", "verdict": "does not hold"}
    city = {"world": "taxi:max_turns=18,width=8,height=8", "unit": "right answers"}
    return figures.claims_figure(pd.DataFrame([row | seeds, row | seeds | long, row | seeds | long | city]))


def _headline() -> Any:
    return figures.headline_curves([nlv.load(f"rrxor/{name}") for name in ("next_token", "nextlat")])


def _maps() -> Any:
    world = worlds.get("taxi", width=3, height=3)
    rides = world.sample(5, seed=0)
    drawn = map_from_rides(world, rides.tokens, rides.length)
    return figures.maps_side_by_side(dict.fromkeys(NAMES, replace(drawn, control=drawn)), world)


def _string() -> Any:
    checkpoint, _, probe = _shipped()
    reading, original = (read_string([checkpoint] * 2, text, labels=NAMES) for text in ("abcab", "abbab"))
    paths = [{label: item.path(label, [probe]) for label in NAMES} for item in (reading, original)]
    return figures.string_figure(reading, 3, original=original, paths=paths[0], original_paths=paths[1])


CASES: dict[str, Callable[[], Any]] = {
    "compose": lambda: figures.compose({name: worlds.get(name).draw("beliefs") for name in ("rrxor", "mess3")}),
    "maps_side_by_side": _maps,
    "claims_figure": _claims,
    "headline_curves": _headline,
    "clouds": _clouds,
    "clouds_over_training": _clouds_over_training,
    "every_seed": _every_seed,
    "injection_figure": _injection,
    "look_ahead_path": _look_ahead,
    "loss_curves": _curves,
    "measure_figure": lambda: figures.measure_figure(Measure("m", _runs({"p": (0.0, 0.5)}), by=("p",))),
    "prediction_bars": _prediction,
    "probe_offsets": lambda: figures.probe_offsets(
        Measure("m", _runs({"offset": (1, 2), "site": ("hidden",)}, prior=0.9), by=("offset", "site"), unit="nats")
    ),
    "probe_overview": _overview,
    "read_out_figure": lambda: figures.read_out_figure(dict.fromkeys(NAMES, read_out(*_shipped()[1:], 25))),
    "reconstruction": _reconstruction,
    "string_figure": _string,
    "thinking_boards": lambda: figures.thinking_boards({"mine": thinking()}),
    "thinking_curves": lambda: figures.thinking_curves(*recursion_measures()),
    "training_curves": _training,
    "trajectories": _trajectories,
}
# Pictures of a plane, whose axes have no numbers and are described in words.
PLANES = {"clouds", "clouds_over_training", "compose", "maps_side_by_side", "reconstruction", "thinking_boards"}
SAID = {
    "claims_figure": ["R²"], "headline_curves": ["training step", "training compute"],
    "every_seed": ["nats per token", "R²"], "loss_curves": ["training step", "nats per token"],
    "look_ahead_path": ["steps ahead", "KL (nats)"], "probe_offsets": ["steps ahead", "nats"],
    "injection_figure": ["KL from exact (nats)", "probability"], "probe_overview": ["tokens read", "R²"],
    "prediction_bars": ["probability"], "trajectories": ["probability", "position"],
    "thinking_curves": ["recursion step"], "string_figure": ["surprise (bits)", "token"],
    "training_curves": ["training step", "nats per token", "R²"],
}  # fmt: skip


@cache
def drawn(name: str) -> Any:
    return CASES[name]()


def digest(name: str) -> str:
    return hashlib.sha256(CASES[name]().to_json().encode()).hexdigest()


def test_every_public_figure_has_a_case() -> None:
    public = {name for name, value in vars(figures).items() if isinstance(value, FunctionType)}
    assert public == HELPERS | set(CASES)


def entries(value: Any) -> Any:
    """Without those that are not set."""
    if isinstance(value, dict):
        return {key: entries(part) for key, part in value.items() if part not in (None, {}, [])}
    return [entries(part) for part in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", CASES)
def test_plotly_knows_every_entry(name: str) -> None:
    """Figures are made without plotly's checks, which apply to later changes."""
    figure = drawn(name)
    assert entries(json.loads(go.Figure(figure.to_dict()).to_json())) == entries(json.loads(figure.to_json()))
    for change in ({"heigth": 300}, {"height": "tall"}, {"xaxis": {"colour": "red"}}):
        with pytest.raises(ValueError, match="Invalid"):
            go.Figure.update_layout(figure, change)
    with pytest.raises(ValueError, match="Invalid"):
        figure.data[0].update({"colour": "red"})


@pytest.mark.slow
def test_figures_are_the_same_bytes_in_another_process() -> None:
    code = "from tests.figures.test_every_figure import CASES, digest\nfor name in CASES: print(name, digest(name))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert dict(line.split() for line in result.stdout.splitlines()) == {name: digest(name) for name in CASES}


@pytest.mark.parametrize("name", [name for name in CASES if name not in PLANES])
def test_axes_have_titles_with_units(name: str) -> None:
    layout = drawn(name).layout
    titles = [layout[axis].title.text or "" for axis in layout if axis.startswith(("xaxis", "yaxis"))]
    assert any(titles)
    for words in SAID.get(name, []):
        assert any(words in title for title in titles), words


def look(trace: Any) -> tuple[Any, ...]:
    """Return the looks of a trace except its colour."""
    if trace.type == "bar":
        return ("bar", trace.marker.pattern.shape, trace.marker.color == "rgba(0,0,0,0)")
    lines, marks = "lines" in (trace.mode or ""), "markers" in (trace.mode or "")
    row = tuple(trace.y) if trace.y is not None and len(trace.y) == 1 else None
    return (lines and (trace.line.dash, trace.line.width), marks and (trace.marker.symbol, trace.marker.size), row)


@pytest.mark.parametrize("name", [name for name in CASES if name not in {"clouds", "every_seed"}])
def test_models_differ_without_colour(name: str) -> None:
    views: dict[Any, dict[str, set[Any]]] = {}
    for trace in drawn(name).data:
        if trace.name and trace.type in ("bar", "scatter") and trace.name in NAMES:
            views.setdefault((trace.xaxis, trace.yaxis), {}).setdefault(trace.name, set()).add(look(trace))
    for its in views.values():
        for item, other in itertools.combinations(its.values(), 2):
            assert not item & other


def lab(color: str, blindness: str) -> np.ndarray:
    parts = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    simulated = np.clip(np.asarray(BLINDNESS[blindness]) @ linear, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(to_xyz @ simulated / to_xyz.sum(axis=1))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("blindness", BLINDNESS)
@pytest.mark.parametrize("palette", [CATEGORICAL[:DISTINCT], tuple(themes.MODELS.values())[:2]])
def test_colours_differ_to_the_colour_blind(blindness: str, palette: tuple[str, ...]) -> None:
    places = [lab(color, blindness) for color in palette]
    for item, other in itertools.combinations(places, 2):
        assert np.linalg.norm(item - other) >= LEAST_DISTANCE


@pytest.mark.parametrize("n", range(2, DISTINCT + 1))
def test_classes_differ_in_greyscale(n: int) -> None:
    # Grey in 256 steps, as printed, and perceived lightness in 100.
    colors = themes.categorical_colors(n)
    mixed = np.array([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in colors])
    printed = sorted(mixed @ [0.299, 0.587, 0.114])
    lightness = sorted(lab(color, "none")[0] for color in colors)
    assert np.diff(printed).min() >= (20 if n < DISTINCT else 15)
    assert np.diff(lightness).min() >= 7


@pytest.mark.parametrize("n", [DISTINCT + 1, 12, 24])
def test_more_classes_are_steps_from_dark_to_light(n: int) -> None:
    lightness = [lab(color, "none")[0] for color in themes.categorical_colors(n)]
    assert (np.diff(lightness) > 1).all()
