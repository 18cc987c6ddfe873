// The points of a cloud: data from the kernel, search for points by place, and drawing on a canvas.

const FAINT = 0.07; // opacity of points that are not selected
const FAR_OUT = 0.25; // distance from the outline up to which points are kept in view, as a share of its extent

const VERTEX = `
precision highp float;
attribute vec2 place;
attribute float code, picked;
uniform vec2 middle, scale;
uniform float size, only, opacity;
uniform sampler2D palette;
varying vec4 color;
void main() {
  bool drawn = only < 0.0 || picked == only;
  gl_Position = drawn ? vec4((place - middle) * scale, 0.0, 1.0) : vec4(2.0, 2.0, 2.0, 1.0);
  gl_PointSize = size;
  color = vec4(texture2D(palette, vec2((code + 0.5) / 256.0, 0.5)).rgb, 1.0) * opacity;
}`;
const FRAGMENT = `
precision highp float;
uniform float size;
varying vec4 color;
void main() {
  float edge = (0.5 - length(gl_PointCoord - 0.5)) * size;
  gl_FragColor = color * (size < 3.5 ? 1.0 : clamp(edge + 0.5, 0.0, 1.0));
}`;

// Share one WebGL context among all clouds of a page: browsers take contexts away from pages with more than a few.
function painter() {
  const KEY = "nextlat_viz_painter_1";
  if (KEY in globalThis) return globalThis[KEY];
  const canvas = document.createElement("canvas");
  const gl = canvas.getContext("webgl", {antialias: false, depth: false});
  const usable = gl && gl.getParameter(gl.MAX_VERTEX_TEXTURE_IMAGE_UNITS) > 0;
  const shared = (globalThis[KEY] = usable ? {canvas, gl, life: 1, lost: false, waiting: new Set()} : null);
  if (shared) {
    canvas.addEventListener("webglcontextlost", event => {
      event.preventDefault();
      shared.lost = true;
      shared.waiting.forEach(draw => draw());
    });
    canvas.addEventListener("webglcontextrestored", () => {
      link(shared);
      shared.life += 1;
      shared.lost = false;
      shared.waiting.forEach(draw => draw());
    });
    link(shared);
  }
  return shared;
}

function link(painter) {
  const {gl} = painter;
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  gl.useProgram(program);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  painter.attribute = name => gl.getAttribLocation(program, name);
  painter.uniform = name => gl.getUniformLocation(program, name);
}

// Copy the bytes of a message: they may start at an offset that is not a multiple of four, as floats need.
function bytes({buffer, byteOffset, byteLength}) {
  return new Uint8Array(buffer.slice(byteOffset, byteOffset + byteLength));
}

const floats = data => new Float32Array(bytes(data).buffer);

// Return the left, right, low and high end of places (x, y, x, y ...). NaN, which ends a polyline, is ignored.
function bounds(places) {
  let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
  for (let i = 0; i < places.length; i += 2) {
    const x = places[i], y = places[i + 1];
    if (x < left) left = x;
    if (x > right) right = x;
    if (y < low) low = y;
    if (y > high) high = y;
  }
  return [left, right, low, high];
}

// A cloud's data from the kernel as arrays; `stale` names the arrays to upload to the graphics card.
class Cloud {
  constructor(model) {
    this.model = model;
    this.views = new Set();
    this.stale = new Set();
    const parts = {_places: "place", _codes: "code", _palette: "palette", _selection: "picked"};
    for (const [trait, part] of Object.entries(parts)) {
      this.read(trait, part);
      model.on(`change:${trait}`, () => {
        this.read(trait, part);
        this.views.forEach(view => (part === "place" ? view.fit() : view.draw()));
      });
    }
    this.underway = this.grabbed = false;
    this.unsent = null;
    this.outline = floats(model.get("_outline"));
    [this.handle, this.ring] = [model.get("handle"), model.get("ring")];
    model.on("change:handle", () => this.rest());
    model.on("change:ring", () => {
      this.ring = model.get("ring");
      this.views.forEach(view => view.point());
    });
    for (const trait of ["cursor", "near"]) model.on(`change:${trait}`, () => this.views.forEach(view => view.point()));
    for (const trait of ["_title", "_key"]) model.on(`change:${trait}`, () => this.views.forEach(view => view.say()));
    model.on("msg:custom", message => {
      if (message.kind === "label") this.views.forEach(view => view.tell(message));
      if (message.kind === "moved") this.answered();
    });
    listen(model);
  }

  read(trait, part) {
    const data = this.model.get(trait);
    if (part === "picked") return this.pick(bytes(data));
    this[part] = part === "place" ? floats(data) : bytes(data);
    this.stale.add(part);
    if (part === "place") this.measure();
  }

  measure() {
    this.n = this.place.length / 2;
    this.bounds = bounds(this.place);
  }

  // Return the part of the plane to show: points, ring, handle and outline. With an outline, leave out points far
  // outside of it, which would make it small.
  extent() {
    const drawn = bounds(this.outline), away = [drawn[1] - drawn[0], drawn[3] - drawn[2]].map(span => FAR_OUT * span);
    const near = this.bounds.map((end, i) => {
      if (!this.outline.length) return end;
      return i % 2 ? Math.min(end, drawn[i] + away[i >> 1]) : Math.max(end, drawn[i] - away[i >> 1]);
    });
    const over = bounds([...this.outline, ...(this.ring ?? []), ...(this.handle ?? [])]);
    const [left, right, low, high] = near.map((end, i) => (i % 2 ? Math.max : Math.min)(end, over[i]));
    return {middle: [(left + right) / 2, (low + high) / 2], span: [right - left, high - low]};
  }

  // Move the handle. Only one place is sent at a time; when the kernel has answered, the latest place follows.
  put(at) {
    this.handle = this.unsent = at;
    this.views.forEach(view => view.point());
    this.tell();
  }

  tell() {
    if (this.underway || !this.unsent) return;
    this.model.send({kind: "move", at: this.unsent});
    this.unsent = null;
    this.underway = true;
  }

  answered() {
    this.underway = false;
    this.tell();
    this.rest();
  }

  // Put the handle where the kernel has it, once it is released and the kernel has answered.
  rest() {
    if (this.grabbed || this.underway) return;
    this.handle = this.model.get("handle");
    this.views.forEach(view => view.point());
  }

  pick(bits) {
    this.bits = bits;
    this.picked = new Uint8Array(this.n);
    this.count = 0;
    if (bits.length) for (let i = 0; i < this.n; i++) this.count += this.picked[i] = (bits[i >> 3] >> (i & 7)) & 1;
    this.stale.add("picked");
  }

  // Test every point: a million take a few milliseconds, and an index would have to be rebuilt at every change.
  inside(x0, y0, x1, y1, bits) {
    const {place, n} = this;
    for (let i = 0; i < n; i++) {
      const x = place[2 * i], y = place[2 * i + 1];
      if (x >= x0 && x <= x1 && y >= y0 && y <= y1) bits[i >> 3] |= 1 << (i & 7);
    }
    return bits;
  }

  nearest(x, y, within) {
    const {place, n} = this;
    let best = within * within, row = -1;
    for (let i = 0; i < n; i++) {
      const dx = place[2 * i] - x, dy = place[2 * i + 1] - y, distance = dx * dx + dy * dy;
      if (distance <= best) [best, row] = [distance, i];
    }
    return row;
  }

  upload(painter) {
    const {gl} = painter;
    if (this.life !== painter.life) {
      this.life = painter.life;
      this.buffers = Object.fromEntries(["place", "code", "picked"].map(part => [part, gl.createBuffer()]));
      this.texture = gl.createTexture();
      for (const part of ["place", "code", "picked", "palette"]) this.stale.add(part);
    }
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
    for (const part of this.stale) {
      if (part === "palette") {
        gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 256, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, this.palette);
        for (const filter of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, filter, gl.NEAREST);
        gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
        gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
      } else {
        gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[part]);
        gl.bufferData(gl.ARRAY_BUFFER, this[part], gl.STATIC_DRAW);
      }
    }
    this.stale.clear();
  }

  // Draw with WebGL, then copy the result onto the view's canvas.
  paint(painter, target, view) {
    const {gl, canvas} = painter, {width, height} = target;
    if (canvas.width < width) canvas.width = width;
    if (canvas.height < height) canvas.height = height;
    this.upload(painter);
    gl.viewport(0, 0, width, height);
    gl.clear(gl.COLOR_BUFFER_BIT);
    for (const [part, type, size] of [["place", gl.FLOAT, 2], ["code", gl.UNSIGNED_BYTE, 1], ["picked", gl.UNSIGNED_BYTE, 1]]) {
      gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[part]);
      gl.enableVertexAttribArray(painter.attribute(part));
      gl.vertexAttribPointer(painter.attribute(part), size, type, false, 0, 0);
    }
    gl.uniform2f(painter.uniform("middle"), view.x, view.y);
    gl.uniform2f(painter.uniform("scale"), (2 * view.zoom) / width, (2 * view.zoom) / height);
    gl.uniform1f(painter.uniform("size"), view.size);
    for (const [only, opacity] of this.count ? [[0, FAINT], [1, 0.95]] : [[-1, view.opacity]]) {
      gl.uniform1f(painter.uniform("only"), only);
      gl.uniform1f(painter.uniform("opacity"), opacity);
      gl.drawArrays(gl.POINTS, 0, this.n);
    }
    const pen = target.getContext("2d");
    pen.clearRect(0, 0, width, height);
    pen.drawImage(canvas, 0, canvas.height - height, width, height, 0, 0, width, height);
  }

  // Draw without WebGL: fill a square of pixels for each point.
  plot(target, view) {
    const {width, height} = target, pen = target.getContext("2d"), image = pen.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer), {place, code, palette, picked, n} = this;
    const half = Math.floor(view.size / 2), side = Math.max(1, Math.round(view.size));
    for (const only of this.count ? [0, 1] : [-1]) {
      const alpha = Math.round(255 * (only === 0 ? FAINT : only === 1 ? 0.95 : this.handle ? 0.4 : 0.8)) * 2 ** 24;
      for (let i = 0; i < n; i++) {
        if (only >= 0 && picked[i] !== only) continue;
        const x = Math.round(width / 2 + (place[2 * i] - view.x) * view.zoom) - half;
        const y = Math.round(height / 2 - (place[2 * i + 1] - view.y) * view.zoom) - half;
        if (x < 0 || y < 0 || x + side > width || y + side > height) continue;
        const at = 4 * code[i], color = alpha + palette[at] + (palette[at + 1] << 8) + (palette[at + 2] << 16);
        for (let j = 0; j < side; j++) pixels.fill(color, (y + j) * width + x, (y + j) * width + x + side);
      }
    }
    pen.putImageData(image, 0, 0);
  }

  free(painter) {
    if (!painter || this.life !== painter.life) return;
    for (const buffer of Object.values(this.buffers)) painter.gl.deleteBuffer(buffer);
    painter.gl.deleteTexture(this.texture);
    this.life = 0;
  }
}
