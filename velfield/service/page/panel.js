// One picture of a plane: cells, arrows, axes, colour bar. Drawn the same on the page and into a PNG.

const LEFT = 46, RIGHT = 10, TOP = 6, BELOW = 88;
const FONT = "12px system-ui, 'Liberation Sans', 'DejaVu Sans', sans-serif";
const APART = 20; // between arrows, at least [px]
const LONG = 1.7; // length of the fastest, in distances between arrows
const ROUND = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]; // km/s

export function heightOf(width) {
  return TOP + (width - LEFT - RIGHT) + BELOW;
}

// panel: {values (n·n, second axis fastest), n, side, dims, scale, label, arrows: {u, v, reach} | null, cursor}
export function draw(context, width, panel, ink) {
  const size = width - LEFT - RIGHT;
  context.font = FONT;
  cells(context, panel, size);
  if (panel.arrows) arrows(context, panel, size);
  if (panel.cursor) cursor(context, panel, size);
  axes(context, panel, size, ink);
  bar(context, panel, size, ink);
}

// The cell at a place of the picture, or null.
export function cellAt(width, x, y, n) {
  const size = width - LEFT - RIGHT;
  const i = Math.floor(((x - LEFT) / size) * n), j = Math.floor((1 - (y - TOP) / size) * n);
  return i >= 0 && j >= 0 && i < n && j < n ? [i, j] : null;
}

function cells(context, { values, n, scale }, size) {
  const image = new ImageData(n, n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      const [r, g, b] = scale.rgb(values[i * n + j]);
      image.data.set([r, g, b, 255], 4 * ((n - 1 - j) * n + i));
    }
  }
  const small = document.createElement("canvas");
  small.width = small.height = n;
  small.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, LEFT, TOP, size, size);
}

const stepOf = (n, size) => Math.max(1, Math.ceil((APART * n) / size));

// Pixels that stand for 1 km/s.
const lengthOf = (n, size, reach) => (LONG * stepOf(n, size) * (size / n)) / (reach || 1);

// Means over squares of cells, so that arrows stand apart.
function arrows(context, { n, scale, arrows: { u, v, reach } }, size) {
  const step = stepOf(n, size), cell = size / n, long = lengthOf(n, size, reach);
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
  context.save();
  context.beginPath();
  context.rect(LEFT, TOP, size, size);
  context.clip();
  outlined(context, strokes, scale.light);
  context.restore();
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

function cursor(context, { n, cursor: [i, j] }, size) {
  const cell = size / n, x = LEFT + i * cell, y = TOP + size - (j + 1) * cell;
  context.strokeStyle = "#000";
  context.lineWidth = 4;
  context.strokeRect(x - 1, y - 1, cell + 2, cell + 2);
  context.strokeStyle = "#fff";
  context.lineWidth = 2;
  context.strokeRect(x - 1, y - 1, cell + 2, cell + 2);
}

function axes(context, { side, dims }, size, ink) {
  context.strokeStyle = context.fillStyle = ink;
  context.lineWidth = 1;
  context.strokeRect(LEFT + 0.5, TOP + 0.5, size - 1, size - 1);
  const step = [1, 2, 5, 10, 20, 25, 50, 100, 200, 500, 1000].find((s) => side / s <= 5) ?? side;
  context.textBaseline = "top";
  for (let at = 0; at <= side * 1.0001; at += step) {
    const x = LEFT + (at / side) * size, y = TOP + size - (at / side) * size;
    context.fillRect(x - 0.5, TOP + size, 1, 4);
    context.fillRect(LEFT - 4, y - 0.5, 4, 1);
    context.textAlign = "center";
    context.fillText(String(at), x, TOP + size + 6);
    if (at > 0) {
      context.textAlign = "right";
      context.textBaseline = "middle";
      context.fillText(String(at), LEFT - 6, Math.max(y, TOP + 6));
      context.textBaseline = "top";
    }
  }
  context.textAlign = "center";
  context.fillText(`${dims[0]} [h⁻¹Mpc]`, LEFT + size / 2, TOP + size + 20);
  context.save();
  context.translate(3, TOP + size / 2);
  context.rotate(-Math.PI / 2);
  context.textBaseline = "top";
  context.fillText(`${dims[1]} [h⁻¹Mpc]`, 0, 0);
  context.restore();
}

function bar(context, { scale, label, n, arrows: shown }, size, ink) {
  const top = TOP + size + 42, high = 10;
  if (scale.steps) {
    for (let k = 0; k < scale.steps; k++) {
      context.fillStyle = `rgb(${scale.rgb(k).join(" ")})`;
      context.fillRect(LEFT + (k / scale.steps) * size, top, size / scale.steps - 2, high);
    }
  } else {
    for (let x = 0; x < size; x++) {
      context.fillStyle = `rgb(${scale.rgb(inverse(scale, (x + 0.5) / size)).join(" ")})`;
      context.fillRect(LEFT + x, top, 1.5, high);
    }
  }
  context.fillStyle = ink;
  context.textAlign = "center";
  context.textBaseline = "top";
  let free = -Infinity;
  for (const [place, text] of scale.ticks) {
    const half = context.measureText(text).width / 2, x = LEFT + place * size;
    if (x - half < free) continue;
    free = x + half + 6;
    if (!scale.steps) context.fillRect(x - 0.5, top + high, 1, 3);
    context.fillText(text, Math.min(Math.max(x, half), LEFT + size + RIGHT - half), top + high + 4);
  }
  context.textAlign = "left";
  context.fillText(label, LEFT, top + high + 20);
  if (shown) key(context, shown.reach, lengthOf(n, size, shown.reach), LEFT + size, top + high + 20, ink);
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
