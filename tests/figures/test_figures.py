"""Figures: their traces, numbers, words and colours."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.io
import pytest
from anndata import AnnData

from nextlat_viz import analysis, figures
from nextlat_viz.analysis.reading import read_string
from nextlat_viz.errors import LatentsError, UnknownNameError
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.layout import Layout
from nextlat_viz.figures.probes import scores
from nextlat_viz.figures.rows import coloring, describer, prefix
from nextlat_viz.figures.simplex import corner_names
from nextlat_viz.latents import world_of
from nextlat_viz.plotting import CATEGORICAL, CONFIG, MISSING
from tests.synthetic import make_latents

N, LENGTH = 40, 8


@pytest.fixture(scope="module")
def latents() -> list[AnnData]:
    return [make_latents(label=label, n=N, length=LENGTH) for label in ("next-token", "NextLat")]


@pytest.fixture(scope="module")
def probes(latents: list[AnnData]) -> list[Any]:
    return [analysis.probe(table, untrained=make_latents(label="untrained", n=N, length=LENGTH)) for table in latents]


@pytest.fixture(scope="module")
def planes(latents: list[AnnData]) -> list[dict[str, Any]]:
    return [{"pca": analysis.project(table, "pca"), "umap": "being <i>computed</i>"} for table in latents]


def having(figure: Any, role: str, **meta: Any) -> list[Any]:
    return [
        trace
        for trace in figure.data
        if (trace.meta or {}).get("role") == role and meta.items() <= (trace.meta or {}).items()
    ]


def texts(figure: Any) -> list[str]:
    return [note.text for note in figure.layout.annotations]


def test_clouds_draw_every_row_of_every_model(latents: list[AnnData], planes: Any, probes: Any) -> None:
    figure = figures.clouds(latents, planes, probes, "state", selection=np.array([0, 9]), cursor=(2, 3))
    for i in range(2):
        (pca,) = having(figure, "points", model=i, column="pca")
        np.testing.assert_allclose(pca.x, planes[i]["pca"].coordinates[:, 0])
        assert pca.selectedpoints == (0, 9)
        (belief,) = having(figure, "points", model=i, column="belief")
        assert len(belief.x) == len(belief.y) == latents[i].n_obs
        (umap,) = having(figure, "points", model=i, column="umap")
        assert umap.x is None
        (ring,) = having(figure, "cursor", model=i, column="pca")
        rows = 2 * LENGTH + np.arange(3)
        np.testing.assert_allclose(ring.x, planes[i]["pca"].coordinates[rows, 0])
        (exact,) = having(figure, "exact", model=i)
        world: Any = world_of(latents[i])
        truth = world.belief_coordinates(latents[i].obsm["belief"])
        assert len(exact.x) == len(np.unique(truth.round(6) + 0.0, axis=0))
    words = texts(figure)
    assert words.count("being &lt;i&gt;computed&lt;/i&gt;") == 2
    belief_title = next(text for text in words if scores(probes[1])[1] in text)
    assert f"held-out R² <b>{probes[1].score:.2f}</b><br>shuffled " in belief_title
    assert "read by a linear probe</b><br>" in belief_title
    assert any(text.startswith("<b>PCA</b><br>") and "% of the variance<br>trustworthiness " in text for text in words)
    assert {"<b>next-token</b>", "<b>NextLat</b>"} <= set(words)


def test_belief_views_of_all_models_have_one_scale(latents: list[AnnData], planes: Any, probes: Any) -> None:
    figure = figures.clouds(latents, planes, probes)
    views = [having(figure, "points", model=i, column="belief")[0] for i in range(2)]
    for axis in "xy":
        ranges = [figure.layout[f"{axis}axis{view[f'{axis}axis'][1:]}"].range for view in views]
        assert ranges[0] == ranges[1]
        for view in views:
            assert ranges[0][0] < min(view[axis])
            assert max(view[axis]) < ranges[0][1]


def test_clouds_of_some_rows(latents: list[AnnData], planes: Any, probes: Any) -> None:
    rows = np.arange(8, 24)
    figure = figures.clouds(latents, planes, probes, "position", rows=rows, selection=np.array([0, 9]))
    (pca,) = having(figure, "points", model=0, column="pca")
    np.testing.assert_allclose(pca.x, planes[0]["pca"].coordinates[rows, 0])
    assert pca.selectedpoints == (1,)
    assert pca.hovertext[0] == describer(latents[0])(8)
    some = figures.clouds(latents, [{"pca": analysis.project(table, "pca", rows=rows)} for table in latents], rows=rows)
    assert len(having(some, "points")) == 2
    mask = np.isin(np.arange(latents[0].n_obs), rows)
    same = figures.clouds(latents, planes, probes, "position", rows=mask, selection=[0, 9])
    assert same.to_json() == figure.to_json()
    with pytest.raises(LatentsError, match=r"selection must be row numbers .* got -1"):
        figures.clouds(latents, planes, selection=[-1])


def test_clouds_refuse_mismatched_input(latents: list[AnnData], planes: Any) -> None:
    with pytest.raises(ValueError, match="latents is empty"):
        figures.clouds([], [])
    with pytest.raises(ValueError, match="need as many projections"):
        figures.clouds(latents, planes[:1])
    with pytest.raises(ValueError, match="not of the same rows"):
        figures.clouds([latents[0], make_latents(n=5, length=LENGTH)], planes)


def test_scores_are_shown_with_their_controls(probes: Any) -> None:
    text = ", ".join(scores(probes[1]))
    assert text.startswith(f"R² {probes[1].score:.2f}, shuffled ")
    assert f"untrained {probes[1].untrained:.2f}".replace("-", "−") in text
    assert "-0.00" not in text
    assert "−0.00" not in text


def test_classes_get_bands_and_missing_values_are_grey(latents: list[AnnData]) -> None:
    paint = coloring(latents[0], "state")
    names = list(latents[0].obs["state"].cat.categories)
    assert paint.key is not None
    assert list(paint.key["colorbar"]["ticktext"]) == names[::-1]
    assert [paint.palette[code] for code in paint.codes] == [
        CATEGORICAL[code] for code in latents[0].obs["state"].cat.codes
    ]
    holes = latents[0].copy()
    holes.obs["state"] = holes.obs["state"].where(np.arange(holes.n_obs) > 0)
    paint = coloring(holes, "state")
    assert paint.palette[paint.codes[0]] == MISSING
    assert paint.key is not None
    assert "missing" in paint.key["colorbar"]["ticktext"]


def test_numbers_get_a_scale_and_nan_is_grey(latents: list[AnnData]) -> None:
    table = latents[0].copy()
    values = np.linspace(-2, 3, table.n_obs)
    values[5] = np.nan
    table.obs["<odd>"] = values
    paint = coloring(table, "<odd>")
    assert paint.key is not None
    assert (paint.key["cmin"], paint.key["cmax"]) == (-2, 3)
    assert paint.key["colorbar"]["title"]["text"] == "&lt;odd&gt;"
    assert paint.palette[paint.codes[5]] == MISSING
    known = np.delete(paint.codes.astype(int), 5)
    assert (np.diff(known) >= 0).all()
    assert known[0] == 0
    assert paint.codes.max() == len(paint.palette) - 1
    table.obs["all missing"] = np.nan
    assert set(coloring(table, "all missing").codes) == {len(paint.palette) - 1}
    table.obs["constant"] = 2.0
    assert len(set(coloring(table, "constant").codes)) == 1
    belief = coloring(table, "belief:start")
    assert belief.key is not None
    assert (belief.key["cmin"], belief.key["cmax"]) == (0, 1)


def test_a_belief_over_three_is_mixed() -> None:
    table = make_latents("mess3", n=10, length=6)
    assert figures.color_options(table)["belief, three colours mixed"] == "belief"
    table.obsm["belief"][:3] = np.eye(3)
    paint = coloring(table, "belief")
    assert [paint.palette[code].lower() for code in paint.codes[:3]] == [
        color.lower() for color in themes.categorical_colors(3)
    ]


def test_an_unknown_colour_suggests_the_nearest(latents: list[AnnData]) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown colour 'positon'. Did you mean 'position'"):
        coloring(latents[0], "positon")
    with pytest.raises(UnknownNameError, match="unknown state 'Q'"):
        coloring(latents[0], "belief:Q")
    with pytest.raises(UnknownNameError, match="unknown colour 'belief'"):
        coloring(latents[0], "belief")


def test_hover_shows_the_tokens_read(latents: list[AnnData]) -> None:
    text = describer(latents[0])(2)
    tokens = " ".join(latents[0].obs["token"].iloc[:3])
    assert text == f"read {tokens}<br>episode 0, position 3<br>true state {latents[0].obs['state'].iloc[2]}"
    assert prefix(np.array([0, -1]), ["a"]) == "a ?"
    assert prefix(np.zeros(30, dtype=int), ["a"]).startswith("… a")


@pytest.mark.parametrize(
    ("name", "paper", "ink"),
    [("auto", "rgba(0,0,0,0)", "#797979"), ("light", "#ffffff", "#2b2f36"), ("dark", "#111111", "#e4e6ea")],
)
def test_themes(name: Any, paper: str, ink: str, probes: Any) -> None:
    figure = figures.probe_overview(probes, theme=name)
    assert figure.layout.template.layout.paper_bgcolor == paper
    assert figure.layout.template.layout.font.color == ink


def contrast(one: str, other: str) -> float:
    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(
    ("theme", "pages", "least"),
    [("light", ["#ffffff"], 7), ("dark", ["#111111"], 7), ("auto", ["#ffffff", "#111111"], 4.2)],
)
def test_text_has_contrast(theme: Any, pages: Sequence[str], least: float) -> None:
    assert all(contrast(themes.ink(theme), page) >= least for page in pages)


def test_an_unknown_theme_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown theme 'drak'. Did you mean 'dark'"):
        # Unwrapped, because only these tests check annotations.
        inspect.unwrap(themes.template)("drak")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"theme must be one name, got \['dark'\]: give one of auto, light, dark"):
        inspect.unwrap(Layout.finish)(Layout(), [], ["dark"])  # type: ignore[arg-type]


def test_a_model_keeps_its_colour_beside_other_models() -> None:
    assert themes.model_colors(["NextLat"]) == ["#0072B2"]
    assert themes.model_colors(["MTP", "NextLat", "next-token"]) == ["#009E73", "#0072B2", "#D55E00"]
    many = themes.model_colors(["next-token", "next-token, seed1", "x", "NextLat"])
    assert (many[0], many[3]) == ("#D55E00", "#0072B2")
    assert len(set(many)) == 4


def test_nothing_in_the_page_uploads() -> None:
    assert CONFIG["showSendToCloud"] is False
    assert CONFIG["displaylogo"] is False


def test_probe_overview(latents: list[AnnData], probes: Any) -> None:
    by_site = [analysis.probe_sites(table) for table in latents]
    by_position = [analysis.probe_positions(table, probe) for table, probe in zip(latents, probes, strict=True)]
    figure = figures.probe_overview(probes, by_site, by_position, site="block0")
    scores = [trace for trace in having(figure, "score", model=1) if trace.name == "NextLat"]
    assert scores[0].x == (probes[1].score,)
    low, high = probes[1].interval
    assert scores[0].error_x.array[0] == pytest.approx(high - probes[1].score)
    assert scores[0].error_x.arrayminus[0] == pytest.approx(probes[1].score - low)
    line = having(figure, "site", model=0)[0]
    assert list(line.x) == by_site[0]["site"].tolist()
    np.testing.assert_allclose(line.y, by_site[0]["score"])
    np.testing.assert_allclose(having(figure, "position", model=1)[0].y, by_position[1]["score"])
    assert [shape.x0 for shape in figure.layout.shapes] == ["block0"]
    assert texts(figure) == ["<b>belief read from hidden</b>", "<b>by layer</b>", "<b>by position</b><br>from hidden"]
    assert figure.layout.xaxis.title.text == "held-out R²"


def test_probe_overview_of_names_and_bad_input(latents: list[AnnData], probes: Any) -> None:
    tokens = analysis.probe(latents[0], "token")
    assert figures.probe_overview([tokens]).layout.xaxis.title.text == "held-out accuracy"
    with pytest.raises(ValueError, match="of one target"):
        figures.probe_overview([tokens, probes[1]])
    with pytest.raises(ValueError, match="one or more"):
        figures.probe_overview([])


def test_trajectories(latents: list[AnnData], probes: Any) -> None:
    paths = [analysis.read_trajectory(table, probe, 4) for table, probe in zip(latents, probes, strict=True)]
    figure = figures.trajectories(latents, paths, 3, selection=[2])
    drawn = having(figure, "path")
    assert [trace.name for trace in drawn] == ["exact", "next-token", "NextLat"]
    np.testing.assert_allclose(drawn[0].x, paths[0].exact_coordinates[:, 0])
    np.testing.assert_allclose(drawn[2].y, paths[1].coordinates[:, 1])
    assert [len(trace.x) for trace in having(figure, "cursor")] == [1] * 3
    # The oldest steps, later ones, and the newest, which ends in an arrow head.
    assert [len(trace.x) for trace in having(figure, "trail")] == [0, 2, 2] * 3
    assert having(figure, "trail")[-1].marker.size[-1] > 0
    np.testing.assert_allclose(having(figure, "error")[1].y, paths[1].distance)
    exact, *own = having(figure, "next")
    row = 4 * LENGTH + 2
    np.testing.assert_allclose(exact.y, latents[0].obsm["next_token_probs_exact"][row])
    np.testing.assert_allclose(own[1].y, latents[1].obsm["next_token_probs"][row])
    (strip,) = having(figure, "strip")
    assert list(strip.text) == list(paths[0].tokens)
    assert [i + 1 for i, width in enumerate(strip.marker.line.width) if width] == [2, 3]
    assert "<b>Next token after position 3</b>" in texts(figure)
    assert figure.layout.shapes[0].x0 == 3


def test_string_figure_refuses_bad_positions() -> None:
    reading = read_string("rrxor/nextlat", "0 1 1")
    for position in (1.5, True, -1):
        with pytest.raises(ValueError, match=f"position={position} must be"):
            inspect.unwrap(figures.string_figure)(reading, position)
    with pytest.raises(ValueError, match="position=4: a string of 3 tokens has positions 0 to 3"):
        figures.string_figure(reading, 4)


def test_trajectories_refuse_mismatched_input(latents: list[AnnData], probes: Any) -> None:
    paths = [analysis.read_trajectory(table, probe, 4) for table, probe in zip(latents, probes, strict=True)]
    with pytest.raises(ValueError, match="position=99: episode 4 has positions 1 to 8"):
        figures.trajectories(latents, paths, 99)
    with pytest.raises(ValueError, match="one path per table"):
        figures.trajectories(latents, paths[:1], 1)


@pytest.fixture
def seeds() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        {"world": world, "objective": objective, "seed": seed, "floor": 0.5, "loss": 0.5 + rng.uniform(0.001, 0.01),
         "belief_r2": rng.uniform(0.5, 1), "belief_r2_shuffled": 0.0, "belief_r2_untrained": 0.3}
        for world in ("rrxor", "mess3") for objective in ("next_token", "nextlat", "<own>") for seed in range(3)
    ]  # fmt: skip
    # A seed that failed is still drawn.
    rows[4]["belief_r2"] = -0.4
    return pd.DataFrame(rows)


def test_every_seed_shows_every_row(seeds: pd.DataFrame) -> None:
    figure = figures.every_seed(seeds)
    read = np.concatenate([trace.x for trace in figure.data if trace.name == "R²"])
    above = np.concatenate([trace.x for trace in figure.data if trace.name == "above the floor"])
    np.testing.assert_allclose(read, seeds["belief_r2"])
    np.testing.assert_allclose(above, seeds["loss"] - seeds["floor"])
    for name, column in (("shuffled labels", "belief_r2_shuffled"), ("untrained model", "belief_r2_untrained")):
        np.testing.assert_allclose(
            np.concatenate([trace.x for trace in figure.data if trace.name == name]), seeds[column]
        )
    means = [trace.x[0] for trace in figure.data if trace.name == "mean over seeds"]
    assert len(means) == 12
    assert means[1] == pytest.approx(seeds["loss"][3:6].mean() - 0.5)
    assert texts(figure) == ["<b>rrxor</b>", "<b>mess3</b>"]
    assert list(figure.layout.yaxis.ticktext) == ["<b>next-token</b>", "<b>NextLat</b>", "<b>&lt;own&gt;</b>"]


def test_every_seed_refuses_missing_columns(seeds: pd.DataFrame) -> None:
    with pytest.raises(UnknownNameError, match="unknown column of the table of seeds 'floor'"):
        figures.every_seed(seeds.drop(columns="floor"))


def test_loss_curves_are_drawn_with_their_floor() -> None:
    steps = np.arange(100, 500, 100)
    table = pd.DataFrame({"step": steps, "loss": 0.6 - steps / 1e4, "floor": 0.5})
    figure = figures.loss_curves({"<x>": table, "NextLat": table.assign(floor=0.4)}, title="A <b>", log_steps=True)
    assert [trace.name for trace in figure.data] == ["&lt;x&gt;", "NextLat", *["Bayes floor"] * 2]
    assert [tuple(trace.y) for trace in figure.data[2:]] == [(0.4, 0.4), (0.5, 0.5)]
    assert [trace.showlegend for trace in figure.data[2:]] == [True, False]
    assert tuple(figure.data[2].x) == (100, 400)
    assert figure.data[1].line.color == themes.MODELS["nextlat"]
    assert figure.layout.title.text == "A &lt;b&gt;"
    assert figure.layout.xaxis.type == "log"
    with pytest.raises(UnknownNameError, match="unknown column of the metrics 'loss'"):
        figures.loss_curves({"x": table.drop(columns="loss")})
    # The law of a text is not known.
    assert len(figures.loss_curves({"x": table.drop(columns="floor")}).data) == 1


def test_training_curves_mark_a_step_and_need_no_floor() -> None:
    table = pd.DataFrame({"step": [0, 100, 200], "loss": [0.7, 0.6, 0.5], "accuracy": [0.1, 0.5, 0.9]})
    figure = figures.training_curves({"<x>": table, "NextLat": table[:2].drop(columns="accuracy")}, snapshots=[100])
    roles = [
        (trace.meta["role"], trace.xaxis, tuple(trace.x)) for trace in figure.data if trace.meta["role"] != "curve"
    ]
    ends = [("snapshots", "x", (100,)), ("cursor", "x", (200,)), ("snapshots", "x", (100,)), ("cursor", "x", (100,))]
    assert roles == [*ends, ("snapshots", "x2", (100,)), ("cursor", "x2", (200,))]
    assert [trace.name for trace in figure.data if trace.showlegend] == ["&lt;x&gt;", "NextLat"]
    assert not figure.layout.shapes
    assert len(figures.training_curves({"x": table}, step=100).layout.shapes) == 2
    assert "xaxis2" not in figures.training_curves({"x": table[["step", "loss"]]}).layout
    with pytest.raises(UnknownNameError, match="unknown column of the metrics 'loss'"):
        figures.training_curves({"x": table.drop(columns="loss")})


def test_clouds_over_training_share_their_axes_and_frame_a_step() -> None:
    tables = [make_latents(n=10, length=6), make_latents(label="next-token", n=10, length=6, noise=0.6)]
    start, end = analysis.aligned([analysis.project(table, "pca") for table in tables])
    figure = figures.clouds_over_training(
        {"a<b>": {0: start, 300: "…"}, "c": {0: start, 300: end}}, tables[0], step=300
    )
    assert [(trace.meta["model"], trace.meta["step"]) for trace in figure.data[:-1]] == [
        ("a<b>", 0),
        ("c", 0),
        ("c", 300),
    ]
    axes = [figure.layout[f"xaxis{i}"] for i in ("", 2, 3, 4)]
    assert len({axis.range for axis in axes}) == 1
    assert [axis.linewidth for axis in axes] == [None, 3, None, 3]
    assert texts(figure) == ["<b>a&lt;b&gt;</b>", "untrained", "<b>300</b>", "…", "<b>c</b>"]
    with pytest.raises(ValueError, match="projections is empty"):
        figures.clouds_over_training({}, tables[0])


def test_long_names_are_cut_in_keys_and_hover_texts() -> None:
    table = make_latents("mess3", n=10, length=6)
    long = "\u202e" + "n" * 10_000
    table.obs["state"] = table.obs["state"].astype(str).replace({"A": long})
    text = figures.clouds([table], [{"pca": analysis.project(table, "pca")}]).to_json()
    assert "n" * 121 not in text
    assert "\u202e" not in text
    assert "\\u202e" not in text
    key = coloring(table, "state").key
    assert key is not None
    assert max(len(name) for name in key["colorbar"]["ticktext"]) <= 24


def test_corners_in_one_place_share_a_name() -> None:
    class Flat:
        belief_vertices = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        state_names = ("<a>", "b", "c", "d")

    tags = corner_names(Flat(), "x", "y")
    assert sorted(tag["text"] for tag in tags) == ["<b>&lt;a&gt;</b>", "<b>b, c</b>", "<b>d</b>"]


def test_a_figure_shown_by_a_cell_offers_no_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plotly.io.renderers, "default", "plotly_mimetype")
    shown = figures.loss_curves({"x": pd.DataFrame({"step": [1], "loss": [1.0], "floor": [0.5]})})
    (content,) = shown._repr_mimebundle_().values()
    assert content["config"]["showSendToCloud"] is False
