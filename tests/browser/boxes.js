// Find texts of a plotly figure that overlap, leave the figure, or lie under the toolbar.

const SHARED = 1.5; // pixels of overlap that are allowed

function quad(text) {
  const {x, y, width, height} = text.getBBox(), matrix = text.getScreenCTM(), leading = Math.min(2, height / 8);
  const corners = [[x, y + leading], [x + width, y + leading], [x + width, y + height - leading], [x, y + height - leading]];
  return corners.map(([x, y]) => [matrix.a * x + matrix.c * y + matrix.e, matrix.b * x + matrix.d * y + matrix.f]);
}

function visible(text) {
  if (!text.textContent.trim() || !text.getClientRects().length || text.closest(".hoverlayer")) return false;
  for (let node = text; node instanceof Element; node = node.parentElement) {
    const {visibility, opacity} = getComputedStyle(node);
    if (visibility === "hidden" || opacity === "0") return false;
  }
  return true;
}

const normals = corners => [0, 1].map(i => {
  const [[x, y], [right, down]] = [corners[i], corners[i + 1]], length = Math.hypot(right - x, down - y) || 1;
  return [(y - down) / length, (right - x) / length];
});
const span = (corners, [x, y]) => {
  const places = corners.map(corner => corner[0] * x + corner[1] * y);
  return [Math.min(...places), Math.max(...places)];
};
// Return by how many pixels two rotated boxes overlap; negative if they are apart.
const overlap = (first, second) => Math.min(...[...normals(first), ...normals(second)].map(normal => {
  const [from, to] = span(first, normal), [start, end] = span(second, normal);
  return Math.min(to, end) - Math.max(from, start);
}));

globalThis.faults = async ({data, layout}, width) => {
  const plot = document.createElement("div");
  plot.style.width = `${layout.width ??= width}px`;
  document.body.replaceChildren(plot);
  await Plotly.newPlot(plot, data, layout, {displayModeBar: true, ...globalThis.config});
  const texts = [...plot.querySelectorAll("svg.main-svg text")].filter(visible);
  const boxes = texts.map(text => ({words: text.textContent.trim().slice(0, 60), corners: quad(text)}));
  const bar = plot.querySelector(".modebar").getBoundingClientRect(), frame = plot.getBoundingClientRect(), problems = [];
  const tools = [[bar.left, bar.top], [bar.right, bar.top], [bar.right, bar.bottom], [bar.left, bar.bottom]];
  const {width: across, height} = plot._fullLayout;
  boxes.forEach(({words, corners}, i) => {
    const [left, right] = span(corners, [1, 0]), [top, bottom] = span(corners, [0, 1]);
    const out = Math.max(frame.left - left, frame.top - top, right - frame.left - across, bottom - frame.top - height);
    if (out > SHARED) problems.push(`cut by ${out.toFixed(0)}: ${words}`);
    if (overlap(corners, tools) > SHARED) problems.push(`under the toolbar: ${words}`);
    for (const other of boxes.slice(i + 1)) {
      const shared = overlap(corners, other.corners);
      if (shared > SHARED) problems.push(`over each other by ${shared.toFixed(0)}: ${words} | ${other.words}`);
    }
  });
  return problems;
};

// Draw a figure at several widths in turn, and return the ranges of the axes after each.
globalThis.ranges = async ({data, layout}, widths) => {
  const plot = document.createElement("div"), all = [];
  document.body.replaceChildren(plot);
  for (const width of widths) {
    layout.width = width;
    await Plotly.react(plot, data, layout);
    all.push(Object.fromEntries(
      Object.entries(plot._fullLayout).filter(([key]) => /^[xy]axis/.test(key)).map(([key, {range}]) => [key, [...range]]),
    ));
  }
  return all;
};
