"""Figures of the studio: numbers, words, looks in greyscale, and hostile names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from anndata import AnnData

from nextlat_viz.analysis import ProbeResult, probe
from nextlat_viz.analysis.interventions.inject import Injection, inject
from nextlat_viz.analysis.lookahead import LookAhead, look_ahead
from nextlat_viz.analysis.prediction import Prediction
from nextlat_viz.analysis.probes.result import ReadOut, read_out
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.bars import prediction_bars, read_out_figure
from nextlat_viz.figures.injection import injection_figure
from nextlat_viz.figures.layout import legend_entry
from nextlat_viz.figures.lookahead import look_ahead_path
from nextlat_viz.latents import extract
from nextlat_viz.training.checkpoint import Checkpoint, load

ROW, TARGET = 25, [0.1, 0.8, 0.1]
HOSTILE = "<b onclick=x>$x$</b>&amp;\u202eשלום😀" + "y" * 10_000


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load("mess3/nextlat")


@pytest.fixture(scope="module")
def latents(checkpoint: Checkpoint) -> AnnData:
    return extract(checkpoint, checkpoint.world.sample(60, 10, seed=1), progress=False)


@pytest.fixture(scope="module")
def belief(latents: AnnData) -> ProbeResult:
    return probe(latents, untrained=latents, n_bootstrap=10)


@pytest.fixture(scope="module")
def ahead(checkpoint: Checkpoint, latents: AnnData) -> LookAhead:
    return look_ahead(checkpoint, latents, 2, 4, steps=5)


@pytest.fixture(scope="module")
def edited(checkpoint: Checkpoint, latents: AnnData, belief: ProbeResult) -> Injection:
    return inject(checkpoint, latents, belief, ROW, TARGET, steps=3)


@pytest.fixture(scope="module")
def reading(latents: AnnData, belief: ProbeResult) -> ReadOut:
    return read_out(latents, belief, ROW)


@pytest.fixture(scope="module")
def drawn(ahead: LookAhead, edited: Injection, reading: ReadOut) -> dict[str, Callable[..., Any]]:
    """Return every figure of two models with these names."""
    shown = Prediction(("a", "b"), np.array([0.25, 0.75]), np.array([0.5, 0.5]), "x", 1, 3)
    return {
        "prediction": lambda names, **o: prediction_bars(dict.fromkeys(names, shown), **o),
        "lookahead": lambda names, **o: look_ahead_path(dict.fromkeys(names, (ahead, plane)), **o),
        "readout": lambda names, **o: read_out_figure(dict.fromkeys(names, reading), **o),
        "injection": lambda names, **o: injection_figure(dict.fromkeys(names, edited), **o),
    }


KINDS = ["prediction", "lookahead", "readout", "injection"]


def plane(hidden: np.ndarray) -> np.ndarray:
    return hidden[:, :2]


def roles(figure: Any, role: str) -> list[Any]:
    return [trace for trace in figure.data if trace.meta["role"] == role]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_input_gives_the_same_bytes(drawn: dict[str, Callable[..., Any]], kind: str) -> None:
    names = ["next-token", "NextLat"]
    assert drawn[kind](names).to_json() == drawn[kind](names).to_json()


@pytest.mark.parametrize("kind", KINDS)
def test_themes_and_axes(drawn: dict[str, Callable[..., Any]], kind: str) -> None:
    for theme, paper in (("auto", "rgba(0,0,0,0)"), ("light", "#ffffff"), ("dark", "#111111")):
        figure = drawn[kind](["NextLat"], theme=theme)
        assert figure.layout.template.layout.paper_bgcolor == paper
        axes = [figure.layout[name] for name in figure.layout if name.startswith(("xaxis", "yaxis"))]
        assert axes
        assert all(axis.title.text for axis in axes)


@pytest.mark.parametrize("kind", KINDS)
def test_models_differ_without_colour(drawn: dict[str, Callable[..., Any]], kind: str) -> None:
    figure = drawn[kind](["next-token", "NextLat"])

    def look(trace: Any) -> tuple[Any, ...]:
        if trace.type == "bar":
            return (trace.marker.pattern.shape, trace.marker.color == "rgba(0,0,0,0)", trace.meta.get("model"))
        return (trace.line.dash, trace.marker.symbol, trace.line.width, trace.xaxis)

    legend = [trace for trace in figure.data if trace.showlegend is not False]
    assert len({look(trace) for trace in legend}) == len(legend)
    for role in ("distance", "kl", "rollout_after"):
        assert len({look(trace) for trace in roles(figure, role)}) == len(roles(figure, role))


@pytest.mark.parametrize("kind", KINDS)
def test_names_stay_text(drawn: dict[str, Callable[..., Any]], kind: str) -> None:
    text = drawn[kind]([HOSTILE, "NextLat"]).to_json()
    assert "<b onclick" not in text
    assert "\\u003cb onclick" not in text
    assert "yyyyyyyyyyyyyyyyyyyyyyyyy" not in text
    assert "&lt;b onclick" in text


def test_tokens_and_states_stay_text(edited: Injection, ahead: LookAhead, reading: ReadOut) -> None:
    wild = Prediction((HOSTILE, "b"), np.array([0.25, 0.75]), None, "x", 1, 3)
    strange = replace(edited, vocabulary=(HOSTILE, "b", "c"), tokens=(HOSTILE,) * 3)
    read = replace(reading, probe=replace(reading.probe, names=(HOSTILE, "B", "C"), target="<i>t"))
    for figure in (
        prediction_bars({"x": wild}),
        injection_figure({"x": strange}),
        look_ahead_path({"x": (replace(ahead, tokens=(HOSTILE,) * 5), plane)}, axes=("<i>t", "y")),
        read_out_figure({"x": read}),
    ):
        text = figure.to_json()
        assert "onclick=x>" not in text.replace("\\u003e", ">")
        assert "<i>t" not in text.replace("\\u003c", "<").replace("\\u003e", ">")
        assert "y" * 80 not in text
        assert "\u202e" not in figure.to_json()
        assert "\\u202e" not in figure.to_json()


def test_bars_of_a_prediction() -> None:
    probs = np.random.default_rng(0).dirichlet(np.ones(100))
    exact = np.zeros(100)
    exact[[7, 90]] = 0.5
    names = tuple(f"t{i}" for i in range(100))
    shown = Prediction(names, probs, exact, "x", 1, 3)
    figure = prediction_bars({"next-token": shown, "NextLat": replace(shown, model=exact)}, most=10)
    first, *models = figure.data
    assert [trace.name for trace in figure.data] == ["exact", "next-token", "NextLat"]
    assert {"t7", "t90"} <= set(first.text)
    assert len(first.x) == len(figure.layout.xaxis.ticktext) == 10
    np.testing.assert_allclose(models[0].y, [probs[names.index(name)] for name in first.text], atol=1e-6)
    assert models[1].marker.color == themes.MODELS["nextlat"]
    assert "(90 less likely omitted)" in figure.layout.xaxis.title.text
    assert "NextLat 0.0000 nats" in figure.layout.annotations[0].text
    sure = prediction_bars({"NextLat": replace(shown, model=exact)})
    assert list(sure.layout.xaxis.ticktext) == ["t7", "t90"]
    blind = prediction_bars({"NextLat": replace(shown, exact=None)})
    assert [trace.meta["role"] for trace in blind.data] == ["model"]
    assert "KL" not in blind.layout.annotations[0].text


def test_the_heading_of_compact_bars_is_their_legend(reading: ReadOut) -> None:
    half = np.array([0.5, 0.5])
    one = Prediction(("0", "1"), half, np.array([0.25, 0.75]), "NextLat", 0, 3)
    figure = prediction_bars({"next-token": one, "NextLat": replace(one, model=one.exact)}, compact=True)
    title, *lines = figure.layout.annotations[0].text.split("<br>")
    assert title == "<b>Next token after position 3</b>"
    assert [mark(bar)[-8] for bar in figure.data] == ["■", "▨", "▧"]
    assert lines == [
        f"{mark(figure.data[0])} exact",
        f"{mark(figure.data[1])} next-token: KL&nbsp;0.1308&nbsp;nats",
        f"{mark(figure.data[2])} NextLat: KL&nbsp;0.0000&nbsp;nats",
    ]
    assert figure.layout.showlegend is False
    blind = prediction_bars({"NextLat": replace(one, exact=None)}, compact=True)
    assert blind.layout.annotations[0].text == f"{title}<br>{mark(blind.data[0])} NextLat"
    probed = read_out_figure({"NextLat": reading}, compact=True)
    *_, line = probed.layout.annotations[0].text.split("<br>")
    assert line.startswith(f"{mark(probed.data[1])} NextLat: held-out R² ")


def mark(bar: Any) -> str:
    return legend_entry(bar.to_plotly_json()).removesuffix(f" {bar.name}")


def test_predictions_of_different_places_are_refused() -> None:
    shown = Prediction(("a", "b"), np.array([0.25, 0.75]), None, "x", 1, 3)
    with pytest.raises(ValueError, match="predictions is empty"):
        prediction_bars({})
    for other in (replace(shown, position=4), replace(shown, vocabulary=("a", "c"))):
        with pytest.raises(ValueError, match="one episode and position"):
            prediction_bars({"x": shown, "y": other})


def test_look_ahead_draws_the_rolled_path(ahead: LookAhead) -> None:
    matrix, offset = np.random.default_rng(0).normal(size=(64, 2)), np.array([1.0, -1.0])
    figure = look_ahead_path({"NextLat": (ahead, (matrix, offset)), "other": (ahead, plane)}, axes=("u", "v"))
    (true, _), (rolled, _) = roles(figure, "true"), roles(figure, "rolled")
    np.testing.assert_allclose(rolled.x[0], true.x[0])
    np.testing.assert_allclose(rolled.x[1:], (ahead.rolled @ matrix + offset)[:, 0])
    np.testing.assert_allclose(true.y[1:], (ahead.true @ matrix + offset)[:, 1])
    np.testing.assert_allclose(roles(figure, "distance")[1].y, ahead.distance)
    np.testing.assert_allclose(roles(figure, "no_change")[0].y, ahead.no_change)
    np.testing.assert_allclose(roles(figure, "kl")[0].y, ahead.kl)
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis4.title.text) == ("u", "KL (nats)")
    assert true.text[1] == f"position 5, token {ahead.tokens[0]}"
    assert "psi was trained<br>for" in figure.layout.annotations[0].text
    with pytest.raises(ValueError, match="ahead is empty"):
        look_ahead_path({})
    with pytest.raises(ValueError, match=r"a plane must give \(rows, 2\)"):
        look_ahead_path({"x": (ahead, lambda hidden: hidden[:, :3])})


def test_a_reading_is_drawn_with_the_truth(latents: AnnData, reading: ReadOut) -> None:
    figure = read_out_figure({"NextLat": reading})
    np.testing.assert_allclose(figure.data[0].y, reading.truth, atol=1e-6)
    np.testing.assert_allclose(figure.data[1].y, reading.read, atol=1e-6)
    text = figure.layout.annotations[0].text
    assert f"NextLat: held-out R² {reading.probe.score:.2f}, shuffled" in text
    assert "untrained" in text
    assert ("training episode of the probe" in text) == (not reading.held_out)
    state = read_out(latents, probe(latents, "state", n_bootstrap=10), ROW)
    classes = read_out_figure({"NextLat": state}, most=2)
    assert "chance" in classes.layout.annotations[0].text
    assert latents.obs["state"].iloc[ROW] in classes.layout.xaxis.ticktext
    assert classes.layout.xaxis.title.text == "class (1 more)"
    assert classes.layout.yaxis.title.text == "probability of state"
    with pytest.raises(ValueError, match="readings is empty"):
        read_out_figure({})
    with pytest.raises(ValueError, match="of one target"):
        read_out_figure({"x": reading, "y": state})
    with pytest.raises(ValueError, match="one episode and position"):
        read_out_figure({"x": reading, "y": replace(reading, position=9)})


def test_an_injection_is_drawn_before_and_after(edited: Injection) -> None:
    figure = injection_figure({"NextLat": edited, "next-token": replace(edited, rollout_after=None)})
    assert edited.exact is not None
    np.testing.assert_allclose(roles(figure, "exact")[0].y, edited.exact, atol=1e-6)
    np.testing.assert_allclose(roles(figure, "before")[1].y, edited.probs_before, atol=1e-6)
    np.testing.assert_allclose(roles(figure, "after")[0].y, edited.probs_after, atol=1e-6)
    (rolled,) = roles(figure, "rollout_after")
    np.testing.assert_allclose(rolled.y, edited.to_frame()["after"])
    assert list(figure.layout.xaxis3.ticktext) == ["now", *edited.tokens]
    assert f"<b>{edited.kl_after:.3f}</b> nats" in figure.layout.annotations[0].text.replace("<br>", " ")
    assert figure.layout.yaxis3.title.text == "KL from exact (nats)"


def test_an_injection_without_an_exact_prediction(edited: Injection) -> None:
    silent = replace(edited, exact=None, exact_rollout=None)
    figure = injection_figure({"NextLat": silent})
    assert not roles(figure, "exact")
    assert edited.rollout_after is not None
    (rolled,) = roles(figure, "rollout_after")
    expected = [edited.probs_after[edited.token_ids[0]]]
    expected += [edited.rollout_after[i, edited.token_ids[i + 1]] for i in range(2)]
    np.testing.assert_allclose(rolled.y, expected)
    assert figure.layout.yaxis2.title.text == "probability of the token"
    short_one = injection_figure({"x": replace(edited, tokens=(), rollout_before=None, rollout_after=None)})
    assert "yaxis2" not in short_one.layout.to_plotly_json()
    with pytest.raises(ValueError, match="injections is empty"):
        injection_figure({})
    with pytest.raises(ValueError, match="one vocabulary"):
        injection_figure({"x": edited, "y": replace(edited, vocabulary=("x", "y", "z"))})
