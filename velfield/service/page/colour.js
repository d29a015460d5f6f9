// Colour maps and scales. The tables are matplotlib's viridis, cividis, magma and coolwarm at 33 even steps
// (tests/test_page.py compares them); between two of them colours are mixed evenly.

const TABLES = {
  viridis: "440154470d6048186a482374472d7b4537814240863e49893b528b375b8d33638d2f6b8e2c728e297a8e26828e23898e21918c1f988b1fa08822a78528ae8032b67a3fbc734ec36b5ec96270cf5784d44b98d83eaddc30c2df23d8e219ece51bfde725",
  cividis: "00224e00285b002e6a0533711a386f273e6e32436d3b496c434e6c4b546c535a6d5a5f6e61656f686a716f70737676767d7c788482798c8878938e789b9476a39a74aba072b4a76fbcae6cc4b468cdbb63d5c25edec958e7d150f0d846f9e03afee838",
  magma: "0000040303120a0822130d341d114729115a36106b440f7651127c5d177f6a1c81762181832681902a819c2e7faa337db73779c43c75d0416fdc4869e75263ef5d5ef56b5cf9795dfc8961fd9869fea772feb67cfec488fed395fde2a3fcf0b2fcfdbf",
  coolwarm: "3b4cc0445acc4e68d85875e16282ea6c8ff1779af782a6fb8db0fe98b9ffa3c2feaec9fcb9d0f9c3d5f4ccd9edd5dbe5dddcdce5d8d1ecd3c5f1ccb8f5c4acf7ba9ff7b093f6a586f4987af08b6eeb7d62e46e56dd5f4bd44e41ca3b37be242eb40426",
};
const UNKNOWN = [128, 128, 128];
const FLAGS = [[33, 102, 172], [244, 165, 66], [128, 128, 128]];

const maps = Object.fromEntries(Object.entries(TABLES).map(([name, text]) => [name, expand(text)]));

function expand(text) {
  const stops = text.match(/../g).map((pair) => parseInt(pair, 16));
  const last = stops.length / 3 - 1;
  const table = [];
  for (let i = 0; i < 256; i++) {
    const at = (i / 255) * last, low = Math.min(Math.floor(at), last - 1), part = at - low;
    table.push([0, 1, 2].map((c) => Math.round(stops[3 * low + c] * (1 - part) + stops[3 * low + 3 + c] * part)));
  }
  return table;
}

// A scale: from a value to a place in 0…1 and a colour, and the ticks of its bar.
export function linear(map, low, high) {
  if (!(high > low)) high = low + 1;
  const place = (v) => (v - low) / (high - low);
  return { place, rgb: painted(map, place), ticks: ticks(low, high), low, high };
}

// Its middle is light.
export function symmetric(map, size) {
  return { ...linear(map, -(size || 1), size || 1), light: true };
}

// 1 + δ from a density contrast, by its logarithm; empty cells take the lowest colour.
export function contrast(map, low, high) {
  const bottom = Math.max(0.1, 1 + low), top = Math.max(1 + high, 2 * bottom);
  const place = (v) => Math.log(Math.max(1 + v, bottom) / bottom) / Math.log(top / bottom);
  const marks = [];
  for (let d = -1; d < 6; d++) for (const m of [1, 3]) marks.push(m * 10 ** d);
  const shown = marks.filter((m) => m >= bottom * 0.999 && m <= top * 1.001);
  return { place, rgb: painted(map, place), ticks: shown.map((m) => [place(m - 1), number(m)]), low: bottom - 1, high: top - 1 };
}

export function flags(meanings) {
  const marks = meanings.map((name, i) => [(i + 0.5) / meanings.length, name.replaceAll("_", " ")]);
  const rgb = (v) => FLAGS[Math.round(v)] ?? UNKNOWN;
  return { place: (v) => (v + 0.5) / meanings.length, rgb, ticks: marks, steps: meanings.length, low: 0, high: meanings.length - 1 };
}

function painted(map, place) {
  const table = maps[map];
  return (v) => (Number.isFinite(v) ? table[Math.min(255, Math.max(0, Math.round(place(v) * 255)))] : UNKNOWN);
}

function ticks(low, high) {
  const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const made = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) {
    made.push([(i * step - low) / (high - low), number(i * step)]);
  }
  return made;
}

export function number(v, digits = 3) {
  if (!Number.isFinite(v)) return "unknown";
  const text = Math.abs(v) >= 1e5 || (v !== 0 && Math.abs(v) < 1e-3) ? v.toExponential(1) : String(Number(v.toPrecision(digits)));
  return text.replace("-", "−");
}
