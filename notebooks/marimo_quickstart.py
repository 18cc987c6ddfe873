# The quickstart for marimo: `pip install marimo`, then `marimo edit marimo_quickstart.py`.

import marimo

app = marimo.App(width="medium")


@app.cell
def _():
    import marimo as mo

    import nextlat_viz as nlv
    from nextlat_viz.figures import loss_curves
    from nextlat_viz.plotting import CATEGORICAL

    return CATEGORICAL, loss_curves, mo, nlv


@app.cell
def _(mo):
    mo.md("""
    # What does a transformer believe?

    A hidden Markov model writes letters. After each letter there is an exact belief about its hidden state. Here are
    the hidden states of a transformer that learned to predict the next letter: is the belief in them?
    """)
    return


@app.cell
def _(mo):
    objective = mo.ui.dropdown({"NextLat": "nextlat", "next token": "next_token"}, value="NextLat", label="objective")
    objective
    return (objective,)


@app.cell
def _(nlv, objective):
    checkpoint = nlv.load(f"mess3/{objective.value}")
    latents = nlv.extract(checkpoint, progress=False)
    belief = nlv.probe(latents, "belief")
    belief
    return belief, checkpoint, latents


@app.cell
def _(CATEGORICAL, belief, latents, nlv):
    # Each point is a position of an episode, where a linear probe reads the model's belief. Drag to select.
    readings = nlv.project(latents, "belief", probe=belief)
    tokens = latents.obs["token"].cat
    nlv.Cloud(
        readings.coordinates,
        tokens.codes.to_numpy()[readings.rows],
        key=dict(zip(tokens.categories, CATEGORICAL, strict=False)),
        title="Beliefs that the model's states hold, by the last token",
    )
    return


@app.cell
def _(checkpoint, loss_curves, mo):
    mo.ui.plotly(loss_curves({checkpoint.label: checkpoint.metrics}))
    return


if __name__ == "__main__":
    app.run()
