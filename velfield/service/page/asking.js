// The form for velocities at positions: a few that are typed, or a table that comes back as a file.

import { exchange, save } from "./api.js";
import { Answers } from "./answers.js";
import { counted, csv, NAMES, question, read, rows, TYPES } from "./positions.js";

const HEADER = "Velfield-Rows";
const by = (id) => document.getElementById(id);
const chosen = () => document.querySelector("input[name=positions]:checked").value;
const ending = (name) => name.split(".").pop().toLowerCase();
const mega = (bytes) => (bytes / 1e6).toFixed(1);

export class Asking {
  // look: shows a position in the pictures; refused(error): the service asks for a token
  constructor(look, refused) {
    Object.assign(this, { look, refused, path: null, stopping: null });
    this.answers = new Answers(look);
    by("positions-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.ask();
    });
    by("positions-stop").addEventListener("click", () => this.stopping?.abort());
    for (const one of [by("coordinates"), by("table-file")]) one.addEventListener("input", () => this.arrange());
    for (const one of document.querySelectorAll("input[name=positions]")) {
      one.addEventListener("input", () => {
        this.quiet(); // what was said was of the other
        this.arrange();
      });
    }
    this.arrange();
  }

  // A table that was dropped here.
  take(files) {
    document.querySelector("input[name=positions][value=table]").checked = true;
    by("table-file").files = files;
    this.quiet();
    this.arrange();
    by("positions-go").focus();
  }

  // path: jobs/ID or stores/ID, or null; about: what the service says of it
  open(path, about) {
    this.path = path;
    this.quiet();
    by("positions").hidden = !about?.variables.includes("velocity");
    if (!about) return;
    const { observer, line_of_sight: along, boxsize } = about;
    this.side = boxsize;
    by("coordinates").querySelector("[value=sky]").disabled = !observer;
    by("space").querySelector("[value=redshift]").disabled = !observer && !along;
    if (!observer) by("coordinates").value = "box";
    if (!observer && !along) by("space").value = "real";
    by("positions-about").textContent = observer
      ? "Seen by one observer: positions may be on the sky, and in redshift space."
      : along
        ? "Seen along one direction: positions may be in redshift space, but not on the sky."
        : "Not seen from one place: positions are in the parent, in real space.";
    this.arrange();
  }

  // Nothing is asked for, and nothing was answered.
  quiet() {
    this.stopping?.abort();
    this.answers.clear();
    this.told("");
    by("positions-error").hidden = true;
  }

  // What is asked for, by what is chosen.
  arrange() {
    const names = NAMES[by("coordinates").value], sky = by("coordinates").value === "sky", typed = chosen() === "typed";
    by("typed").hidden = !typed;
    by("table").hidden = typed;
    by("positions-go").textContent = typed ? "Show velocities" : "Download with velocities";
    by("lines-about").textContent = sky ? "ra, dec [degrees], redshift" : `x, y, z [h⁻¹Mpc]${this.side ? `, 0 to ${this.side}` : ""}`;
    document.querySelectorAll("[data-column]").forEach((field, i) => {
      field.placeholder = names[i];
      field.parentElement.firstElementChild.textContent = names[i];
    });
    by("extension").parentElement.hidden = TYPES[ending(by("table-file").files[0]?.name ?? "")] !== TYPES.fits;
  }

  async ask() {
    this.quiet();
    const stopping = (this.stopping = new AbortController());
    by("positions-go").disabled = true;
    try {
      if (chosen() === "typed") await this.typed(stopping.signal);
      else await this.table(stopping.signal);
    } catch (error) {
      this.told("");
      if (error.name === "AbortError") return;
      if (error.status === 401) this.refused(error);
      by("positions-error").textContent = error.status === 0 ? "The connection broke off before the answer was there; ask again." : error.message;
      by("positions-error").hidden = false;
    } finally {
      by("positions-go").disabled = false;
      by("positions-stop").hidden = by("positions-progress").hidden = true;
    }
  }

  async typed(signal) {
    const how = this.how(), names = NAMES[how.coordinates], positions = read(by("lines").value, names);
    const { blob, head } = await this.send(new Blob([csv(names, positions)]), TYPES.csv, how, signal);
    const found = rows(await blob.text(), names);
    this.told(counted(head));
    this.answers.show(found, names, blob);
  }

  async table(signal) {
    const file = by("table-file").files[0];
    if (!file) throw new Error("no file is chosen; choose a table of positions");
    const type = TYPES[ending(file.name)];
    if (!type) throw new Error(`not a table that is taken: file=${file.name}; choose CSV, Parquet or FITS (.csv, .parquet, .fits)`);
    const names = NAMES[by("coordinates").value], fields = [...document.querySelectorAll("[data-column]")];
    const column = Object.fromEntries(fields.map((field, i) => [names[i], field.value.trim()]));
    const extension = type === TYPES.fits ? by("extension").value.trim() : "";
    const { blob, head } = await this.send(file, type, { ...this.how(), column, prefix: by("prefix").value.trim(), extension }, signal);
    const name = file.name.replace(/\.(?=[^.]*$)/, "-velocities.");
    save(blob, name);
    this.told(`${counted(head)} Saved as ${name}.`);
  }

  how() {
    return { coordinates: by("coordinates").value, space: by("space").value, extrapolate: by("extrapolate").checked };
  }

  // Sends a table, and says how far that is.
  async send(body, type, how, signal) {
    by("positions-stop").hidden = false;
    this.told("sending…");
    let since = 0;
    const ticking = setInterval(() => {
      if (since) by("positions-pace").textContent = `${Math.round((performance.now() - since) / 1000)} s`;
    }, 1000);
    const moved = (what) => (done, all) => {
      since = 0;
      by("positions-progress").hidden = !(all > 1e6); // a moment's worth
      by("positions-progress").max = all || 1;
      by("positions-progress").value = done;
      this.told(what, all ? `${mega(done)} of ${mega(all)} MB` : "");
    };
    const waiting = () => {
      since = performance.now();
      by("positions-progress").hidden = true;
      this.told("the service looks them up…");
    };
    try {
      return await exchange(`${this.path}/query?${question(how)}`, { body, type, header: HEADER, signal, sent: moved("sending…"), waiting, came: moved("receiving…") });
    } finally {
      clearInterval(ticking);
    }
  }

  told(state, pace = "") {
    if (by("positions-state").textContent !== state) by("positions-state").textContent = state; // read aloud once
    by("positions-pace").textContent = pace;
  }
}
