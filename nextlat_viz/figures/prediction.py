"""Next-token distributions of models beside the exact one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nextlat_viz.display import escape, shorten
from nextlat_viz.figures import theme as themes
from nextlat_viz.figures.bars import MOST_NAMES, bar_figure, bars, likeliest, model_bars, name_axis
from nextlat_viz.figures.theme import Theme
from nextlat_viz.plotting import Figure

if TYPE_CHECKING:
    from nextlat_viz.analysis.prediction import Prediction


def prediction_bars(predictions: Mapping[str, Prediction], *, most: int = MOST_NAMES, theme: Theme = "auto") -> Figure:
    """Draw next-token distributions as bars, the exact one first where it is known.

    Parameters
    ----------
    predictions : dict of label to Prediction
        One per model, at one place, over one vocabulary.
    most : int
        Of larger vocabularies the tokens to which some distribution gives 0.005 or more, the likeliest where they are
        still too many, in the order of their ids.
    theme : {"auto", "light", "dark"}

    Returns
    -------
    plotly Figure
        A trace per distribution, ``meta["role"]`` "exact" or "model". The heading gives each model's KL from the exact
        distribution, in nats.

    Raises
    ------
    ValueError
        No prediction, or predictions over several vocabularies or at several places.

    Examples
    --------
    >>> from nextlat_viz.analysis.prediction import Prediction
    >>> import numpy as np
    >>> p = Prediction(("0", "1"), np.array([0.5, 0.5]), np.array([0.25, 0.75]), "NextLat", 0, 3)
    >>> figure = prediction_bars({"NextLat": p})
    >>> [bar.name for bar in figure.data], figure.layout.annotations[0].text
    (['exact', 'NextLat'], '<b>Next token after position 3</b><br>KL from exact: NextLat 0.1308 nats')
    """
    if not predictions:
        raise ValueError("predictions is empty: give one per model")
    first = next(iter(predictions.values()))
    for prediction in predictions.values():
        place = (prediction.episode, prediction.position)
        if prediction.vocabulary != first.vocabulary or place != (first.episode, first.position):
            raise ValueError("predictions must be of one episode and position, over one vocabulary")
    exact = next((prediction.exact for prediction in predictions.values() if prediction.exact is not None), None)
    models = {label: prediction.model for label, prediction in predictions.items()}
    chosen = likeliest([*models.values(), *([] if exact is None else [exact])], most)
    traces = model_bars(models, first.vocabulary, chosen, "model")
    if exact is not None:
        traces.insert(0, bars("exact", exact, first.vocabulary, chosen, {"color": themes.EXACT}, "exact"))
    omitted = len(first.vocabulary) - chosen.size
    gaps = [
        f"{escape(shorten(label))} {prediction.kl:.4f} nats"
        for label, prediction in predictions.items()
        if prediction.kl is not None
    ]
    title = f"next token ({omitted} less likely omitted)" if omitted else "next token"
    return bar_figure(
        traces,
        name_axis([first.vocabulary[i] for i in chosen], title),
        {"title": {"text": "probability"}, "range": [0, 1.02]},
        f"Next token after position {first.position}",
        [f"KL from exact: {', '.join(gaps)}"] if gaps else [],
        theme,
    )
