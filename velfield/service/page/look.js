// Looking at a job or a store: controls, pictures, pointer and keys, the three-dimensional view, the slice as PNG.

import { json, numbers, save } from "./api.js";
import { cellAt, draw, heightOf } from "./panel.js";
import { colours, needed, panels, reachOf, volumeOf, volumeValues, words } from "./view.js";
import { Volume } from "./volume.js";

const AXES = ["x", "y", "z"];
const PAUSE = 250; // between two requests for planes, so that a slider does not use up the service's rate [ms]
const COARSE = 32; // cells along a side of the three-dimensional view
const PNG_WIDTH = 520;
const by = (id) => document.getElementById(id);

export class Look {
  constructor(told) {
    this.told = told; // shows an error
    this.volume = new Volume(by("volume"));
    this.source = null;
    for (const id of ["colour", "arrows", "axis", "box", "index"]) by(id).addEventListener("input", () => this.changed(id));
    by("share").addEventListener("input", () => {
      by("share-value").value = by("share").value;
      this.volume.showShare(by("share").value / 100);
    });
    let width = 0;
    new ResizeObserver(([entry]) => {
      if (entry.contentRect.width !== width) this.paint();
      width = entry.contentRect.width;
    }).observe(by("panels"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.paint();
      this.volume.draw();
    });
  }

  // path: jobs/ID or stores/ID; name: what the heading says.
  async open(path, name) {
    const about = await json(`${path}/fields`);
    Object.assign(this, { source: path, about, job: path.startsWith("jobs"), arrays: null, cursor: null, volumeKey: "" });
    by("look-title").textContent = name;
    by("empty").hidden = true;
    by("field").hidden = by("volume-card").hidden = false;
    const before = by("colour").value;
    by("colour").replaceChildren(...colours(about.variables).map(([value, text]) => new Option(text, value)));
    if ([...by("colour").options].some((option) => option.value === before)) by("colour").value = before;
    by("arrows").disabled = !about.variables.includes("velocity");
    by("boxes").textContent = `Box, 0 to ${about.boxes - 1}`;
    by("box").max = about.boxes - 1;
    by("box").value = Math.max(0, about.split.indexOf("validation")); // one that training is not shown
    by("index").max = about.cells - 1;
    by("index").value = Math.floor(about.cells / 2);
    this.where();
    await this.load();
  }

  close(path) {
    if (this.source !== path) return;
    this.source = null;
    by("field").hidden = by("volume-card").hidden = true;
    by("empty").hidden = false;
    by("look-title").textContent = "Field";
  }

  changed(id) {
    const box = by("box");
    if (id === "box" && (box.value === "" || !box.checkValidity())) return;
    this.where();
    this.load().catch(this.told);
  }

  where() {
    const { cellsize } = this.about, index = Number(by("index").value);
    const text = `Slice ${index + 1} of ${this.about.cells}: ${by("axis").value} = ${((index + 0.5) * cellsize).toFixed(1)} h⁻¹Mpc`;
    by("where").textContent = text;
    by("index").setAttribute("aria-valuetext", text);
  }

  // The newest wish wins: while one plane loads, the ones in between are left out.
  async load() {
    this.wished = true;
    if (this.loading) return this.loading;
    by("loading").textContent = "loading…";
    this.loading = (async () => {
      while (this.wished) {
        this.wished = false;
        await Promise.all([this.plane(), new Promise((done) => setTimeout(done, this.arrays ? PAUSE : 0))]);
        if (!this.wished) await this.solid();
      }
    })();
    try {
      await this.loading;
    } finally {
      this.loading = null;
      by("loading").textContent = "";
    }
  }

  async plane() {
    const [path, colour, axis] = [this.source, by("colour").value, by("axis").value];
    if (!colour) throw new Error("There is nothing to look at in this store; paint it with velfield paint.");
    const names = needed(colour, this.about.variables);
    const query = `box=${by("box").value}&axis=${axis}&index=${by("index").value}`;
    const found = await Promise.all(names.map((name) => numbers(`${path}/slice?variable=${name}&${query}`)));
    if (path !== this.source) return;
    this.arrays = Object.fromEntries(names.map((name, i) => [name, found[i]]));
    this.shown = { colour, axis, index: Number(by("index").value), box: Number(by("box").value), dims: AXES.filter((a) => a !== axis) };
    this.compose();
  }

  async solid() {
    const [path, colour, box] = [this.source, by("colour").value, by("box").value];
    const name = volumeOf(colour), key = `${path} ${name} ${box}`;
    by("volume-card").hidden = !this.about.variables.includes(name);
    if (by("volume-card").hidden) return;
    if (this.volumeKey !== key) {
      this.coarse = await numbers(`${path}/block?variable=${name}&box=${box}&most=${COARSE}`);
      this.volumeKey = key;
    }
    this.volume.show(volumeValues(colour, this.coarse, reachOf(this.arrays)));
  }

  compose() {
    const { colour, dims } = this.shown;
    const n = Math.round(Math.sqrt(this.count()));
    const side = n * this.about.cellsize;
    this.pictures = panels(colour, this.arrays, dims, by("arrows").value === "yes", this.job).map((one) => ({ ...one, n, side, dims }));
    const there = by("panels").querySelectorAll("figure");
    if (there.length !== this.pictures.length) by("panels").replaceChildren(...this.pictures.map(() => this.figure()));
    by("panels").querySelectorAll("figure").forEach((figure, i) => {
      const { title } = this.pictures[i];
      figure.querySelector("h3").textContent = title;
      figure.querySelector("canvas").setAttribute("aria-label", `${title}: ${by("colour").selectedOptions[0].text}. Arrow keys move to a cell.`);
    });
    this.paint();
    this.read();
  }

  count() {
    const [name] = Object.keys(this.arrays), { shape } = this.arrays[name];
    return shape.at(-1) * shape.at(-2);
  }

  figure() {
    const figure = document.createElement("figure");
    const canvas = Object.assign(document.createElement("canvas"), { tabIndex: 0 });
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-describedby", "readout");
    const point = (event) => {
      const cell = cellAt(canvas.clientWidth, event.offsetX, event.offsetY, this.pictures[0].n);
      if (cell) this.move(cell);
    };
    canvas.addEventListener("pointermove", point);
    canvas.addEventListener("pointerdown", point);
    canvas.addEventListener("keydown", (event) => this.key(event));
    figure.append(document.createElement("h3"), canvas);
    return figure;
  }

  key(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    const turns = { PageUp: 1, PageDown: -1 };
    const { n } = this.pictures[0];
    if (steps[event.key]) {
      const from = this.cursor ?? [Math.floor(n / 2) - steps[event.key][0], Math.floor(n / 2) - steps[event.key][1]];
      this.move(from.map((at, d) => Math.min(n - 1, Math.max(0, at + steps[event.key][d]))));
    } else if (turns[event.key]) {
      by("index").value = Number(by("index").value) + turns[event.key];
      this.changed("index");
    } else return;
    event.preventDefault();
  }

  move(cell) {
    if (this.cursor && cell[0] === this.cursor[0] && cell[1] === this.cursor[1]) return;
    this.cursor = cell;
    this.paint();
    this.read();
  }

  read() {
    if (!this.cursor) return;
    const { axis, index } = this.shown, [i, j] = this.cursor, { origin } = Object.values(this.arrays)[0];
    const place = AXES.map((name) => (name === axis ? index : this.shown.dims.indexOf(name) === 0 ? i : j));
    const position = place.map((at, d) => origin[d] + (at + 0.5) * this.about.cellsize);
    by("readout").textContent = words(this.arrays, i * this.pictures[0].n + j, position, this.job);
  }

  paint() {
    if (!this.source || !this.pictures) return;
    const dense = window.devicePixelRatio || 1;
    by("panels").querySelectorAll("canvas").forEach((canvas, i) => {
      const width = canvas.clientWidth;
      if (!width || !this.pictures[i]) return;
      const height = heightOf(width);
      canvas.style.height = `${height}px`;
      canvas.width = Math.round(width * dense);
      canvas.height = Math.round(height * dense);
      const context = canvas.getContext("2d");
      context.scale(dense, dense);
      draw(context, width, { ...this.pictures[i], cursor: this.cursor }, getComputedStyle(canvas).color);
    });
  }

  // The pictures side by side, dark on white, twice as fine as on the page.
  async savePng() {
    const top = 30, foot = 26, canvas = document.createElement("canvas");
    const width = PNG_WIDTH * this.pictures.length, height = top + heightOf(PNG_WIDTH) + foot;
    canvas.width = 2 * width;
    canvas.height = 2 * height;
    const context = canvas.getContext("2d");
    context.scale(2, 2);
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, height);
    this.pictures.forEach((picture, i) => {
      context.save();
      context.translate(i * PNG_WIDTH, top);
      draw(context, PNG_WIDTH, picture, "#1b2126");
      context.fillStyle = "#1b2126";
      context.textAlign = "left";
      context.font = "bold 15px system-ui, sans-serif";
      context.fillText(picture.title, 40, -20);
      context.restore();
    });
    context.fillStyle = "#1b2126";
    context.font = "12px system-ui, sans-serif";
    const { redshift } = this.about, { colour, box } = this.shown;
    context.fillText(`${by("look-title").textContent}; box ${box}; ${by("where").textContent}; redshift ${redshift}`, 40, height - 18);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
    save(blob, `${this.source.replace("/", "-").slice(0, 14)}-box${box}-${this.shown.axis}${this.shown.index}-${colour}.png`);
  }
}
