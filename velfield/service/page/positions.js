// Positions as they are typed, and the velocities at them as the service's tables have them. No DOM here.

export const NAMES = { box: ["x", "y", "z"], sky: ["ra", "dec", "z"] };
export const TYPES = { csv: "text/csv", parquet: "application/vnd.apache.parquet", fits: "application/fits", fit: "application/fits" };
export const MOST = 200; // positions that are shown

// What the bits of a flag mean (tests/service/test_page_positions.py compares them with velfield's own).
const MEANINGS = {
  1: "outside the data",
  2: "a surrounding cell is not known",
  4: "taken from the nearest known cell",
  8: "a surrounding cell is less sure",
  16: "not a position",
  32: "several real positions",
  64: "no real position found",
  128: "a surrounding cell is implausible",
};

// Three numbers a line, between them spaces, commas, semicolons or tabs: [[number, number, number]]. A line of names
// before them, brackets, and lines that begin with # do no harm.
export function read(text, names) {
  const found = [];
  for (const [i, line] of text.split(/\r?\n/).entries()) {
    const parts = line.replace(/[()[\]]/g, " ").replaceAll("−", "-").split(/[\s,;]+/).filter(Boolean);
    if (!parts.length || parts[0].startsWith("#")) continue;
    const numbers = parts.map(Number);
    if (!found.length && numbers.every(Number.isNaN)) continue;
    if (numbers.length !== 3 || !numbers.every(Number.isFinite)) {
      throw new Error(`not a position: line=${i + 1}, text=${line.trim().slice(0, 60)}; write ${names.join(", ")}: three numbers on each line`);
    }
    found.push(numbers);
  }
  if (!found.length) throw new Error(`no position is there; write ${names.join(", ")}: three numbers on each line`);
  if (found.length > MOST) throw new Error(`more positions than are shown here: positions=${found.length}, limit=${MOST}; send them as a table`);
  return found;
}

export function csv(names, positions) {
  return `${[names, ...positions].join("\n")}\n`;
}

// The rows of an answer to such a table: {given, velocity [km/s], std or null, los or null, place [h⁻¹Mpc], flag}.
export function rows(text, names) {
  const [head, ...lines] = text.trim().split("\n").map((line) => line.split(","));
  const column = (line, name) => (head.includes(name) ? Number(line[head.indexOf(name)]) : null);
  const three = (line, of) => (head.includes(of[0]) ? of.map((name) => column(line, name)) : null);
  return lines.map((line) => {
    const given = three(line, names);
    return {
      given,
      velocity: three(line, ["vx", "vy", "vz"]),
      std: three(line, ["std_x", "std_y", "std_z"]),
      los: column(line, "v_los"),
      place: three(line, ["x_real", "y_real", "z_real"]) ?? given,
      flag: column(line, "flag"),
    };
  });
}

export function words(flag) {
  const found = Object.keys(MEANINGS).filter((bit) => flag & bit).map((bit) => MEANINGS[bit]);
  return found.length ? found.join(", ") : "good";
}

// Whether a row lies in the store.
export function inside({ flag, place }) {
  return !(flag & 1) && place.every(Number.isFinite);
}

// `Velfield-Rows` in words.
export function counted(header) {
  const { rows: all, good, ...others } = JSON.parse(header);
  const told = Object.entries(others).filter(([, count]) => count > 0).map(([meaning, count]) => `, ${meaning}: ${count}`);
  return `${all} ${all === 1 ? "row" : "rows"}. Good: ${good}${told.join("")}.`;
}

// The question that a file of a table is sent with. column: {name: what the table calls it, or ""}.
export function question({ coordinates, space, extrapolate, column = {}, prefix = "", extension = "" }) {
  const query = new URLSearchParams({ coordinates, space, extrapolate });
  for (const [name, called] of Object.entries(column)) if (called) query.append("column", `${name}=${called}`);
  if (prefix) query.set("prefix", prefix);
  if (extension) query.set("extension", extension);
  return query;
}
