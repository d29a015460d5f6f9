// A cube in three dimensions: its highest cells as squares, the far ones first. Turned by pointer, fingers or keys, never
// by itself.

import { bar } from "./panel.js";

const CORNERS = [0, 1, 2, 3, 4, 5, 6, 7].map((c) => [c & 1, (c >> 1) & 1, (c >> 2) & 1].map((b) => b - 0.5));
const EDGES = CORNERS.flatMap((_, a) => [1, 2, 4].filter((bit) => !(a & bit)).map((bit) => [a, a | bit]));
const BUCKETS = 128;
const BELOW = 46, ASIDE = 24; // room of the colour bar

export class Volume {
  constructor(canvas) {
    this.canvas = canvas;
    this.turn = 0.6;
    this.tilt = 0.45;
    this.zoom = 1;
    this.data = null;
    this.share = 0.1;
    this.asked = false;
    this.fingers = new Map(); // where each pointer that is down is
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
    });
    canvas.addEventListener("pointermove", (event) => this.drag(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => this.fingers.delete(event.pointerId));
    canvas.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  // One finger turns, two that part or meet change the size.
  drag(event) {
    if (!this.fingers.has(event.pointerId)) return;
    const before = [...this.fingers.values()], [x, y] = this.fingers.get(event.pointerId);
    this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
    if (before.length === 1) this.rotate((event.clientX - x) / 150, (event.clientY - y) / 150);
    else if (before.length === 2) this.resize(apart([...this.fingers.values()]) / (apart(before) || 1));
  }

  resize(factor) {
    this.zoom = Math.min(2.5, Math.max(0.5, this.zoom * factor));
    this.draw();
  }

  // data: {values (n·n·n), n, scale, label, size: how a value is ranked, words: what it is called}
  show(data) {
    this.data = data;
    this.rank();
    this.draw();
  }

  // What was drawn is no longer what is looked at.
  clear() {
    this.data = null;
    this.draw();
  }

  showShare(share) {
    this.share = share;
    this.draw();
  }

  rank() {
    const { values, size } = this.data;
    const order = [];
    for (let i = 0; i < values.length; i++) if (Number.isFinite(values[i])) order.push(i);
    order.sort((a, b) => size(values[b]) - size(values[a]));
    this.order = order;
  }

  // The lowest of what is shown, as it is ranked.
  get least() {
    const { order, share } = this;
    return this.data.size(this.data.values[order[Math.ceil(share * order.length) - 1]]);
  }

  rotate(dx, dy) {
    this.turn += dx;
    this.tilt = Math.min(1.5, Math.max(-1.5, this.tilt + dy));
    this.draw();
  }

  key(event) {
    const turns = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };
    if (turns[event.key]) this.rotate(...turns[event.key]);
    else if (event.key === "+" || event.key === "=") this.resize(1.1);
    else if (event.key === "-") this.resize(1 / 1.1);
    else return;
    event.preventDefault();
  }

  draw() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      this.paint();
    });
  }

  paint() {
    const { canvas } = this, dense = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width) return;
    canvas.width = Math.round(width * dense);
    canvas.height = Math.round(height * dense);
    if (!this.data) return;
    const context = canvas.getContext("2d");
    context.scale(dense, dense);
    const look = this.projection(width, height - BELOW);
    const corners = CORNERS.map(look);
    const nearest = corners.reduce((best, c, i) => (c[2] > corners[best][2] ? i : best), 0);
    const ink = getComputedStyle(canvas).color;
    context.save();
    context.beginPath();
    context.rect(0, 0, width, height - BELOW);
    context.clip(); // a cube that was made large does not cover the bar
    this.edges(context, corners, (a, b) => a !== nearest && b !== nearest, ink);
    this.squares(context, look, Math.min(width, height - BELOW) * 0.55 * this.zoom);
    this.edges(context, corners, (a, b) => a === nearest || b === nearest, ink);
    this.names(context, look, corners, ink);
    context.restore();
    const wide = Math.min(width - 2 * ASIDE, 420);
    bar(context, this.data, (width - wide) / 2, height - BELOW + 4, wide, ink);
  }

  projection(width, height) {
    const size = Math.min(width, height) * 0.55 * this.zoom;
    const [c, s, ct, st] = [Math.cos(this.turn), Math.sin(this.turn), Math.cos(this.tilt), Math.sin(this.tilt)];
    return ([x, y, z]) => {
      const [across, deep] = [c * x + s * y, -s * x + c * y];
      const [up, near] = [ct * z + st * deep, st * z - ct * deep];
      return [width / 2 + size * across, height / 2 - size * up, near];
    };
  }

  squares(context, look, size) {
    const { values, n, scale } = this.data;
    const shown = this.order.slice(0, Math.ceil(this.share * this.order.length));
    const buckets = Array.from({ length: BUCKETS }, () => []);
    for (const at of shown) {
      const point = look([Math.floor(at / (n * n)), Math.floor(at / n) % n, at % n].map((i) => (i + 0.5) / n - 0.5));
      buckets[Math.min(BUCKETS - 1, Math.max(0, Math.floor((point[2] + 0.9) * (BUCKETS / 1.8))))].push([point, at]);
    }
    const side = Math.max(1.5, (size / n) * 0.95);
    buckets.forEach((bucket, k) => {
      const far = 0.55 + (0.45 * k) / BUCKETS; // what is far away is darker
      for (const [[x, y], at] of bucket) {
        const [r, g, b] = scale.rgb(values[at]);
        context.fillStyle = `rgb(${r * far} ${g * far} ${b * far} / 80%)`;
        context.fillRect(x - side / 2, y - side / 2, side, side);
      }
    });
  }

  edges(context, corners, which, ink) {
    context.strokeStyle = ink;
    context.lineWidth = 1;
    context.beginPath();
    for (const [a, b] of EDGES) {
      if (!which(a, b)) continue;
      context.moveTo(corners[a][0], corners[a][1]);
      context.lineTo(corners[b][0], corners[b][1]);
    }
    context.stroke();
  }

  // Each axis is named at the middle of its lowest edge on the page.
  names(context, look, corners, ink) {
    context.fillStyle = ink;
    context.font = "14px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    const [cx, cy] = look([0, 0, 0]);
    ["x", "y", "z"].forEach((name, axis) => {
      const edges = EDGES.filter(([a, b]) => (a ^ b) === 1 << axis);
      const middles = edges.map(([a, b]) => [(corners[a][0] + corners[b][0]) / 2, (corners[a][1] + corners[b][1]) / 2]);
      const [x, y] = axis === 2 ? extreme(middles, (m) => -m[0]) : extreme(middles, (m) => m[1]);
      const away = Math.hypot(x - cx, y - cy) || 1;
      context.fillText(name, x + (14 * (x - cx)) / away, y + (14 * (y - cy)) / away);
    });
  }
}

function apart([[x, y], [u, v]]) {
  return Math.hypot(x - u, y - v);
}

function extreme(list, value) {
  return list.reduce((best, one) => (value(one) > value(best) ? one : best));
}
