"""The tokens of an episode in reading order, to click, and the arrow keys of whoever looks at the studio."""

from __future__ import annotations

import anywidget
from traitlets import Int, List, Unicode

_LONGEST = 24

# Arrow keys step wherever the studio has the focus, unless what has it takes arrows itself. JupyterLab would fold
# headings with them.
_ESM = """
const TAKES_KEYS = "input, select, textarea, [contenteditable=true], [role=slider], [role=listbox]";

function render({model, el}) {
  const line = document.createElement("div");
  line.className = "nlv-tokens";
  line.setAttribute("role", "group");
  line.setAttribute("aria-label", "Tokens of the episode");
  el.append(line);

  const go = place => {
    const places = model.get("places");
    if (places.length && place !== undefined) {
      model.set("position", Math.min(Math.max(place, places[0]), places.at(-1)));
      model.save_changes();
    }
  };
  const mark = () => {
    const places = model.get("places"), at = model.get("position"), chosen = new Set(model.get("selected"));
    [...line.children].forEach((one, i) => {
      one.classList.toggle("nlv-unread", places[i] > at);
      one.classList.toggle("nlv-selected", chosen.has(places[i]));
      if (places[i] === at) one.setAttribute("aria-current", "step"); else one.removeAttribute("aria-current");
    });
    const now = line.querySelector("[aria-current]");
    // Only within the line: scrollIntoView would move the page too.
    if (now) line.scrollTop = Math.max(0, now.offsetTop - line.offsetTop - line.clientHeight / 2);
  };
  const draw = () => {
    const places = model.get("places"), notes = model.get("notes");
    line.replaceChildren(...model.get("tokens").map((token, i) => {
      const one = document.createElement("button");
      one.type = "button";
      one.tabIndex = -1;
      one.dir = "auto";
      one.textContent = token;
      one.title = `position ${places[i]}: ${notes[i]}`;
      one.addEventListener("click", () => go(places[i]));
      return one;
    }));
    mark();
  };
  model.on("change:tokens", draw);
  model.on("change:places", draw);
  model.on("change:position", mark);
  model.on("change:selected", mark);
  draw();

  const pressed = event => {
    const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!step || event.altKey || event.ctrlKey || event.metaKey || event.target.closest(TAKES_KEYS)) return;
    event.preventDefault();
    event.stopPropagation();
    const places = model.get("places");
    go(places[places.indexOf(model.get("position")) + step]);
  };
  let studio = null, gone = false;
  const settle = () => {
    studio = el.closest(".nlv-studio");
    if (studio) {
      studio.tabIndex = 0;
      studio.dataset.lmSuppressShortcuts = "true";
      studio.addEventListener("keydown", pressed);
    } else if (!gone) requestAnimationFrame(settle);
  };
  settle();
  return () => {
    gone = true;
    studio?.removeEventListener("keydown", pressed);
    model.off("change:tokens", draw);
    model.off("change:places", draw);
    model.off("change:position", mark);
    model.off("change:selected", mark);
  };
}

export default {render};
"""

# The grid is as wide as its cell, whatever that is: a notebook beside a file browser, or a whole screen.
_CSS = """
.nlv-studio { container-type: inline-size; }
.nlv-studio:focus { outline: none; }
.nlv-studio:focus-visible { outline: 2px solid #0072B2; outline-offset: -2px; }
.nlv-studio .widget-inline-hbox .widget-readout { min-width: 2.5em; }
.nlv-grid {
  display: grid !important; gap: 10px; margin: 6px 0; align-items: start; grid-template-columns: minmax(0, 1fr);
}
.nlv-card {
  min-width: 0; padding: 4px 10px 8px; border-radius: 8px;
  border: 1px solid var(--jp-border-color2, rgba(128, 128, 128, 0.35));
}
.nlv-head { align-items: center; min-height: 32px; }
.jupyter-button.nlv-fold {
  background: none !important; box-shadow: none !important; color: inherit; padding: 0; height: auto; width: auto;
  flex: 1 1 auto; text-align: left; font-size: 15px; font-weight: 600; white-space: normal; line-height: 1.4;
  overflow: visible;
}
.nlv-words { padding: 2px 0 6px; line-height: 1.45; overflow-wrap: anywhere; }
.nlv-words .widget-html-content { white-space: normal; line-height: 1.45; }
/* What is done at once needs no word. */
.nlv-busy { visibility: hidden; animation: nlv-appear 0s linear 0.4s forwards; font-size: 12px; opacity: 0.8; }
@keyframes nlv-appear { to { visibility: visible; } }
.nlv-tokens {
  display: flex; flex-wrap: wrap; gap: 3px; max-height: 6.6em; overflow-y: auto; padding: 2px; line-height: 1.5;
}
.nlv-tokens button {
  font: inherit; font-family: ui-monospace, Menlo, Consolas, monospace; font-size: 13px; color: inherit;
  background: rgba(128, 128, 128, 0.2); border: 0; border-radius: 4px; min-width: 1.8em; padding: 1px 5px;
  max-width: 14em; overflow: hidden; text-overflow: ellipsis; white-space: pre; unicode-bidi: isolate; cursor: pointer;
}
.nlv-tokens button.nlv-unread { opacity: 0.45; background: rgba(128, 128, 128, 0.08); }
.nlv-tokens button.nlv-selected { box-shadow: inset 0 -3px 0 #E69F00; }
.nlv-tokens button[aria-current] { outline: 2px solid #DC267F; outline-offset: -1px; font-weight: 700; }
.nlv-list select { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: 12px; }
@container (min-width: 640px) {
  .nlv-grid {
    grid-template-columns: repeat(2, minmax(0, 1fr)); grid-template-rows: auto auto auto 1fr;
    grid-template-areas: "world next" "space space" "ahead knows" "ahead pairs" "what_if what_if";
  }
  AREAS
}
@container (min-width: 1240px) {
  .nlv-grid {
    grid-template-columns: repeat(3, minmax(0, 1fr)); grid-template-rows: auto 1fr;
    grid-template-areas: "world space space" "next space space" "ahead knows pairs" "what_if what_if what_if";
  }
}
"""
NAMES = ("world", "space", "next", "ahead", "knows", "pairs", "what_if")
_AREAS = " ".join(f".nlv-card-{name} {{ grid-area: {name}; }}" for name in NAMES)


def clipped(text: str, most: int = _LONGEST) -> str:
    """Text short enough to show, on one line.

    Examples
    --------
    >>> clipped("never" * 10, 8)
    'neverne…'
    """
    line = "".join(letter if letter.isprintable() else " " for letter in text[: most + 1])
    return line if len(text) <= most else f"{line[: most - 1]}…"


class Strip(anywidget.AnyWidget):
    """Tokens side by side: those read, the one read last, those to come. A click on one goes there.

    Attributes
    ----------
    tokens, notes : list of str
        What is shown of each token, and when it is pointed at; always as text.
    places : list of int
        Their positions, ascending.
    position : int
        Where the cursor is.
    selected : list of int
        Positions that are selected.
    """

    _esm = _ESM
    _css = _CSS.replace("AREAS", _AREAS)
    tokens = List(Unicode()).tag(sync=True)
    notes = List(Unicode()).tag(sync=True)
    places = List(Int()).tag(sync=True)
    position = Int(1).tag(sync=True)
    selected = List(Int()).tag(sync=True)
