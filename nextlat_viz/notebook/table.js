// A table whose rows can be chosen by click or key.
function render({model, el}) {
  const table = document.createElement("table");
  table.className = "nlv-table";
  el.append(table);
  const cells = (row, texts, kind) =>
    texts.forEach((text, i) => {
      const cell = document.createElement(kind), words = document.createElement("bdi");
      words.textContent = cell.title = text;
      words.dir = "auto";
      if (kind === "td" && model.get("histories").includes(model.get("heads")[i])) cell.className = "nlv-history";
      cell.append(words);
      row.append(cell);
    });
  const choose = place => {
    if (place < 0 || place >= model.get("rows").length) return;
    table.tBodies[0].rows[place].focus();
    model.set("chosen", place);
    model.save_changes();
  };
  const mark = () =>
    [...(table.tBodies[0]?.rows ?? [])].forEach((row, i) => row.setAttribute("aria-selected", i === model.get("chosen")));
  const draw = () => {
    table.replaceChildren();
    // Short cells get the width of their text, and room for half of a heading; the other columns share the rest.
    const columns = document.createElement("colgroup");
    model.get("heads").forEach((head, i) => {
      const column = document.createElement("col");
      const longest = Math.max(0, ...model.get("rows").map(texts => texts[i].length));
      if (longest <= 8) column.style.width = `${Math.max(longest, Math.min(head.length, 7)) + 1}ch`;
      columns.append(column);
    });
    table.append(columns);
    cells(table.createTHead().insertRow(), model.get("heads"), "th");
    const body = table.createTBody();
    model.get("rows").forEach((texts, i) => {
      const row = body.insertRow();
      row.tabIndex = 0;
      row.onclick = () => choose(i);
      row.onkeydown = event => {
        const step = {ArrowUp: -1, ArrowDown: 1, Enter: 0, " ": 0}[event.key];
        if (step === undefined) return;
        event.preventDefault();
        event.stopPropagation();
        choose(i + step);
      };
      cells(row, texts, "td");
    });
    mark();
  };
  model.on("change:rows", draw);
  model.on("change:chosen", mark);
  draw();
  return () => {
    model.off("change:rows", draw);
    model.off("change:chosen", mark);
  };
}

export default {initialize: ({model}) => void listen(model), render};
