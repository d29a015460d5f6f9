// The form that asks for a prediction: of a store of the service, of a catalogue of halos, or of a cube of one's own.

import { exchange, json } from "./api.js";
import { number } from "./colour.js";
import { FORMS, missing, recognise, size } from "./files.js";

const by = (id) => document.getElementById(id);
const chosen = () => document.querySelector("input[name=source]:checked").value;
const span = (value) => (Array.isArray(value) ? `${number(value[0])} to ${number(value[1])}` : number(value ?? NaN));
const mega = (bytes) => (bytes / 1e6).toFixed(1);
const SPACES = {
  none: ["none: real space", "Positions are in real space, and stay there."],
  plane_parallel: ["plane_parallel", "Positions are in real space; they are moved along z by the velocities, as a distant observer sees them."],
  center_radial: ["center_radial", "Positions are in real space; they are moved by the velocities, as an observer in the centre of each box sees them."],
  random_radial: ["random_radial", "Positions are in real space; they are moved by the velocities, as an observer at a random place sees them."],
  observed: ["observed", "Positions are in redshift space already, as a survey measures them."],
};
// Which field a sentence of the service is about, by what it says to do, or else by what it says is wrong.
const ABOUT = [
  [/--outside|outside the (box|parent)/, "outside"],
  [/column|line of names/, "columns"],
  [/\brsd\b|redshift space/, "rsd"],
  [/give velocity|comoving or proper/, "velocity"],
  [/redshift/, "redshift"],
  [/box ?size|not cut into/, "boxsize"],
  [/min_mass/, "min_mass"],
  [/\bh\b|omega|sigma8|n_s/, "h"],
  [/table/, "table"],
];

export class Form {
  // looked(store): a store was chosen; accepted(job): a job was asked for; failed(error): where it is no matter of a field
  constructor({ looked, accepted, failed }) {
    Object.assign(this, { looked, accepted, failed, models: [], stores: [], limits: null, offered: {}, asked: null, file: null, sent: null, names: new Map() });
    by("request").addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    by("model").addEventListener("input", () => this.modelChosen());
    by("store").addEventListener("input", () => {
      this.quiet();
      this.storeChosen();
      const store = this.store();
      if (store) this.looked(store);
    });
    for (const choice of document.querySelectorAll("input[name=source]")) choice.addEventListener("input", () => this.sourceChosen());
    by("rsd").addEventListener("input", () => (by("observer").hidden = by("rsd").value !== "random_radial"));
    by("catalogue-rsd").addEventListener("input", () => this.spaceChosen());
    by("catalogue-file").addEventListener("change", () => this.take(by("catalogue-file").files));
    by("sending-stop").addEventListener("click", () => this.stopping?.abort());
    by("file").addEventListener("change", () => this.quiet());
  }

  // What is served.
  fill({ models, stores, limits, paint }) {
    const rsd = paint.rsd.enum;
    Object.assign(this, { models, stores, limits, offered: paint });
    by("model").replaceChildren(...models.map((model) => new Option(model.name)));
    const kept = this.stores.map((store) => new Option(`${this.nameOf(store.url)}${store.kind === "velocity" ? " (velocities)" : ""}`, store.id));
    by("store").replaceChildren(new Option(stores.length ? "choose a store…" : "none is served", ""), ...kept);
    const before = by("catalogue-rsd").value;
    by("catalogue-rsd").replaceChildren(new Option("choose…", ""), ...rsd.map((name) => new Option(SPACES[name]?.[0] ?? name, name)));
    by("catalogue-rsd").value = rsd.includes(before) ? before : "";
    this.spaceChosen();
    for (const one of document.querySelectorAll(".upload-limit")) one.textContent = size(limits.upload);
    if (!stores.length) {
      document.querySelector("input[name=source][value=store]").disabled = true;
      if (chosen() === "store") document.querySelector("input[name=source][value=catalogue]").checked = true;
    }
    this.modelChosen();
    this.storeChosen();
    this.sourceChosen();
  }

  // What the space that was chosen means, and from where the halos are seen, if the service takes that.
  spaceChosen() {
    const space = by("catalogue-rsd").value;
    by("rsd-about").textContent = SPACES[space]?.[1] ?? "";
    by("catalogue-sight").hidden = !this.offered.line_of_sight || !["plane_parallel", "observed"].includes(space);
    by("catalogue-observer").hidden = !this.offered.observer || !["random_radial", "observed"].includes(space);
  }

  nameOf(url) {
    if (!url.startsWith("upload:")) return url.split("/").filter(Boolean).pop();
    return this.names.get(url) ?? `upload ${url.slice(7, 15)}`;
  }

  store() {
    return this.stores.find((one) => one.id === by("store").value);
  }

  // Shows which store is looked at, or that it is none.
  point(id) {
    by("store").value = id ?? "";
    this.storeChosen();
  }

  model() {
    return this.models.find((one) => one.name === by("model").value);
  }

  modelChosen() {
    const model = this.model();
    if (!model) return;
    const takes = Object.keys(model.inputs).join(", ").replaceAll("_", " ");
    by("model-about").textContent = `Takes ${takes}. Trained at redshift ${span(model.redshift)}, halos above ${span(model.min_mass)} h⁻¹M⊙, cells of ${model.cellsize} h⁻¹Mpc, redshift space ${model.rsd.replaceAll("_", " ")}. ${model.has_std ? "Gives error bars." : "Gives no error bars."}`;
    const first = (value) => String(Array.isArray(value) ? value[0] : (value ?? ""));
    const defaults = { cellsize: model.cellsize, redshift: first(model.redshift), min_mass: Number(first(model.min_mass)).toExponential(2), assignment: model.assignment };
    for (const [name, value] of Object.entries(defaults)) document.querySelector(`[data-cube=${name}]`).value = value;
    by("boxsize-about").textContent = model.cellsize ? `A whole number of this model's cells of ${model.cellsize} h⁻¹Mpc.` : "";
  }

  storeChosen() {
    const store = this.store();
    by("isolated").parentElement.hidden = store?.kind !== "fields";
    if (!store) {
      by("store-about").textContent = this.stores.length ? "" : "The service was started without stores (velfield serve --allow).";
      return;
    }
    by("store-about").textContent = `${store.boxes ** 3} boxes of ${store.cells}³ cells of ${number(store.cellsize)} h⁻¹Mpc; redshift ${number(store.redshift)}; redshift space ${(store.rsd ?? "unknown").replaceAll("_", " ")}.${store.kind === "velocity" ? " It holds velocities that were predicted." : ""}`;
  }

  sourceChosen() {
    this.quiet();
    for (const name of ["store", "catalogue", "upload"]) by(`from-${name}`).hidden = chosen() !== name;
  }

  // A file that was chosen or dropped: it is recognised, and the form asks for what must be known of it.
  async take(files) {
    by("predict").open = true;
    this.quiet();
    const [file] = files;
    if (!file) return;
    try {
      if (files.length > 1) throw new Error(`several files: files=${files.length}; drop one`);
      const form = await recognise(file);
      if (file.size > this.limits?.upload) throw new Error(`the file is too large: bytes=${file.size}, limit=${this.limits.upload}; cut it, or start the service with a higher --upload`);
      const kind = form.kind === "cube" ? "upload" : "catalogue", input = by(form.kind === "cube" ? "file" : "catalogue-file");
      document.querySelector(`input[name=source][value=${kind}]`).checked = true;
      this.sourceChosen();
      if (input.files !== files) input.files = files;
      if (form.kind === "catalogue") this.ask(file, form);
      input.scrollIntoView({ block: "nearest" });
      (form.kind === "catalogue" ? this.unanswered()?.[0] ?? by("submit") : input).focus({ preventScroll: true });
    } catch (error) {
      this.file = null;
      by("catalogue-file").value = "";
      const visible = chosen() === "upload" ? by("file") : by("catalogue-file");
      if (chosen() === "store") this.refuse(error.message);
      else this.refuse(error.message, visible);
    }
  }

  // What must be known of a catalogue of this form.
  ask(file, form) {
    if (this.asked && this.asked !== file.name) this.forget(); // what was said of another
    this.asked = file.name;
    this.file = { file, ...form };
    const columns = form.columns ?? [], lacks = form.columns ? missing(columns) : [];
    by("catalogue-columns").replaceChildren(...columns.map((name) => new Option("", name)));
    by("catalogue-about").textContent = `${file.name}: ${form.name}, ${size(file.size)}.${
      form.columns ? (lacks.length ? ` No column has a known name for ${lacks.join(", ")}: name those that are needed below.` : " Its columns are known by their names.") : " The service reads its columns; name them below where they are called otherwise."
    }`;
    for (const name of ["boxsize", "redshift"]) field(name).placeholder = form.name === "CSV" ? "" : "as in the file";
    by("catalogue-more").open = lacks.length > 0;
  }

  // Empties what is said of a catalogue.
  forget() {
    for (const one of document.querySelectorAll("[data-paint], [data-halo-column], [data-seen]")) {
      if (one.tagName === "SELECT") one.selectedIndex = 0;
      else one.value = "";
    }
    by("periodic").checked = true;
    this.spaceChosen();
  }

  // The first field that has to be filled in and is not, and what is wrong with it; null if all are.
  unanswered() {
    const wanted = { rsd: "redshift space is not chosen; say whether positions are in real or in redshift space", min_mass: "the least mass of the halos is not given; give it in h⁻¹M⊙, 0 to keep all" };
    if (this.file?.name === "CSV") Object.assign(wanted, { boxsize: "a CSV does not say how large its box is; give it in h⁻¹Mpc", redshift: "a CSV does not say its redshift; give it" });
    for (const one of document.querySelectorAll("[data-paint]")) if (!one.value.trim() && wanted[one.dataset.paint]) return [one, wanted[one.dataset.paint]];
    const lacks = this.file?.columns ? missing(this.file.columns) : [];
    for (const one of document.querySelectorAll("[data-halo-column]")) {
      const name = one.dataset.haloColumn;
      if ("xyz".includes(name) && lacks.includes(name) && !one.value.trim()) return [one, `no column is known for ${name}; name the one that holds it`];
    }
    return null;
  }

  // How a catalogue is painted, as the service has it.
  paint() {
    const paint = {};
    for (const one of document.querySelectorAll("[data-paint]")) {
      const { paint: name, number: numeric } = one.dataset, value = one.value.trim();
      if (!value || one.closest("[hidden]")) continue;
      paint[name] = numeric === undefined ? value : numberIn(one, name);
    }
    const seen = by("catalogue-observer").hidden ? [] : [...document.querySelectorAll("[data-seen]")];
    if (seen.some((one) => one.value.trim())) paint.observer = seen.map((one) => numberIn(one, "observer"));
    const column = [...document.querySelectorAll("[data-halo-column]")].filter((one) => one.value.trim()).map((one) => `${one.dataset.haloColumn}=${one.value.trim()}`);
    return { ...paint, ...(column.length ? { column } : {}), periodic: by("periodic").checked };
  }

  async submit() {
    this.quiet();
    by("submit").disabled = true;
    this.stopping = new AbortController();
    const source = chosen();
    try {
      const [input, more] = await { store: () => this.ofStore(), catalogue: () => this.ofCatalogue(), upload: () => this.ofCube() }[source]();
      const body = JSON.stringify({ model: by("model").value, input, average: Number(by("average").value), ...more });
      const job = await json("jobs", { method: "POST", body, type: "application/json", signal: this.stopping.signal });
      this.sent = { id: job.id, source };
      await this.accepted(job);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error instanceof Refusal) this.refuse(error.message, error.field);
      else if (error.status === 401 || error.status === 0) this.failed(error);
      else this.refuse(error.message, this.fieldOf(error, source));
    } finally {
      by("submit").disabled = false;
      by("sending").hidden = true;
    }
  }

  // A job that was asked for here has failed: its sentence stands where it can be mended.
  over(job) {
    if (job.id !== this.sent?.id || job.state !== "failed") return;
    const error = { status: 422, message: `${job.error}; ${job.what_to_do}` };
    this.refuse(error.message, chosen() === this.sent.source ? this.fieldOf(error, this.sent.source) : null, false);
  }

  async ofStore() {
    const store = this.store();
    if (store?.kind !== "fields") throw new Refusal("no store of halos is chosen; choose one, or send a catalogue", by("store"));
    return [store.url, { isolated: by("isolated").checked }];
  }

  async ofCatalogue() {
    if (!this.file) throw new Refusal(`no catalogue is chosen; choose or drop a file: ${FORMS}`, by("catalogue-file"));
    const lacks = this.unanswered();
    if (lacks) throw new Refusal(lacks[1], lacks[0]);
    const paint = this.paint();
    return [await this.send("catalogues", this.file.file, this.file.type), { paint }];
  }

  async ofCube() {
    const file = by("file").files[0];
    if (!file) throw new Refusal("no file is chosen; choose an npz of your halos", by("file"));
    if (file.size > this.limits?.upload) throw new Refusal(`the file is too large: bytes=${file.size}, limit=${this.limits.upload}; send fewer cells`, by("file"));
    const query = new URLSearchParams();
    for (const one of document.querySelectorAll("[data-cube]")) if (one.value.trim()) query.set(one.dataset.cube, one.value.trim());
    if (by("rsd").value === "random_radial") for (const one of document.querySelectorAll("[data-observer]")) query.append("observer", one.value);
    return [await this.send(`uploads?${query}`, file, "application/x-npz"), {}];
  }

  // Sends a file, and says how far that is; gives the name that the service has for it.
  async send(path, file, type) {
    by("sending").hidden = false;
    const said = (state, pace) => {
      if (by("sending-state").textContent !== state) by("sending-state").textContent = state; // read aloud once
      by("sending-pace").textContent = pace;
    };
    const sent = (done, all) => {
      Object.assign(by("sending-progress"), { max: all || 1, value: done });
      said("Sending…", all ? `${mega(done)} of ${mega(all)} MB` : "");
    };
    sent(0, file.size);
    const waiting = () => said("Sent; the service looks at it…", "");
    const { blob } = await exchange(path, { body: file, type, signal: this.stopping.signal, sent, waiting, came: () => {} });
    const { input } = JSON.parse(await blob.text());
    this.names.set(input, file.name);
    return input;
  }

  // The field that a sentence of the service is about, or null.
  fieldOf({ status, message }, source) {
    if (source === "store") return by("store");
    const [what, ...todo] = message.split("; ");
    if (source === "upload") {
      const named = [...document.querySelectorAll("[data-cube]")].find((one) => new RegExp(`\\b${one.dataset.cube}\\b`).test(what));
      return named ?? ([413, 415, 422].includes(status) ? by("file") : null);
    }
    for (const said of [todo.at(-1) ?? "", what]) {
      const name = ABOUT.find(([pattern]) => pattern.test(said))?.[1];
      if (name) return name === "columns" ? columnIn(message) : field(name);
    }
    return [413, 415, 422].includes(status) ? by("catalogue-file") : null;
  }

  // Shows what is wrong beneath the field that it is about, or above the button; marks the field and goes there.
  refuse(message, at = null, focus = true) {
    this.quiet();
    const said = by("refusal");
    by("predict").open = true;
    if (at) {
      const around = at.closest("details:not(#predict)");
      if (around) around.open = true;
      (at.closest(".pair, .triple") ?? at.closest("label")).after(said);
      at.setAttribute("aria-invalid", "true");
      at.setAttribute("aria-describedby", "refusal");
    } else by("submit").before(said);
    said.textContent = message;
    said.hidden = false;
    if (at && focus) at.focus({ preventScroll: true });
    said.scrollIntoView({ block: "nearest" });
  }

  quiet() {
    by("refusal").hidden = true;
    for (const one of document.querySelectorAll("#request [aria-invalid]")) {
      one.removeAttribute("aria-invalid");
      one.removeAttribute("aria-describedby");
    }
  }
}

class Refusal extends Error {
  constructor(message, at) {
    super(message);
    this.field = at;
  }
}

function numberIn(one, name) {
  const value = one.value.trim();
  if (!value || !Number.isFinite(Number(value))) throw new Refusal(`not a number: ${name}=${value.slice(0, 40)}; write it as 0.5 or 1e12`, one);
  return Number(value);
}

function field(name) {
  return document.querySelector(`[data-paint=${name}]`);
}

// The name of a column that a sentence is about: the one that is given and named there, else the first of what is missing.
function columnIn(message) {
  const all = [...document.querySelectorAll("[data-halo-column]")];
  const given = all.find((one) => one.value.trim() && message.includes(one.value.trim()));
  const lacks = /missing=(\w+)/.exec(message)?.[1];
  return given ?? all.find((one) => one.dataset.haloColumn === lacks) ?? all[0];
}
