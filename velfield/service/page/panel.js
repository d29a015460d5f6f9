// One picture of a plane: cells, arrows, axes, colour bar. Drawn the same on the page and into a PNG.

const LEFT = 46, RIGHT = 10, TOP = 6, BELOW = 88;
const FONT = "12px system-ui, 'Liberation Sans', 'DejaVu Sans', sans-serif";
const APART = 20; // between arrows, at least [px]
const LONG = 1.7; // length of the fastest, in distances between arrows
const ROUND = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]; // km/s

export function heightOf(width) {
  return TOP + (width - LEFT - RIGHT) + BELOW;
}

// panel: {values (n·n, second axis fastest), n, pixel, side, from: where it begins, boxes: side of one, or null, dims,
// scale, label, arrows: {u, v, reach} | null}; lengths in h⁻¹Mpc. The last pixels may reach beyond the side.
export function draw(context, width, panel, ink) {
  const size = width - LEFT - RIGHT;
  context.font = FONT;
  context.save();
  context.beginPath();
  context.rect(LEFT, TOP, size, size);
  context.clip();
  cells(context, panel, size);
  if (panel.boxes) lines(context, panel, size);
  if (panel.arrows) arrows(context, panel, size);
  context.restore();
  axes(context, panel, size, ink);
  bar(context, panel, LEFT, TOP + size + 42, size, ink);
  if (panel.arrows) key(context, panel.arrows.reach, lengthOf(panel, size), LEFT + size, TOP + size + 72, ink);
}

const cellOf = ({ pixel, side }, size) => (size * pixel) / side;

// The pixel at a place of the picture, or null.
export function cellAt(width, x, y, panel) {
  const size = width - LEFT - RIGHT, cell = cellOf(panel, size);
  const inside = x >= LEFT && y >= TOP && x < LEFT + size && y < TOP + size;
  return inside ? [(x - LEFT) / cell, (TOP + size - y) / cell].map((at) => Math.min(panel.n - 1, Math.floor(at))) : null;
}

// The pixel that is pointed at, and the box around it.
export function cross(context, width, panel, [i, j]) {
  const size = width - LEFT - RIGHT, cell = cellOf(panel, size), middle = [i, j].map((at) => (at + 0.5) * panel.pixel);
  const frame = (x, y, side) => {
    context.strokeStyle = "#000";
    context.lineWidth = 4;
    context.strokeRect(x, y, side, side);
    context.strokeStyle = "#fff";
    context.lineWidth = 2;
    context.strokeRect(x, y, side, side);
  };
  if (panel.boxes) {
    const side = (size * panel.boxes) / panel.side, [h, v] = middle.map((at) => Math.floor(at / panel.boxes));
    frame(LEFT + h * side, TOP + size - (v + 1) * side, side);
  }
  const least = Math.max(cell + 2, 6); // of pixels that are hardly seen
  frame(LEFT + (i + 0.5) * cell - least / 2, TOP + size - (j + 0.5) * cell - least / 2, least);
}

function cells(context, panel, size) {
  const { values, n, scale } = panel, image = new ImageData(n, n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      const [r, g, b] = scale.rgb(values[i * n + j]);
      image.data.set([r, g, b, 255], 4 * ((n - 1 - j) * n + i));
    }
  }
  const small = document.createElement("canvas");
  small.width = small.height = n;
  small.getContext("2d").putImageData(image, 0, 0);
  const all = n * cellOf(panel, size);
  context.imageSmoothingEnabled = all * context.getTransform().a < n; // fewer points on the screen than pixels
  context.drawImage(small, LEFT, TOP + size - all, all, all);
}

// Where boxes meet.
function lines(context, { side, boxes, scale }, size) {
  context.strokeStyle = scale.light ? "rgb(0 0 0 / 60%)" : "rgb(255 255 255 / 70%)";
  context.lineWidth = 1;
  context.beginPath();
  for (let at = boxes; at < side * 0.9999; at += boxes) {
    const along = Math.round((size * at) / side) + 0.5;
    context.moveTo(LEFT + along, TOP);
    context.lineTo(LEFT + along, TOP + size);
    context.moveTo(LEFT, TOP + size - along);
    context.lineTo(LEFT + size, TOP + size - along);
  }
  context.stroke();
}

const stepOf = (panel, size) => Math.max(1, Math.ceil(APART / cellOf(panel, size)));

// How long on the screen 1 km/s is.
const lengthOf = (panel, size) => (LONG * stepOf(panel, size) * cellOf(panel, size)) / (panel.arrows.reach || 1);

// Means over squares of pixels, so that arrows stand apart.
function arrows(context, panel, size) {
  const { n, scale, arrows: { u, v } } = panel;
  const step = stepOf(panel, size), cell = cellOf(panel, size), long = lengthOf(panel, size);
  const strokes = new Path2D();
  for (let i0 = 0; i0 < n; i0 += step) {
    for (let j0 = 0; j0 < n; j0 += step) {
      let sum = [0, 0], count = 0;
      const i1 = Math.min(i0 + step, n), j1 = Math.min(j0 + step, n);
      for (let i = i0; i < i1; i++) {
        for (let j = j0; j < j1; j++) {
          const at = i * n + j;
          if (!Number.isFinite(u[at] + v[at])) continue;
          sum = [sum[0] + u[at], sum[1] + v[at]];
          count++;
        }
      }
      if (!count) continue;
      arrow(strokes, LEFT + ((i0 + i1) / 2) * cell, TOP + size - ((j0 + j1) / 2) * cell, (sum[0] / count) * long, (-sum[1] / count) * long);
    }
  }
  outlined(context, strokes, scale.light);
}

function arrow(path, x, y, dx, dy) {
  const long = Math.hypot(dx, dy);
  if (long < 2) return;
  const head = Math.min(5, 0.45 * long), c = dx / long, s = dy / long;
  const [tx, ty] = [x + dx / 2, y + dy / 2];
  path.moveTo(x - dx / 2, y - dy / 2);
  path.lineTo(tx, ty);
  path.moveTo(tx - head * (c + 0.55 * s), ty - head * (s - 0.55 * c));
  path.lineTo(tx, ty);
  path.lineTo(tx - head * (c - 0.55 * s), ty - head * (s + 0.55 * c));
}

// White on what is dark, black on what is light, with a seam of the other.
function outlined(context, path, light) {
  context.lineCap = context.lineJoin = "round";
  context.strokeStyle = light ? "rgb(255 255 255 / 75%)" : "rgb(0 0 0 / 75%)";
  context.lineWidth = 3.2;
  context.stroke(path);
  context.strokeStyle = light ? "#000" : "#fff";
  context.lineWidth = 1.4;
  context.stroke(path);
}

function axes(context, { side, from, dims }, size, ink) {
  context.strokeStyle = context.fillStyle = ink;
  context.lineWidth = 1;
  context.strokeRect(LEFT + 0.5, TOP + 0.5, size - 1, size - 1);
  const step = [1, 2, 5, 10, 20, 25, 50, 100, 200, 500, 1000].find((s) => side / s <= 5) ?? side;
  const marks = (start) => {
    const found = [];
    for (let i = Math.ceil(start / step - 1e-6); i * step <= start + side * 1.0001; i++) found.push([i * step, ((i * step - start) / side) * size]);
    return found;
  };
  const right = LEFT + size + RIGHT;
  context.textBaseline = "top";
  context.textAlign = "center";
  for (const [value, along] of marks(from[0])) {
    context.fillRect(LEFT + along - 0.5, TOP + size, 1, 4);
    const half = context.measureText(String(value)).width / 2;
    context.fillText(String(value), Math.min(LEFT + along, right - half), TOP + size + 6);
  }
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const [value, along] of marks(from[1])) {
    const y = TOP + size - along;
    context.fillRect(LEFT - 4, y - 0.5, 4, 1);
    if (along > 8) context.fillText(String(value), LEFT - 6, Math.max(y, TOP + 6));
  }
  context.textBaseline = "top";
  context.textAlign = "center";
  context.fillText(`${dims[0]} [h⁻¹Mpc]`, LEFT + size / 2, TOP + size + 20);
  context.save();
  context.translate(3, TOP + size / 2);
  context.rotate(-Math.PI / 2);
  context.textBaseline = "top";
  context.fillText(`${dims[1]} [h⁻¹Mpc]`, 0, 0);
  context.restore();
}

// A bar of a scale's colours with its ticks and what they are.
export function bar(context, { scale, label }, left, top, size, ink) {
  const high = 10;
  context.font = FONT;
  if (scale.steps) {
    for (let k = 0; k < scale.steps; k++) {
      context.fillStyle = `rgb(${scale.rgb(k).join(" ")})`;
      context.fillRect(left + (k / scale.steps) * size, top, size / scale.steps - 2, high);
    }
  } else {
    for (let x = 0; x < size; x++) {
      context.fillStyle = `rgb(${scale.rgb(inverse(scale, (x + 0.5) / size)).join(" ")})`;
      context.fillRect(left + x, top, Math.min(1.5, size - x), high);
    }
  }
  context.fillStyle = ink;
  context.textAlign = "center";
  context.textBaseline = "top";
  let free = -Infinity;
  for (const [place, text] of scale.ticks) {
    const half = context.measureText(text).width / 2, x = left + place * size;
    if (x - half < free) continue;
    free = x + half + 6;
    if (!scale.steps) context.fillRect(x - 0.5, top + high, 1, 3);
    context.fillText(text, Math.min(Math.max(x, half), left + size + RIGHT - half), top + high + 4);
  }
  context.textAlign = "left";
  context.fillText(label, left, top + high + 20);
}

// How long an arrow of a round speed is.
function key(context, reach, long, right, top, ink) {
  const speed = ROUND.findLast((one) => one <= reach) ?? reach, text = `${speed} km/s`;
  context.textAlign = "right";
  context.fillText(text, right, top);
  const path = new Path2D(), half = (speed * long) / 2;
  arrow(path, right - context.measureText(text).width - 8 - half, top + 6, 2 * half, 0);
  context.strokeStyle = ink;
  context.lineWidth = 1.6;
  context.stroke(path);
}

// The value at a place of a scale, by halving: contrast scales are not even.
function inverse(scale, place) {
  let [low, high] = [scale.low, scale.high];
  for (let k = 0; k < 24; k++) {
    const middle = (low + high) / 2;
    if (scale.place(middle) < place) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}
