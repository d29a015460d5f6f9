// What a file is, by its first bytes, and which columns a text table names. No DOM here.

const HEAD = 2 ** 16; // bytes of a file that are looked at
const LONGEST = 190; // letters of a column's name that are shown
const MOST = 500; // columns that are offered
const FIRST = [
  ["PK\x03\x04", { kind: "cube", name: "npz", type: "application/x-npz" }],
  ["PAR1", { kind: "catalogue", name: "Parquet", type: "application/vnd.apache.parquet" }],
  ["SIMPLE  =", { kind: "catalogue", name: "FITS", type: "application/fits" }],
  ["\x89HDF\r\n\x1a\n", { kind: "catalogue", name: "HDF5", type: "application/x-hdf5" }],
];
export const FORMS = "CSV, Parquet, FITS or HDF5";
// Columns that velfield finds without being told (tests/service/test_page_catalogue.py compares them with its own).
export const KNOWN = [
  [["fof_halo_center_x", "fof_halo_center_y", "fof_halo_center_z"], ["fof_halo_mean_x", "fof_halo_mean_y", "fof_halo_mean_z"], ["fof_halo_com_x", "fof_halo_com_y", "fof_halo_com_z"], ["x", "y", "z"]],
  [["fof_halo_mean_vx", "fof_halo_mean_vy", "fof_halo_mean_vz"], ["fof_halo_com_vx", "fof_halo_com_vy", "fof_halo_com_vz"], ["vx", "vy", "vz"]],
  [["fof_halo_mass"], ["mass"]],
];
const NAMES = [["x", "y", "z"], ["vx", "vy", "vz"], ["mass"]];

// {kind: "catalogue" or "cube", name, type, columns: names or null where only the service can read them}
export async function recognise(file) {
  let head;
  try {
    head = new Uint8Array(await file.slice(0, HEAD).arrayBuffer());
  } catch {
    throw new Error(`not a file that can be read: name=${file.name}; a folder, as a Zarr store is, cannot be sent: start the service with --allow and its place, and choose it under Store`);
  }
  const latin = String.fromCharCode(...head.subarray(0, 16));
  const found = FIRST.find(([first]) => latin.startsWith(first));
  if (found) return { ...found[1], columns: null };
  if (latin.startsWith("HACC01")) throw new Error(`GenericIO is not sent from the page: name=${file.name}; paint it where it lies with velfield predict, or save it as ${FORMS}`);
  const columns = head.includes(0) ? null : columnsOf(new TextDecoder().decode(head));
  if (!columns) throw new Error(`not a catalogue of halos that is taken: name=${file.name}; choose ${FORMS} (a CSV begins with a line of names), or an npz of cubes`);
  return { kind: "catalogue", name: "CSV", type: "text/csv", columns };
}

// Names of the columns of a text table, without their units; null where there is no line of names.
export function columnsOf(text) {
  const title = text.replace(/^\ufeff/, "").split(/\r?\n/).find((line) => !line.startsWith("#")) ?? "";
  const delimiter = ["\t", ";", ","].find((one) => title.includes(one));
  if (!delimiter) return null;
  const names = title.split(delimiter).map((name) => name.trim().replace(/^"+|"+$/g, "").replace(/\s*\[[^\]]*\]$/, ""));
  if (names.length < 3 || names.some((name) => !name || Number.isFinite(Number(name)))) return null;
  return names.slice(0, MOST).map((name) => name.slice(0, LONGEST));
}

// Of our names those that a table's columns do not have under a name that velfield knows.
export function missing(columns) {
  return NAMES.flatMap((names, i) => (KNOWN[i].some((known) => known.every((name) => columns.includes(name))) ? [] : names));
}

export function size(bytes) {
  return bytes < 2 ** 20 ? `${Math.max(1, Math.round(bytes / 2 ** 10))} KiB` : `${Number((bytes / 2 ** 20).toPrecision(3))} MiB`;
}
