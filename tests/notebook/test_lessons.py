"""Lessons: checks before anything changes, undoing, and the truth of the shipped texts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anndata import AnnData

from nextlat_viz.analysis.lookahead import look_ahead
from nextlat_viz.errors import UnknownNameError
from nextlat_viz.latents.table import PROBS
from nextlat_viz.notebook.lessons import Lesson, Rail, read_lesson, shipped_lessons
from nextlat_viz.notebook.serve import page, studio
from nextlat_viz.notebook.state import ViewState
from nextlat_viz.notebook.studio import Studio
from nextlat_viz.pages.lesson import play_lesson

STEP: dict[str, Any] = {"look": "Look.", "panel": "next"}
LESSON: dict[str, Any] = {
    "title": "Three steps",
    "world": "rrxor",
    "steps": [
        {**STEP, "set": {"episode": 3, "position": 5, "color": "position", "layer": "block0"}},
        {
            "look": "Both.", "panel": "what_if",
            "set": {
                "filter": {"state": ["XOR 1"]}, "selection": [[3, 5], [4, 2]], "view": "pca",
                "what_if": {"to": "XOR 1", "distance": "euclidean"},
            },
            "ask": {"question": "Which?", "options": ["left", "right"], "answer": "left"},
        },
        {**STEP, "panel": "pairs", "set": {"large": "pairs", "position": 2}},
    ],
}  # fmt: skip


@pytest.fixture
def opened(state: ViewState) -> Iterator[Studio]:
    widget = Studio(state=state)
    yield widget
    widget.close()


def seen(made: Studio) -> tuple[Any, ...]:
    """Return everything that a lesson can change."""
    panels = made.panels.made
    framed = [name for name, panel in panels.items() if "nlv-framed" in panel._dom_classes]
    in_sight = {name for name, panel in panels.items() if panel.shown}
    return made.rail._now(), framed, in_sight, made.panels["space"].view.value


def test_back_and_leave_restore_the_studio(opened: Studio) -> None:
    state, rail = opened.state, opened.rail
    opened.panels["what_if"].metric.value = "euclidean"
    state.go_to(5, 3)
    state.arrange(detail="pairs", view="pca")
    state.select(range(4))
    state.filter = {"state": ["start"]}
    own = seen(opened)
    rail.start(LESSON)
    assert (state.episode, state.position, state.color, state.site) == (3, 5, "position", "block0")
    assert state.filter == {}
    assert state.selection == ()
    first = seen(opened)
    assert first[1:] == (["next"], {"world", "space", "next", "knows"}, "belief")
    rail.next()
    assert rail.asking
    # The question comes before anything changes.
    assert seen(opened)[0] == first[0]
    assert seen(opened)[1] == []
    rail.next()
    assert rail.number == 1
    rail.predict("right")
    assert state.filter == {"state": ("XOR 1",)}
    assert state.selection == ((3, 5), (4, 2))
    assert (opened.panels["what_if"].to.value, opened.panels["what_if"].metric.value) == ("XOR 1", "euclidean")
    assert opened.panels["what_if"].shown
    # The user goes elsewhere, and returns to exactly this.
    state.go_to(7, 4)
    opened.panels["what_if"].metric.value = "covariance"
    second = seen(opened)
    rail.next()
    assert [name for name, panel in opened.panels.made.items() if panel.shown] == ["pairs"]
    assert (state.episode, state.position) == (3, 2)
    rail.back()
    assert seen(opened) == second
    rail.back()
    assert seen(opened) == first
    rail.back()
    assert rail.number == 0
    rail.next()
    assert rail.asking
    rail.predict("left")
    rail.next()
    assert rail._next.description == "Finish"
    rail.next()
    assert rail.lesson is None
    assert rail.layout.display == "none"
    assert seen(opened) == own


def test_the_rail_shows_progress_and_the_answer(opened: Studio) -> None:
    rail = opened.rail
    rail.start(LESSON)
    assert (rail._back.disabled, rail._next.disabled) == (True, False)
    rail._next.click()
    assert "Predict before you look" in rail._text.value
    assert "Both." not in rail._text.value
    assert rail._next.disabled
    assert [button.description for button in rail._options if button.layout.display is None] == ["left", "right"]
    rail._options[1].click()
    assert "Not so: left." in rail._text.value
    assert "Both." in rail._text.value
    assert rail._count.value == "step 2 of 3"
    assert all(button.tooltip for button in (rail._back, rail._next, rail._close, opened._lesson, *rail._options))
    rail._back.click()
    rail._next.click()
    rail._options[0].click()
    assert "Right." in rail._text.value
    rail._close.click()
    assert rail.layout.display == "none"


def test_texts_are_escaped(opened: Studio) -> None:
    opened.rail.start({**LESSON, "steps": [{**STEP, "look": "<script>&"}]})
    assert "&lt;script&gt;&amp;" in opened.rail._text.value


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"panel": "nxt"}, "lesson, step 1, panel: unknown panel 'nxt'. Did you mean 'next'"),
    ({"set": {"color": "stat"}}, "lesson, step 1, set.color: unknown colour 'stat'. Did you mean 'state'"),
    ({"set": {"layer": "block9"}}, "set.layer: unknown layer 'block9'"),
    ({"set": {"target": "belif"}}, "set.target: unknown target 'belif'"),
    ({"set": {"episode": 999}}, "set.episode: no episode 999: there are 40, from 0"),
    ({"set": {"episode": 3, "position": 99}}, "set.position: no position 99 in this episode: it has 1 to 8"),
    ({"set": {"filter": {"stat": ["start"]}}}, "set.filter: unknown column 'stat'"),
    ({"set": {"filter": {"state": ["XOR 3"]}}}, "set.filter: unknown value of column 'state': 'XOR 3'"),
    ({"set": {"selection": [[3, 5], [3, 99]]}}, "set.selection: got ((3, 5), (3, 99)), which has"),
    ({"set": {"selection": [[3]]}}, "set.selection.0: list should have at least 2 items"),
    ({"set": {"training_step": 7}}, "set.training_step: unknown training step '7'"),
    ({"set": {"view": "tsne"}}, "set.view: unknown view 'tsne'. Known: pca, umap, belief"),
    ({"set": {"beside": "space"}}, "set.beside: unknown panel 'space'"),
    ({"set": {"large": "knows"}}, "panel: 'next' is out of sight while 'knows' is large"),
    ({"set": {"what_if": {"to": "XOR 3"}}}, "set.what_if: unknown target of 'belief': 'XOR 3'"),
    ({"set": {"what_if": {"to": "XOR 1", "distance": "cosine"}}}, "set.what_if.distance: input should be"),
    ({"set": {"colour": "state"}}, "lesson, step 1, set.colour: extra inputs are not permitted, got 'state'"),
    ({"set": {"position": "5"}}, "set.position: input should be a valid integer, got '5'"),
    ({"look": ""}, "look: string should have at least 1 character"),
    ({"look": "x" * 10_000}, "look: string should have at most 400 characters, got str"),
    ({"ask": {"question": "Q", "options": ["a"], "answer": "a"}}, "ask.options: list should have at least 2 items"),
    ({"ask": {"question": "Q", "options": ["a", "b"], "answer": "c"}}, "ask: unknown answer 'c'. Known: a, b"),
]


def test_a_lesson_with_unknown_names_changes_nothing(opened: Studio) -> None:
    opened.rail.start(LESSON)
    opened.rail.next()
    before, number = seen(opened), opened.rail.number
    for broken, message in BROKEN:
        with pytest.raises(ValueError, match=re.escape(message)) as raised:
            opened.rail.start({**LESSON, "steps": [{**STEP, **broken}]})
        assert "\n" not in str(raised.value)
        assert seen(opened) == before
        assert (opened.rail.number, opened.rail.lesson.title) == (number, "Three steps")


def test_a_step_can_use_every_colour(opened: Studio) -> None:
    opened.rail.start({**LESSON, "steps": [{**STEP, "set": {"color": "model:error"}}]})
    assert opened.state.color == "model:error"


def test_errors_name_the_file_and_the_step(opened: Studio, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({**LESSON, "steps": [STEP, {**STEP, "set": {"color": "x"}}]}))
    with pytest.raises(ValueError, match=r"^mine\.json, step 2, set\.color: unknown colour 'x'"):
        opened.rail.start(path)
    path.write_text(json.dumps(LESSON))
    opened.rail.start(str(path))
    assert opened.rail.lesson.name == "mine"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"^mine\.json is no lesson: "):
        read_lesson(path)
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="nested more than 100 levels deep"):
        read_lesson(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"^mine\.json: input should be"):
        read_lesson(path)
    with pytest.raises(FileNotFoundError):
        read_lesson(tmp_path / "none.json")
    with pytest.raises(UnknownNameError, match=r"unknown lesson 'belifs'. Did you mean 'beliefs'"):
        read_lesson("belifs")


def test_a_lesson_is_offered_if_its_models_are_open(
    rrxor: list[AnnData], mess3: list[AnnData], state: ViewState
) -> None:
    widget = studio(state=state)
    # The texts are true of the shipped models only, and these are others.
    assert widget._lesson.layout.display == "none"
    with pytest.raises(ValueError, match=r"^beliefs\.json, models: the lesson is about rrxor/next_token and rrxor/n"):
        widget.rail.start("beliefs")
    with pytest.raises(ValueError, match=r"^lesson, world: the lesson is about models of the world 'mess3'"):
        widget.rail.start({**LESSON, "world": "mess3"})
    widget.close()
    with pytest.raises(ValueError, match="the lesson is about"):
        studio(*rrxor, lesson="beliefs")
    both = studio({"mess3": mess3, "rrxor": rrxor})
    both.state.go_to(5, 3)
    both.rail.start(LESSON)
    assert both.state.world == "rrxor"
    assert both._lesson.layout.display is None
    both._lesson.click()
    assert both.rail.lesson is None
    assert both._lesson.layout.display == "none"
    assert (both.state.world, both.state.episode, both.state.position) == ("mess3", 5, 3)
    both.close()


def test_a_lesson_plays_without_clicks(rrxor: list[AnnData]) -> None:
    lesson = read_lesson({**LESSON, "steps": [LESSON["steps"][0], LESSON["steps"][2]]})
    steps, provenance = play_lesson(lesson, *rrxor)
    assert steps[0]["question"] == "What does the model predict next?"
    assert steps[0]["figure"] is not None
    assert steps[1]["figure"] is None
    assert steps[1]["table"].count("<tr") == 11
    assert steps[0]["where"].startswith("Episode 3, position 5; read: ")
    assert provenance
    with pytest.raises(ValueError, match=r"'Three steps', step 1, panel: 'ahead' has nothing to show here: "):
        play_lesson(read_lesson({**LESSON, "steps": [{**STEP, "panel": "ahead"}]}), *rrxor)


# -- the shipped lessons -----------------------------------------------------------------------------------------------


def bars(made: Studio, panel: str) -> dict[str, dict[str, float]]:
    """The bars of a panel: {model: {name: height}}."""
    figure = made.panels[panel].plot
    names = [re.sub("<[^>]+>", "", name) for name in figure.layout.xaxis.ticktext]
    return {
        re.sub("<[^>]+>", "", trace.name): dict(zip(names, map(float, trace.y), strict=True)) for trace in figure.data
    }


def text_of(made: Studio, panel: str) -> str:
    """The headings of a figure and the words beside it, without markup."""
    shown = made.panels[panel]
    texts = [note.text for note in shown.plot.layout.annotations] + [shown.notes]
    return re.sub(r"\s+", " ", re.sub("<[^>]+>|&ensp;|&nbsp;", " ", " ".join(texts)))


def correct(made: Studio, **wanted: Any) -> float:
    """A value of the world's measure at the end of a lesson."""
    task = made.panels["task"]
    assert task.drawn
    table = made.state.scene.results.peek(("measure", task.measure)).table
    for name, value in wanted.items():
        table = table[table[name] == value]
    assert len(table) == 1
    return float(table["value"].iloc[0])


def r2(made: Studio, target: str = "belief") -> list[float]:
    return [made.state.scene.probe(model, target, "hidden").score for model in range(2)]


def beliefs(made: Studio, number: int) -> list[str]:
    scene, state = made.state.scene, made.state
    if number == 0:
        assert re.findall(r"([\d.]+) nats", text_of(made, "next")) == ["0.0001", "0.0001"]
        return ["1 0 0 1 1", "0.0001 nats"]
    if number == 1:
        read = bars(made, "knows")
        assert read["truth"]["start"] == 1
        probe = scene.probe(0, "belief", "hidden")
        assert abs(probe.shuffled) < 0.005
        scores = [*reversed(r2(made)), probe.untrained]
        return [f"reads {read['NextLat']['start']:.2f}", f"next-token's {read['next-token']['start']:.2f}",
                "R² {:.2f} and {:.2f}; on the untrained model {:.2f}".format(*scores)]  # fmt: skip
    if number == 2:
        points, rings = {}, scene.world.reachable_beliefs(20).beliefs
        for model, label in enumerate(scene.labels):
            read = scene.probe(model, "belief", "hidden").predict(scene.latents[model])
            points[label] = np.median(np.linalg.norm(read - scene.latents[model].obsm["belief"], axis=1))
        assert points["NextLat"] < 0.6 * points["next-token"]
        return [f"{len(rings)} exact beliefs"]
    if number == 3:
        assert state.step == 600
        now = r2(made)
        assert f"{now[0]:.2f}" == f"{now[1]:.2f}"
        assert state.steps[-1] == 4000
        last = state.load(state.world, None)
        end = [last.probe(model, "belief", "hidden").score for model in (1, 0)]
        return [f"R² {now[0]:.2f} for both", "up to {:.2f}, while next-token stops at {:.2f}".format(*end)]
    if number == 4:
        pair = made.panels["pairs"].table.iloc[0]
        assert [tuple(pair[[f"episode_{end}", f"position_{end}"]]) for end in "ab"] == list(state.selection)
        assert pair["state"] == "start 1"
        return [
            pair["prefix_a"],
            f"{pair['relative, next-token']:.2f} times",
            f"NextLat {pair['relative, NextLat']:.2f}",
        ]
    if number == 5:
        ahead = look_ahead(scene.checkpoint(1), scene.latents[1], 3, 5, 8)
        assert (ahead.distance < ahead.no_change).all()
        assert (len(ahead.distance), ahead.horizon) == (7, 1)
        return [f"{ahead.distance[-1]:.2f} from the true state (without any change: {ahead.no_change[-1]:.2f}"]
    text = text_of(made, "what_if")
    (before, after), random = zip(*re.findall(r"exact ([\d.]+) → ([\d.]+)", text), strict=True), re.findall(
        r"this size ([\d.]+)", text
    )  # fmt: skip
    if number == 6:
        assert {f"{float(value):.2f}" for value in before} <= {"0.70", "0.71"}
        return [f"to {after[0]} and {after[1]}", f"{float(random[0]):.1f} and {float(random[1]):.1f}"]
    return [f"{float(after[0]):.2f} and {float(after[1]):.2f} nats off"]


def branch(made: Studio, number: int) -> list[str]:
    scene, state = made.state.scene, made.state
    tokens = [scene.vocabulary[token] for token in scene.tokens[2] if token >= 0]
    assert tokens[21:] == ["1", "7", "3", "10", "end"]
    rows = scene.rows([(episode, state.position) for episode in scene.episodes.tolist()])
    exact = scene.latents[0].obsm["next_token_probs_exact"][rows].argmax(axis=1)
    right = [(latents.obsm[PROBS][rows].argmax(axis=1) == exact).mean() for latents in scene.latents]
    if number == 0:
        return ["start 1 and the goal 10", "by 5 and by 7"]
    if number == 1:
        shown = bars(made, "next")
        assert shown["exact"] == {"5": 0, "7": 1}
        assert right[0] < 0.55
        assert right[1] == 1
        return [f"gives {shown['next-token']['5']:.2f} to 5", f"{shown['next-token']['7']:.2f} to 7",
                f"NextLat gives {shown['NextLat']['7']:.2f} to 7"]  # fmt: skip
    if number == 2:
        assert right == [1, 1]
        assert min(shown["3"] for shown in bars(made, "next").values()) > 0.99
        return ["certain of 3"]
    solved = correct(made, part="path", objective="next_token")
    assert correct(made, part="branch", objective="next_token") == solved
    assert correct(made, part="path", objective="nextlat") == 1
    return [f"solves {solved:.2f}".removesuffix("0"), "NextLat all"]


def length(made: Studio, number: int) -> list[str]:
    if number == 0:
        assert made.state.scene.checkpoint(0).reads == 10
        assert made.state.scene.positions(4)[-1] == 10
        return ["six arrangements", "ten moves"]
    if number == 2:
        shown = bars(made, "next")
        (truth,) = [name for name, chance in shown["exact"].items() if chance == 1]
        return [f"probability {shown['next-token'][truth]:.2f}", f"NextLat with {shown['NextLat'][truth]:.2f}"]
    if number == 1:
        scene = made.state.scene
        ahead = look_ahead(scene.checkpoint(1), scene.latents[1], 4, 2, 8)
        assert (ahead.distance < ahead.no_change).all()
        return []
    read = {"reader": "transformer"}
    after = [correct(made, length=11, objective=name, **read) for name in ("next_token", "nextlat")]
    tenth = [correct(made, length=10, objective=name, **read) for name in ("nextlat", "next_token")]
    psi = correct(made, length=20, reader="psi", objective="nextlat")
    assert all(correct(made, length=15, objective=name, **read) < 0.25 for name in ("next_token", "nextlat"))
    return [
        "{:.2f} and {:.2f} of the answers".format(*after), f"{psi:.3f} after twenty",
        "{:.2f} at the tenth, next-token's {:.2f}".format(*tenth),
    ]  # fmt: skip


def map_(made: Studio, number: int) -> list[str]:
    scene = made.state.scene
    if number == 0:
        tokens = [scene.vocabulary[token] for token in scene.tokens[list(scene.episodes).index(7)] if token >= 0]
        gaps = [float(gap) for gap in re.findall(r"([\d.]+) nats", text_of(made, "next"))]
        return [f"from {tokens[0][1:]} to {tokens[1][1:]}", f"within {max(gaps):.3f} nats"]
    if number == 1:
        scores = [f"{x:.2f} and {y:.2f}" for x, y in zip(r2(made, "x"), r2(made, "y"), strict=True)]
        return [f"R² {scores[1]}", f"({scores[0]})", f"{scene.probe(0, 'x', 'hidden').untrained:.2f} for x"]
    task = made.panels["task"]
    assert task.drawn
    rows = made.state.scene.results.peek(("measure", task.measure)).table
    assert abs(np.subtract(*rows["value"])) < 2 * np.hypot(*rows["error"])
    return ["{:.3f} of next-token's and {:.3f} of NextLat's".format(*rows["value"]),
            "{:.3f} and {:.3f}: one seed".format(*rows["error"])]  # fmt: skip


FACTS: dict[str, Callable[[Studio, int], list[str]]] = {
    "beliefs": beliefs, "branch": branch, "length": length, "map": map_,
}  # fmt: skip


def test_every_shipped_lesson_has_computed_facts() -> None:
    assert sorted(FACTS) == shipped_lessons()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FACTS))
def test_texts_of_shipped_lessons_are_true(name: str) -> None:
    result = page(lesson=name)
    rail: Rail = result.rail
    lesson = rail.lesson
    assert isinstance(lesson, Lesson)
    assert result._lesson.layout.display is None
    asked = 0
    for number, step in enumerate(lesson.steps):
        if step.ask is not None:
            asked += 1
            panel = result.panels[step.panel]
            before = panel.shown and panel._looks_at()
            rail.predict(step.ask.answer)
            # The answer is not on the page before the question is answered.
            assert before != panel._looks_at()
        panel = result.panels[step.panel]
        assert panel.drawn, panel.words
        assert panel.shown
        assert panel._alert.value == rail._alert.value == ""
        for fact in FACTS[name](result, number):
            assert fact in step.look, (number + 1, fact, step.look)
        rail.next()
    assert asked
    assert rail.lesson is None
    result.close()
