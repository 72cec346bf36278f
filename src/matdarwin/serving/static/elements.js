// The periodic table: where each element stands, and a small picture of it coloured by how often training met each.

import { h } from "./dom.js";

// Rows of the usual picture; a dot is an empty place. The last two rows are the f-block.
const ROWS = `
H . . . . . . . . . . . . . . . . He
Li Be . . . . . . . . . . B C N O F Ne
Na Mg . . . . . . . . . . Al Si P S Cl Ar
K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr
Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe
Cs Ba . Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn
Fr Ra . Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og
. . La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu .
. . Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr .`.trim().split("\n").map((row) => row.split(" "));

export const SYMBOLS = ROWS.flat().filter((symbol) => symbol !== ".");

const LEVELS = ["never seen", "1 to 9", "10 to 99", "100 to 999", "1,000 or more"];

/** Level of a count on the logarithmic scale of the colours: 0 for never, then one a factor of ten. */
const level = (count) => (count > 0 ? Math.min(4, 1 + Math.floor(Math.log10(count))) : 0);

const told = (count) => (count > 0 ? `${count.toLocaleString("en-GB")} training material${count === 1 ? "" : "s"}` : "never seen in training");

/**
 * The table as a figure.
 * @param {Record<string, number>} counts Training materials of the task, by element.
 * @param {string[]} outlined Elements of the material.
 */
export function periodicTable(counts, outlined) {
  const ours = new Set(outlined);
  const cells = ROWS.flatMap((row, y) => row.map((symbol, x) => {
    if (symbol === ".") return null;
    const count = counts[symbol] ?? 0;
    const cell = h("span", {
      class: `element level-${level(count)}${ours.has(symbol) ? " ours" : ""}`,
      title: `${symbol}: ${told(count)}`,
      "data-symbol": symbol,
    }, symbol);
    cell.style.gridColumn = String(x + 1);
    // The f-block stands a little apart.
    cell.style.gridRow = String(y < 7 ? y + 1 : y + 2);
    return cell;
  }));
  const legend = LEVELS.map((words, at) => h("span", { class: "key" }, h("i", { class: `swatch level-${at}` }), words));
  const words = outlined.map((symbol) => `${symbol}: ${told(counts[symbol] ?? 0)}`).join("; ");
  return h("figure", { class: "periodic" },
    h("div", { class: "periodic-grid", role: "img", "aria-label": `Periodic table. ${words}.` }, cells),
    h("p", { class: "legend", "aria-label": "Training materials that hold the element" }, legend),
    h("figcaption", {}, words ? `${words}.` : "The material has no elements that can be told."));
}
