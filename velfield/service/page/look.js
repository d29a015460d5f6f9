// Looking at a job or a store: controls, what is loaded for them, what is told of a cell, the slice as PNG.

import { json, numbers, save } from "./api.js";
import { Measured } from "./measured.js";
import { Pictures } from "./pictures.js";
import { AXES, Place } from "./place.js";
import { png } from "./png.js";
import { tell } from "./told.js";
import { colours, needed, panels, solids, solidValues } from "./view.js";
import { Volume } from "./volume.js";

const PAUSE = 350; // between two planes, of five arrays each, so that a slider does not use up the service's rate [ms]
const COARSE = 32; // cells along a side of the three-dimensional view
const by = (id) => document.getElementById(id);

export class Look {
  // failed(error) shows an error; opened(path, about) is told what is looked at, or null
  constructor(failed, opened) {
    Object.assign(this, { failed, opened });
    this.volume = new Volume(by("volume"));
    this.measured = new Measured();
    this.source = null;
    this.pictures = new Pictures(by("panels"), {
      moved: () => this.tell(),
      turned: (planes) => this.turn(planes),
      chosen: () => this.into(),
      left: () => (this.place.whole || !this.about.whole ? this.pictures.forget() : this.out()),
    });
    by("colour").addEventListener("input", () => (this.wanted = by("colour").value));
    for (const id of ["colour", "arrows", "axis", "box", "index"]) by(id).addEventListener("input", () => this.changed(id));
    by("solid").addEventListener("input", () => this.deepen());
    by("into").addEventListener("click", () => this.into());
    by("out").addEventListener("click", () => this.out());
    by("hide").addEventListener("click", () => this.pictures.forget());
    by("share").addEventListener("input", () => {
      by("share-value").value = by("share").value;
      this.volume.showShare(by("share").value / 100);
      this.least();
    });
    // what is not seen is not asked for: for a large parent all of it has to be read
    new IntersectionObserver((entries) => {
      this.seen = entries.at(-1).isIntersecting; // a busy browser tells several at once
      if (this.seen && this.arrays) this.deepen();
    }, { rootMargin: "100px" }).observe(by("volume-card"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.pictures.paint();
      this.volume.draw();
    });
  }

  // path: jobs/ID or stores/ID; name: what the heading says; predicted: whether its velocities were predicted
  async open(path, name, predicted) {
    const about = await json(`${path}/fields`);
    Object.assign(this, { source: path, about, predicted, arrays: null, solidKey: "" });
    this.pictures.cursor = null;
    by("told").hidden = true;
    by("look-title").textContent = name;
    by("empty").hidden = true;
    by("field").hidden = by("volume-card").hidden = false;
    by("unpredicted").hidden = predicted;
    by("colour").replaceChildren(...colours(about.variables).map(([value, text]) => new Option(text, value)));
    const offered = [...by("colour").options].map((option) => option.value);
    const first = [this.wanted, predicted ? "speed" : offered[0]].find((value) => offered.includes(value));
    if (first) by("colour").value = first;
    by("arrows").disabled = !about.variables.includes("velocity");
    by("boxes").textContent = `Box, 0 to ${about.boxes - 1}`;
    by("box").max = about.boxes - 1;
    by("box").required = !about.whole;
    by("box").placeholder = about.whole ? "all" : "";
    by("box").parentElement.hidden = about.boxes === 1;
    this.opened(path, about);
    // not a whole: a box that training is not shown
    this.go(new Place(about, about.whole ? null : Math.max(0, about.split.indexOf("validation"))));
    await this.load();
  }

  close(path) {
    if (this.source !== path) return;
    this.source = null;
    this.opened(null);
    this.measured.clear();
    by("field").hidden = by("volume-card").hidden = true;
    by("empty").hidden = false;
    by("look-title").textContent = "Field";
  }

  // What was asked for when the connection was lost.
  again() {
    if (this.source && !by("field").hidden) this.load().catch(this.failed);
  }

  // Look at another part, at one of its planes.
  go(place, index = Math.floor(place.ngrid / 2)) {
    this.place = place;
    by("box").value = place.whole ? "" : place.box;
    by("index").max = place.ngrid - 1;
    by("index").value = index;
    by("out").hidden = place.whole || !this.about.whole;
    this.where();
    this.measured.show(this.source, place.box, this.about, this.predicted);
  }

  changed(id) {
    const box = by("box");
    if (id === "box") {
      if (!box.checkValidity() || box.validity.badInput) return;
      this.enter(box.value === "" ? null : Number(box.value));
      return;
    }
    this.where();
    this.load().catch(this.failed);
  }

  turn(planes) {
    by("index").value = Number(by("index").value) + planes;
    this.changed("index");
  }

  // Into the box that holds the pixel which is pointed at, onto that pixel.
  into() {
    if (this.place.divided && this.pictures.cursor && this.shown.box === null) this.enter(this.place.boxAt(this.cell()));
  }

  out() {
    if (!this.place.whole && this.about.whole) this.enter(null);
  }

  // Another part, at the same place of the parent as far as there is one.
  enter(box) {
    const to = new Place(this.about, box), normal = AXES.indexOf(by("axis").value);
    const at = this.place.corner().map((first) => first + Math.floor(this.place.ngrid / 2));
    if (this.pictures.cursor && this.shown.axis === by("axis").value) Object.assign(at, this.cell());
    at[normal] = this.place.corner()[normal] + Number(by("index").value);
    const cell = at.map((one, d) => one - to.corner()[d]), inside = cell.every((one) => one >= 0 && one < to.ngrid);
    this.point(to, cell, inside && this.pictures.cursor);
  }

  // The cell that holds a position of a whole parent [h⁻¹Mpc]: box, plane and cursor follow.
  seek(position) {
    const { box, cell } = this.place.holding(position);
    this.point(new Place(this.about, box), cell, true);
  }

  // Look at a part, at the plane of one of its cells, with the cursor on it or nowhere.
  point(to, cell, pointed) {
    this.go(to, ((cell[AXES.indexOf(by("axis").value)] % to.ngrid) + to.ngrid) % to.ngrid);
    this.next = pointed ? cell : null; // the cursor, once it is there
    this.load().catch(this.failed);
  }

  // The cell of the parent in the middle of the pixel which is pointed at.
  cell() {
    const { axis, index, dims, step, place } = this.shown, { cursor } = this.pictures;
    const half = Math.floor(step / 2);
    return AXES.map((name, d) => place.corner()[d] + (name === axis ? index : Math.min(place.ngrid - 1, cursor[dims.indexOf(name)] * step + half)));
  }

  where() {
    const { cellsize } = this.about, { place } = this, index = Number(by("index").value), axis = by("axis").value;
    const position = (place.corner()[AXES.indexOf(axis)] + index + 0.5) * cellsize;
    const text = `Slice ${index + 1} of ${place.ngrid}: ${axis} = ${position.toFixed(1)} h⁻¹Mpc${this.about.whole ? "" : " from the box's corner"}`;
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
      }
    })();
    try {
      await this.loading;
    } finally {
      this.loading = null;
      by("loading").textContent = "";
    }
    if (this.seen) {
      this.deepen();
      return;
    }
    this.volume.clear();
    by("solid-about").textContent = by("least").textContent = "";
  }

  // The view in three dimensions; slices do not wait for it, as for a large parent all of it has to be read.
  async deepen() {
    this.deeper = true;
    if (this.deepening) return;
    this.deepening = true;
    by("solid-about").textContent = "loading…";
    try {
      while (this.deeper) {
        this.deeper = false;
        await this.solid();
      }
    } catch (error) {
      by("solid-about").textContent = "";
      this.failed(error);
    } finally {
      this.deepening = false;
    }
  }

  async plane() {
    const [path, place, colour, axis, index] = [this.source, this.place, by("colour").value, by("axis").value, Number(by("index").value)];
    if (!colour) throw new Error("There is nothing to look at in this store; paint it with velfield paint.");
    const { next } = this;
    this.next = undefined;
    const names = needed(colour, this.about.variables), query = `axis=${axis}&index=${index}${place.query}`;
    const asked = `${path} ${names} ${query}`;
    if (asked !== this.asked || !this.arrays) {
      const found = await Promise.all(names.map((name) => numbers(`${path}/slice?variable=${name}&${query}`)));
      if (path !== this.source) return;
      this.arrays = Object.fromEntries(names.map((name, i) => [name, found[i]]));
      this.asked = asked;
    }
    const { step } = Object.values(this.arrays)[0], dims = AXES.filter((a) => a !== axis);
    this.shown = { colour, axis, index, dims, step, place, box: place.box };
    if (next !== undefined) this.pictures.cursor = next && dims.map((name) => Math.floor(next[AXES.indexOf(name)] / step));
    this.compose();
  }

  async solid() {
    const [path, place, colour] = [this.source, this.place, by("colour").value];
    const all = solids(colour, this.about.variables), before = by("solid").value;
    by("solid").replaceChildren(...all.map(({ name, title }) => new Option(title, name)));
    const one = all.find(({ name }) => name === before) ?? all[0];
    by("no-solid").hidden = Boolean(one);
    by("solid-shown").hidden = !one;
    if (!one) return;
    by("solid").value = one.name;
    by("solid").parentElement.hidden = all.length === 1;
    const key = `${path} ${one.ask} ${place.query}`;
    if (this.solidKey !== key) {
      this.volume.clear();
      const found = await Promise.all(one.ask.map((name) => numbers(`${path}/block?variable=${name}&most=${COARSE}${place.query}`)));
      if (path !== this.source) return;
      Object.assign(this, { found, solidKey: key });
    }
    if (this.deeper) return;
    const [{ step }] = this.found, { boxes } = this.about;
    this.volume.show(solidValues(colour, one, this.found));
    this.least();
    by("solid-about").textContent = `${place.divided ? `All ${boxes} boxes` : "One box"}, ${Number(place.side.toPrecision(4))} h⁻¹Mpc wide; a square is ${step === 1 ? "a cell" : `the mean of ${step}³ cells`}.`;
  }

  // From which value on cells are shown in three dimensions.
  least() {
    const { data, least } = this.volume;
    by("least").textContent = data && Number.isFinite(least) ? `: from ${data.words(least)} on` : "";
  }

  compose() {
    const { colour, dims, step, place } = this.shown, { cellsize, cells } = this.about;
    const frame = {
      n: Math.ceil(place.ngrid / step),
      pixel: step * cellsize,
      side: place.side,
      from: dims.map((name) => place.corner()[AXES.indexOf(name)] * cellsize),
      boxes: place.divided ? cells * cellsize : null,
      dims,
    };
    const about = (title) => `${title}: ${by("colour").selectedOptions[0].text}, ${by("where").textContent}`;
    this.panels = panels(colour, this.arrays, dims, by("arrows").value === "yes", this.predicted).map((one) => ({ ...one, ...frame, about: about(one.title) }));
    by("pixel").textContent = place.words(step);
    by("keys-boxes").hidden = !place.divided;
    this.pictures.show(this.panels);
    this.tell();
  }

  tell() {
    const { cursor } = this.pictures;
    const cell = cursor && { at: cursor[0] * this.panels[0].n + cursor[1], place: this.middle(), box: this.place.divided ? this.place.boxAt(this.cell()) : null };
    tell(this.panels, this.arrays, this.predicted, cell);
  }

  // Of the pixel which is pointed at, in the parent [h⁻¹Mpc].
  middle() {
    const { axis, index, dims, step, place } = this.shown, { cursor } = this.pictures, { origin } = Object.values(this.arrays)[0];
    return AXES.map((name, d) => origin[d] + (name === axis ? index + 0.5 : Math.min(place.ngrid, (cursor[dims.indexOf(name)] + 0.5) * step)) * this.about.cellsize);
  }

  async savePng() {
    const { redshift } = this.about, { colour, box, axis, index } = this.shown;
    const said = `${by("look-title").textContent}; ${by("where").textContent}; redshift ${redshift}. ${by("pixel").textContent}`;
    save(await png(this.panels, said), `${this.source.replace("/", "-").slice(0, 14)}-${box === null ? "whole" : `box${box}`}-${axis}${index}-${colour}.png`);
  }
}
