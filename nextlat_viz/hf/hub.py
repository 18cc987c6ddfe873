"""Checkpoints on the Hugging Face Hub: publish one with its card, and load one by its name."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from nextlat_viz.display import shorten
from nextlat_viz.errors import CheckpointError, optional, shown
from nextlat_viz.models import OBJECTIVES
from nextlat_viz.paths import cache_dir
from nextlat_viz.training.card import CARD, FORMAT, Card, read_card
from nextlat_viz.training.checkpoint import METRICS, TOKENIZER, WEIGHTS, Checkpoint, load, read_folder, read_weights
from nextlat_viz.training.resume import snapshot_path
from nextlat_viz.training.trained import HF_PREFIX

_NAME = re.compile(r"[A-Za-z0-9][\w-]*(\.[\w-]+)*/[A-Za-z0-9][\w-]*(\.[\w-]+)*", re.ASCII)
_SECONDS = 20.0  # to wait for the Hub's answer
# Most bytes: of a card, of a training curve, and of a file of weights in addition to 4 for each parameter.
_LARGEST_CARD, _LARGEST_TEXT, _HEADER = 1 << 20, 1 << 26, 1 << 20


def is_name(text: str) -> bool:
    """Tell whether a text can be the name of a model on the Hub with its owner, ``user/name``.

    Examples
    --------
    >>> is_name("ada/rrxor-nextlat"), is_name("../../x"), is_name("gpt2")
    (True, False, False)
    """
    return bool(_NAME.fullmatch(text)) and len(text) <= 96 and not text.endswith(".git")


def push(checkpoint: Checkpoint | str, name: str, *, private: bool = True, token: str | None = None) -> str:
    """Publish a checkpoint on the Hugging Face Hub, with its card as the model card; ``load("hf:user/name")`` loads it.

    The weights, the snapshots, the training curve and both cards are one commit: all of them are published, or none.
    Files that the repository already has are replaced, and stay in its history.

    Parameters
    ----------
    checkpoint : Checkpoint, or its name
    name : str
        ``"user/name"``; the repository is made where there is none.
    private : bool
        Whether only you can read a new repository. One that exists stays as it is.
    token : str, optional
        Default the one of ``hf auth login``, or the environment variable ``HF_TOKEN``.

    Returns
    -------
    str
        The address of the commit.

    Raises
    ------
    ImportError
        huggingface_hub is not installed.
    ValueError
        `name` is not ``user/name``.
    CheckpointError
        The checkpoint is no finished run of `nextlat_viz.train`, its files do not match its card, the Hub cannot be
        reached, or it refuses.

    Examples
    --------
    >>> push("rrxor/nextlat", "../../x")
    Traceback (most recent call last):
    ValueError: name='../../x' is no name on the Hugging Face Hub: give 'user/name', of letters, digits, '-', '_' and...
    """
    if not isinstance(name, str) or not is_name(name.removeprefix(HF_PREFIX)):
        raise ValueError(
            f"name={shown(name)} is no name on the Hugging Face Hub: give 'user/name', of letters, digits, '-', '_' "
            "and single dots"
        )
    name = name.removeprefix(HF_PREFIX)
    model = load(checkpoint) if isinstance(checkpoint, (str, os.PathLike)) else checkpoint
    if not isinstance(model, Checkpoint) or model.step != model.card.steps:
        raise CheckpointError(
            f"{shown(checkpoint)} is no finished run: give a checkpoint of nlv.train at its last step, which is "
            "published with its snapshots of earlier steps. To publish a Hugging Face model, call its push_to_hub(); "
            "to publish a fine-tuned one, upload its folder, which has a model card: hf upload user/name FOLDER"
        )
    # Compares every file with the card once more, so that exactly what was trained is published.
    stored = read_folder(model.folder)
    if stored.weights_sha256 != model.weights_sha256:
        raise CheckpointError(f"{model.folder} holds another run by now: load the checkpoint again")
    hub = _require_hub()
    content: dict[str, Any] = {"README.md": model_card(stored.card, name).encode()}
    for step, digest in stored.card.snapshots.items():
        read_weights(snapshot_path(stored.folder, step), digest)
    for file in (*_weights(stored.card), METRICS, TOKENIZER, CARD):
        if (stored.folder / file).is_file():
            content[file] = stored.folder / file
    api = hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token, library_name="nextlat_viz")
    operations = [hub.CommitOperationAdd(file, source) for file, source in content.items()]
    try:
        api.create_repo(name, private=private, exist_ok=True)
        commit = api.create_commit(name, operations, commit_message=f"Publish {stored.name}")
    # The library's errors are of many types, and so are those of the network below it.
    except Exception as error:
        raise CheckpointError(f"{stored.name} was not published as {name}: {_reason(error)}") from error
    return str(commit.commit_url)


def download(name: str) -> Checkpoint | None:
    """Load a checkpoint of the Hub by its name, from safetensors and JSON alone, after comparing every hash.

    Only the card and the files it names are downloaded, to the project's cache folder. Without a connection the
    version that was downloaded last is loaded. Returns None for a repository without a checkpoint of this project, such
    as a language model. Raises CheckpointError for no such name, no permission, no connection, a file of an unexpected
    size, or a hash that does not match.
    """
    hub = _require_hub()
    api = hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="nextlat_viz")
    sizes: dict[str, int] = {}
    failure: Exception | None = None
    try:
        info = api.model_info(name, files_metadata=True, timeout=_SECONDS)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    except Exception as error:
        if _status(error) is not None:
            raise CheckpointError(f"hf:{name} cannot be loaded: {_reason(error)}") from error
        failure = error
    if failure is None and CARD not in sizes:
        return None

    def fetch(file: str, largest: int) -> Path:
        if failure is None and not 0 < sizes.get(file, 0) <= largest:
            size = f"has {sizes[file]:,} bytes, of at most {largest:,}" if file in sizes else "is missing"
            raise CheckpointError(f"hf:{name} is not a complete checkpoint: its {file} {size}")
        try:
            return Path(
                hub.hf_hub_download(
                    name,
                    file,
                    cache_dir=cache_dir() / "hub",
                    endpoint=os.environ.get("HF_ENDPOINT"),
                    library_name="nextlat_viz",
                    local_files_only=failure is not None,
                )
            )
        except Exception as error:
            raise CheckpointError(f"hf:{name} cannot be loaded: {_reason(failure or error)}") from error

    if failure is not None and isinstance(hub.try_to_load_from_cache(name, "config.json"), str):
        return None  # a language model that transformers has in its own cache
    folder = fetch(CARD, _LARGEST_CARD).parent
    if FORMAT.rpartition("/")[0].encode() not in (folder / CARD).read_bytes():
        return None
    files = [folder / CARD]
    try:
        card = read_card(folder, Card)
        for file in _weights(card):
            files.append(fetch(file, 4 * card.parameters + _HEADER))
        for file in (METRICS, TOKENIZER):
            if file in sizes or (failure is not None and (folder / file).exists()):
                files.append(fetch(file, _LARGEST_TEXT))
        return read_folder(folder)
    except CheckpointError as error:
        if "sha256" in str(error):
            # Every later call would find the damaged copy.
            for path in files:
                path.resolve().unlink(missing_ok=True)
                path.unlink(missing_ok=True)
        raise CheckpointError(f"hf:{name} is refused: {error}") from error


def model_card(card: Card, name: str) -> str:
    """Write the model card of the Hub: what the checkpoint is, its metrics, and how to load it and make it again.

    Examples
    --------
    >>> print(model_card(load("rrxor/nextlat").card, "ada/rrxor")[:60])
    ---
    library_name: nextlat_viz
    tags: ["nextlat_viz", "belief-
    """
    tags = ["nextlat_viz", "belief-states", card.objective, str(card.world.get("name", "world"))]
    label = OBJECTIVES[card.objective].label if card.objective in OBJECTIVES else card.objective
    rows = [f"| {cell_text(key)} | {value:.6g} |" for key, value in card.metrics.items()]
    facts = {
        "world": json.dumps(card.world),
        "objective": card.objective,
        "preset": card.preset,
        "seed": card.seed,
        "steps": f"{card.steps:,}",
        "parameters": f"{card.parameters:,}",
        "sha256 of the weights": card.weights_sha256,
        "versions": ", ".join(f"{package} {version}" for package, version in card.versions.items()),
    }
    return markdown_card(
        card.name,
        {"tags": tags},
        f"A transformer trained with the objective {label} on a world whose true state is known, by nextlat_viz. "
        "It reads that world's tokens, and no language.",
        f'checkpoint = nlv.load("hf:{name}")',
        {key: cell_text(str(value)) for key, value in facts.items()},
        "Losses are in nats per token; `floor` is the least that any model can reach.",
        ["| metric | value |", "|---|---|", *rows],
        f"The command that makes it again: `{cell_text(card.command)}`. All hyperparameters are in `{CARD}`.",
    )


def markdown_card(
    title: str,
    header: dict[str, Any],
    text: str,
    loading: str,
    facts: dict[str, str],
    units: str,
    metrics: list[str],
    ending: str,
) -> str:
    """Lay out a model card of the Hub: header, text, the line that loads the model, and tables of facts and metrics."""
    return "\n".join(
        [
            *("---", "library_name: nextlat_viz"),
            *(f"{key}: {json.dumps(value)}" for key, value in header.items()),
            *("---", f"# {cell_text(title)}", "", text, ""),
            *("```python", "import nextlat_viz as nlv", loading, "```", ""),
            *("| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in facts.items()), ""),
            *(units, "", *metrics, "", ending, ""),
        ]
    )


def _weights(card: Card) -> list[str]:
    """Return the paths of the files of weights in a run's folder."""
    return [WEIGHTS, *(snapshot_path(Path(), step).as_posix() for step in card.snapshots)]


def cell_text(text: str, most: int = 400) -> str:
    """Return a text that fits into a cell of a Markdown table."""
    return shorten(re.sub(r"[|`<>\n\r]", " ", text), most)


def _require_hub() -> Any:
    return optional(
        "huggingface_hub", 'the Hugging Face Hub needs the package huggingface_hub: pip install "nextlat-viz[hf]"'
    )


def _status(error: Exception) -> int | None:
    """Return the status of the Hub's answer; None if there was no answer."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _reason(error: Exception) -> str:
    """Say why the Hub gave no file, and what to do."""
    status = _status(error)
    if status in (401, 404):
        return (
            "the Hub has no model of this name that you may read. Check the name; where it is private, log in with "
            "`hf auth login` or set HF_TOKEN"
        )
    if status == 403:
        return "the Hub refuses: your token has no permission for this. Ask its owner, or use another token"
    if status is not None:
        return f"the Hub answered with status {status}. Try again later"
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"the Hugging Face Hub cannot be reached ({text}). Connect to the network, or give a folder you have"
