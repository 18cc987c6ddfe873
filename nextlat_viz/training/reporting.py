"""What a run shows and says of itself: the bar, TensorBoard, the curve's file, versions."""

from __future__ import annotations

import csv
import io
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("nextlat-viz", "torch", "lightning-fabric", "numpy", "safetensors")


class Reporter:
    """Progress bar and TensorBoard of a run, for the process that is to show them; close it at the end."""

    def __init__(self, folder: Path, label: str, steps: int, done: int, *, bar: bool, board: bool) -> None:
        from tqdm.auto import tqdm

        self.board = _tensorboard(folder) if board else None
        self.bar = tqdm(total=steps, initial=done, disable=not bar, desc=label, unit="step", leave=True)

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *problem: object) -> None:
        self.bar.close()
        if self.board is not None:
            self.board.close()

    def step(self) -> None:
        self.bar.update()

    def row(self, row: dict[str, float]) -> None:
        """Show one row of metrics."""
        beside = "floor" if "floor" in row else "unigram"
        self.bar.set_postfix({"loss": f"{row['loss']:.4f}", beside: f"{row[beside]:.4f}"})
        if self.board is not None:
            for name, value in row.items():
                self.board.add_scalar(name, value, int(row["step"]))


def csv_bytes(rows: list[dict[str, float]]) -> bytes:
    """Rows as a CSV file.

    Examples
    --------
    >>> csv_bytes([{"step": 1.0, "loss": 0.5}]).splitlines()
    [b'step,loss', b'1.0,0.5']
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def versions() -> dict[str, str]:
    """Versions of Python and of what a run's numbers depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _tensorboard(folder: Path) -> Any:
    """A TensorBoard writer, or None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder / "tensorboard")
