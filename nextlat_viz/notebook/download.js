// A button that asks Python for a file and saves it on the user's machine, without a file server.
function render({model, el}) {
  const id = Math.random().toString(36).slice(2), button = document.createElement("button");
  button.className = "jupyter-button widget-button mod-primary";
  el.append(button);
  const look = () => {
    button.textContent = model.get("label");
    button.title = model.get("about");
    button.disabled = model.get("disabled");
  };
  button.onclick = () => model.send({kind: "want", view: id});
  const hear = (message, buffers) => {
    if (message.kind !== "file" || message.view !== id) return;
    const {buffer, byteOffset, byteLength} = buffers[0];
    const url = URL.createObjectURL(new Blob([buffer.slice(byteOffset, byteOffset + byteLength)], {type: message.type}));
    const link = Object.assign(document.createElement("a"), {href: url, download: message.name});
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
  };
  model.on("msg:custom", hear);
  for (const name of ["label", "about", "disabled"]) model.on(`change:${name}`, look);
  look();
  return () => {
    model.off("msg:custom", hear);
    for (const name of ["label", "about", "disabled"]) model.off(`change:${name}`, look);
  };
}

export default {initialize: ({model}) => void listen(model), render};
