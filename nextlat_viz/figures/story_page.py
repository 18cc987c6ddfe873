"""Figures that change step by step, as one page that needs no kernel and no network."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go
import plotly.io

from nextlat_viz.figures.page import document
from nextlat_viz.plotting import CONFIG

_OWN_STYLE = """
.bar { display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; position: sticky; top: 0; z-index: 2;
  background: var(--paper); padding: .6rem 0; border-bottom: 1px solid var(--rule) }
.bar button { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--rule); border-radius: 6px;
  padding: .2rem .8rem; cursor: pointer } .bar input { flex: 1 1 14rem; accent-color: #dc267f }
.tokens { line-height: 2; margin: .8rem 0 }
.tokens button { font: .92rem ui-monospace, Menlo, Consolas, monospace; color: inherit; background: var(--card);
  border: 0; border-radius: 4px; margin: 1px; padding: .1rem .45rem; cursor: pointer; max-width: 100%;
  overflow-wrap: anywhere; unicode-bidi: isolate }
.tokens button[aria-current] { outline: 2px solid #dc267f } .tokens .ahead { opacity: .4 }
.tokens .given { font-style: italic }
.panels { display: flex; flex-wrap: wrap; gap: 1.2rem } .panels section { flex: 1 1 26rem; min-width: 0 }
.panels h2 { margin: 1rem 0 .2rem } td { overflow-wrap: anywhere; white-space: normal; unicode-bidi: isolate }
"""

# Text is set as text. What a step shows is looked up in the pool, where each part is kept once; plotly is given copies,
# because it writes into what it is given.
_SCRIPT = """
const get = id => document.getElementById(id), story = JSON.parse(get("story").textContent);
const pool = story.pool, last = story.steps.length - 1, copy = number => structuredClone(pool[number]);
const tokens = [...document.querySelectorAll(".tokens button")], slider = get("position");
let at = -1, playing = null;
function show(step) {
  step = Math.min(Math.max(step, 0), last);
  if (step === at) return;
  at = step;
  slider.value = step + 1;
  get("said").textContent = `${step + 1} of ${last + 1}`;
  tokens.forEach((token, i) => {
    token.classList.toggle("ahead", i > step);
    i === step ? token.setAttribute("aria-current", "step") : token.removeAttribute("aria-current");
  });
  const {figures, facts} = story.steps[step];
  figures.forEach(({data, layout}, i) => Plotly.react(`figure-${i}`, data.map(copy), copy(layout), story.config));
  get("facts").replaceChildren(...facts.map(([name, value]) => {
    const row = document.createElement("tr"), head = document.createElement("th"), cell = document.createElement("td");
    head.textContent = name;
    cell.textContent = value;
    cell.dir = "auto";
    row.append(head, cell);
    return row;
  }));
}
function play() {
  if (playing) {
    clearInterval(playing);
    playing = null;
  } else {
    if (at === last) show(0);
    playing = setInterval(() => (at === last ? play() : show(at + 1)), 900);
  }
  get("play").textContent = playing ? "Pause" : "Play";
}
get("play").onclick = play;
get("back").onclick = () => show(at - 1);
get("on").onclick = () => show(at + 1);
slider.oninput = () => show(slider.value - 1);
tokens.forEach((token, i) => { token.onclick = () => show(i); });
show(Number(location.hash.slice(1)) - 1 || 0);
"""


@dataclass(frozen=True, eq=False)
class Step:
    """What is shown after one token.

    Attributes
    ----------
    token : str
        The token, in the strip of all of them.
    figures : {heading: plotly Figure}
        The same headings at every step.
    facts : {name: value}
        What is true then, in words.
    given : bool
        Whether the token is part of a prompt.
    """

    token: str
    figures: Mapping[str, go.Figure]
    facts: Mapping[str, str] = field(default_factory=dict)
    given: bool = False


def story_page(
    steps: Sequence[Step],
    title: str,
    note: str = "",
    provenance: Mapping[str, Any] | None = None,
    *,
    gallery: bool = False,
) -> str:
    """Write steps as one HTML page: a slider, play, the tokens to press, and the figures of the step.

    Parameters
    ----------
    steps : sequence of Step
    title, note : str
        A heading and a sentence below it.
    provenance : dict, optional
        What JSON can hold; shown folded at the end.
    gallery : bool
        Whether it is one of a gallery's pages, with ``plotly.min.js`` and ``index.html`` beside it.

    Returns
    -------
    str
        The page. The same steps give the same text. With ``#3`` behind its address it opens at the third step.

    Raises
    ------
    ValueError
        For no steps, or steps with different headings.

    Examples
    --------
    >>> page = story_page([Step("a", {"Picture": go.Figure()}), Step("<b>", {"Picture": go.Figure()})], "A & B")
    >>> "<h1>A &amp; B</h1>" in page, "&lt;b&gt;</button>" in page, 'src="' in page.split("</script>")[-1]
    (True, True, False)
    """
    if not steps:
        raise ValueError("steps is empty: there is nothing to step through")
    headings = list(steps[0].figures)
    for number, step in enumerate(steps):
        if list(step.figures) != headings:
            raise ValueError(f"every step must have the figures {headings}, step {number} has {list(step.figures)}")
    # As HTML reads it, "<" could end the script that holds the data.
    story = json.dumps(_packed(steps), separators=(",", ":")).replace("<", "\\u003c")
    tokens = "".join(
        f'<button type="button" dir="auto"{" class=given" if step.given else ""}>{html.escape(step.token)}</button>'
        for step in steps
    )
    panels = "".join(
        f'<section><h2>{html.escape(heading)}</h2><figure id="figure-{i}"></figure></section>'
        for i, heading in enumerate(headings)
    )
    body = (
        f"{f'<p>{html.escape(note)}</p>' if note else ''}\n"
        '<div class="bar"><button type="button" id="play">Play</button>'
        '<button type="button" id="back" aria-label="One step back">‹</button>'
        '<button type="button" id="on" aria-label="One step on">›</button>'
        f'<input type="range" id="position" min="1" max="{len(steps)}" value="1" aria-label="Position">'
        '<span id="said" role="status" aria-live="polite"></span></div>\n'
        f'<div class="tokens">{tokens}</div><div class="panels">{panels}'
        '<section><h2>What is true now</h2><div class="wide"><table id="facts"></table></div></section></div>\n'
    )
    end = f'<script type="application/json" id="story">{story}</script><script>{_SCRIPT}</script>'
    return document(title, body, style=_OWN_STYLE, gallery=gallery, provenance=provenance or {}, end=end)


def _packed(steps: Sequence[Step]) -> dict[str, Any]:
    """The steps as numbers of parts, and the parts, each once: what stays on show all the time is most of a page."""
    pool: dict[str, int] = {}

    def number(part: Any) -> int:
        return pool.setdefault(json.dumps(part, sort_keys=True, separators=(",", ":")), len(pool))

    packed = []
    for step in steps:
        shown = [json.loads(plotly.io.to_json(figure, validate=False)) for figure in step.figures.values()]
        figures = [{"data": [number(one) for one in part["data"]], "layout": number(part["layout"])} for part in shown]
        packed.append({"figures": figures, "facts": [[name, value] for name, value in step.facts.items()]})
    return {"pool": [json.loads(text) for text in pool], "steps": packed, "config": CONFIG}
