// Marks over the points, drawn separately from them: axes, outline, the path to the cursor, the ring, and the handle.

const FAR = 44; // least distance in pixels between two numbers of an axis
const STEP = 0.02; // distance that an arrow key moves the handle, as a share of the cloud's extent
const LEAP = 5; // factor of that distance with shift
const AGED = 0.72; // factor of a path step's opacity with every later step
const FAINTEST = 0.15; // least opacity of a path step

// Return round numbers for an axis, far enough apart that their texts do not touch.
function ticks(from, to, most) {
  const raw = (to - from) / Math.max(most, 1), power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find(factor => factor * power >= raw * 0.999) * power;
  const first = Math.ceil(from / step), count = Math.floor(to / step) - first + 1;
  return Array.from({length: Math.min(Math.max(count, 0), 50)}, (_, i) => (first + i) * step);
}

const format = number => Number(number.toPrecision(6)).toLocaleString("en").replace("-", "−");

function drawOutline(view, pen) {
  const {outline} = view.cloud;
  pen.globalAlpha = 0.55;
  pen.lineWidth = view.ratio;
  pen.beginPath();
  for (let i = 0, first = true; i < outline.length; i += 2) {
    if (Number.isNaN(outline[i])) {
      first = true;
      continue;
    }
    pen[first ? "moveTo" : "lineTo"](...view.at(outline[i], outline[i + 1]));
    first = false;
  }
  pen.stroke();
}

// Draw each name a little outside of its place, away from the middle of all places; names in the middle go below it.
function drawLandmarks(view, pen) {
  const places = view.cloud.model.get("_landmarks"), {ratio} = view;
  const mean = axis => places.reduce((sum, place) => sum + place[axis], 0) / places.length;
  const middle = [mean(1), mean(2)];
  const far = Math.max(...places.map(([, x, y]) => Math.hypot(x - middle[0], y - middle[1])));
  pen.globalAlpha = 0.9;
  pen.font = `600 ${12 * ratio}px system-ui, sans-serif`;
  pen.textBaseline = "middle";
  for (const [name, x, y] of places) {
    const dx = x - middle[0], dy = y - middle[1], length = Math.hypot(dx, dy), inside = length <= 0.3 * far;
    const [px, py] = view.at(x, y), out = inside ? [0, 1] : [dx / length, -dy / length];
    pen.textAlign = Math.abs(out[0]) < 0.3 ? "center" : out[0] > 0 ? "left" : "right";
    pen.fillText(name, px + 9 * ratio * out[0], py + 13 * ratio * out[1]);
  }
}

function drawAxes(view, pen) {
  const titles = view.cloud.model.get("_axes"), {width, height} = view.over, {ratio} = view;
  if (!titles.length) return;
  const [left, top] = view.where(0, 0), [right, bottom] = view.where(width / ratio, height / ratio);
  pen.globalAlpha = 0.75;
  pen.lineWidth = ratio;
  pen.font = `${11 * ratio}px system-ui, sans-serif`;
  pen.beginPath();
  // Leave out numbers in the corner, where those of both axes would collide.
  const corner = 34 * ratio;
  pen.textAlign = "center";
  pen.textBaseline = "bottom";
  for (const x of ticks(left, right, width / ratio / (2 * FAR))) {
    const [px] = view.at(x, bottom);
    if (px < corner || px > width - 16 * ratio) continue;
    pen.moveTo(px, height);
    pen.lineTo(px, height - 4 * ratio);
    pen.fillText(format(x), px, height - 5 * ratio);
  }
  pen.textAlign = "left";
  pen.textBaseline = "middle";
  for (const y of ticks(bottom, top, height / ratio / FAR)) {
    const [, py] = view.at(left, y);
    if (py > height - corner || py < 28 * ratio) continue;
    pen.moveTo(0, py);
    pen.lineTo(4 * ratio, py);
    pen.fillText(format(y), 6 * ratio, py);
  }
  pen.stroke();
  pen.globalAlpha = 0.95;
  pen.textBaseline = "bottom";
  pen.textAlign = "right";
  pen.fillText(`${titles[0]} →`, width - 6 * ratio, height - 19 * ratio);
  pen.textBaseline = "top";
  pen.textAlign = "left";
  pen.fillText(`↑ ${titles[1]}`, 6 * ratio, 6 * ratio);
}

// Draw the path to the cursor: older steps are fainter and thinner; the newest ends in an arrow head inside a ring.
function drawPath(view, pen) {
  const {cloud, ratio} = view, {place, model} = cloud, at = row => view.at(place[2 * row], place[2 * row + 1]);
  pen.strokeStyle = pen.fillStyle = model.get("_cursor_color");
  pen.globalAlpha = 1;
  pen.lineWidth = 2 * ratio;
  for (const row of model.get("near")) {
    const [x, y] = at(row), half = 5 * ratio;
    pen.strokeRect(x - half, y - half, 2 * half, 2 * half);
  }
  const path = model.get("cursor").map(at), last = path.length - 1;
  if (last < 0) return;
  for (let i = 1; i <= last; i++) {
    const fresh = AGED ** (last - i);
    pen.globalAlpha = Math.max(fresh, FAINTEST);
    pen.lineWidth = (1 + 1.6 * fresh) * ratio;
    pen.beginPath();
    pen.moveTo(...path[i - 1]);
    pen.lineTo(...path[i]);
    pen.stroke();
  }
  pen.globalAlpha = 1;
  const [x, y] = path[last], from = path.findLast(([px, py]) => Math.hypot(px - x, py - y) > ratio);
  if (from) {
    const angle = Math.atan2(y - from[1], x - from[0]), head = 7 * ratio;
    pen.beginPath();
    for (const turn of [0, 2.4, -2.4]) pen.lineTo(x + head * Math.cos(angle + turn), y + head * Math.sin(angle + turn));
    pen.fill();
  }
  pen.lineWidth = 3 * ratio;
  pen.beginPath();
  pen.arc(x, y, 8 * ratio, 0, 2 * Math.PI);
  pen.stroke();
}

// Draw the ring that the kernel has placed, and a line from it to the handle.
function drawRing(view, pen) {
  const {ring, handle} = view.cloud, {ratio} = view;
  if (!ring) return;
  const [x, y] = view.at(...ring);
  if (handle) {
    pen.lineWidth = 1.5 * ratio;
    pen.globalAlpha = 0.8;
    pen.setLineDash([4 * ratio, 3 * ratio]);
    pen.beginPath();
    pen.moveTo(x, y);
    pen.lineTo(...view.at(...handle));
    pen.stroke();
    pen.setLineDash([]);
    pen.globalAlpha = 1;
  }
  pen.lineWidth = 3 * ratio;
  pen.beginPath();
  pen.arc(x, y, 8 * ratio, 0, 2 * Math.PI);
  pen.stroke();
}

// The marker to drag. It is an HTML element, so that it can have the focus and be large enough for a finger.
class Handle {
  constructor(view) {
    this.view = view;
    this.el = make("div", "handle", view.stage, {
      tabindex: 0, role: "slider", hidden: "", "aria-label": "Marker: drag it, or move it with the arrow keys",
    });
    this.el.style.background = view.cloud.model.get("_cursor_color");
    this.el.addEventListener("pointerdown", event => {
      if (event.button) return;
      event.stopPropagation();
      const {left, top, width, height} = this.el.getBoundingClientRect();
      this.grab(event, [left + width / 2 - event.clientX, top + height / 2 - event.clientY]);
    });
    this.el.addEventListener("pointermove", event => this.offset && this.drag(event));
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
      this.el.addEventListener(end, () => this.release());
    }
    this.el.addEventListener("keydown", event => {
      const direction = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1]}[event.key];
      if (!direction) return;
      event.preventDefault();
      event.stopPropagation();
      const {cloud} = view, far = STEP * Math.max(...cloud.extent().span) * (event.shiftKey ? LEAP : 1);
      cloud.put([cloud.handle[0] + far * direction[0], cloud.handle[1] + far * direction[1]]);
    });
  }

  // Let the pointer move the handle from now on, also outside of it.
  grab(event, offset = [0, 0]) {
    event.preventDefault();
    this.offset = offset;
    this.view.cloud.grabbed = true;
    this.el.setPointerCapture(event.pointerId);
    this.el.focus({preventScroll: true});
    this.view.leave();
  }

  drag(event) {
    const {stage} = this.view, {left, top} = stage.getBoundingClientRect();
    const px = event.clientX + this.offset[0] - left - stage.clientLeft;
    const py = event.clientY + this.offset[1] - top - stage.clientTop;
    const inside = (place, size) => Math.min(Math.max(place, 0), size);
    this.view.cloud.put(this.view.where(inside(px, stage.clientWidth), inside(py, stage.clientHeight)));
  }

  release() {
    if (!this.offset) return;
    this.offset = null;
    this.view.cloud.grabbed = false;
    this.view.cloud.rest();
  }

  show() {
    const {handle, model} = this.view.cloud, {over, ratio} = this.view;
    const [px, py] = handle ? this.view.at(...handle) : [NaN, NaN];
    this.view.buttons.drag.hidden = !handle;
    this.el.hidden = !(px >= 0 && py >= 0 && px <= over.width && py <= over.height);
    if (this.el.hidden) return;
    this.el.style.left = `${px / ratio}px`;
    this.el.style.top = `${py / ratio}px`;
    const [across, up] = model.get("_axes").length ? model.get("_axes") : ["x", "y"];
    this.el.setAttribute("aria-valuenow", handle[0]);
    this.el.setAttribute("aria-valuetext", `${across} ${format(handle[0])}, ${up} ${format(handle[1])}`);
  }
}
