// The pool holds each part of the figures once; steps refer to parts by number. Plotly gets copies, because it writes
// into its arguments. Text is set with textContent, never as HTML.
const get = id => document.getElementById(id), story = JSON.parse(get("story").textContent);
const pool = story.pool, last = story.steps.length - 1, copy = number => structuredClone(pool[number]);
const tokens = [...document.querySelectorAll(".tokens button")], slider = get("position");
let current = -1, timer = null;
function show(step) {
  step = Math.min(Math.max(step, 0), last);
  if (step === current) return;
  current = step;
  slider.value = step + 1;
  get("status").textContent = `${step + 1} of ${last + 1}`;
  tokens.forEach((token, i) => {
    token.classList.toggle("ahead", i > step);
    i === step ? token.setAttribute("aria-current", "step") : token.removeAttribute("aria-current");
  });
  const {figures, facts} = story.steps[step];
  figures.forEach(({data, layout}, i) => Plotly.react(`figure-${i}`, data.map(copy), copy(layout), story.config[i]));
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
  if (timer) {
    clearInterval(timer);
    timer = null;
  } else {
    if (current === last) show(0);
    timer = setInterval(() => (current === last ? play() : show(current + 1)), 900);
  }
  get("play").textContent = timer ? "Pause" : "Play";
}
get("play").onclick = play;
get("back").onclick = () => show(current - 1);
get("forward").onclick = () => show(current + 1);
slider.oninput = () => show(slider.value - 1);
tokens.forEach((token, i) => { token.onclick = () => show(i); });
show((Number(location.hash.slice(1)) || story.start) - 1);
