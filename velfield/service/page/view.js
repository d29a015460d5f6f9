// What a plane or a box shows: from numbers of the service to the values, scales and arrows of pictures. No DOM here.

import { contrast, flags, linear, number, symmetric } from "./colour.js";

export const DENSITIES = {
  halo_number_overdensity: "number of halos",
  halo_mass_overdensity: "mass of halos",
  matter_number_overdensity: "matter",
};
const AXES = ["x", "y", "z"];

// What can be coloured, by what is there: [name, what it is called].
export function colours(variables) {
  const found = Object.keys(DENSITIES).filter((name) => variables.includes(name)).map((name) => [name, `density: ${DENSITIES[name]}`]);
  if (variables.includes("velocity")) {
    found.push(["speed", "speed"], ...AXES.map((axis) => [`v${axis}`, `velocity along ${axis}`]));
  }
  if (variables.includes("velocity_std")) found.push(["error", "error bar"]);
  if (variables.includes("velocity_flag")) found.push(["flag", "flag: what is known"]);
  return found;
}

// What has to be asked for to show it.
export function needed(colour, variables) {
  const density = DENSITIES[colour] ? colour : Object.keys(DENSITIES).find((name) => variables.includes(name));
  const flag = colour === "flag" ? "velocity_flag" : null;
  return ["velocity", "velocity_truth", "velocity_std", density, flag].filter((name) => name && variables.includes(name));
}

export function size([x, y, z]) {
  return Math.sqrt(x * x + y * y + z * z);
}

function vectors(array) {
  const cells = array.data.length / 3;
  return [0, 1, 2].map((c) => array.data.subarray(c * cells, (c + 1) * cells));
}

function each(parts, f) {
  return parts[0].map((_, i) => f(parts.map((part) => part[i])));
}

// One quantity of a vector field.
function quantity(colour, parts) {
  return colour === "speed" ? each(parts, size) : parts[AXES.indexOf(colour[1])];
}

// Speed that colours and arrows reach [km/s]: the same for prediction and truth.
export function reachOf(arrays) {
  return Math.max(arrays.velocity?.high ?? 0, arrays.velocity_truth?.high ?? 0);
}

// Pictures of a plane: [{title, values, scale, label, arrows}], from arrays by name. `job`: whether it is a prediction.
export function panels(colour, arrays, dims, arrowed, job) {
  const made = arrays.velocity && vectors(arrays.velocity);
  const truth = arrays.velocity_truth && vectors(arrays.velocity_truth);
  const apart = made && truth && made.map((part, c) => part.map((v, i) => v - truth[c][i]));
  const reach = reachOf(arrays);
  const [h, v] = dims.map((name) => AXES.indexOf(name));
  const over = (parts) => (arrowed && parts ? { u: parts[h], v: parts[v], reach } : null);
  const title = job ? "Prediction" : "The store";
  if (DENSITIES[colour]) {
    const { data, low, high } = arrays[colour];
    const one = { values: data, scale: contrast("cividis", low, high), label: "1 + δ" };
    const all = [{ ...one, title, arrows: over(made) }];
    if (truth) all.push({ ...one, title: "Truth", arrows: over(truth) });
    if (apart && arrowed) all.push({ ...one, title: "Prediction − truth", arrows: over(apart) });
    return all;
  }
  if (colour === "flag") {
    const { data, meanings } = arrays.velocity_flag;
    return [{ title: job ? "What the prediction knows" : "What is known", values: data, scale: flags(meanings), label: "", arrows: over(made) }];
  }
  if (colour === "error") {
    const scale = linear("magma", 0, errorReach(arrays.velocity_std, reach));
    const mean = (parts) => each(parts, (vector) => size(vector) / Math.sqrt(3));
    const all = [{ title: "Error bar", values: mean(vectors(arrays.velocity_std)), scale, label: "km/s a component", arrows: over(made) }];
    if (apart) all.push({ title: "Error made", values: mean(apart), scale, label: "km/s a component", arrows: over(apart) });
    return all;
  }
  const scale = colour === "speed" ? linear("viridis", 0, reach) : symmetric("coolwarm", reach);
  const all = [{ title, values: quantity(colour, made), scale, label: "km/s", arrows: over(made) }];
  if (truth) {
    const [a, b] = [quantity(colour, made), quantity(colour, truth)];
    all.push({ title: "Truth", values: b, scale, label: "km/s", arrows: over(truth) });
    all.push({ title: "Prediction − truth", values: a.map((x, i) => x - b[i]), scale: symmetric("coolwarm", reach / 2), label: "km/s", arrows: over(apart) });
  }
  return all;
}

// How far the colours of errors reach [km/s, of a component]: errors that were made are larger than their bars.
function errorReach(std, reach) {
  return Math.max(std.high, reach / 2) / Math.sqrt(3);
}

// What the view in three dimensions asks for, and shows of it.
export function volumeOf(colour) {
  if (DENSITIES[colour]) return colour;
  return colour === "error" ? "velocity_std" : "velocity";
}

export function volumeValues(colour, array, reach) {
  const n = array.shape.at(-1);
  if (DENSITIES[colour]) return { values: array.data, n, scale: contrast("cividis", array.low, array.high), size: (v) => v };
  const parts = vectors(array);
  if (colour === "error") {
    return { values: each(parts, (v) => size(v) / Math.sqrt(3)), n, scale: linear("magma", 0, errorReach(array, reach)), size: (v) => v };
  }
  const shown = colour === "flag" ? "speed" : colour;
  const scale = shown === "speed" ? linear("viridis", 0, reach) : symmetric("coolwarm", reach);
  return { values: quantity(shown, parts), n, scale, size: shown === "speed" ? (v) => v : Math.abs };
}

// A cell in words.
export function words(arrays, at, position, job) {
  const vector = (name) => arrays[name] && vectors(arrays[name]).map((part) => part[at]);
  const told = (v) => `(${v.map((x) => number(Math.round(x), 6)).join(", ")})`;
  const made = vector("velocity"), truth = vector("velocity_truth"), std = vector("velocity_std");
  const parts = [`x, y, z = ${position.map((p) => number(p, 6)).join(", ")} h⁻¹Mpc`];
  for (const name of Object.keys(DENSITIES)) {
    if (arrays[name]) parts.push(`1 + δ (${DENSITIES[name]}) = ${number(1 + arrays[name].data[at])}`);
  }
  if (made) parts.push(`${job ? "predicted" : "velocity"} ${told(made)}${std ? ` ± ${told(std)}` : ""} km/s`);
  if (truth) parts.push(`truth ${told(truth)} km/s`);
  if (made && truth) parts.push(`apart by ${number(Math.round(size(made.map((m, c) => m - truth[c]))), 6)} km/s`);
  if (arrays.velocity_flag) parts.push(arrays.velocity_flag.meanings[arrays.velocity_flag.data[at]]?.replaceAll("_", " ") ?? "no flag");
  return parts.join("; ");
}
