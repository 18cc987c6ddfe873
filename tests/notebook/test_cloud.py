"""The cloud in the kernel: messages, errors, and answers to the mouse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st

from nextlat_viz.figures import color_options
from nextlat_viz.figures.rows import coloring
from nextlat_viz.notebook.cloud import Cloud, latent_cloud, paint

N = 21
PLACES = np.random.default_rng(0).normal(size=(N, 2)).astype(np.float32)
RED_BLUE = ["#D55E00", "#0072B2"]


@pytest.fixture
def heard() -> list[Any]:
    return []


@pytest.fixture
def cloud(heard: list[Any]) -> Iterator[Cloud]:
    result = Cloud(
        PLACES,
        np.arange(N) % 2,
        RED_BLUE,
        labels=lambda row: f"<b>row</b> {row} " + "and on " * 2_000,
        on_select=lambda rows: heard.append(rows.tolist()),
        on_click=heard.append,
    )
    yield result
    result.close()


@pytest.fixture
def sent(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int]]:
    """Record {trait: bytes} of every message to the page."""
    messages: list[dict[str, int]] = []

    def note(message: Any, buffers: Any = None) -> None:
        if message.get("method") == "update":
            paths = [path[0] for path in message["buffer_paths"]]
            sizes = dict(zip(paths, [memoryview(buffer).nbytes for buffer in buffers or []], strict=True))
            messages.append(dict.fromkeys(message["state"], 0) | sizes)
        else:
            messages.append(message["content"])

    monkeypatch.setattr(cloud, "_send", note)
    return messages


def touch(cloud: Cloud, kind: str, *, rows: list[int] | None = None, row: int | None = None) -> None:
    """Send what the page sends."""
    mask = np.zeros(N, bool)
    mask[rows or []] = True
    bits = np.packbits(mask, bitorder="little").tobytes()
    content = {"kind": kind} | ({} if row is None else {"row": row})
    cloud._handle_custom_msg(content, [memoryview(bits)] if kind == "select" else [])


def test_arguments_can_be_read_back(cloud: Cloud) -> None:
    np.testing.assert_array_equal(cloud.positions, PLACES)
    np.testing.assert_array_equal(cloud.codes, np.arange(N) % 2)
    assert cloud.palette == RED_BLUE
    assert repr(cloud) == "<Cloud of 21 points, 0 selected>"


def test_only_changes_are_sent(cloud: Cloud, sent: list[dict[str, int]]) -> None:
    cloud.cursor = [3, 4]
    cloud.select([0, 20])
    cloud.recolor(np.zeros(N, np.uint8))
    cloud.recolor(np.ones(N, np.uint8), ["#000000", "#ffffff"], {"white": "#ffffff"})
    cloud.move(-PLACES)
    assert sent == [
        {"cursor": 0},
        {"_selection": 3},
        {"_codes": N},
        {"_codes": N, "_palette": 1024, "_key": 0},
        {"_places": 8 * N},
    ]


def test_equal_values_are_not_sent(cloud: Cloud, sent: list[dict[str, int]]) -> None:
    cloud.recolor(cloud.codes, RED_BLUE)
    cloud.move(cloud.positions)
    cloud.select([])
    cloud.cursor = []
    assert sent == []


@given(st.lists(st.integers(0, N - 1), unique=True))
def test_a_selection_of_rows_is_read_back(rows: list[int]) -> None:
    cloud = Cloud(PLACES)
    cloud.select(rows)
    assert cloud.selection.tolist() == sorted(rows)
    touch(cloud, "select", rows=rows)
    assert cloud.selection.tolist() == sorted(rows)
    cloud.close()


def test_mouse_events_call_back(cloud: Cloud, heard: list[Any], sent: list[dict[str, int]]) -> None:
    touch(cloud, "select", rows=[2, 9, 20])
    touch(cloud, "click", row=7)
    touch(cloud, "select", rows=[])
    assert heard == [[2, 9, 20], 7, []]
    assert sent == [{"_selection": 3}, {"_selection": 0}]


def test_selecting_in_code_calls_no_callback(cloud: Cloud, heard: list[Any]) -> None:
    cloud.select([1, 2])
    assert heard == []


def test_labels_are_requested_one_by_one_and_cut(cloud: Cloud, sent: list[Any]) -> None:
    touch(cloud, "label", row=5)
    ((answer),) = sent
    assert (answer["kind"], answer["row"]) == ("label", 5)
    # Not escaped, because the page sets it as text.
    assert answer["text"].startswith("<b>row</b> 5 and on")
    assert len(answer["text"]) == 400


def test_without_labels_or_callbacks_the_mouse_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud, answers = Cloud(PLACES), []
    monkeypatch.setattr(cloud, "send", answers.append)
    for kind in ("label", "click"):
        touch(cloud, kind, row=0)
    touch(cloud, "something else")
    assert answers == []
    assert not len(cloud.selection)
    cloud.close()


def test_long_names_are_cut_for_display() -> None:
    names = {f"{i} " + "é" * 10_000: "#112233" for i in range(30)}
    cloud = Cloud(PLACES, title="t" * 10_000, key=names)
    assert len(cloud._title) == 160
    assert len(cloud._key) == 25
    assert cloud._key[-1] == ["and 6 more", ""]
    assert max(len(text) for text, _ in cloud._key) == 80
    cloud.close()


def test_one_point_is_a_cloud() -> None:
    cloud = Cloud([[0.0, 0.0]], labels=["the only one"], cursor=[0])
    cloud.select([0])
    assert cloud.selection.tolist() == [0]
    cloud.close()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"positions": [[1.0, 2.0, 3.0]]}, r"positions must have shape \(rows, 2\).*got \(1, 3\)"),
        ({"positions": np.zeros((0, 2))}, "at least one row"),
        ({"positions": [[0.0, np.nan], [1.0, 1.0]]}, "1 rows are not, row 0 first"),
        ({"positions": [[0.0, 1e300]]}, "must be finite in float32"),
        ({"codes": np.zeros(3, np.uint8)}, r"codes must be integers of shape \(21,\)"),
        ({"codes": np.zeros(N)}, "codes must be integers"),
        ({"codes": np.full(N, 8)}, r"codes must be in 0\.\.7, the palette's colours, got 8"),
        ({"codes": np.full(N, -1)}, "got -1"),
        ({"palette": []}, "1 to 256 colours, got 0"),
        ({"palette": ["red"]}, "written #rrggbb, got 'red'"),
        ({"palette": ["#12345g"]}, "written #rrggbb"),
        ({"key": {"a": "blue"}}, "written #rrggbb, got 'blue'"),
        ({"labels": ["a"]}, "labels must hold one text per row of positions: 21, got 1"),
        ({"cursor": [21]}, r"cursor must be row numbers in 0\.\.20, got 21"),
        ({"height": 0}, "height=0 must be at least 1: it is in pixels"),
        ({"handle": (0.0, np.nan)}, "handle must be finite"),
        ({"handle": (0.0,)}, r"handle must be two numbers \(x, y\), got \(0.0,\)"),
        ({"axes": ("x",)}, "axes must be two titles, of x and of y, got 1"),
        ({"outline": [[1.0, 2.0]]}, r"outline must hold polylines of shape \(points, 2\)"),
        ({"landmarks": {"S": (0.0, np.inf)}}, "landmarks must be finite"),
    ],
)
def test_bad_arguments_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Cloud(**{"positions": PLACES, **wrong})


def drag(cloud: Cloud, x: float, y: float) -> None:
    cloud._handle_custom_msg({"kind": "move", "at": [x, y]}, [])


def test_each_move_of_the_handle_is_answered_once(sent: list[dict[str, int]]) -> None:
    heard: list[Any] = []
    cloud = Cloud(PLACES, handle=(0.5, -0.5), on_move=lambda x, y: heard.append((x, y)))
    cloud._send = lambda message, buffers=None: sent.append(message.get("state") or message["content"])  # type: ignore[method-assign,assignment]
    drag(cloud, 0.25, 1.0)
    drag(cloud, 0.25, 1.0)
    assert heard == [(0.25, 1.0), (0.25, 1.0)]
    assert cloud.handle == (0.25, 1.0)
    assert sent == [{"handle": (0.25, 1.0)}, {"kind": "moved"}, {"kind": "moved"}]
    cloud.handle = (np.float64(1), 2)
    assert cloud.handle == (1.0, 2.0)
    assert len(heard) == 2
    cloud.close()


def test_a_callback_may_move_the_handle() -> None:
    cloud = Cloud(PLACES, handle=(0.0, 0.0), on_move=lambda x, y: setattr(cloud, "handle", (min(x, 1.0), 0.0)))
    messages: list[Any] = []
    cloud._send = lambda message, buffers=None: messages.append(message.get("state") or message["content"])  # type: ignore[method-assign,assignment]
    drag(cloud, 3.0, 2.0)
    assert cloud.handle == (1.0, 0.0)
    # The intermediate place is not sent.
    assert messages == [{"handle": (1.0, 0.0)}, {"kind": "moved"}]
    cloud.close()


def test_an_error_in_a_callback_does_not_end_the_drag() -> None:
    def refuse(x: float, y: float) -> None:
        raise ValueError("no")

    cloud = Cloud(PLACES, handle=(0.0, 0.0), on_move=refuse)
    messages: list[Any] = []
    cloud._send = lambda message, buffers=None: messages.append(message.get("content"))  # type: ignore[method-assign,assignment]
    # ipywidgets would write the error to the log, and go on.
    with pytest.raises(ValueError, match="no"):
        cloud._hear(cloud, {"kind": "move", "at": [1, 2]}, [])
    assert messages[-1] == {"kind": "moved"}
    cloud.close()


def test_a_step_of_the_handle_is_a_few_bytes(cloud: Cloud, sent: list[dict[str, int]]) -> None:
    cloud.handle = (0.5, 0.5)
    cloud.ring = (0.0, 0.1)
    assert sent == [{"handle": 0}, {"ring": 0}]
    cloud.handle = cloud.ring = None
    assert sent[2:] == [{"ring": 0}, {"handle": 0}] or sent[2:] == [{"handle": 0}, {"ring": 0}]


def test_outline_landmarks_and_axes_are_converted_and_cut() -> None:
    names = {"<b>S</b>": (0, 1), "ש" * 10_000: (1.0, 0.5)}
    cloud = Cloud(PLACES, axes=("x (m)", "y" * 200), outline=[[[0, 0], [1, 1]], [[2, 2]]], landmarks=names)
    line = np.frombuffer(cloud._outline, "<f4").reshape(-1, 2)
    np.testing.assert_array_equal(line, [[0, 0], [1, 1], [np.nan] * 2, [2, 2], [np.nan] * 2])
    assert cloud._landmarks[0] == ["<b>S</b>", 0.0, 1.0]
    assert len(cloud._landmarks[1][0]) == 24
    assert cloud._axes == ["x (m)", "y" * 79 + "…"]
    cloud.close()


def test_a_refused_change_keeps_the_cloud(cloud: Cloud, sent: list[dict[str, int]]) -> None:
    with pytest.raises(ValueError, match="keep their 21 rows, got 20"):
        cloud.move(PLACES[1:])
    with pytest.raises(ValueError, match=r"rows must be row numbers in 0\.\.20, got -1"):
        cloud.select([-1])
    with pytest.raises(ValueError, match="written #rrggbb"):
        cloud.recolor(np.zeros(N, np.uint8), ["#ffffff"], {"a": "white"})
    with pytest.raises(Exception, match="cursor must be row numbers"):
        cloud.cursor = [99]
    assert sent == []
    assert (cloud.cursor, cloud.palette, len(cloud.selection)) == ([], RED_BLUE, 0)


def test_a_cloud_can_be_closed_twice(cloud: Cloud) -> None:
    cloud.close()
    cloud.close()
    assert cloud.comm is None


def test_text_is_never_set_as_html() -> None:
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert way not in Cloud._esm


def test_a_cloud_of_latents_has_the_rows_of_the_table(rrxor: list[AnnData]) -> None:
    latents = rrxor[0]
    places = np.asarray(latents.X[:, :2])
    heard: list[Any] = []
    cloud = latent_cloud(latents, places, on_click=heard.append, title="<b>")
    np.testing.assert_array_equal(cloud.positions, places)
    row = 11
    (code,) = cloud.codes[[row]]
    state = latents.obs["state"].iloc[row]
    assert dict(cloud._key)[state] == cloud.palette[code]
    read = latents.obs["position"].iloc[row]
    assert callable(cloud._labels)
    first, second, third = cloud._labels(row).splitlines()
    assert len(first.split()) == 1 + min(read, 25)
    assert second == f"episode {latents.obs['episode'].iloc[row]}, position {read}"
    assert third == f"true state {state}"
    cloud.close()


def test_every_column_can_be_a_colour(rrxor: list[AnnData]) -> None:
    latents = rrxor[0]
    cloud = latent_cloud(latents, np.asarray(latents.X[:, :2]))
    for name in color_options(latents).values():
        result = paint(latents, name)
        cloud.recolor(**result)
        assert set(result["key"].values()) <= set(result["palette"]) or name == "belief"
    ends = paint(latents, "position")["key"]
    assert list(ends) == ["position 1", "8"]
    assert len(set(ends.values())) == 2
    cloud.close()


def test_names_of_states_stay_text_in_the_key(rrxor: list[AnnData]) -> None:
    latents = rrxor[0].copy()
    names = {state: f"<b>{state}</b> & $x$" for state in latents.obs["state"].cat.categories}
    latents.obs["state"] = latents.obs["state"].cat.rename_categories(names)
    assert set(paint(latents, "state")["key"]) == set(names.values())


def test_coordinates_of_a_sample_are_refused(rrxor: list[AnnData]) -> None:
    with pytest.raises(ValueError, match="one place for each of 320 rows, got 20"):
        latent_cloud(rrxor[0], np.zeros((20, 2)))


def test_long_names_are_cut_in_the_key_without_losing_any(rrxor: list[AnnData]) -> None:
    latents = rrxor[0].copy()
    states = latents.obs["state"].cat.categories
    latents.obs["state"] = latents.obs["state"].cat.rename_categories({name: "x" * 60 + name for name in states})
    colors = coloring(latents, "state")
    assert colors.key is not None
    assert all(len(name) <= 24 for name in colors.key["colorbar"]["ticktext"])
    key = paint(latents, "state")["key"]
    assert len(key) == len(states)
    assert all(len(name) < 30 for name in key)


def test_a_mask_selects_its_rows(cloud: Cloud) -> None:
    cloud.select(np.arange(N) > 18)
    assert cloud.selection.tolist() == [19, 20]
    with pytest.raises(ValueError, match=r"rows as a mask must have one entry per row, shape \(21,\), got \(3,\)"):
        cloud.select([False, False, True])
    with pytest.raises(ValueError, match="row numbers or a mask of booleans, got float64"):
        cloud.select([1.7])
    assert cloud.selection.tolist() == [19, 20]
