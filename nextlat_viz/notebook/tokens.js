// Clickable tokens of an episode in reading order. Arrow keys move the cursor while the focus is in the studio, unless
// the focused element uses them; otherwise JupyterLab would fold headings. A strip that does not lead the cursor sends
// clicks as messages.
const TAKES_KEYS = "input, select, textarea, [contenteditable=true], [role=slider], [role=listbox]";

// Pixels around an output in a notebook.
const EDGES = 20;

function render({model, el}) {
  const line = document.createElement("div");
  line.className = "nlv-tokens";
  line.setAttribute("role", "group");
  line.setAttribute("aria-label", model.get("leads") ? "Tokens of the episode" : "Tokens to change");
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
    [...line.children].forEach((button, i) => {
      button.classList.toggle("nlv-unread", model.get("leads") && places[i] > at);
      button.classList.toggle("nlv-illegal", places[i] > model.get("last"));
      button.classList.toggle("nlv-selected", chosen.has(places[i]));
      if (places[i] === at) button.setAttribute("aria-current", "step"); else button.removeAttribute("aria-current");
    });
    reveal();
  };
  // Scroll only the line: scrollIntoView would also scroll the page.
  const reveal = () => {
    const now = line.querySelector("[aria-current]");
    if (now) line.scrollTop = Math.max(0, now.offsetTop - line.offsetTop - line.clientHeight / 2);
  };
  const resized = new ResizeObserver(reveal);
  resized.observe(line);
  const draw = () => {
    const places = model.get("places"), notes = model.get("notes");
    line.replaceChildren(...model.get("tokens").map((token, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.tabIndex = -1;
      button.dir = "auto";
      button.textContent = token;
      button.title = `position ${places[i]}: ${notes[i]}`;
      button.addEventListener("click", () => model.get("leads") ? go(places[i]) : model.send({kind: "click", place: places[i]}));
      return button;
    }));
    mark();
  };
  const retitle = () => [...line.children].forEach((button, i) => {
    button.title = `position ${model.get("places")[i]}: ${model.get("notes")[i]}`;
  });
  model.on("change:tokens", draw);
  model.on("change:places", draw);
  model.on("change:position", mark);
  model.on("change:selected", mark);
  model.on("change:last", mark);
  model.on("change:notes", retitle);
  draw();

  const pressed = event => {
    const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!step || event.altKey || event.ctrlKey || event.metaKey || event.target.closest(TAKES_KEYS)) return;
    event.preventDefault();
    event.stopPropagation();
    const places = model.get("places");
    go(places[places.indexOf(model.get("position")) + step]);
  };
  // Make the studio as high as the visible part of the page: a notebook, a tab of JupyterLab, or the window.
  const measure = () => {
    const frame = studio?.closest(".jp-WindowedPanel-outer, .jp-NotebookPanel-notebook, .jp-LinkedOutputView");
    studio?.style.setProperty("--nlv-room", `${(frame?.clientHeight || innerHeight) - EDGES}px`);
    // ipywidgets gives these buttons no tooltips.
    const titles = ["Play or pause", "Stop, and go back to the first position"];
    studio?.querySelectorAll(".widget-play button").forEach((button, i) => (button.title = titles[i]));
  };
  const sized = new ResizeObserver(measure);
  let studio = null, gone = false;
  const settle = () => {
    if (!model.get("leads")) return;
    studio = el.closest(".nlv-studio");
    if (studio) {
      sized.observe(studio.closest(".jp-WindowedPanel-outer, .jp-NotebookPanel-notebook, .jp-LinkedOutputView") ?? document.documentElement);
      studio.tabIndex = 0;
      studio.dataset.lmSuppressShortcuts = "true";
      studio.addEventListener("keydown", pressed);
    } else if (!gone) requestAnimationFrame(settle);
  };
  settle();
  return () => {
    gone = true;
    sized.disconnect();
    resized.disconnect();
    studio?.removeEventListener("keydown", pressed);
    model.off("change:tokens", draw);
    model.off("change:places", draw);
    model.off("change:position", mark);
    model.off("change:selected", mark);
    model.off("change:last", mark);
    model.off("change:notes", retitle);
  };
}

export default {initialize: ({model}) => void listen(model), render};
