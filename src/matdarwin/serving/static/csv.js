// Comma-separated values, read and written as RFC 4180 has them.

/** Rows of cells of a CSV text; at most `limit` rows. */
export function readCsv(text, limit = Infinity) {
  const rows = [];
  let row = [];
  let cell = "";
  let quoted = false;
  const endCell = () => {
    row.push(cell);
    cell = "";
  };
  const endRow = () => {
    endCell();
    if (row.length > 1 || row[0] !== "") rows.push(row);
    row = [];
  };
  const from = text.charCodeAt(0) === 0xfeff ? 1 : 0;
  for (let i = from; i < text.length && rows.length < limit; i += 1) {
    const char = text[i];
    if (quoted) {
      if (char !== '"') cell += char;
      else if (text[i + 1] === '"') {
        cell += '"';
        i += 1;
      } else quoted = false;
    } else if (char === '"' && cell === "") quoted = true;
    else if (char === ",") endCell();
    else if (char === "\n") endRow();
    else if (char === "\r") {
      if (text[i + 1] !== "\n") endRow();
    } else cell += char;
  }
  if (rows.length < limit && (cell !== "" || row.length)) endRow();
  return rows;
}

const quoted = (cell) => {
  const text = cell === null || cell === undefined ? "" : String(cell);
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

/** CSV text of rows of cells. */
export const writeCsv = (rows) => rows.map((row) => row.map(quoted).join(",") + "\r\n").join("");

const NAMES = {
  composition: ["composition", "formula", "material"],
  molecule: ["smiles", "molecule", "material"],
  name: ["name", "material"],
};

/** Where the materials stand in a header, by the server's rule; -1 where that cannot be told. */
export function materialColumn(header, named, kinds = ["composition", "molecule", "name"]) {
  if (named) return header.indexOf(named);
  if (header.length === 1) return 0;
  for (const kind of kinds) {
    for (const wanted of NAMES[kind] ?? []) {
      const at = header.findIndex((name) => name.trim().toLowerCase() === wanted);
      if (at >= 0) return at;
    }
  }
  return -1;
}
