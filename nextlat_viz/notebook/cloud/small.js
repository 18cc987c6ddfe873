// Small clouds side by side, one for each model; a click on one chooses it.

const SIDE = 255; // places are bytes
const POINT = 1.6; // pixels

function render({model, el}) {
  const row = document.createElement("div");
  row.className = "nlv-small";
  row.setAttribute("role", "group");
  row.setAttribute("aria-label", "Models");
  el.append(row);
  const bytes = name => {
    const {buffer, byteOffset, byteLength} = model.get(name);
    return new Uint8Array(buffer, byteOffset, byteLength);
  };

  const paint = (canvas, places, codes, palette) => {
    const ratio = globalThis.devicePixelRatio || 1, {width, height} = canvas;
    const pen = canvas.getContext("2d"), size = POINT * ratio;
    const scale = (Math.min(width, height) - 4 * ratio) / SIDE;
    const left = (width - SIDE * scale) / 2, top = (height - SIDE * scale) / 2;
    pen.globalAlpha = 0.75;
    for (let i = 0; i < codes.length; i++) {
      const at = 3 * codes[i];
      pen.fillStyle = `rgb(${palette[at]}, ${palette[at + 1]}, ${palette[at + 2]})`;
      pen.fillRect(left + places[2 * i] * scale - size / 2, top + (SIDE - places[2 * i + 1]) * scale - size / 2, size, size);
    }
  };

  const draw = () => {
    const [places, codes, palette] = ["_places", "_codes", "_palette"].map(bytes), counts = model.get("counts");
    const focused = [...row.children].indexOf(document.activeElement);
    row.replaceChildren();
    let from = 0;
    model.get("names").forEach((name, i) => {
      const button = document.createElement("button"), label = document.createElement("span");
      button.type = "button";
      button.title = model.get("notes")[i];
      button.dataset.role = model.get("roles")[i];
      button.setAttribute("aria-pressed", button.dataset.role !== "");
      label.textContent = name;
      label.dir = "auto";
      const canvas = document.createElement("canvas"), ratio = globalThis.devicePixelRatio || 1;
      [canvas.width, canvas.height] = [72 * ratio, 40 * ratio];
      button.append(canvas, label);
      button.onclick = () => model.send({kind: "choose", model: i});
      // The notebook listens to these keys too.
      button.onkeydown = event => ["Enter", " "].includes(event.key) && event.stopPropagation();
      row.append(button);
      const to = from + counts[i];
      paint(canvas, places.subarray(2 * from, 2 * to), codes.subarray(from, to), palette);
      from = to;
    });
    row.children[focused]?.focus();
  };
  const traits = ["names", "notes", "roles", "counts", "_places", "_codes", "_palette"];
  let waiting = 0;
  const later = () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(draw);
  };
  traits.forEach(trait => model.on(`change:${trait}`, later));
  draw();
  return () => {
    cancelAnimationFrame(waiting);
    traits.forEach(trait => model.off(`change:${trait}`, later));
  };
}

export default {initialize: ({model}) => void listen(model), render};
