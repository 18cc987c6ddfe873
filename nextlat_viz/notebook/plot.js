// A live plotly figure. Python holds the figure and sends edits; the page draws it and reports what the user does.

const ARRAYS = {
  int8: Int8Array, int16: Int16Array, int32: Int32Array, uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array,
  float32: Float32Array, float64: Float64Array,
};

// The library runs when it arrives on the page; a figure only waits for it.
const plotly = async model => load(await model.widget_manager.get_model(model.get("_library")));

const bytes = ({buffer, byteOffset, byteLength}) => buffer.slice(byteOffset, byteOffset + byteLength);

// Unpack values from Python. plotly.js treats an array as unchanged only if it is the same object, so each array is
// made once and shared by all views.
function unpack(value, buffers) {
  if (Array.isArray(value)) return value.map(item => unpack(item, buffers));
  if (value === null || typeof value !== "object") return value;
  if ("buffer" in value && "dtype" in value) {
    const flat = new ARRAYS[value.dtype](bytes(buffers[value.buffer])), [rows, columns] = value.shape;
    if (value.shape.length < 2) return flat;
    return Array.from({length: rows}, (_, i) => flat.subarray(i * columns, (i + 1) * columns));
  }
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, unpack(item, buffers)]));
}

// plotly.js writes into its arguments (ranges, selections), so each view has its own objects; arrays are shared.
const plain = value => value !== null && typeof value === "object" && !ArrayBuffer.isView(value);
function copy(value) {
  if (!plain(value)) return value;
  if (Array.isArray(value)) return value.some(plain) ? value.map(copy) : value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, copy(item)]));
}

function set(target, path, value) {
  for (const key of path.slice(0, -1)) {
    if (target[key] === undefined && value === null) return;
    target = target[key] ??= {};
  }
  if (value === null) delete target[path.at(-1)];
  else target[path.at(-1)] = value;
}

// Marks over the points: the path to the cursor, the ring at the cursor, the nearest rows. When a mark moves, plotly.js
// would redraw all points and texts, which takes tens of times as long. So plotly.js skips the marks; they are drawn here.
const ROLES = ["trail", "cursor", "near"];
const marks = trace => trace.type === "scattergl" && ROLES.includes(trace.meta?.role);
// SVG paths of radius 1 around the origin.
const SYMBOLS = {
  circle: "M1,0A1,1 0 1,1 0,-1A1,1 0 0,1 1,0Z",
  square: "M1,1H-1V-1H1Z",
  "triangle-up": "M-1.1547,0.5H1.1547L0,-1Z",
};

// Properties that only move bars, points or a line. Plotly.react lays out the whole figure at any change, which takes ten
// times as long as drawing these traces alone.
const MOVES = ["x", "y", "text", "hovertext", "marker.angle", "marker.size"];

function svg(name, attributes, parent) {
  const el = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) el.setAttribute(key, value);
  parent?.append(el);
  return el;
}

// Draw a trace of lines and symbols; `at` holds the pixels of its points.
function drawMarks({mode = "markers", line = {}, marker = {}}, at, parent) {
  if (mode.includes("lines") && at.length > 1) {
    const dash = {dot: "3,3", dash: "9,9"}[line.dash] ?? "none";
    svg("polyline", {points: at.join(" "), fill: "none", stroke: line.color, "stroke-width": line.width ?? 2, "stroke-dasharray": dash}, parent);
  }
  if (!mode.includes("markers")) return;
  const [symbol, open] = (marker.symbol ?? "circle").split(/-(?=open$)/), {color, angle = 0, opacity = 1} = marker;
  at.forEach(([x, y], i) => {
    const radius = (ArrayBuffer.isView(marker.size) || Array.isArray(marker.size) ? marker.size[i] : marker.size ?? 6) / 2;
    if (!(radius > 0)) return;
    const look = open ? {fill: "none", stroke: color, "stroke-width": marker.line?.width ?? 1} : {fill: color};
    const place = `translate(${x},${y}) rotate(${angle}) scale(${radius})`;
    svg("path", {d: SYMBOLS[symbol] ?? SYMBOLS.circle, transform: place, opacity, "vector-effect": "non-scaling-stroke", ...look}, parent);
  });
}

// The page's copy of the figure that Python holds.
class Figure {
  constructor(model) {
    Object.assign(this, {model, views: new Set(), number: -1});
    this.take(model.get("_figure"));
    model.on("change:_figure", () => this.take(model.get("_figure")));
    model.on("msg:custom", (message, buffers) => this.hear(message, buffers));
    // Updates sent before this line were missed: Python compares the number, and sends the whole figure if it differs.
    listen(model, {number: this.number});
  }

  take({number, data, layout, config, buffers}) {
    if (number <= this.number) return;
    this.number = number;
    this.config = config;
    [this.data, this.layout] = [data, layout].map(part => unpack(part, buffers));
    this.views.forEach(view => view.begin());
  }

  hear(message, buffers) {
    if (message.kind === "figure") this.take({...message, buffers});
    else if (message.kind === "answered") this.views.forEach(view => view.clear());
    // If the number does not follow the last one, this page missed edits, and Python sends the whole figure.
    else if (message.kind === "edits" && message.number === this.number + 1) {
      this.number = message.number;
      const edits = message.edits.map(([trace, path, value]) => [trace, path, unpack(value, buffers)]);
      const changes = edits.filter(([trace, path, value]) => trace !== null || !this.has(path, value));
      this.apply(this, edits);
      for (const view of this.views) {
        if (view.id === message.view) continue;
        this.apply(view, edits);
        if (changes.every(([trace]) => trace !== null && marks(this.data[trace]))) view.mark();
        else if (!view.move(changes)) view.draw();
      }
    }
  }

  // Whether an axis has a range already: Python sends the ranges of all points that move, because the reader may have zoomed.
  has([name, key, ...more], value) {
    const {range, autorange} = (!more.length && /^[xy]axis/.test(name) && this.layout[name]) || {};
    return !!range && !autorange && (key === "range" ? String(range) === String(value) : key === "autorange" && !value);
  }

  apply(target, edits) {
    for (const [trace, path, value] of edits) {
      set(trace === null ? target.layout : target.data[trace], path, target === this ? value : copy(value));
    }
  }
}

// Draw new figures one at a time, so that the browser shows each before it draws the next. Figures with WebGL take several
// times as long the first time, so they wait for the others that arrive with them.
const PASS = 150; // milliseconds that a figure with WebGL waits
const pause = time => new Promise(next => setTimeout(next, time));

async function turn({data}) {
  if (data.some(trace => trace.type?.endsWith("gl"))) await pause(PASS);
  // A global, because every figure has its own copy of this module.
  await (globalThis.nextlat_viz_turn = Promise.resolve(globalThis.nextlat_viz_turn).then(() => pause(0)));
}

class View {
  constructor(figure, el) {
    Object.assign(this, {figure, el, id: Math.random().toString(36).slice(2)});
    this.plot = document.createElement("div");
    this.plot.style.width = "100%";
    el.append(this.plot);
    this.begin();
    figure.views.add(this);
    // Draw also when a hidden cell is shown at its old width: changes made while it was hidden are not drawn yet.
    this.sized = new ResizeObserver(() => {
      const width = this.plot.clientWidth;
      if (width && (this.stale || width !== this.width || this.room() !== this.height)) this.draw();
    });
    this.sized.observe(this.plot);
    this.sized.observe(el);
    plotly(figure.model).then(
      library => {
        this.plotly = library;
        this.draw();
      },
      error => this.complain(error),
    );
  }

  // Copy the whole figure: for a new view, or when Python has sent the whole figure.
  begin() {
    const {data, layout} = this.figure;
    [this.data, this.layout] = [copy(data), copy(layout)];
    // A figure without a width is as wide as its cell, and must not keep the cell from shrinking.
    const {width} = layout;
    Object.assign(this.el.style, width ? {width: `${width}px`, minWidth: ""} : {width: "100%", minWidth: "0"});
    this.draw();
  }

  // The height to fill if the page's style says so, else 0: the figure then keeps its own height.
  room() {
    return getComputedStyle(this.el).getPropertyValue("--nlv-fill").trim() ? this.el.clientHeight : 0;
  }

  // Draw once at a time: updates that arrive during a drawing are drawn together after it.
  async draw() {
    if (!this.plotly || this.gone) return;
    this.stale = true;
    if (this.drawing) return;
    this.drawing = true;
    try {
      if (!this.listens) await turn(this);
      // A hidden cell has no width to draw for.
      while (this.stale && this.plot.clientWidth && !this.gone) {
        this.stale = false;
        this.restore();
        await this.paint();
      }
      // The observer calls when a cell gets a width, but not for one that was hidden and shown within one frame of the
      // browser. Observed anew, it calls for that one too.
      if (this.stale && !this.gone) {
        this.sized.unobserve(this.plot);
        this.sized.observe(this.plot);
      }
    } catch (error) {
      this.complain(error);
    } finally {
      this.drawing = false;
    }
  }

  // Draw only the bars, points and lines that move, by plotly's own modules of their types. Returns false where the figure
  // must be laid out: after another change, or where axes fit their range to the data.
  move(edits) {
    const {plot} = this, {_fullData: traces, _fullLayout: layout, calcdata} = plot;
    if (!this.listens || this.drawing || this.stale || plot.clientWidth !== this.width || this.room() !== this.height) return false;
    const fixed = id => (({type, autorange}) => type === "linear" && !autorange)(layout[`${id[0]}axis${id.slice(1)}`]);
    const movable = ({type, visible, fill = "none", xaxis, yaxis}) =>
      ["bar", "scatter"].includes(type) && visible === true && fill === "none" && fixed(xaxis) && fixed(yaxis);
    const moves = ([i, path, value]) => i !== null && value !== null && MOVES.includes(path.join(".")) && movable(traces[i]);
    if (!edits.every(moves)) return false;
    try {
      const groups = {};
      for (const [i, path, value] of edits) set(traces[i], path, value);
      for (const i of [...new Set(edits.map(([i]) => i))].sort((a, b) => a - b)) {
        const trace = traces[i], {_module: module, x, y, xaxis, yaxis, type} = trace;
        trace._length = Math.min(x.length, y.length);
        const points = trace._length ? module.calc(plot, trace) : [{}];
        Object.assign(points[0], {trace, t: points[0].t ?? {}});
        calcdata[i] = points;
        (groups[[xaxis, yaxis, type]] ??= {module, view: layout._plots[xaxis + yaxis], moved: []}).moved.push(i);
      }
      for (const [key, {module, view, moved}] of Object.entries(groups)) {
        const bars = module.name === "bar";
        // Bars stand side by side, so all of a view are drawn. Points and lines are drawn up to the last that moves:
        // plotly.js would put it above those between.
        const drawn = calcdata.filter(([{trace: {visible, xaxis, yaxis, type}}], i) =>
          visible === true && String([xaxis, yaxis, type]) === key && (bars || (i >= moved[0] && i <= moved.at(-1))));
        module.crossTraceCalc(plot, view);
        module.plot(plot, view, drawn, view.plot.select(`.${module.name}layer`), bars ? undefined : {duration: 0});
        if (bars) module.style(plot);
      }
      layout._rehover?.();
      return true;
    } catch {
      // Another plotly.js than this was written for; without these values it finds what has changed.
      for (const [i, path] of edits) set(traces[i], path, null);
      return false;
    }
  }

  // Undo the ranges and domains that plotly.js fitted to the last size; it would start from them at the next size.
  restore() {
    for (const [key, axis] of Object.entries(this.figure.layout)) {
      if (!/^[xy]axis/.test(key)) continue;
      if (axis.range) this.layout[key].range = [...axis.range];
      if (axis.domain) this.layout[key].domain = [...axis.domain];
      else delete this.layout[key].domain;
      // Otherwise plotly.js would return to the ranges of a figure shown here before.
      const drawn = this.plot._fullLayout?.[key];
      if (drawn) delete drawn._inputRange, delete drawn._inputDomain;
    }
  }

  async paint() {
    this.width = this.plot.clientWidth;
    if (!this.figure.layout.width) this.layout.width = this.width;
    this.height = this.room();
    this.layout.height = this.height ? Math.max(this.height, this.figure.layout.meta?.least ?? 0) : this.figure.layout.height;
    this.leaveOut("legendonly");
    const {plot, data, layout, figure} = this;
    const focused = plot.contains(document.activeElement) && document.activeElement.dataset.entry;
    // Pass the config only the first time: plotly.js would compare it at every call.
    await this.plotly.react(plot, data, layout, ...(this.listens ? [] : [figure.config]));
    if (!this.listens) this.listen();
    this.unlock();
    // plotly.js may have replaced the class name that had the focus.
    if (focused && !plot.contains(document.activeElement)) plot.querySelector(`[data-entry="${focused}"]`)?.focus();
    this.mark();
    const {width, height} = plot._fullLayout;
    if (`${width} ${height}` !== this.size) figure.model.send({kind: "size", width, height});
    this.size = `${width} ${height}`;
  }

  // Hide the marks from plotly.js ("legendonly"), or show them (true) while the camera button draws the figure.
  leaveOut(visible) {
    for (const trace of this.data) if (marks(trace) && trace.visible !== false) trace.visible = visible;
  }

  // Draw the marks above the points and below the texts, at the present ranges of the axes.
  mark() {
    const points = this.plot.querySelector(".gl-container"), {_fullLayout: layout} = this.plot;
    // The figure is about to be drawn, and its marks with it.
    if (!points || !layout || this.stale) return;
    if (this.over?.previousSibling !== points) {
      this.over?.remove();
      this.over = svg("svg", {class: "nlv-marks"});
      this.over.style.cssText = "position:absolute;left:0;top:0;pointer-events:none";
      points.after(this.over);
    }
    this.over.replaceChildren();
    Object.entries({width: layout.width, height: layout.height}).forEach(([key, value]) => this.over.setAttribute(key, value));
    const planes = {};
    for (const trace of this.data) {
      if (!marks(trace) || !trace.visible || !trace.x?.length) continue;
      const [x, y] = [trace.xaxis ?? "x", trace.yaxis ?? "y"].map(name => layout[`${name[0]}axis${name.slice(1)}`]);
      if (!x?.range || !y?.range) continue;
      // During a drag, plotly.js changes the ranges before its own conversion to pixels.
      const along = ({range: [from, to], _length}, value) => ((value - from) / (to - from)) * _length;
      const at = Array.from(trace.x, (value, i) => [along(x, value), y._length - along(y, trace.y[i])]);
      // An svg for each pair of axes clips the marks outside of the axes.
      planes[x._id + y._id] ??= svg("svg", {x: x._offset, y: y._offset, width: x._length, height: y._length}, this.over);
      drawMarks(trace, at, svg("g", {"data-role": trace.meta.role}, planes[x._id + y._id]));
    }
  }

  listen() {
    this.listens = true;
    const on = (name, call) => this.plot.on(`plotly_${name}`, call), send = message => this.figure.model.send(message);
    // The cells of a heat map are numbered row by row.
    const number = ({pointNumber: at, data}) => (Array.isArray(at) ? at[0] * data.x.length + at[1] : at);
    const pairs = ({points}) => points.map(point => [point.curveNumber, number(point)]);
    on("click", event => send({kind: "click", points: pairs(event)}));
    on("selected", event => {
      // Removing an outline fires this event too, with no points and no outline.
      if (event?.points && this.plot.layout.selections?.length) send({kind: "select", points: pairs(event)});
    });
    on("deselect", () => send({kind: "select", points: null}));
    on("relayout", event => {
      this.report(event);
      this.mark();
    });
    on("relayouting", () => this.mark());
    this.plot.addEventListener("click", ({target}) => {
      if (!target.closest?.(".modebar-btn[data-title^=Download]")) return;
      // plotly.js keeps the name that the figure had when it was first drawn.
      const {file} = this.figure.layout.meta ?? {};
      if (file) this.plot._context.toImageButtonOptions.filename = file;
      this.leaveOut(true);
      setTimeout(() => this.leaveOut("legendonly"));
    }, true);
    on("restyle", ([edits, traces]) => {
      if ("visible" in edits) send({kind: "traces", edits: {visible: edits.visible}, traces, view: this.id});
    });
  }

  // Turn the class names in a colour key into buttons. plotly.js redraws the names whenever the key changes.
  unlock() {
    const {classes} = this.figure.layout.meta ?? {};
    if (!classes) return;
    const names = [...this.plot.querySelectorAll(".colorbar .cbaxis text")];
    const top = name => name.getBoundingClientRect().top;
    names.sort((a, b) => top(a) - top(b)).slice(0, classes).forEach((name, entry) => {
      const press = event => {
        if (event.key && !["Enter", " "].includes(event.key)) return;
        event.preventDefault();
        event.stopPropagation();
        this.figure.model.send({kind: "key", entry});
      };
      name.onclick = name.onkeydown = press;
      Object.assign(name.style, {cursor: "pointer", pointerEvents: "all"});
      for (const [key, value] of [["role", "button"], ["tabindex", 0], ["data-entry", entry]]) name.setAttribute(key, value);
      if (!name.querySelector("title")) svg("title", {}, name).textContent = "Show these alone, or all again";
    });
  }

  // Report the user's zoom and tool to Python, but no outlines and no sizes.
  report(event) {
    const edits = {};
    for (const [path, value] of Object.entries(event ?? {})) {
      const [key] = path.split(/[.[]/), axis = /^[xy]axis\d*$/.test(key) && this.plot.layout[key];
      if (["selections", "width", "height", "autosize", "activeselection"].includes(key)) continue;
      // plotly.js reports the two ends of a range separately, and not that the range is no longer automatic.
      if (axis) {
        Object.assign(edits, {[`${key}.range`]: axis.range, [`${key}.autorange`]: axis.autorange ?? false});
        // Set it now: the figure may be redrawn before Python answers.
        set(this.figure.layout, [key, "range"], [...axis.range]);
      } else edits[path] = value;
    }
    if (Object.keys(edits).length) this.figure.model.send({kind: "layout", edits, view: this.id});
  }

  // When Python has answered a selection, remove the outline and select the points that Python selects.
  clear() {
    if (!this.layout.selections?.length) return;
    this.layout.selections = [];
    this.figure.data.forEach((trace, i) => {
      if (trace.selectedpoints === undefined) delete this.data[i].selectedpoints;
      else this.data[i].selectedpoints = trace.selectedpoints;
    });
    this.draw();
  }

  complain(error) {
    this.el.setAttribute("role", "alert");
    this.el.textContent = `This figure could not be drawn: ${error.message}`;
  }

  remove() {
    this.gone = true;
    this.sized.disconnect();
    this.figure.views.delete(this);
    this.plotly?.purge(this.plot);
  }
}

export default () => {
  let figure;
  return {
    initialize({model}) {
      figure = new Figure(model);
    },
    render({el}) {
      const view = new View(figure, el);
      return () => view.remove();
    },
  };
};
