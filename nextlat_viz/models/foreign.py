"""What holds for every model of Hugging Face: the package it needs, and that no code comes with its weights."""

from __future__ import annotations

import importlib
from typing import Any


def require_transformers() -> Any:
    """The package transformers."""
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        if error.name != "transformers":
            raise
        raise ImportError(
            'Hugging Face models need the package transformers: pip install "nextlat-viz[hf]"', name="transformers"
        ) from None


def refuse_code(config: dict[str, Any], name: str) -> None:
    """Raise ValueError where a model's config asks for code of its own."""
    if config.get("auto_map"):
        files = ", ".join(sorted({str(one) for one in config["auto_map"].values()}))
        raise ValueError(
            f"{name} is refused: its config asks for code of its own to be run (auto_map: {files}), and nothing here "
            "runs code that comes with weights. Use a model whose class transformers has itself"
        )
