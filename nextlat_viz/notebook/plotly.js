// Run plotly.js once per page, however many figures and kernels there are. A separate widget model carries its text, and is
// sent before the first figure, because 5 MB take a second to run.
const libraries = (globalThis.nextlat_viz_plotly ??= {});

async function run(text) {
  // Let plotly.js export to this `module`, not to an AMD loader. Keep the page's own global Plotly, if it has one.
  const parts = ["const module = {exports: {}}, define = undefined;", text, "\nexport default module.exports;"];
  const url = URL.createObjectURL(new Blob(parts, {type: "text/javascript"})), pagePlotly = globalThis.Plotly;
  try {
    return (await import(url)).default;
  } finally {
    URL.revokeObjectURL(url);
    if (pagePlotly) globalThis.Plotly = pagePlotly;
  }
}

// Return the plotly.js that a PlotlyLibrary carries. If it fails to run, the next figure tries again.
function load(library) {
  const version = library.get("version");
  if (!libraries[version]) {
    libraries[version] = run(library.get("text"));
    libraries[version].catch(() => delete libraries[version]);
  }
  return libraries[version];
}
