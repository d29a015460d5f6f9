// The table of velocities at positions; a row that is chosen is shown in the pictures.

import { save } from "./api.js";
import { number } from "./colour.js";
import { inside, words } from "./positions.js";

const by = (id) => document.getElementById(id);
const made = (tag, texts) => Object.assign(document.createElement(tag), texts);
const cell = (text, more) => made("td", { role: "cell", textContent: text, ...more }); // a table still where rows are grids
const speed = (v) => (Number.isFinite(v) ? number(Math.round(v), 6) : "–");

export class Answers {
  constructor(look) {
    this.look = look;
    by("found-save").addEventListener("click", () => save(this.blob, "velocities.csv"));
    by("to-rows").addEventListener("click", () => {
      this.row.scrollIntoView({ block: "center" });
      this.row.querySelector("button").focus({ preventScroll: true });
    });
  }

  clear() {
    by("found").hidden = by("to-rows").hidden = true;
    by("found-rows").replaceChildren();
    this.row = null;
  }

  // found: of `rows`; names: of what was given; blob: the answer itself
  show(found, names, blob) {
    this.blob = blob;
    by("found-given").textContent = names.join(", ");
    by("found-los").hidden = found[0].los === null;
    by("found-rows").replaceChildren(...found.map((one) => this.line(one, names)));
    by("found").hidden = false;
  }

  line(one, names) {
    const row = made("tr", { role: "row" }), head = made("th", { scope: "row", role: "rowheader" });
    const given = one.given.map((value) => number(value, 6)).join(", ");
    if (inside(one) && this.look.about.whole) {
      const button = made("button", { type: "button", textContent: given });
      button.setAttribute("aria-label", `Show in the pictures: ${names.join(", ")} = ${given}`);
      head.append(button);
      row.addEventListener("click", () => this.choose(row, one.place));
    } else head.textContent = given;
    row.append(head);
    one.velocity.forEach((v, d) => {
      const along = cell(speed(v));
      if (one.std && Number.isFinite(v)) along.append(" ", made("span", { textContent: `± ${speed(one.std[d])}` }));
      row.append(along);
    });
    if (one.los !== null) row.append(cell(speed(one.los)));
    row.append(cell(words(one.flag), { className: "words" }));
    return row;
  }

  choose(row, place) {
    this.row?.removeAttribute("aria-current");
    this.row = row;
    row.setAttribute("aria-current", "true");
    this.look.seek(place);
    by("to-rows").hidden = false;
    document.querySelector("#panels figure").scrollIntoView({ block: "nearest" });
  }
}
