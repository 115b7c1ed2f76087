"use strict";
// The model in three dimensions: the chosen residue, what stands next to it, and the trace of all. The
// library and the atoms are unpacked when the pane is first seen, so that the page opens at once.
const COLOURS = ["#1d78c1", "#b35f00", "#16804f", "#b44a92"];   // of labels; white and dark set them off
const CARBON = "#78858f";                 // of what has one conformer
const ELEMENTS = {N: "#3454d1", O: "#cc2222", S: "#b8960c", P: "#c8641b", Se: "#b8960c"};
const BACKBONE = new Set(["N", "CA", "C", "O", "OXT"]);
const NEAR = 4.5;                         // angstrom from the chosen side chain
const TRACED = 20, SEEN = 8;              // angstrom from its middle: how far the trace goes, and the view
const pane = get("pane");
const hueOf = (altloc) => COLOURS[LABELS.indexOf(altloc) % COLOURS.length];

async function unpack(id) {
  const bytes = Uint8Array.from(atob(get(id).textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

// A list of residues; each has its words, its row of the page if it has one, and its atoms.
function readAtoms(text) {
  const packed = JSON.parse(text), size = packed.stepsPerAngstrom;
  let at = 0;
  return packed.residues.map((place, n) => {
    const r = typeof place === "number" ? all[place] : undefined;
    const residue = {r, words: r ? r.words : place, atoms: []};
    for (const end = at + packed.counts[n]; at < end; at++) {
      const [name, element] = packed.kinds[packed.kind[at]];
      const [x, y, z] = packed.steps.slice(3 * at, 3 * at + 3).map((step) => step / size);
      residue.atoms.push({name, element, x, y, z, altloc: packed.altlocs[at].trim(), residue});
    }
    return residue;
  });
}

const squared = (a, b) => (a.x - b.x) ** 2 + (a.y - b.y) ** 2 + (a.z - b.z) ** 2;
const isSide = (atom) => !BACKBONE.has(atom.name);
const together = (a, b) => !a.altloc || !b.altloc || a.altloc === b.altloc;
// How far a bond reaches, angstrom: two light elements, one that is heavier, a metal and what binds it.
const LIGHT = new Set(["C", "N", "O", "F", "B"]), HEAVY = new Set(["S", "Se", "P", "Cl", "Br", "I"]);
const isMetal = ({element}) => !LIGHT.has(element) && !HEAVY.has(element);
function isBond(a, b) {
  if (!together(a, b)) return false;
  const both = (test) => test(a) && test(b);
  if (both((atom) => LIGHT.has(atom.element))) return squared(a, b) < 1.9 ** 2;
  if (both((atom) => !isMetal(atom))) return squared(a, b) < 2.25 ** 2;
  const binds = ({element}) => ["N", "O", "S"].includes(element);
  return (binds(a) || binds(b)) && squared(a, b) < 2.7 ** 2;
}
function neighboursOf(residue, residues) {
  const side = residue.atoms.filter(isSide), core = side.length ? side : residue.atoms;
  return residues.filter((other) => other !== residue && other.atoms.some((b) =>
    core.some((a) => together(a, b) && squared(a, b) < NEAR ** 2)));
}

function drawnAtoms(shown, chosenOne) {   // as 3Dmol takes them, each with its style
  const atoms = shown.flatMap((residue) => residue.atoms);
  const drawn = atoms.map((atom, index) => {
    const isChosen = atom.residue === chosenOne, hue = atom.altloc ? hueOf(atom.altloc) : CARBON;
    const own = isChosen && !atom.altloc && isSide(atom) ? COLOURS[0] : hue;
    const color = atom.element === "C" ? own : ELEMENTS[atom.element] ?? own;
    const radius = !isSide(atom) ? 0.07 : isChosen ? 0.2 : 0.12;
    return {
      index, elem: atom.element, atom: atom.name, x: atom.x, y: atom.y, z: atom.z, bonds: [], bondOrder: [],
      residue: atom.residue, radius, color,
    };
  });
  atoms.forEach((a, i) => {
    for (let j = i + 1; j < atoms.length; j++)
      if (isBond(a, atoms[j])) {
        drawn[i].bonds.push(j); drawn[i].bondOrder.push(1);
        drawn[j].bonds.push(i); drawn[j].bondOrder.push(1);
      }
  });
  drawn.forEach((atom, i) => {
    const {color, radius} = atom, sphere = {color, radius: 0.35};
    const stick = {color, radius: isMetal(atoms[i]) ? 0.07 : radius};
    atom.style = isMetal(atoms[i]) ? {stick, sphere} : atom.bonds.length ? {stick} : {sphere};
  });
  return drawn;
}
function traceAtoms(residues, middle) {   // CA to CA, where the chain is not broken
  const trace = [];
  for (const residue of residues) {
    const ca = residue.r && residue.atoms.find((atom) => atom.name === "CA");
    if (!ca || squared(ca, middle) > TRACED ** 2) continue;
    const index = trace.length, before = trace.at(-1), bonds = [], bondOrder = [];
    if (before && before.residue.r.chain === residue.r.chain && squared(before, ca) < 4.3 ** 2) {
      bonds.push(index - 1); bondOrder.push(1);
      before.bonds.push(index); before.bondOrder.push(1);
    }
    const style = {stick: {color: CARBON, radius: 0.25, opacity: 0.45}};
    trace.push({index, elem: "C", atom: "CA", x: ca.x, y: ca.y, z: ca.z, bonds, bondOrder, style, residue});
  }
  return trace;
}

const anchor = (residue) => residue.atoms.find((atom) => atom.name === "CA") ?? residue.atoms[0];
function middleOf(residue) {              // of its side chain, with all of its states
  const side = residue.atoms.filter(isSide), atoms = side.length ? side : [anchor(residue)];
  const mean = (axis) => atoms.reduce((sum, atom) => sum + atom[axis], 0) / atoms.length;
  return {x: mean("x"), y: mean("y"), z: mean("z")};
}
// The labels of a residue, and for each the atom that is farthest from CA.
function tips(residue) {
  const ca = anchor(residue);
  const labels = [...new Set(residue.atoms.map((atom) => atom.altloc).filter(Boolean))];
  return (labels.length ? labels : [""]).map((label) => [label, residue.atoms
    .filter((atom) => atom.altloc === label)
    .reduce((a, b) => (squared(b, ca) > squared(a, ca) ? b : a))]);
}
function addLabels(viewer, shown, chosenOne) {
  const {color: ink, backgroundColor: paper} = getComputedStyle(pane);
  const add = (text, {x, y, z}, look) =>
    viewer.addLabel(text, {position: {x, y, z}, inFront: true, fontSize: 11, ...look}, undefined, true);
  for (const residue of shown) {
    const isChosen = residue === chosenOne, written = isChosen ? residue.r.written ?? [] : [];
    for (const [label, atom] of tips(residue)) {
      const share = written.find(([altloc]) => altloc === label)?.[1].toFixed(2) ?? "";
      const look = {backgroundColor: hueOf(label), fontColor: "white", fontSize: isChosen ? 12 : 10};
      if (label) add(`${label} ${share}`.trim(), atom, look);
    }
    const look = {backgroundColor: paper, backgroundOpacity: 0.6, fontColor: ink};
    if (!/^(HOH|DOD|WAT) /.test(residue.words)) add(residue.words, anchor(residue), look);
  }
}

// From where the chosen side chain is seen best, as 3Dmol has it: its middle in the middle, pointing
// to the right and spread in the plane of the screen, on the side with fewer atoms in front.
function bestView(residue, near, middle) {
  const arrow = (a) => [a.x - middle.x, a.y - middle.y, a.z - middle.z];
  const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
  const scaled = (a, f) => a.map((x) => x * f), plus = (a, b) => a.map((x, i) => x + b[i]);
  const unit = (a) => scaled(a, 1 / Math.sqrt(dot(a, a)));
  const cross = (a, b) => [0, 1, 2].map((i) =>
    a[(i + 1) % 3] * b[(i + 2) % 3] - a[(i + 2) % 3] * b[(i + 1) % 3]);
  const stem = scaled(arrow(anchor(residue)), -1);
  const right = dot(stem, stem) > 0.01 ? unit(stem) : [1, 0, 0];
  const aside = (a) => plus(a, scaled(right, -dot(a, right)));
  const width = (a) => dot(aside(a), aside(a));
  const arms = [...residue.atoms.filter(isSide).map(arrow), [0, 0.1, 0], [0, 0, 0.1]];
  let up = unit(aside(arms.reduce((a, b) => (width(b) > width(a) ? b : a)))), out = cross(right, up);
  const inFront = near.flatMap((other) => other.atoms).map((atom) => Math.sign(dot(arrow(atom), out)));
  if (inFront.reduce((a, b) => a + b, 0) > 0) [up, out] = [scaled(up, -1), scaled(out, -1)];
  const distance = SEEN / Math.tan(PI / 18), {x, y, z} = middle;   // it sees 20 degrees, from 150 angstrom
  return [-x, -y, -z, 150 - distance, ...quaternion(right, up, out)];
}
// x, y, z, w of the rotation whose matrix has these rows.
function quaternion(...m) {
  const [[a, b, c], [d, e, f], [g, h, i]] = m, half = (x) => Math.sqrt(Math.max(0, x)) / 2;
  const sign = (x, y) => (y < 0 ? -x : x);
  return [sign(half(1 + a - e - i), h - f), sign(half(1 - a + e - i), c - g),
    sign(half(1 - a - e + i), d - b), half(1 + a + e + i)];
}

// In words what is drawn, with links to the residues beside the chosen one.
function describe(residue, near) {
  const states = tips(residue).map(([label]) => label).filter(Boolean);
  const occupancy = (label) => residue.r.written?.find(([altloc]) => altloc === label)?.[1];
  const words = get("pane-words");
  words.replaceChildren();
  for (const label of states) {
    const swatch = make("span", label, words);
    swatch.className = "state";
    swatch.style.background = hueOf(label);
    make("span", ` ${occupancy(label)?.toFixed(2) ?? ""} `, words);
  }
  if (states.length) make("br", undefined, words);
  make("span", near.length ? `Within ${NEAR} Å: ` : `Nothing within ${NEAR} Å.`, words);
  near.forEach((other, i) => {
    const labels = tips(other).map(([label]) => label).join("");
    if (i) make("span", ", ", words);
    if (other.r) link(words, other.words, other.r).tabIndex = 0;
    else make("span", other.words, words);
    if (labels) make("span", ` (${[...labels].join(", ")})`, words);
  });
}

const canDraw = () => "DecompressionStream" in globalThis
  && Boolean(document.createElement("canvas").getContext("webgl2"));
let scene = null;                         // a promise, from when the pane was first seen
async function openScene() {
  if (!canDraw()) {
    get("pane-words").textContent = "This browser has no WebGL, or is too old, to show the model in three "
      + "dimensions; all else works without.";
    pane.hidden = true;
    return null;
  }
  const [code, text] = await Promise.all([unpack("viewer"), unpack("atoms")]);
  make("script", code, document.head);
  const viewer = $3Dmol.createViewer(pane, {upscale: false});
  viewer.setSlab(-SEEN * 1.5, TRACED);
  return {viewer, residues: readAtoms(text)};
}
async function showModel() {
  const open = scene && await scene;
  if (!open || !chosen) return;
  const {viewer, residues} = open, residue = residues.find(({r}) => r === chosen);
  const near = neighboursOf(residue, residues), shown = [residue, ...near], middle = middleOf(residue);
  viewer.removeAllModels();               // each of these draws at once: what there is, nothing
  viewer.removeAllLabels();
  viewer.setBackgroundColor(getComputedStyle(pane).backgroundColor);
  viewer.setView(bestView(residue, near, middle));
  viewer.addModel().addAtoms(traceAtoms(residues, middle));
  const model = viewer.addModel();
  model.addAtoms(drawnAtoms(shown, residue));
  model.setClickable({}, true, (atom) => {
    if (atom.residue.r) location.hash = atom.residue.r.rowLink.hash;
  });
  addLabels(viewer, shown, residue);
  viewer.render();
  pane.setAttribute("aria-label", `Model around ${chosen.words}. Arrow keys turn it, plus and minus zoom.`);
  pane.dataset.shows = chosen.address;
  describe(residue, near);
}

const TURNS = {ArrowLeft: [-10, "y"], ArrowRight: [10, "y"], ArrowUp: [-10, "x"], ArrowDown: [10, "x"]};
pane.addEventListener("keydown", async (event) => {
  const open = scene && await scene, zoom = {"+": 1.2, "=": 1.2, "-": 1 / 1.2}[event.key];
  if (!open || event.ctrlKey || event.altKey || event.metaKey) return;
  if (TURNS[event.key]) open.viewer.rotate(...TURNS[event.key]);
  if (zoom) open.viewer.zoom(zoom);
});
pane.addEventListener("keydown", (event) => { if (TURNS[event.key]) event.preventDefault(); });
// The wheel is the page's until the pane was clicked.
pane.addEventListener("mousedown", () => pane.focus({preventScroll: true}), true);
pane.addEventListener("wheel", (event) => {
  if (document.activeElement !== pane) event.stopPropagation();
}, true);
document.addEventListener("chosen", showModel);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showModel);
new IntersectionObserver((entries, observer) => {
  if (!entries.some((entry) => entry.isIntersecting)) return;
  observer.disconnect();
  scene = openScene();
  showModel();
}, {rootMargin: "200px"}).observe(pane);
