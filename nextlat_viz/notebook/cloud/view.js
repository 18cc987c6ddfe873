// The view of a cloud, joined with points.js and marks.js into one module. Places, codes, palette, selection and cursor
// are sent separately. The cursor and the selection box move often, so they are on a second canvas: moving them redraws
// no point.

const ROOM = 0.05; // share of the view left free around the points
const NAMED = 0.11; // the same if there are names around the points
const NEAR = 14; // pixels from a point at which a click still hits it
const STILL = 4; // pixels that the mouse may move during a click
const QUIET = 90; // milliseconds over a point before its label is requested

function make(tag, name, parent, attributes = {}) {
  const element = document.createElement(tag);
  element.className = `nlv-cloud-${name}`;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  parent.append(element);
  return element;
}

// A view of a cloud on the page. Text is set with textContent, never as HTML.
class View {
  constructor(cloud, el) {
    Object.assign(this, {cloud, el, mode: "select", draws: 0, fitted: true, box: null, hovered: -1});
    this.title = make("div", "title", el, {dir: "auto"});
    const bar = make("div", "bar", el, {role: "toolbar", "aria-label": "What dragging does"});
    this.buttons = Object.fromEntries(
      [["drag", "Drag"], ["select", "Select"], ["move", "Move"], ["fit", "Fit"]].map(([name, text]) => {
        const button = make("button", "button", bar, {type: "button"});
        button.textContent = text;
        button.onclick = () => (name === "fit" ? this.fit() : this.use(name));
        return [name, button];
      }),
    );
    this.stage = make("div", "stage", el, {tabindex: 0, role: cloud.handle ? "group" : "img"});
    this.stage.style.height = `${cloud.model.get("_height")}px`;
    this.points = make("canvas", "points", this.stage);
    this.over = make("canvas", "over", this.stage);
    this.label = make("div", "label", this.stage, {dir: "auto", role: "tooltip", hidden: ""});
    this.key = make("ul", "key", el, {"aria-label": "Colours"});
    this.status = make("div", "status", el, {role: "status", "aria-live": "polite"});
    this.handle = new Handle(this);
    this.listen();
    this.use(cloud.handle ? "drag" : "select");
    this.say();
    this.sized = new ResizeObserver(() => this.resize());
    this.sized.observe(this.stage);
    cloud.views.add(this);
    this.painter = painter();
    this.painter?.waiting.add((this.again = () => this.draw()));
  }

  listen() {
    const on = (name, call) => this.over.addEventListener(name, call);
    on("pointerdown", event => {
      if (event.button) return;
      if (this.mode === "drag") {
        this.handle.grab(event);
        return this.handle.drag(event);
      }
      this.over.setPointerCapture(event.pointerId);
      this.from = this.last = [event.offsetX, event.offsetY];
    });
    on("pointermove", event => this.moved(event));
    on("pointerup", event => this.released(event));
    on("pointercancel", () => this.drop());
    on("pointerleave", () => this.leave());
    on("dblclick", () => (this.mode === "move" ? this.fit() : this.select(new Uint8Array(0))));
    this.over.addEventListener("wheel", event => {
      if (this.mode !== "move" && !event.ctrlKey) return;
      event.preventDefault();
      this.magnify(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
    }, {passive: false});
    this.stage.addEventListener("keydown", event => {
      const step = {ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40]}[event.key];
      if (step && this.mode === "move") this.shift(...step);
      else if (event.key === "+" || event.key === "-") this.magnify(event.key === "+" ? 1.4 : 1 / 1.4);
      else if (event.key === "0") this.fit();
      else if (event.key === "Escape") this.select(new Uint8Array(0));
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
  }

  use(mode) {
    this.mode = mode;
    this.over.style.cursor = mode === "move" ? "grab" : "crosshair";
    for (const name of ["drag", "select", "move"]) this.buttons[name].setAttribute("aria-pressed", name === mode);
    this.count();
  }

  get ratio() { return globalThis.devicePixelRatio || 1; }

  // Convert a place on the stage, in CSS pixels, to data coordinates.
  where(px, py) {
    const {width, height} = this.points, {ratio} = this;
    return [this.x + (px * ratio - width / 2) / this.zoom, this.y + (height / 2 - py * ratio) / this.zoom];
  }

  // Convert data coordinates to pixels of the canvases.
  at(x, y) {
    const {width, height} = this.over;
    return [width / 2 + (x - this.x) * this.zoom, height / 2 - (y - this.y) * this.zoom];
  }

  resize() {
    const width = Math.round(this.stage.clientWidth * this.ratio), height = Math.round(this.stage.clientHeight * this.ratio);
    if (!width || !height || (this.points.width === width && this.points.height === height && this.zoom)) return;
    for (const canvas of [this.points, this.over]) [canvas.width, canvas.height] = [width, height];
    this.fitted || !this.zoom ? this.fit() : this.draw();
  }

  fit() {
    const {width, height} = this.points, {span, middle} = this.cloud.extent();
    const free = 1 - 2 * (this.cloud.model.get("_landmarks").length ? NAMED : ROOM), whole = Math.min((width * free) / span[0], (height * free) / span[1]);
    // A single point has no extent: any scale shows it.
    this.whole = Number.isFinite(whole) ? whole : 1;
    [this.x, this.y] = middle;
    this.zoom = this.whole;
    this.fitted = true;
    this.draw();
  }

  magnify(factor, px = this.stage.clientWidth / 2, py = this.stage.clientHeight / 2) {
    const [x, y] = this.where(px, py);
    factor = Math.min(Math.max(this.zoom * factor, this.whole / 4), this.whole * 1e4) / this.zoom;
    this.x = x + (this.x - x) / factor;
    this.y = y + (this.y - y) / factor;
    this.zoom *= factor;
    this.fitted = false;
    this.draw();
  }

  shift(dx, dy) {
    this.x -= (dx * this.ratio) / this.zoom;
    this.y += (dy * this.ratio) / this.zoom;
    this.fitted = false;
    this.draw();
  }

  moved(event) {
    const here = [event.offsetX, event.offsetY];
    if (!this.from) return this.hover(...here);
    if (this.mode === "move") {
      this.shift(here[0] - this.last[0], here[1] - this.last[1]);
    } else {
      this.box = [...this.from, ...here];
      this.point();
    }
    this.last = here;
  }

  released(event) {
    if (!this.from) return;
    const {from, mode} = this, here = [event.offsetX, event.offsetY];
    this.drop();
    if (Math.hypot(here[0] - from[0], here[1] - from[1]) < STILL) {
      const row = this.cloud.nearest(...this.where(...here), (NEAR * this.ratio) / this.zoom);
      if (row >= 0) this.cloud.model.send({kind: "click", row});
    } else if (mode === "select") {
      const [x0, y0] = this.where(...from), [x1, y1] = this.where(...here);
      const room = Math.ceil(this.cloud.n / 8), bits = new Uint8Array(room);
      if (event.shiftKey) bits.set(this.cloud.bits);
      this.select(this.cloud.inside(Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1), bits));
    }
  }

  drop() {
    this.from = this.box = null;
    this.point();
  }

  select(bits) {
    // Show it at once; the kernel then sends the selection that it keeps.
    this.cloud.pick(bits);
    this.cloud.model.send({kind: "select"}, undefined, [bits.buffer]);
    this.cloud.views.forEach(view => view.draw());
  }

  hover(px, py) {
    cancelAnimationFrame(this.looking);
    this.looking = requestAnimationFrame(() => {
      const row = this.cloud.nearest(...this.where(px, py), (NEAR / 2) * this.ratio / this.zoom);
      if (row === this.hovered) return;
      this.leave();
      this.hovered = row;
      this.label.style.left = `${px}px`;
      this.label.style.top = `${py}px`;
      if (row >= 0) this.asking = setTimeout(() => this.cloud.model.send({kind: "label", row}), QUIET);
    });
  }

  leave() {
    clearTimeout(this.asking);
    this.hovered = -1;
    this.label.hidden = true;
  }

  tell({row, text}) {
    if (row !== this.hovered || !text) return;
    this.label.textContent = text;
    this.label.hidden = false;
  }

  draw() {
    cancelAnimationFrame(this.drawing);
    this.drawing = requestAnimationFrame(() => {
      if (!this.zoom || !this.points.width) return;
      const webgl = this.painter && !this.painter.lost;
      const usual = Math.min(Math.max(6 * (2000 / this.cloud.n) ** (1 / 6), 2), 6);
      const near = Math.max(this.zoom / this.whole, 1) ** 0.4;
      this.size = Math.min(usual * near, 9) * this.ratio;
      // Many points are drawn fainter, to show where they are dense, but less so when zoomed in.
      this.opacity = Math.min(Math.max(0.8 * (20000 / this.cloud.n) ** 0.25, 0.3) * near, 0.8);
      // With a handle, draw the points fainter: they are only the background that it moves over.
      if (this.cloud.handle) this.opacity /= 2;
      webgl ? this.cloud.paint(this.painter, this.points, this) : this.cloud.plot(this.points, this);
      this.el.dataset.draws = this.draws += 1;
      this.el.dataset.by = webgl ? "webgl" : "processor";
      this.count();
      this.mark();
    });
  }

  point() {
    cancelAnimationFrame(this.pointing);
    this.pointing = requestAnimationFrame(() => this.mark());
  }

  // Draw everything over the points: outline, names, axes, the path to the cursor, the ring, the handle, the box.
  mark() {
    const pen = this.over.getContext("2d"), {width, height} = this.over, {ratio, cloud} = this;
    pen.clearRect(0, 0, width, height);
    if (!this.zoom) return;
    pen.strokeStyle = pen.fillStyle = getComputedStyle(this.el).color;
    drawOutline(this, pen);
    drawLandmarks(this, pen);
    drawAxes(this, pen);
    pen.globalAlpha = 1;
    drawPath(this, pen);
    drawRing(this, pen);
    this.handle.show();
    if (this.box) {
      const [x0, y0, x1, y1] = this.box.map(edge => edge * ratio);
      pen.lineWidth = 1.5 * ratio;
      pen.setLineDash([4 * ratio, 3 * ratio]);
      pen.strokeStyle = getComputedStyle(this.el).color;
      pen.strokeRect(Math.min(x0, x1), Math.min(y0, y1), Math.abs(x1 - x0), Math.abs(y1 - y0));
      pen.setLineDash([]);
    }
  }

  say() {
    const {model} = this.cloud, title = model.get("_title");
    this.title.textContent = title;
    this.stage.setAttribute("aria-label", `${this.cloud.n.toLocaleString("en")} points${title ? `: ${title}` : ""}`);
    this.key.replaceChildren();
    model.get("_key").forEach(([text, color], entry) => {
      const item = make("li", "entry", this.key, {dir: "auto"}), pressable = model.get("_has_key_buttons") && color;
      const line = pressable ? make("button", "choice", item, {type: "button", title: "Show these alone, or all again"}) : item;
      if (pressable) line.onclick = () => model.send({kind: "key", entry});
      if (color) make("span", "swatch", line).style.background = color;
      line.append(text);
    });
  }

  count() {
    const {n, count} = this.cloud, webgl = this.el.dataset.by === "webgl";
    const hint = {drag: "drag the marker, or click where it should go", select: "drag to select", move: "drag to move"};
    const rows = count ? `${format(count)} of ${format(n)} points selected` : `${format(n)} points; ${hint[this.mode]}`;
    const how = webgl || !this.draws ? "" : ". No WebGL in this browser: drawn without the graphics card";
    if (this.status.textContent !== rows + how) this.status.textContent = rows + how;
  }

  remove() {
    this.sized.disconnect();
    this.leave();
    for (const frame of [this.drawing, this.pointing, this.looking]) cancelAnimationFrame(frame);
    this.painter?.waiting.delete(this.again);
    this.cloud.views.delete(this);
    if (!this.cloud.views.size) this.cloud.free(this.painter);
  }
}

export default () => {
  let cloud;
  return {
    initialize({model}) {
      cloud = new Cloud(model);
    },
    render({el}) {
      // Set the class here: marimo ignores a model's DOM classes.
      el.classList.add("nlv-cloud");
      const view = new View(cloud, el);
      return () => view.remove();
    },
  };
};
