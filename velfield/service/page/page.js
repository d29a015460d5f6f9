// The page: choose, upload, submit, watch, take along. Pictures are `look.js`.

import { Asking } from "./asking.js";
import { ask, connection, hasToken, json, save, setToken } from "./api.js";
import { number } from "./colour.js";
import { Look } from "./look.js";

const OVER = ["done", "failed", "cancelled"];
const EVERY = 1000; // between two looks at a job [ms]
const AGAIN = 2000; // after the service did not answer
const by = (id) => document.getElementById(id);
const look = new Look(failed, (path, about) => asking.open(path, about));
const asking = new Asking(look, failed);
const found = { models: [], stores: [] };
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

const nameOf = (url) => (url.startsWith("upload:") ? `upload ${url.slice(7, 15)}` : url.split("/").filter(Boolean).pop());
const chosen = () => document.querySelector("input[name=source]:checked").value;
const span = (value) => (Array.isArray(value) ? `${number(value[0])} to ${number(value[1])}` : number(value ?? NaN));

async function start() {
  await alive();
  const [models, stores] = await Promise.all([json("models"), json("stores")]);
  by("token").hidden = true;
  Object.assign(found, models, stores);
  by("model").replaceChildren(...found.models.map((model) => new Option(model.name)));
  by("store").replaceChildren(...found.stores.map((store) => new Option(`${nameOf(store.url)}${store.kind === "velocity" ? " (velocities)" : ""}`, store.id)));
  if (!found.stores.length) {
    document.querySelector("input[value=store]").disabled = true;
    document.querySelector("input[value=upload]").checked = true;
  }
  modelChosen();
  storeChosen();
  sourceChosen();
  await jobs();
  started = true;
  const [, kind, id] = /^#(job|store)=([0-9a-f]+)$/.exec(location.hash) ?? [];
  if (kind === "job") watch(id);
  const store = kind === "store" && found.stores.find((one) => one.id === id);
  if (store) await lookAt(store);
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

function modelChosen() {
  const model = found.models.find((one) => one.name === by("model").value);
  if (!model) return;
  const takes = Object.keys(model.inputs).join(", ").replaceAll("_", " ");
  by("model-about").textContent = `Takes ${takes}. Trained at redshift ${span(model.redshift)}, halos above ${span(model.min_mass)} h⁻¹M⊙, cells of ${model.cellsize} h⁻¹Mpc, redshift space ${model.rsd.replaceAll("_", " ")}. ${model.has_std ? "Gives error bars." : "Gives no error bars."}`;
  const first = (value) => String(Array.isArray(value) ? value[0] : (value ?? ""));
  const defaults = { cellsize: model.cellsize, redshift: first(model.redshift), min_mass: Number(first(model.min_mass)).toExponential(2), assignment: model.assignment };
  for (const [name, value] of Object.entries(defaults)) document.querySelector(`[data-cube=${name}]`).value = value;
}

function storeChosen() {
  const store = found.stores.find((one) => one.id === by("store").value);
  by("look-store").disabled = !store;
  by("isolated").parentElement.hidden = store?.kind === "velocity";
  by("store-about").textContent = store
    ? `${store.boxes ** 3} boxes of ${store.cells}³ cells of ${number(store.cellsize)} h⁻¹Mpc; redshift ${number(store.redshift)}; redshift space ${(store.rsd ?? "unknown").replaceAll("_", " ")}.${store.kind === "velocity" ? " It holds velocities that were predicted: look at it." : ""}`
    : "The service was started without stores (velfield serve --allow).";
}

function sourceChosen() {
  by("from-store").hidden = chosen() !== "store";
  by("from-upload").hidden = chosen() !== "upload";
}

async function upload() {
  const file = by("file").files[0];
  if (!file) throw new Error("no file is chosen; choose an npz of your halos");
  const query = new URLSearchParams();
  for (const field of document.querySelectorAll("[data-cube]")) {
    if (field.value.trim()) query.set(field.dataset.cube, field.value.trim());
  }
  if (by("rsd").value === "random_radial") {
    for (const field of document.querySelectorAll("[data-observer]")) query.append("observer", field.value);
  }
  const answer = await json(`uploads?${query}`, { method: "POST", body: file, type: "application/x-npz" });
  return answer.input;
}

async function submit() {
  const store = found.stores.find((one) => one.id === by("store").value);
  if (chosen() === "store" && store?.kind !== "fields") throw new Error("no store of halos is chosen; choose one, or upload a cube");
  const input = chosen() === "upload" ? await upload() : store.url;
  const body = JSON.stringify({ model: by("model").value, input, average: Number(by("average").value), isolated: chosen() === "store" && by("isolated").checked });
  const job = await json("jobs", { method: "POST", body, type: "application/json" });
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
        if (job.state === "done") await show(job);
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
  const notes = job.notes.map((text) => Object.assign(document.createElement("li"), { textContent: text }));
  if (by("notes").children.length !== notes.length || by("notes").textContent !== job.notes.join("")) by("notes").replaceChildren(...notes);
  by("cancel").parentElement.hidden = OVER.includes(job.state);
  by("to-field").hidden = job.state !== "done";
  by("cancel").onclick = run(by("cancel"), () => ask(`jobs/${job.id}/cancel`, { method: "POST" }));
}

function time(seconds) {
  return seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.round(seconds / 60)} min`;
}

async function show(job) {
  const path = `jobs/${job.id}`;
  opened = job;
  await look.open(path, `${job.model} on ${nameOf(job.input)}`);
  by("take").hidden = false;
  by("take-npz").hidden = by("take-nc").hidden = by("zarr-label").hidden = false;
  by("zarr").value = new URL(job.result.store, location.href).href;
}

async function lookAt(store) {
  opened = null;
  history.replaceState(null, "", `#store=${store.id}`);
  await look.open(`stores/${store.id}`, nameOf(store.url));
  by("take").hidden = false;
  by("take-npz").hidden = by("take-nc").hidden = by("zarr-label").hidden = true;
}

async function jobs() {
  const list = (await json("jobs")).jobs.reverse();
  by("no-jobs").hidden = list.length > 0;
  by("jobs").replaceChildren(...list.slice(0, 20).map(entry));
}

function entry(job) {
  const item = document.createElement("li");
  const text = Object.assign(document.createElement("span"), { textContent: `${nameOf(job.input)} by ${job.model}: ${job.state}` });
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
by("request").addEventListener("submit", run(by("submit"), submit));
by("model").addEventListener("input", modelChosen);
by("store").addEventListener("input", storeChosen);
for (const choice of document.querySelectorAll("input[name=source]")) choice.addEventListener("input", sourceChosen);
by("rsd").addEventListener("input", () => (by("observer").hidden = by("rsd").value !== "random_radial"));
by("look-store").addEventListener("click", run(by("look-store"), () => lookAt(found.stores.find((one) => one.id === by("store").value))));
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
