"""More than two models: two drawn large, all drawn small, and their differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from anndata import AnnData

from nextlat_viz.errors import UnknownNameError
from nextlat_viz.figures.rows import own_colorings
from nextlat_viz.notebook.panels.differ import DifferPanel
from nextlat_viz.notebook.panels.space import SpacePanel
from nextlat_viz.notebook.plot import Plot
from nextlat_viz.notebook.state import ViewState
from nextlat_viz.notebook.studio import Studio
from nextlat_viz.plotting import MISSING
from tests.notebook.conftest import LENGTH, N, touch, traces
from tests.synthetic import make_latents


def seeds(n: int) -> list[AnnData]:
    """Alternate models of two objectives; those of the second know more."""
    names = [f"{('next-token', 'NextLat')[i % 2]} seed {i // 2}" for i in range(n)]
    return [make_latents(label=name, n=N, length=LENGTH, noise=(0.6, 0.05)[i % 2]) for i, name in enumerate(names)]


@pytest.fixture(scope="module")
def six() -> list[AnnData]:
    return seeds(6)


def press(plot: Plot, entry: int) -> None:
    plot._handle_custom_msg({"kind": "key", "entry": entry}, [])


def models_drawn(panel: SpacePanel) -> list[str]:
    return [note.text for note in panel.plot.layout.annotations if "seed" in note.text]


def test_labels_that_begin_alike_are_told_apart_where_they_are_cut() -> None:
    labels = [f"{'next-token, ' + 'm' * 10_000} {i}" for i in range(3)]
    state = ViewState(*(make_latents(label=label, n=N, length=LENGTH) for label in labels))
    assert state.labels == [f"next-token, mm… ({i})" for i in (1, 2, 3)]
    state.compared = (labels[2], labels[0])
    assert state.pair == [2, 0]
    assert ViewState(make_latents(label="NextLat", n=N, length=LENGTH)).labels == ["NextLat"]


def test_two_models_are_drawn_large_and_all_small(six: list[AnnData]) -> None:
    opened = Studio(state=ViewState(*six))
    state, space = opened.state, opened.panels["space"]
    assert state.compared == ("rrxor/next_token_seed_0/seed0", "rrxor/nextlat_seed_0/seed0")
    assert len(models_drawn(space)) == 2
    strip = space.strip.clouds
    assert strip.names == state.labels
    assert strip.roles == ["reference", "compared", "", "", "", ""]
    assert min(strip.counts) > 0.5 * N * LENGTH
    strip._handle_custom_msg({"kind": "choose", "model": 4}, [])
    assert state.compared[1] == "rrxor/next_token_seed_2/seed0"
    assert "next-token seed 2" in models_drawn(space)[1]
    assert strip.roles == ["reference", "", "", "", "compared", ""]
    # Panels at the cursor follow. The reference is chosen in a list.
    assert [bar.name for bar in opened.panels["next"].plot.data][1:] == ["next-token seed 0", "next-token seed 2"]
    space.strip.reference.value = state.scene.names[5]
    assert state.compared[0] == "rrxor/nextlat_seed_2/seed0"
    strip._handle_custom_msg({"kind": "choose", "model": 5}, [])
    assert state.compared == ("rrxor/next_token_seed_2/seed0", "rrxor/nextlat_seed_2/seed0")
    state.arrange(view="pca")
    assert min(strip.counts) == N * LENGTH
    assert not [card._alert.value for card in opened.panels.values() if card._alert.value]
    opened.close()


@pytest.mark.parametrize("n", [1, 2, 3, 20])
def test_any_number_of_models(n: int) -> None:
    opened = Studio(state=ViewState(*seeds(n)))
    space = opened.panels["space"]
    opened.state.arrange(view="pca")
    assert len(models_drawn(space)) == min(n, 2)
    assert (space.strip.layout.display == "none") == (n < 3)
    assert len(space.strip.clouds.names) == (n if n > 2 else 0)
    differ = opened.panels["differ"]
    differ.shown = True
    assert differ.drawn == (n > 1)
    assert n > 1 or "one model" in differ.words
    assert not [card._alert.value for card in opened.panels.values() if card._alert.value]
    opened.close()


def test_the_choice_is_kept_by_name(six: list[AnnData], mess3: list[AnnData]) -> None:
    state = ViewState({"rrxor": six, "mess3": mess3})
    state.compared = ("NextLat seed 1", "rrxor/next_token_seed_1/seed0")
    assert state.pair == [3, 2]
    state.show("mess3")
    assert len(state.compared) == 2
    state.show("rrxor")
    assert state.pair == [3, 2]
    for wrong, hint in (
        (("NextLat seed 1",), "must be two models"),
        (("NextLat seed 1", "NextLat seed 1"), "two different models"),
        (("NextLat seed 1", "NextLat sed 2"), "Did you mean 'NextLat seed 2'"),
    ):
        with pytest.raises(ValueError, match=hint) as refused:
            state.compared = wrong
        assert isinstance(refused.value, UnknownNameError) == ("Did" in hint)
        assert state.pair == [3, 2]


def test_ranked_differences_move_the_cursor(six: list[AnnData]) -> None:
    first, other = six[1], six[1].copy()
    held_out = ViewState(first).scene.held_out_episodes
    row = int(held_out[2]) * LENGTH + 6
    other.obsm["next_token_probs"][row] = other.obsm["next_token_probs"][row][::-1]
    other.X[row] += 3
    panel = DifferPanel(state=ViewState(first, other))
    panel.shown = True
    assert panel.table[["episode", "position"]].to_numpy().tolist() == [[int(held_out[2]), 7]]
    panel.list.set_state({"chosen": 0})
    assert (panel.state.episode, panel.state.position) == (int(held_out[2]), 7)
    panel.by.value = "error"
    assert panel.table[["episode", "position"]].to_numpy().tolist()[0] == [int(held_out[2]), 7]
    # Both axes of the map name the layers; a click on a row of it shows its layer.
    (trace,) = traces(panel.plot, "layers")
    touch(panel.plot, "click", {trace: [2]})
    assert panel.state.site == panel.plot.data[trace].y[0] == "embed"
    assert "no untrained models" in panel._why_no_map.value
    panel.close()


def test_identical_models_do_not_differ(six: list[AnnData], untrained: AnnData) -> None:
    panel = DifferPanel(state=ViewState(six[0], six[0].copy()))
    panel.shown = True
    assert panel.words == "They do not differ."
    panel.close()
    same = DifferPanel(state=ViewState(*six[:2], untrained=[untrained, untrained]))
    same.shown = True
    assert same.drawn
    assert "same weights" in same._why_no_map.value
    same.close()


def test_a_layer_that_one_model_lacks(six: list[AnnData]) -> None:
    deep = make_latents(label="deep", n=N, length=LENGTH, blocks=4)
    panel = DifferPanel(state=ViewState(deep, six[0]))
    panel.shown = True
    (trace,) = traces(panel.plot, "layers")
    layers = list(panel.plot.data[trace].y)
    before = panel.state.site
    touch(panel.plot, "click", {trace: [layers.index("block3") * len(panel.plot.data[trace].x)]})
    assert panel.state.site == before
    assert "not every model here has the layer" in panel._alert.value
    panel.close()


@pytest.mark.parametrize("color", ["model:surprise", "model:entropy", "model:error"])
def test_models_have_their_own_colours_on_one_scale(six: list[AnnData], color: str) -> None:
    state = ViewState(*six)
    panel = SpacePanel(state=state)
    panel.shown = True
    panel.view.value = "pca"
    state.color = color
    a, b = (panel.plot.data[i].marker.color for i in traces(panel.plot, "points"))
    assert len(set(np.asarray(a))) > 2
    assert not np.array_equal(a, b) or color != "model:error"
    first, second = (state.coloring(model) for model in state.pair)
    assert not isinstance(first, str)
    assert not isinstance(second, str)
    assert first.limits == second.limits
    if color == "model:surprise":
        last = state.latents[0].obs["position"].to_numpy() == LENGTH
        assert {first.palette[int(code)] for code in first.codes[last]} == {MISSING}
    assert panel._alert.value == ""
    panel.close()


def test_few_large_numbers_do_not_set_the_scale() -> None:
    numbers = np.append(np.linspace(0, 1, 999), 1e6)
    assert own_colorings("loss", [numbers])[0].limits[1] == pytest.approx(1, abs=0.02)  # type: ignore[index]


def test_a_click_on_the_key_isolates_a_class(six: list[AnnData]) -> None:
    state = ViewState(*six[:2])
    panel = SpacePanel(state=state)
    panel.shown = True
    panel.view.value = "pca"
    classes = state.scene.values("state")
    assert panel.plot.layout.meta["classes"] == len(classes)
    press(panel.plot, 1)
    assert state.filter == {"state": (classes[1],)}
    press(panel.plot, 2)
    assert state.filter == {"state": (classes[2],)}
    press(panel.plot, 2)
    assert state.filter == {}
    # Numbers and mixed beliefs have no classes.
    state.color = "position"
    assert panel.plot.layout.meta["classes"] == 0
    press(panel.plot, 0)
    assert state.filter == {}
    panel.close()


def test_the_nearest_rows_are_listed_and_marked_until_the_cursor_moves(six: list[AnnData]) -> None:
    state = ViewState(*six[:2])
    panel = SpacePanel(state=state)
    panel.shown = True
    panel.view.value = "pca"
    touch(panel.plot, "click", {traces(panel.plot, "points")[0]: [13]})
    near = [panel.plot.data[i] for i in traces(panel.plot, "near")]
    assert [len(trace.x) for trace in near] == [5, 5]
    assert panel.nearest.value.count("episode") == 10
    state.site = "embed"
    assert panel.nearest.value.count("episode") == 10
    state.position = 1
    assert panel.nearest.value == ""
    assert {len(panel.plot.data[i].x) for i in traces(panel.plot, "near")} == {0}
    panel.close()


def test_the_path_fades_and_its_arrow_points_forward(six: list[AnnData]) -> None:
    state = ViewState(six[1])
    panel = SpacePanel(state=state)
    panel.shown = True
    panel.view.value = "pca"
    state.go_to(2, LENGTH)

    def trail() -> list[Any]:
        return [panel.plot.data[i] for i in traces(panel.plot, "trail")]

    assert [len(part.x) for part in trail()] == [3, 5, 2]
    opacity = [float(part.line.color.split(",")[-1][:-1]) for part in trail()]
    assert opacity == sorted(opacity)
    newest = trail()[-1]
    step = np.array([newest.x[1] - newest.x[0], newest.y[1] - newest.y[0]])
    # plotly turns its marks clockwise from the top.
    assert newest.marker.angle == pytest.approx(np.degrees(np.arctan2(*step)), abs=1e-3)
    assert newest.marker.size[-1] > newest.marker.size[0] == 0
    panel.close()
