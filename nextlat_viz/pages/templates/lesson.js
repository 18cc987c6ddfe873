// Without this script, the page shows all steps one below the other. With it, the rail shows the text of one step, and
// the figure is below. A step with a question shows them after an answer is chosen.
const get = id => document.getElementById(id), story = JSON.parse(get("story").textContent);
const copy = number => structuredClone(story.pool[number]), last = story.steps.length - 1;
const steps = [...document.querySelectorAll(".step")], says = get("says"), predicted = {};
let current = 0;
const parts = steps.map(step => ({
  look: step.querySelector(".look"), ask: step.querySelector(".ask"), shown: step.querySelector(".shown"),
}));
function draw(step) {
  const place = steps[step].querySelector("figure"), config = {...story.config[step], responsive: true};
  story.steps[step].figures.forEach(({data, layout}) => Plotly.react(place, data.map(copy), copy(layout), config));
}
function show(step) {
  current = Math.min(Math.max(step, 0), last);
  const {look, ask, shown} = parts[current], asking = ask && !(current in predicted);
  steps.forEach((section, i) => { section.hidden = i !== current; });
  shown.hidden = Boolean(asking);
  if (asking) {
    says.replaceChildren(ask);
  } else {
    const outcome = document.createElement("p"), bold = document.createElement("b");
    if (ask) {
      const answer = ask.dataset.answer;
      bold.textContent = predicted[current] === answer ? "Right. " : `Not so: ${answer}. `;
      outcome.append(bold);
    }
    outcome.append(look.textContent);
    says.replaceChildren(outcome);
    draw(current);
  }
  get("count").textContent = `step ${current + 1} of ${last + 1}`;
  get("back").disabled = current === 0;
  get("next").disabled = Boolean(asking) || current === last;
}
parts.forEach(({look, ask}, i) => {
  look.hidden = true;
  ask?.querySelectorAll("button").forEach(button => {
    button.onclick = () => { predicted[i] = button.textContent; show(i); };
  });
});
get("back").onclick = () => show(current - 1);
get("next").onclick = () => show(current + 1);
get("rail").hidden = false;
show(0);
