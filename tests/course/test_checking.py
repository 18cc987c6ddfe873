"""Exercises: solutions pass, every typical mistake gets its own hint, and bad answers get a helpful message."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nextlat_viz import course, worlds
from nextlat_viz.course import prediction, record
from nextlat_viz.course.exercise import Exercise, RightOption
from nextlat_viz.course.exercises import all_exercises, all_predictions
from nextlat_viz.errors import UnknownNameError

EXERCISES = list(all_exercises().values())
MISTAKES = [(exercise, *mistake) for exercise in EXERCISES for mistake in exercise.mistakes]


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)
def test_the_solution_passes(exercise: Exercise) -> None:
    verdict = course.check(exercise.name, exercise.solution)
    assert verdict.passed, repr(verdict)
    assert verdict.function is exercise.solution
    assert exercise.task.endswith(".")
    assert len(exercise.hints) >= 2


@pytest.mark.parametrize(
    ("exercise", "wrong", "hint"),
    MISTAKES,
    ids=[f"{exercise.name}-{wrong.__name__}" for exercise, wrong, _ in MISTAKES],
)
def test_every_mistake_gets_its_own_hint(exercise: Exercise, wrong: Callable[..., Any], hint: str) -> None:
    verdict = course.check(exercise.name, wrong)
    assert not verdict
    shown = repr(verdict)
    assert hint in shown
    others = {text for _, text in exercise.mistakes if text != hint}
    assert len(others) == len(exercise.mistakes) - 1
    assert not any(text in shown for text in others)


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)
def test_no_check_prints_the_answer(exercise: Exercise) -> None:
    source = course.solution(exercise.name).code
    lines = {line.strip() for line in source.splitlines()[2:] if len(line.strip()) > 8}
    for wrong in (None, ..., 3, lambda *arguments: None, *(wrong for wrong, _ in exercise.mistakes)):
        shown = repr(course.check(exercise.name, wrong))
        assert not any(line in shown for line in lines)


@pytest.mark.parametrize("name", ["z1r", "golden_mean", "even", "sns", "rrxor", "mess3"])
def test_count_beliefs_agrees_with_the_library(name: str) -> None:
    world = worlds.get(name)
    count = all_exercises()["count_beliefs"].solution
    for depth in (1, 4, 6):
        assert count(world.stationary, world.transitions, depth) == len(world.reachable_beliefs(depth))


def blank(belief: Any, token: int, T: Any) -> Any:
    """Return the belief after one more token."""
    ...


def half_blank(belief: Any, token: int, T: Any) -> Any:
    joint: Any = ...
    return joint / joint.sum()


def no_return(belief: Any, token: int, T: Any) -> Any:
    joint = belief @ T[token]
    joint / joint.sum()


def endless(belief: Any, token: int, T: Any) -> Any:
    while True:
        with contextlib.suppress(Exception):
            belief = belief + 1


def in_place(belief: Any, token: int, T: Any) -> Any:
    belief[:] = belief @ T[token]
    belief /= belief.sum()
    return belief


def right(belief: Any, token: int, T: Any) -> Any:
    joint = belief @ T[token]
    return joint / joint.sum()


def raising(belief: Any, token: int, T: Any) -> Any:
    return belief @ T[token + 100]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "not filled in yet"),
        (..., "not filled in yet"),
        (blank, "not filled in yet"),
        (half_blank, "not filled in yet"),
        (no_return, "returned None"),
        (endless, "stopped after 1 s"),
        (in_place, "changed its argument belief"),
        (raising, "IndexError in line"),
        (np.ones(3), "not a function"),
        (lambda belief, token: belief, "too many positional arguments"),
        (lambda belief, token, T: right(belief, token, T)[None], "of shape (1, 2), expected shape (2,)"),
        (lambda belief, token, T: belief * np.nan, "NaN"),
        (lambda belief, token, T: torch.tensor(right(belief, token, T)), "numbers are right, but"),
        (lambda belief, token, T: torch.tensor(belief), "a torch tensor"),
        (lambda belief, token, T: "0.5", "a str"),
        (lambda belief, token, T: [[1], [1, 2]], "a list"),
        (lambda belief, token, T: exit(), "SystemExit"),
        (lambda belief, token, T: answer_of_nobody(belief), "NameError"),  # noqa: F821
    ],
)
def test_bad_answers_get_a_helpful_message(answer: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    exercise = all_exercises()["belief_update"]
    monkeypatch.setattr(
        "nextlat_viz.course.checking.find_exercise",
        lambda name: Exercise(**{**vars(exercise), "seconds": 1.0}),
    )
    verdict = course.check("belief_update", answer)
    assert not verdict.passed
    assert said in repr(verdict)
    assert "<table>" in verdict._repr_html_()
    assert verdict.function is exercise.solution


def test_a_list_of_numbers_counts_as_an_array() -> None:
    assert course.check("belief_update", lambda belief, token, T: right(belief, token, T).tolist())


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'belief_update'"):
        course.check("belief_updat", right)


def test_hints_come_one_at_a_time() -> None:
    hints = all_exercises()["belief_update"].hints
    shown = [course.hint("belief_update").text for _ in range(len(hints) + 1)]
    assert shown == [*hints, hints[0]]


def test_progress_is_saved(own_progress: Path) -> None:
    assert course.progress().loc["belief_update", "state"] == "open"
    course.check("belief_update", blank)
    assert not own_progress.exists()
    course.check("belief_update", no_return)
    assert course.progress().loc["belief_update", "state"] == "tried"
    course.check("belief_update", right)
    course.check("belief_update", no_return)
    course.solution("belief_update")
    row = course.progress().loc["belief_update"]
    assert row.to_dict() == {"lesson": 2, "state": "done", "tries": 3, "hints": 0, "solution seen": "yes"}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"belief_update": 3}', b"\xff", b"[" * 10_000])
def test_a_damaged_file_is_put_aside(content: bytes, own_progress: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own_progress.write_bytes(content)
    course.progress()
    assert "was damaged" in capsys.readouterr().out
    assert own_progress.with_name("course_progress.damaged.json").read_bytes() == content
    assert course.check("belief_update", right)
    assert course.progress().loc["belief_update", "state"] == "done"


def test_a_read_only_folder_gives_a_warning(tmp_path: Path) -> None:
    Path("file").write_text("")
    course.progress(tmp_path / "file" / "progress.json")
    verdict = course.check("belief_update", right)
    assert verdict
    assert "Progress is not kept" in repr(verdict)


def test_two_kernels_keep_each_others_entries(own_progress: Path) -> None:
    """Another process writes between two writes of this one; neither loses the other's entry."""

    def write(name: str) -> None:
        for _ in range(20):
            record.add(name, counts="tries")

    threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries, _ = record._read(own_progress)
    assert {name: entry.tries for name, entry in entries.items()} == {"a": 20, "b": 20}


def test_a_prediction_locks_before_the_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction, "all_predictions", lambda: {"coin": RightOption("coin", "heads", "It is bent.")})
    drawn = []

    def ask() -> Any:
        return course.predict("coin", "What comes?", ["heads", "tails"], lambda: drawn.append(1) or "figure")

    question = ask()
    question.lock()
    assert not drawn
    assert question.button.disabled
    question.options.value = "tails"
    question.button.click()
    assert drawn == [1]
    assert question.options.disabled
    assert "The answer: heads. It is bent" in question._outcome.value.replace("</b>", "")
    question.close()
    again = ask()
    assert again.locked == "tails"
    assert drawn == [1, 1]
    again.close()


def test_predictions_need_a_reason() -> None:
    assert all(prediction.answer and prediction.why.endswith(".") for prediction in all_predictions().values())
