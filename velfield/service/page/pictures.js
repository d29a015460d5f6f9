// The pictures of a plane on the page: drawn, pointed at, moved through with keys.

import { cellAt, cross, draw, heightOf } from "./panel.js";

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const TURNS = { PageUp: 1, PageDown: -1 };

export class Pictures {
  // told: {moved(), turned(planes), chosen(), left()}: the cursor is elsewhere, another plane is wished for, the cell is
  // chosen, or the way back is
  constructor(root, told) {
    Object.assign(this, { root, told, pictures: [], cursor: null });
    let width = 0;
    new ResizeObserver(([entry]) => {
      if (entry.contentRect.width !== width) this.paint();
      width = entry.contentRect.width;
    }).observe(root);
  }

  // pictures: what `draw` takes, and {title, about}
  show(pictures) {
    this.pictures = pictures;
    const there = this.root.querySelectorAll("figure");
    if (there.length !== pictures.length) this.root.replaceChildren(...pictures.map(() => this.figure()));
    this.root.querySelectorAll("figure").forEach((figure, i) => {
      figure.querySelector("h3").textContent = pictures[i].title;
      figure.querySelector("canvas").setAttribute("aria-label", pictures[i].about);
    });
    this.root.classList.toggle("boxes", Boolean(pictures[0].boxes));
    this.paint();
  }

  figure() {
    const figure = document.createElement("figure");
    const canvas = Object.assign(document.createElement("canvas"), { tabIndex: 0 });
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-describedby", "keys");
    const point = (event) => {
      const cell = cellAt(canvas.clientWidth, event.offsetX, event.offsetY, this.pictures[0]);
      if (cell) this.move(cell);
      return cell;
    };
    canvas.addEventListener("pointermove", point);
    canvas.addEventListener("pointerdown", point);
    canvas.addEventListener("pointerup", (event) => {
      // a finger that taps asks for values; the button beside them goes into the box
      if (event.pointerType === "mouse" && event.button === 0 && point(event)) this.told.chosen();
    });
    canvas.addEventListener("keydown", (event) => this.key(event));
    figure.append(document.createElement("h3"), canvas);
    return figure;
  }

  key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const { n } = this.pictures[0], step = STEPS[event.key];
    if (step) {
      const far = event.shiftKey ? 10 : 1;
      const from = this.cursor ?? step.map((one) => Math.floor(n / 2) - one * far);
      this.move(from.map((at, d) => Math.min(n - 1, Math.max(0, at + far * step[d]))));
    } else if (TURNS[event.key]) this.told.turned(TURNS[event.key]);
    else if (event.key === "Enter" && this.cursor) this.told.chosen();
    else if (event.key === "Escape") this.told.left();
    else return;
    event.preventDefault();
  }

  move(cell) {
    if (this.cursor && cell[0] === this.cursor[0] && cell[1] === this.cursor[1]) return;
    this.cursor = cell;
    this.mark();
    this.told.moved();
  }

  // No pixel is pointed at.
  forget() {
    this.cursor = null;
    this.mark();
    this.told.moved();
  }

  // All anew.
  paint() {
    const dense = window.devicePixelRatio || 1;
    this.root.querySelectorAll("canvas").forEach((canvas, i) => {
      const width = canvas.clientWidth;
      if (!width || !this.pictures[i]) return;
      const height = heightOf(width);
      canvas.style.height = `${height}px`;
      const plain = document.createElement("canvas");
      plain.width = canvas.width = Math.round(width * dense);
      plain.height = canvas.height = Math.round(height * dense);
      const context = plain.getContext("2d");
      context.scale(dense, dense);
      draw(context, width, this.pictures[i], getComputedStyle(canvas).color);
      canvas.plain = plain;
    });
    this.mark();
  }

  // The cursor anew, over what is drawn.
  mark() {
    const dense = window.devicePixelRatio || 1;
    this.root.querySelectorAll("canvas").forEach((canvas, i) => {
      if (!canvas.plain || !this.pictures[i]) return;
      const context = canvas.getContext("2d");
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.clearRect(0, 0, canvas.width, canvas.height);
      context.drawImage(canvas.plain, 0, 0);
      context.scale(dense, dense);
      if (this.cursor) cross(context, canvas.clientWidth, this.pictures[i], this.cursor);
    });
  }
}
