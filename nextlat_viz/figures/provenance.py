"""Provenance of a figure: stored in the figure, in a JSON file next to its file, and written as its caption."""

from __future__ import annotations

import contextlib
import html
import json
import platform
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from nextlat_viz import io
from nextlat_viz.display import counted, shorten
from nextlat_viz.figures.probes import METRICS, rounded

if TYPE_CHECKING:
    from anndata import AnnData

    from nextlat_viz.analysis import ProbeResult

_CONTROLS = {"untrained": "untrained model", "shuffled": "shuffled labels", "chance": "most frequent class"}
_LONGEST = 200
_LIBRARIES = ("nextlat-viz", "plotly", "kaleido", "numpy", "anndata", "scikit-learn", "umap-learn", "torch")


def provenance_of(*latents: AnnData) -> dict[str, Any]:
    """Return the provenance of latents: checkpoints, hashes of their weights, hashes of the episodes."""
    from nextlat_viz.latents import metas

    models = []
    for model in (model for table in latents for model in metas(table).values()):
        card = json.loads(model["card"]) if model.get("card") else {}
        about = {name: model[name] for name in ("name", "label", "step", "weights_sha256", "episodes_sha256")}
        about |= {name: card[name] for name in ("objective", "seed") if name in card}
        models.append(about | {"world": json.loads(model["world"])})
    return {"models": models}


def provenance_record(name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a figure's file: its name, parameters, versions of the libraries, and the time."""
    versions = {"python": platform.python_version()}
    for library in _LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            versions[library] = version(library)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return {"figure": name, "parameters": io.plain(parameters), "versions": versions, "created": created}


def provenance_text(name: str, parameters: Mapping[str, Any]) -> str:
    """Return `provenance_record` as the text of a JSON file."""
    return json.dumps(provenance_record(name, parameters), indent=2, allow_nan=False) + "\n"


def provenance_in(figure: go.Figure) -> dict[str, Any]:
    """Return the facts and caption stored in a figure of a studio, or in one composed of such figures."""
    own = figure.layout.meta if isinstance(figure.layout.meta, dict) else {}
    if not own.get("about"):
        return {}
    parts = own["about"] if isinstance(own["about"], list) else [own["about"]]
    return {"caption": figure_caption(figure), "inches": own.get("inches"), "parts": parts}


def with_provenance(
    figure: go.Figure,
    title: str,
    view: str,
    latents: Sequence[AnnData],
    probes: Sequence[ProbeResult] = (),
    **more: Any,
) -> go.Figure:
    """Store in a figure the facts for `figure_caption` and for the record of its file; return the figure.

    `title` is its question, `view` says what is drawn, `probes` are those whose predictions it shows; `more` goes to
    the record.
    """
    fields = (
        "label", "name", "target", "site", "metric", "score", "interval", "shuffled", "untrained", "chance", "step",
    )  # fmt: skip
    facts = {
        "title": title, "view": view, "rows": latents[0].n_obs, "episodes": int(latents[0].obs["episode"].nunique()),
        **provenance_of(*latents),
        "probes": [
            {name: getattr(probe, name) for name in fields} | {"held-out episodes": int(probe.test_episodes.size)}
            for probe in probes
        ],
        **more,
    }  # fmt: skip
    figure.layout.meta = {**(figure.layout.meta or {}), "about": json.loads(json.dumps(facts, default=str))}
    return figure


def figure_caption(figure: go.Figure) -> str:
    """Write the caption of a figure of a studio, or of one composed of such figures.

    It names each part, the models with their objective, seed and training steps, and the rows and episodes. For
    probes it gives the held-out score, its 95 % bootstrap interval over episodes, and the controls. Every number comes
    from the results drawn in the figure. Empty for a figure without stored facts.

    Parameters
    ----------
    figure : plotly Figure
        Of ``studio.figure(panel)``, or `compose` of several.

    Returns
    -------
    str

    Examples
    --------
    >>> figure_caption(go.Figure())
    ''
    """
    own = figure.layout.meta if isinstance(figure.layout.meta, dict) else {}
    about = own.get("about")
    parts = [(f"({letter})", part) for letter, part in zip(ascii_lowercase, about, strict=False)] if isinstance(
        about, list
    ) else [("", about)]  # fmt: skip
    parts = [(letter, part) for letter, part in parts if part]
    if not parts:
        return ""
    sentences = [
        f"{letter} {part['title']} {_sentence(part['view'])}".strip() if part["view"] else f"{letter} {part['title']}"
        for letter, part in parts
    ]
    return " ".join([*sentences, *_shared(parts, _models), *_shared(parts, _rows), *_shared(parts, _probes)])


def _shared(parts: Sequence[tuple[str, dict[str, Any]]], write: Any) -> list[str]:
    """Write the sentence of each part; parts with the same sentence share it, with their letters unless all do."""
    groups: dict[str, list[str]] = {}
    for letter, part in parts:
        if text := write(part):
            groups.setdefault(text, []).append(letter)
    every = len(groups) == 1 and len(next(iter(groups.values()))) == len(parts)
    return [text if every else f"{', '.join(letters)}: {text}" for text, letters in groups.items()]


def _models(part: dict[str, Any]) -> str:
    models = part["models"]
    described = []
    for model in models:
        details = [f"seed {model['seed']}"] * (model.get("seed") is not None)
        if model.get("step") is not None:
            details.append(f"{model['step']:,} training steps")
        described.append(f"{_short(model['label'])} ({', '.join(details)})" if details else _short(model["label"]))
    world = _short(models[0]["world"]["name"])
    return f"Models trained on {world}: {', '.join(described)}."


def _rows(part: dict[str, Any]) -> str:
    return f"n = {part['rows']:,} hidden states of {counted(part['episodes'], 'episode')}."


def _probes(part: dict[str, Any]) -> str:
    scores: dict[tuple[str, str, str, int], list[str]] = {}
    for probe in part["probes"]:
        low, high = probe["interval"]
        known = {name: probe[field] for field, name in _CONTROLS.items() if probe[field] is not None}
        controls = [f"{name} {rounded(value, 3)}" for name, value in known.items()]
        score = f"{rounded(probe['score'], 3)} [{rounded(low, 3)}, {rounded(high, 3)}]"
        about = probe["target"], probe["site"], probe["metric"], probe["held-out episodes"]
        scores.setdefault(about, []).append(f"{_short(probe['label'])} {score}; controls: {', '.join(controls)}")
    texts = []
    for (target, site, metric, episodes), described in scores.items():
        of = f"Linear probe of {_short(target)} from {'the hidden state' if site == 'hidden' else _short(site)}"
        interval = f"held-out {METRICS[metric]} [95 % bootstrap interval over {counted(episodes, 'held-out episode')}]"
        texts.append(f"{of}, {interval}: {'. '.join(described)}.")
    return " ".join(texts)


def _short(text: object) -> str:
    return shorten(text, _LONGEST)


def _sentence(text: str) -> str:
    """Return a text without HTML, with a capital letter and a full stop."""
    plain = html.unescape(re.sub(r"<[^>]*>", " ", text)).strip()
    return plain[:1].upper() + plain[1:] + ("" if plain.endswith((".", "?")) else ".")
