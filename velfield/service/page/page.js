// The page: what is seen first, jobs that are watched, what is taken along. Pictures are `look.js`, the form `request.js`.

import { Asking } from "./asking.js";
import { ask, connection, hasToken, json, save, setToken } from "./api.js";
import { number } from "./colour.js";
import { dropping } from "./dropping.js";
import { Look } from "./look.js";
import { Form } from "./request.js";

const OVER = ["done", "failed", "cancelled"];
const EVERY = 1000; // between two looks at a job [ms]
const AGAIN = 2000; // after the service did not answer
const NARROW = "(max-width: 60rem)"; // one column, as in style.css
const by = (id) => document.getElementById(id);
const look = new Look(failed, (path, about) => asking.open(path, about));
const asking = new Asking(look, failed);
const form = new Form({ looked: (store) => lookAt(store).catch(failed), accepted, failed });
let watched = null; // id of the job that is watched
let opened = null; // of the one whose field is shown
let started = false;

function failed(error) {
  if (!error) {
    by("error").hidden = true;
    return;
  }
  if (error.status === 0) return; // told as long as it lasts
  if (error.status === 401) {
    by("token").hidden = false;
    by("token-value").focus();
    if (!hasToken()) return; // it was not told yet
  }
  by("error").textContent = error.message;
  by("error").hidden = false;
  by("error").scrollIntoView({ block: "nearest" });
}

// Runs what a button does: the button is off meanwhile, and what goes wrong is told.
function run(button, work) {
  return async (event) => {
    event?.preventDefault();
    failed(null);
    button.disabled = true;
    try {
      await work();
    } catch (error) {
      failed(error);
    } finally {
      button.disabled = false;
    }
  };
}

async function start() {
  await alive();
  const [{ models }, { stores }, limits, described] = await Promise.all(["models", "stores", "limits", "openapi.json"].map((path) => json(path)));
  by("token").hidden = true;
  form.fill({ models, stores, limits, paint: described.components.schemas.Paint.properties });
  const all = await jobs();
  started = true;
  const [, kind, id] = /^#(job|store)=([0-9a-f]+)$/.exec(location.hash) ?? [];
  const store = kind === "store" && stores.find((one) => one.id === id);
  if (kind === "job") watch(id);
  else if (store) await lookAt(store);
  else await welcome(all, stores);
}

// What is seen first: the prediction that was finished last, else the first store of halos, else what there is to do.
async function welcome(all, stores) {
  const made = [
    ...all.filter((job) => job.state === "done").map((job) => [job.changed, () => show(job)]),
    ...stores.filter((store) => store.kind === "velocity").map((store) => [store.changed ?? "", () => lookAt(store, false)]),
  ];
  const newest = made.reduce((best, one) => (best && best[0] >= one[0] ? best : one), null);
  if (!newest && !stores.length) return;
  if (matchMedia(NARROW).matches) by("predict").open = by("all-jobs").open = false; // what is seen first on a phone is the field
  await (newest ? newest[1]() : lookAt(stores[0], false));
}

async function alive() {
  const health = await json("health");
  by("alive").textContent = `version ${health.version}`;
  by("alive").classList.remove("lost");
}

// Asks until it is answered, then goes on where it was.
async function reconnect() {
  by("alive").textContent = "Connection lost: the service does not answer. Trying again; jobs go on once it is back.";
  by("alive").classList.add("lost");
  for (;;) {
    await new Promise((done) => setTimeout(done, AGAIN));
    try {
      await alive();
      break;
    } catch {
      // not yet
    }
  }
  try {
    if (!started) await start();
    else await jobs();
    look.again();
  } catch (error) {
    failed(error);
  }
}

// A job that was asked for: it is watched.
async function accepted(job) {
  by("watch").hidden = false;
  by("watch").scrollIntoView({ block: "nearest" });
  watch(job.id);
  await jobs();
}

// Follows a job to its end, then shows its field.
async function watch(id) {
  if (watched === id) return;
  watched = id;
  opened = null;
  history.replaceState(null, "", `#job=${id}`);
  try {
    while (watched === id) {
      const job = await patiently(`jobs/${id}`);
      if (watched !== id) return;
      tell(job);
      if (OVER.includes(job.state)) {
        watched = null;
        await jobs();
        form.over(job);
        if (job.state !== "done") return;
        await show(job);
        if (!matchMedia(NARROW).matches) by("look-title").scrollIntoView({ block: "nearest" });
        return;
      }
      await new Promise((done) => setTimeout(done, EVERY));
    }
  } catch (error) {
    if (watched === id) watched = null;
    failed(error);
  }
}

// Asks until it is answered: a service that starts again goes on with its jobs, and so does the page.
async function patiently(path) {
  let told = false;
  for (;;) {
    try {
      const answer = await json(path);
      if (told) failed(null);
      return answer;
    } catch (error) {
      if (![0, 429, 503].includes(error.status)) throw error;
      failed(error);
      told ||= error.status !== 0;
      await new Promise((done) => setTimeout(done, AGAIN));
    }
  }
}

function tell(job) {
  by("watch").hidden = false;
  const said = { queued: "waiting", cancelling: "being cancelled" }[job.state] ?? job.state;
  const state = job.error ? `${said}: ${job.error}; ${job.what_to_do}` : said;
  if (by("state").textContent !== state) by("state").textContent = state;
  by("job-id").textContent = job.id.slice(0, 8);
  by("progress").max = job.total || 1;
  by("progress").value = job.done;
  const rate = job.a_second ? `, ${number(job.a_second)} a second, ${time(job.seconds_left)} left` : "";
  by("pace").textContent = job.total ? `${job.stage}: ${job.done} of ${job.total} ${job.unit}${rate}` : "";
  if (by("notes").children.length !== job.notes.length || by("notes").textContent !== job.notes.join("")) list("notes", job.notes);
  by("cancel").parentElement.hidden = OVER.includes(job.state);
  by("to-field").hidden = job.state !== "done";
  by("cancel").onclick = run(by("cancel"), () => ask(`jobs/${job.id}/cancel`, { method: "POST" }));
}

function list(id, texts) {
  by(id).replaceChildren(...texts.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
}

function time(seconds) {
  return seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.round(seconds / 60)} min`;
}

async function show(job) {
  const path = `jobs/${job.id}`;
  opened = job;
  const store = form.stores.find((one) => one.url === job.input);
  if (form.store()?.id !== store?.id) form.point(null); // what is shown is not what is chosen
  list("field-notes", job.notes);
  await look.open(path, `${job.model} on ${form.nameOf(job.input)}`, true);
  by("take").hidden = false;
  by("take-npz").hidden = by("take-nc").hidden = by("zarr-label").hidden = false;
  by("zarr").value = new URL(job.result.store, location.href).href;
}

async function lookAt(store, address = true) {
  opened = null;
  form.point(store.id);
  list("field-notes", []);
  if (address) history.replaceState(null, "", `#store=${store.id}`);
  await look.open(`stores/${store.id}`, form.nameOf(store.url), store.kind === "velocity");
  by("take").hidden = false;
  by("take-npz").hidden = by("take-nc").hidden = by("zarr-label").hidden = true;
}

async function jobs() {
  const all = (await json("jobs")).jobs.reverse();
  by("no-jobs").hidden = all.length > 0;
  by("jobs").replaceChildren(...all.slice(0, 20).map(entry));
  return all;
}

function entry(job) {
  const item = document.createElement("li");
  const text = Object.assign(document.createElement("span"), { textContent: `${form.nameOf(job.input)} by ${job.model}: ${job.state}` });
  item.append(text);
  const add = (name, work) => {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: name });
    button.setAttribute("aria-label", `${name}: ${text.textContent}`);
    button.onclick = run(button, work);
    item.append(button);
  };
  if (job.state === "done") add("Look", () => watch(job.id));
  else if (!OVER.includes(job.state)) add("Watch", () => watch(job.id));
  if (OVER.includes(job.state)) add("Remove", () => remove(job));
  return item;
}

async function remove(job) {
  await ask(`jobs/${job.id}`, { method: "DELETE" });
  look.close(`jobs/${job.id}`);
  if (opened?.id === job.id) by("take").hidden = true;
  await jobs();
}

async function take(kind) {
  const answer = await ask(kind === "npz" ? opened.result.npz : opened.result.netcdf);
  save(await answer.blob(), `velocity-${opened.id.slice(0, 8)}.${kind}`);
}

by("token").addEventListener("submit", run(by("token").querySelector("button"), async () => {
  setToken(by("token-value").value);
  by("token-value").value = "";
  await start();
}));
for (const one of document.querySelectorAll(".choose-catalogue")) one.addEventListener("click", () => by("catalogue-file").click());
dropping(by("drop"), (files, where) => {
  failed(null);
  const at = where.closest?.("#positions");
  if (at && files.length === 1) asking.take(files);
  else form.take(files);
});
by("take-npz").addEventListener("click", run(by("take-npz"), () => take("npz")));
by("take-nc").addEventListener("click", run(by("take-nc"), () => take("nc")));
by("take-png").addEventListener("click", run(by("take-png"), () => look.savePng()));

// Without a place in the address, which names the job.
function toField(event) {
  event.preventDefault();
  by("look").focus({ preventScroll: true });
  by("look").scrollIntoView();
}
by("skip").addEventListener("click", toField);
by("to-field").addEventListener("click", toField);
connection.addEventListener("lost", reconnect);

start().catch(failed);
