"""Loggers of metrics: TensorBoard, CSV, or a user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nextlat_viz.errors import UnknownNameError
from nextlat_viz.training import train

SMALL: dict[str, Any] = {
    "steps": 4,
    "validate_every": 2,
    "save_every": 2,
    "layers": 1,
    "batch_size": 4,
    "validation_episodes": 8,
    "progress": False,
}


class Fake:
    """The smallest logger that Lightning accepts."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.settings: dict[str, Any] = {}
        self.status = ""

    def log_hyperparams(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        self.rows.append((step, metrics))

    def finalize(self, status: str) -> None:
        self.status = status


def test_csv_has_every_validation_even_after_an_interruption(tmp_path: Path) -> None:
    def stop(row: dict[str, float]) -> None:
        if row["step"] == 4:
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        train("z1r", "next_token", out=tmp_path, logger="csv", on_validation=stop, **SMALL)
    checkpoint = train("z1r", "next_token", out=tmp_path, logger="csv", **SMALL)
    written = pd.read_csv(tmp_path / "csv" / "metrics.csv")
    assert written["step"].tolist() == [2, 4]
    pd.testing.assert_frame_equal(written[checkpoint.metrics.columns], checkpoint.metrics, check_dtype=False)
    assert not (tmp_path / "tensorboard").exists()


def test_tensorboard_is_the_default(tmp_path: Path) -> None:
    checkpoint = train("z1r", "next_token", out=tmp_path, **SMALL)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [2, 4]
    assert events.Scalars("loss")[-1].value == pytest.approx(checkpoint.metrics["loss"].iloc[-1])


def test_a_users_own_logger(tmp_path: Path) -> None:
    fake = Fake()
    checkpoint = train("z1r", "next_token", out=tmp_path, logger=fake, **SMALL)
    assert [step for step, _ in fake.rows] == [2, 4]
    assert fake.rows[-1][1]["loss"] == pytest.approx(checkpoint.metrics["loss"].iloc[-1])
    assert fake.settings["objective"] == "next_token"
    assert fake.status == "success"
    assert not (tmp_path / "tensorboard").exists()


def test_a_failure_finalises_the_logger(tmp_path: Path) -> None:
    fake = Fake()

    def stop(row: dict[str, float]) -> None:
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        train("z1r", "next_token", out=tmp_path, logger=fake, on_validation=stop, **SMALL)
    assert fake.status == "failed"


def test_no_logger_writes_no_log(tmp_path: Path) -> None:
    train("z1r", "next_token", out=tmp_path, logger=None, **SMALL)
    assert {path.name for path in tmp_path.iterdir()} == {"card.json", "metrics.csv", "model.safetensors"}


def test_objects_that_are_no_logger_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown logger 'wandb'"):
        train("z1r", "next_token", out=tmp_path / "run", logger="wandb", **SMALL)
    for wrong in (Fake, print, 3):
        with pytest.raises(TypeError, match="logger must be 'tensorboard', 'csv', None or a logger of Lightning"):
            train("z1r", "next_token", out=tmp_path / "run", logger=wrong, **SMALL)
    assert not (tmp_path / "run").exists()
