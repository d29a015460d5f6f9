// What a plane or a box shows: from numbers of the service to the values, scales and arrows of pictures. No DOM here.

import { contrast, flags, linear, number, symmetric } from "./colour.js";
import { AXES } from "./place.js";

export const DENSITIES = {
  halo_number_overdensity: "number of halos",
  halo_mass_overdensity: "mass of halos",
  matter_number_overdensity: "matter",
};

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
  const more = { flag: "velocity_flag", error: "velocity_error" }[colour];
  return ["velocity", "velocity_truth", "velocity_std", density, more].filter((name) => name && variables.includes(name));
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

// Pictures of a plane: [{title, values, scale, label, arrows}], from arrays by name. `predicted`: whether velocities were.
export function panels(colour, arrays, dims, arrowed, predicted) {
  const made = arrays.velocity && vectors(arrays.velocity);
  const truth = arrays.velocity_truth && vectors(arrays.velocity_truth);
  const apart = made && truth && made.map((part, c) => part.map((v, i) => v - truth[c][i]));
  const reach = reachOf(arrays);
  const [h, v] = dims.map((name) => AXES.indexOf(name));
  const over = (parts) => (arrowed && parts ? { u: parts[h], v: parts[v], reach } : null);
  const title = predicted ? "Prediction" : "The store";
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
    return [{ title: predicted ? "What the prediction knows" : "What is known", values: data, scale: flags(meanings), label: "", arrows: over(made) }];
  }
  if (colour === "error") {
    const scale = linear("magma", 0, Math.max(arrays.velocity_std.high, arrays.velocity_error?.high ?? 0) / Math.sqrt(3));
    const one = (title, name, parts) => ({ title, values: component(vectors(arrays[name])), scale, label: "km/s a component", arrows: over(parts) });
    return [one("Error bar", "velocity_std", made), ...(apart ? [one("Error made", "velocity_error", apart)] : [])];
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

// Root mean square over the components.
function component(parts) {
  return each(parts, (vector) => size(vector) / Math.sqrt(3));
}

// What the view in three dimensions may show: [{name, title, ask: variables}].
export function solids(colour, variables) {
  const one = (name, title, ...ask) => ({ name, title, ask });
  if (DENSITIES[colour]) return [one("density", DENSITIES[colour], colour)];
  const all =
    colour === "error"
      ? [one("bar", "error bar", "velocity_std"), one("made", "error made", "velocity_error")]
      : [one("prediction", variables.includes("velocity_truth") ? "prediction" : "velocity", "velocity"), one("truth", "truth", "velocity_truth"), one("apart", "prediction − truth", "velocity", "velocity_truth")];
  return all.filter(({ ask }) => ask.every((name) => variables.includes(name)));
}

// Its values, from what was asked for: {values, n, scale, label, size: how values are ranked, words}. Colours reach as
// far as it does: means over many cells are smaller than the cells of a slice.
export function solidValues(colour, { name, title }, found) {
  const [first, second] = found, n = first.shape.at(-1), { low, high } = first, same = (v) => v;
  if (DENSITIES[colour]) return { values: first.data, n, scale: contrast("cividis", low, high), label: `1 + δ, ${title}`, size: same, words: (v) => `1 + δ = ${number(1 + v)}` };
  const parts = vectors(first), label = `${title}, km/s`, words = (v) => `${number(Math.round(v), 6)} km/s`;
  if (colour === "error") return { values: component(parts), n, scale: linear("magma", 0, high / Math.sqrt(3)), label: `${label} a component`, size: same, words };
  const shown = colour === "flag" ? "speed" : colour, values = quantity(shown, parts);
  if (name !== "apart") {
    const speed = shown === "speed", scale = speed ? linear("viridis", 0, high) : symmetric("coolwarm", high);
    return { values, n, scale, label: `${speed ? "speed" : `v${shown[1]}`}, ${label}`, size: speed ? same : Math.abs, words };
  }
  const other = quantity(shown, vectors(second));
  return { values: values.map((x, i) => x - other[i]), n, scale: symmetric("coolwarm", high / 2), label, size: Math.abs, words };
}

// The velocities of a pixel: [[what, x, y, z, size]], in km/s.
export function rows(arrays, at, predicted) {
  const vector = (name) => arrays[name] && vectors(arrays[name]).map((part) => part[at]);
  const made = vector("velocity"), truth = vector("velocity_truth");
  const row = (name, v, long = true) => [name, ...v, long ? size(v) : NaN].map((x, i) => (i === 0 ? x : i === 4 && !long ? "" : number(Math.round(x), 6)));
  const found = [];
  if (made) found.push(row(predicted ? "predicted" : "velocity", made));
  if (arrays.velocity_std) found.push(row("± error bar", vector("velocity_std"), false));
  if (truth) found.push(row("truth", truth));
  if (made && truth) found.push(row("apart", made.map((m, c) => m - truth[c])));
  return found;
}

// A picture in numbers, of pixels that are known: [lowest, mean, highest, root mean square]; of flags the share of each.
export function summary({ values, scale, label }) {
  if (scale.steps) {
    const known = values.filter(Number.isFinite);
    return scale.ticks.map(([, name], i) => `${name}: ${number((100 * known.filter((v) => v === i).length) / (known.length || 1))} %`);
  }
  if (label === "1 + δ") values = values.map((v) => 1 + v);
  let [low, high, sum, squares, count] = [Infinity, -Infinity, 0, 0, 0];
  for (const v of values) {
    if (!Number.isFinite(v)) continue;
    [low, high, sum, squares, count] = [Math.min(low, v), Math.max(high, v), sum + v, squares + v * v, count + 1];
  }
  return [low, sum / count, high, Math.sqrt(squares / count)].map((v) => number(v));
}

// Correlation coefficient of two pictures.
export function correlation(a, b) {
  let [n, x, y, xx, yy, xy] = [0, 0, 0, 0, 0, 0];
  a.forEach((v, i) => {
    const w = b[i];
    if (Number.isFinite(v + w)) [n, x, y, xx, yy, xy] = [n + 1, x + v, y + w, xx + v * v, yy + w * w, xy + v * w];
  });
  return (n * xy - x * y) / Math.sqrt((n * xx - x * x) * (n * yy - y * y));
}

// A pixel in one sentence, for who hears it.
export function words(arrays, at, position, predicted) {
  const vector = (name) => arrays[name] && vectors(arrays[name]).map((part) => part[at]);
  const told = (v) => `(${v.map((x) => number(Math.round(x), 6)).join(", ")})`;
  const made = vector("velocity"), truth = vector("velocity_truth"), std = vector("velocity_std");
  const parts = [where(arrays, at, position)];
  if (made) parts.push(`${predicted ? "predicted" : "velocity"} ${told(made)}${std ? ` ± ${told(std)}` : ""} km/s`);
  if (truth) parts.push(`truth ${told(truth)} km/s`);
  if (made && truth) parts.push(`apart by ${number(Math.round(size(made.map((m, c) => m - truth[c]))), 6)} km/s`);
  return parts.join("; ");
}

// Where a pixel is, and what of it is not a velocity.
export function where(arrays, at, position) {
  const parts = [`x, y, z = ${position.map((p) => number(p, 6)).join(", ")} h⁻¹Mpc`];
  for (const name of Object.keys(DENSITIES)) {
    if (arrays[name]) parts.push(`1 + δ (${DENSITIES[name]}) = ${number(1 + arrays[name].data[at])}`);
  }
  const flag = arrays.velocity_flag;
  if (flag) parts.push(flag.meanings[flag.data[at]]?.replaceAll("_", " ") ?? "no flag");
  return parts.join("; ");
}
