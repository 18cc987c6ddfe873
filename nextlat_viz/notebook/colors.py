"""Colours of the rows: by a column of the table, or by each model's loss, entropy or probe error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from nextlat_viz.analysis.differences import next_token_scores
from nextlat_viz.figures.rows import Coloring, color_options, own_colorings
from nextlat_viz.latents.table import PROBS, column
from nextlat_viz.notebook.scene import Scene

ERROR = "model:error"
SCORES = {"model:surprise": "surprise", "model:entropy": "entropy"}
_TITLES = {
    "model:surprise": "loss (surprise at the next token), bits",
    "model:entropy": "entropy of the prediction, bits",
    ERROR: "error of the probe",
}
# Short titles, above the colour scale.
_SHORT = {"model:surprise": "loss, bits", "model:entropy": "entropy, bits", ERROR: "probe error"}


def options(scene: Scene) -> dict[str, str]:
    """Return the choices of colour: {label: name}, columns first.

    The loss and the entropy need next-token probabilities in the tables of all models.
    """
    own = [ERROR] if scene.targets else []
    if all(PROBS in latents.obsm for latents in scene.latents) and not scene.recursive:
        own = [*SCORES, *own]
    return color_options(scene.latents[0]) | {_TITLES[name]: name for name in own}


def color_name(color: str) -> str:
    """Return a choice of colour in words."""
    return _TITLES.get(color, color)


def default(scene: Scene) -> str:
    """Return the first column that can colour the rows: a state of the world rather than a column of the text."""
    known = list(color_options(scene.latents[0]).values())
    return next((name for name in [*scene.columns, *known] if name in known), ERROR)


def shared(scene: Scene, color: str) -> str:
    """Return a colour that is the same for all models and training steps: the chosen column, or else the default."""
    return default(scene) if color in _TITLES else color


def model_coloring(scene: Scene, color: str, model: int, pair: Sequence[int], target: str, site: str) -> str | Coloring:
    """Return what colours a model's rows: the name of a column, or numbers computed from the model.

    Numbers of all models share one scale, that of the compared `pair`. Rows coloured by probe errors are grey until the
    probe is fitted.
    """
    if color not in _TITLES:
        return color
    known = [_numbers(scene, color, other, target, site) for other in (model, *pair)]
    key = ("coloring", color, model, tuple(pair), target, site, *(numbers is not None for numbers in known))

    def compute() -> Coloring:
        missing = np.full(scene.latents[0].n_obs, np.nan)
        own, *others = (missing if numbers is None else numbers for numbers in known)
        return own_colorings(_SHORT[color], [own], others)[0]

    return scene.results.get(key, compute)


def _numbers(scene: Scene, color: str, model: int, target: str, site: str) -> Float[np.ndarray, " rows"] | None:
    """Return a model's numbers, or None for errors of a probe that is not fitted yet."""
    if color == ERROR:
        fitted = scene.results.peek(("probe", model, target, site)) is not None
        return scene.mistakes(model, target, site) if fitted else None
    scores = scene.results.get(("scores", model), lambda: next_token_scores(scene.latents[model]))
    # The models are not trained to predict a prompt.
    trained = column(scene.latents[model], "position") >= scene.prompt
    return np.where(trained, scores[SCORES[color]].to_numpy(), np.nan)
