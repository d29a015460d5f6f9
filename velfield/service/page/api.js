// The service as this page asks it. A token is kept for the tab alone; errors are the service's own sentences.

const KEY = "velfield-token";
export const HEADER = "Velfield-Array";

// Tells "lost" once the service does not answer any more, and "back" once it does.
export const connection = new EventTarget();
let answered = true;

function heard(answers) {
  if (answers === answered) return;
  answered = answers;
  connection.dispatchEvent(new Event(answers ? "back" : "lost"));
}

export class ServiceError extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

export function setToken(value) {
  sessionStorage.setItem(KEY, value);
}

export function hasToken() {
  return sessionStorage.getItem(KEY) !== null;
}

export async function ask(path, { method = "GET", body, type, signal } = {}) {
  const headers = {};
  const token = sessionStorage.getItem(KEY);
  if (token) headers.Authorization = `Bearer ${token}`;
  if (type) headers["Content-Type"] = type;
  let answer;
  try {
    answer = await fetch(path, { method, body, headers, signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    heard(false);
    throw new ServiceError(0, "The service does not answer.");
  }
  heard(true);
  if (!answer.ok) throw new ServiceError(answer.status, await sentence(answer));
  return answer;
}

export async function json(path, options) {
  return (await ask(path, options)).json();
}

// Numbers of a plane or a cube, with what they mean: {data, shape, units, low, high, …}.
export async function numbers(path, signal) {
  const answer = await ask(path, { signal });
  const about = JSON.parse(answer.headers.get(HEADER));
  const view = new DataView(await answer.arrayBuffer());
  const data = new Float32Array(view.byteLength / 4);
  for (let i = 0; i < data.length; i++) data[i] = view.getFloat32(4 * i, true);
  return { ...about, data };
}

// Sends a body and takes a file and a header of the answer: {blob, head}. sent(bytes, of) and came(bytes, of) tell how far
// that is, waiting() that all is sent; fetch could not say it of what it sends.
export function exchange(path, { body, type, header, signal, sent, waiting, came }) {
  return new Promise((done, fail) => {
    const request = new XMLHttpRequest(), token = sessionStorage.getItem(KEY);
    request.open("POST", path);
    request.responseType = "blob";
    request.setRequestHeader("Content-Type", type);
    if (token) request.setRequestHeader("Authorization", `Bearer ${token}`);
    request.upload.onprogress = ({ loaded, total }) => sent(loaded, total);
    request.upload.onload = waiting;
    request.onprogress = ({ loaded, total }) => came(loaded, total);
    request.onload = async () => {
      heard(true);
      const { status, response: blob } = request;
      if (status >= 200 && status < 300) done({ blob, head: header ? request.getResponseHeader(header) : null });
      else fail(new ServiceError(status, await sentence(new Response(blob, { status }))));
    };
    request.onerror = () => {
      heard(false);
      fail(new ServiceError(0, "The service does not answer."));
    };
    request.onabort = () => fail(new DOMException("stopped", "AbortError"));
    signal.addEventListener("abort", () => request.abort());
    request.send(body);
  });
}

async function sentence(answer) {
  try {
    const problem = await answer.json();
    if (problem.error) return `${problem.error}; ${problem.what_to_do}`;
  } catch {
    // not the service's: a proxy in front of it, perhaps
  }
  return `The service answered ${answer.status}.`;
}

export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
