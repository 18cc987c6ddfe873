"""Loggers of a run: TensorBoard, CSV, or any other of Lightning."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nextlat_viz.errors import one_of, shown

LOGGERS = ("tensorboard", "csv")


def check_logger(logger: Any) -> None:
    """Raise an error for a value that is neither a logger nor the name of one.

    Examples
    --------
    >>> check_logger("wandb")
    Traceback (most recent call last):
    nextlat_viz.errors.UnknownNameError: unknown logger 'wandb'. Known: tensorboard, csv
    """
    if isinstance(logger, str):
        one_of("logger", logger, LOGGERS)
    elif logger is not None and not (callable(getattr(logger, "log_metrics", None)) and not isinstance(logger, type)):
        raise TypeError(
            f"logger must be 'tensorboard', 'csv', None or a logger of Lightning, such as WandbLogger(), got "
            f"{shown(logger)}"
        )


def start_logger(logger: Any, folder: Path, settings: Mapping[str, Any], history: Sequence[Mapping[str, float]]) -> Any:
    """Return a logger for a run in a folder; None for none.

    Parameters
    ----------
    logger : "tensorboard", "csv", None or a logger
        An object is used as it is, and gets the hyperparameters. TensorBoard is left out if it is not installed.
    settings : dict
        Hyperparameters.
    history : rows of metrics
        Those of the run before it was interrupted.
    """
    from lightning_fabric.loggers.csv_logs import CSVLogger
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger

    if logger == "tensorboard":
        try:
            return TensorBoardLogger(folder, name="tensorboard", version="")
        except ImportError:
            return None
    if logger == "csv":
        # The logger begins a new file: write the earlier rows again.
        shutil.rmtree(folder / "csv", ignore_errors=True)
        csv_logger = CSVLogger(folder, name="csv", version="", flush_logs_every_n_steps=1)
        for row in history:
            csv_logger.log_metrics(dict(row), int(row["step"]))
        return csv_logger
    if hasattr(logger, "log_hyperparams"):
        logger.log_hyperparams(dict(settings))
    return logger
