// Guesses what kind of material a line is, so that properties can be suggested. The server alone decides what it reads.

import { SYMBOLS } from "./elements.js";

const ORGANIC = new Set(["B", "C", "N", "O", "P", "S", "F", "Cl", "Br", "I"]);
const KNOWN = new Set([...SYMBOLS, "D", "T"]);

/** The elements of what looks like a formula, as they stand; null for anything else. */
function formula(text) {
  if (!/^[A-Za-z0-9.₀-₉()[\]{}·*+,\s-]+$/.test(text)) return null;
  // Digits and brackets say nothing here, so what is left must be symbols.
  const letters = text.replace(/[^A-Za-z]/g, " ");
  const found = letters.match(/[A-Z][a-z]?/g) ?? [];
  if (!found.length || found.join("") !== letters.replaceAll(" ", "")) return null;
  return found.every((symbol) => KNOWN.has(symbol)) ? found : null;
}

function smiles(text) {
  if (/\s/.test(text)) return false;
  const bare = text.replace(/\[[^\]]+\]/g, "");
  return /^(?:Cl|Br|[BCNOPSFI]|[bcnops]|[0-9%=#$@:.()/\\+*-])*$/.test(bare) && /[A-Za-z]/.test(text);
}

/** "composition", "molecule" or "name". */
export function guessKind(line) {
  const text = line.trim();
  // HKUST-1, MOF-5, PCN-222: a code, though its letters may be elements.
  if (/^[A-Za-z]{2,}-\d/.test(text)) return "name";
  // Formulas have square brackets too, but not around one ion with its charge.
  const symbols = /\[[A-Z][a-z]?[+-]\d?\]/.test(text) ? null : formula(text);
  if (symbols) {
    const twice = new Set(symbols).size < symbols.length;
    const organic = symbols.every((symbol) => ORGANIC.has(symbol)) && symbols.includes("C");
    // CCO names carbon twice and no hydrogen, as SMILES do and formulas do not.
    return organic && twice && smiles(text) ? "molecule" : "composition";
  }
  // A word such as "cocoon" is made of aromatic atoms alone, but rings need digits.
  return smiles(text) && /[A-Z\d[]/.test(text) ? "molecule" : "name";
}

/** How many of the lines are of each kind. */
export function kindsOf(lines) {
  const counts = new Map();
  for (const line of lines.slice(0, 2000)) {
    const kind = guessKind(line);
    counts.set(kind, (counts.get(kind) ?? 0) + 1);
  }
  return counts;
}
