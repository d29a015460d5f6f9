// What the pictures show, as text: the cell that is pointed at, and each picture in numbers.

import { number } from "./colour.js";
import { correlation, rows, summary, where, words } from "./view.js";

const by = (id) => document.getElementById(id);

function row([head, ...texts]) {
  const made = document.createElement("tr");
  made.append(Object.assign(document.createElement("th"), { textContent: head, scope: "row" }));
  made.append(...texts.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
  return made;
}

// cell: {at: where in the arrays, place [h⁻¹Mpc], box: that may be looked at, or null}, or null
export function tell(panels, arrays, predicted, cell) {
  by("told").hidden = !cell;
  by("keys").hidden = Boolean(cell);
  if (cell) {
    by("said").textContent = words(arrays, cell.at, cell.place, predicted);
    by("place").textContent = where(arrays, cell.at, cell.place);
    by("velocities").replaceChildren(...rows(arrays, cell.at, predicted).map((texts) => row(texts)));
    by("velocities").parentElement.hidden = !by("velocities").children.length;
    by("into").hidden = cell.box === null;
    by("into").textContent = `Into box ${cell.box}`;
  }
  by("sums").replaceChildren(...panels.map((panel) => {
    const found = summary(panel), title = `${panel.title}${panel.label ? ` [${panel.label}]` : ""}`;
    return row([title, ...found]);
  }));
  const [made, truth] = panels, paired = truth?.title === "Truth" && made.values !== truth.values;
  by("correlation").hidden = !paired;
  if (paired) by("correlation").textContent = `Correlation of prediction and truth in this slice: ${number(correlation(made.values, truth.values))}.`;
}
