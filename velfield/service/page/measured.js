// How near the velocities that are shown are to the truth, where that is known: numbers of the service, never of a picture.

import { json } from "./api.js";
import { number } from "./colour.js";

const by = (id) => document.getElementById(id);
const speed = (v) => `${number(v)} km/s`;

export class Measured {
  // path: jobs/ID or stores/ID; box: its number, or null for all of them; about: what the service says of it; predicted:
  // whether its velocities were predicted
  async show(path, box, about, predicted) {
    const key = `${path} ${box}`;
    if (this.key === key) return;
    this.key = key;
    by("measures").hidden = !about.variables.includes("velocity");
    if (by("measures").hidden) return;
    by("measures-list").replaceChildren();
    by("measures-about").textContent = "Measuring…";
    try {
      const found = await json(`${path}/measures${box === null ? "" : `?box=${box}`}`);
      if (this.key === key) this.say(found, box, about, predicted);
    } catch (error) {
      if (this.key !== key) return;
      this.key = null; // asked again with the next picture
      by("measures-about").textContent = error.status === 0 ? "" : `Not measured: ${error.message}`;
    }
  }

  clear() {
    this.key = null;
    by("measures").hidden = true;
  }

  say(found, box, about, predicted) {
    const all = [
      ["r", found.r, (v) => number(v)],
      ["rms error", found.rms_error, speed],
      [predicted ? "rms predicted" : "rms velocity", found.rms_velocity, speed],
      ["rms true", found.rms_truth, speed],
      ["rms error bar", found.rms_error_bar, speed],
    ];
    by("measures-list").replaceChildren(...all.filter(([, one]) => one).map(([name, one, words]) => entry(name, words(one.mean), one.std)));
    const where = box !== null ? `Box ${box} alone` : about.boxes === 1 ? "The one box" : found.measured < found.boxes ? `${found.measured} of the ${found.boxes} boxes, evenly spread: mean ± scatter` : `All ${found.boxes} boxes: mean ± scatter`;
    const what = found.truth
      ? "r is the correlation of predicted and true velocities, rms error their root mean square difference in a component, over all cells, as velfield evaluate gives them."
      : predicted
        ? "The true velocities are not known here, so there is no r and no rms error. rms is the root mean square of a component, of error bars of 1σ."
        : "rms is the root mean square of a component; nothing is predicted here.";
    by("measures-about").textContent = `${where}. ${what}`;
  }
}

function entry(name, value, std) {
  const one = document.createElement("div");
  const made = (tag, textContent) => Object.assign(document.createElement(tag), { textContent });
  const said = made("dd", value);
  if (std !== null && std !== undefined) said.append(" ", made("span", `± ${number(std, 2)}`));
  one.append(made("dt", name), said);
  return one;
}
