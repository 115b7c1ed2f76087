"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const get = (id) => document.getElementById(id);
const make = (tag, text, parent) => {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (parent) parent.appendChild(node);
  return node;
};
const PI = Math.PI, NONE = "–";
const UNSURE = 0.5;                       // of the probability outside the modes, or of being wrong
const LABELS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";   // of altlocs
const percent = (x) => `${Math.round(100 * x)} %`;
const minus = (x) => `${x}`.replace("-", "−");
const degrees = (x) => minus(`${x}°`);

// ---- The residues ----------------------------------------------------------------------------

// Arrays are 16-bit steps of their unit in base64; an angle that is not there is -32768. Those of modes
// have as many numbers for each residue, those of components follow each other.
const numbers = ([unit, text]) => {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0)), step = data.units[unit];
  const steps = unit === "angle" ? new Int16Array(bytes.buffer) : new Uint16Array(bytes.buffer);
  const values = new Float64Array(steps.length);
  for (let i = 0; i < steps.length; i++) values[i] = steps[i] === -32768 ? NaN : steps[i] * step;
  return values;
};
const arrays = {}, numSlots = data.numChi.length;
for (const [name, text] of Object.entries(data.arrays)) arrays[name] = numbers(text);
const part = (name, s) => {
  const width = arrays[name].length / numSlots;
  return Array.from(arrays[name].subarray(s * width, (s + 1) * width));
};
const rows = (flat, numChi) =>            // four numbers a row, of which numChi are meant
  Array.from({length: flat.length / 4}, (_, k) => flat.slice(4 * k, 4 * k + numChi));
const inDegrees = (chi) => chi.map((x) => Math.round(x * 180 / PI));
const firstWeight = [0], firstChi = [0];   // of the components of each slot
data.numComponents.forEach((n, s) => {
  firstWeight.push(firstWeight[s] + n);
  firstChi.push(firstChi[s] + n * data.numChi[s]);
});
const components = (name, s) => {
  const flat = Array.from(arrays[name].subarray(firstChi[s], firstChi[s + 1])), n = data.numChi[s];
  return Array.from({length: flat.length / n}, (_, k) => flat.slice(n * k, n * (k + 1)));
};
const lazily = (r, name, value) => Object.defineProperty(r, name, {   // made when it is first asked for
  configurable: true,
  get() { Object.defineProperty(r, name, {value: value()}); return r[name]; },
});
const chains = [], bySlot = [], byAddress = new Map();
data.columns.id.forEach((id, i) => {
  const at = (name) => data.columns[name][i], s = at("slot");
  const r = {id, name: at("name"), letter: at("letter"), note: at("note"), position: i};
  if (s >= 0) {
    const numChi = data.numChi[s];
    r.symmetric = Array.from({length: numChi}, (_, d) => d === data.symmetric[s]);
    r.entropy = data.entropy[s];
    r.weight = Array.from(arrays.weight.subarray(firstWeight[s], firstWeight[s + 1]));
    for (const name of ["mean", "kappa"]) lazily(r, name, () => components(name, s));
    const chi = rows(part("mode_chi", s), numChi).map(inDegrees);
    r.modes = part("mode_weight", s).map((w, j) => [w, ...chi[j]]).filter(([w]) => w > 0);
    const held = r.modes.reduce((sum, [w]) => sum + w, 0);
    r.others = held - (r.modes.length ? r.modes[0][0] : 0);
    r.elsewhere = Math.max(0, 1 - held);
    r.observed = [];
    const written = rows(part("written_chi", s), numChi).map(inDegrees);
    const used = part("written_occupancy", s).map((w, j) => [LABELS[j], w, ...written[j]])
      .filter(([, w]) => w > 0);
    r.written = used.length > 1 ? used : used.map(([, ...rest]) => ["", ...rest]);
    bySlot[s] = r;
  }
  for (const name of data.judged) r[name] = at(name);
  if (!chains.length || chains.at(-1).name !== at("chain"))
    chains.push({name: at("chain"), author: at("author"), residues: []});
  r.chain = chains.at(-1);
  r.chain.residues.push(r);
  r.address = `${r.chain.author}:${id}`;
  if (byAddress.has(r.address)) r.address = `${r.chain.name}/${r.address}`;
  byAddress.set(r.address, r);
  r.words = `${r.name} ${r.chain.author} ${id}`;
});
const observedChi = numbers(data.observed.chi);
data.observed.slot.forEach((s, i) => {
  const chi = inDegrees(Array.from(observedChi.subarray(4 * i, 4 * i + data.numChi[s])));
  bySlot[s].observed.push([data.observed.altloc[i], data.observed.occupancy[i], ...chi]);
});
const all = chains.flatMap((chain) => chain.residues);
const known = all.filter((r) => r.weight);

const angles = (chi) => chi.map((x) => (Number.isNaN(x) ? NONE : degrees(x))).join(", ");
const modeText = (r) => [
  ...r.modes.map(([w, ...chi]) => `${percent(w)} (${angles(chi)})`),
  ...(r.elsewhere >= 0.005 ? [`${percent(r.elsewhere)} elsewhere`] : []),
].join("; ");
const conformerText = (conformers) => conformers.map(([altloc, occupancy, ...chi]) =>
  `${altloc} ${occupancy.toFixed(2)} (${angles(chi)})`.trim()).join("; ");
function warnings(r) {                    // why a residue is worth a look
  const found = [];
  if (r.elsewhere >= UNSURE) found.push(`${percent(r.elsewhere)} elsewhere`);
  if (r.confidence !== null && r.confidence < UNSURE) found.push(`confidence ${percent(r.confidence)}`);
  if (r.strain !== null && r.strain >= data.strained) found.push("close contacts");
  return found.join(", ");
}
const summary = (r) => `${r.words}: ` + (r.weight ? modeText(r) : r.note || "no χ");

// ---- The density -----------------------------------------------------------------------------

// log(I0(x) exp(-x)): Abramowitz & Stegun 9.8.1 and 9.8.2.
function logI0e(x) {
  if (x < 3.75) {
    const t = (x / 3.75) ** 2;
    return Math.log(1 + t * (3.5156229 + t * (3.0899424 + t * (1.2067492 + t * (0.2659732
      + t * (0.0360768 + t * 0.0045813)))))) - x;
  }
  const t = 3.75 / x;
  return Math.log(0.39894228 + t * (0.01328592 + t * (0.00225319 + t * (-0.00157565
    + t * (0.00916281 + t * (-0.02057706 + t * (0.02635537 + t * (-0.01647633
    + t * 0.00392377)))))))) - 0.5 * Math.log(x);
}
// One kernel on a grid of n angles from -pi to pi. A symmetric chi has half of it at chi and half at
// chi + pi.
function kernel(r, k, d, n) {
  const kappa = r.kappa[k][d], norm = logI0e(kappa) + Math.log(2 * PI);
  const at = (x) => Math.exp(-2 * kappa * Math.sin((x - r.mean[k][d]) / 2) ** 2 - norm);
  return Float64Array.from({length: n}, (_, i) => {
    const x = 2 * PI * (i + 0.5) / n - PI;
    return r.symmetric[d] ? 0.5 * (at(x) + at(x + PI)) : at(x);
  });
}

// ---- The pictures ----------------------------------------------------------------------------

const MODE = "#a50f3c", DEPOSITED = "#14532d", LINE = "#1f5fa8";
const across = (chi) => ((chi % 360 + 540) % 360) / 360;   // 0 at -180 degrees, 1 at 180
const copies = (chi, symmetric) => (symmetric ? [chi, chi + 180] : [chi]);
const TICKS = [-180, -120, -60, 0, 60, 120, 180];

function drawAxes(g, left, top, width, height, xName, yName) {
  g.strokeStyle = "#b8c3ce"; g.fillStyle = "#5c6b7a"; g.font = "22px system-ui"; g.lineWidth = 2;
  g.strokeRect(left, top, width, height);
  g.textAlign = "center";
  for (const tick of TICKS)
    g.fillText(minus(tick), left + width * (tick + 180) / 360, top + height + 26);
  g.fillText(xName, left + width / 2, top + height + 54);
  if (!yName) return;
  g.textAlign = "right";
  for (const tick of TICKS)
    g.fillText(minus(tick), left - 8, top + height * (180 - tick) / 360 + 8);
  g.save(); g.translate(24, top + height / 2); g.rotate(-PI / 2); g.textAlign = "center";
  g.fillText(yName, 0, 0); g.restore();
}

function drawMap(r, dx, dy) {
  const canvas = get("map"), g = canvas.getContext("2d"), n = 180;
  g.clearRect(0, 0, canvas.width, canvas.height);
  canvas.style.display = r.weight && r.symmetric.length > 1 ? "block" : "none";
  if (canvas.style.display === "none") return;
  canvas.setAttribute("aria-label",
    `Predicted density of ${r.words} over chi ${dx + 1} and chi ${dy + 1}: ${modeText(r)}`);
  const xs = r.weight.map((_, k) => kernel(r, k, dx, n)), ys = r.weight.map((_, k) => kernel(r, k, dy, n));
  const density = new Float64Array(n * n);
  r.weight.forEach((w, k) => {
    for (let j = 0; j < n; j++) for (let i = 0; i < n; i++) density[j * n + i] += w * xs[k][i] * ys[k][j];
  });
  const top = density.reduce((a, b) => Math.max(a, b)), image = g.createImageData(n, n);
  density.forEach((p, at) => {            // square root: weak modes stay visible
    const i = at % n, j = n - 1 - Math.floor(at / n), t = Math.sqrt(p / top);
    const rgb = [255 - 224 * t, 255 - 160 * t, 255 - 87 * t];
    for (let c = 0; c < 3; c++) image.data[4 * (j * n + i) + c] = rgb[c];
    image.data[4 * (j * n + i) + 3] = 255;
  });
  const small = document.createElement("canvas");
  small.width = small.height = n;
  small.getContext("2d").putImageData(image, 0, 0);
  g.drawImage(small, 90, 12, 620, 620);
  drawAxes(g, 90, 12, 620, 620, `χ${dx + 1}, degrees`, `χ${dy + 1}, degrees`);
  const place = (chi) => [90 + 620 * across(chi[dx]), 12 + 620 * (1 - across(chi[dy]))];
  g.lineWidth = 3; g.textAlign = "left"; g.strokeStyle = g.fillStyle = MODE;
  for (const [weight, ...chi] of r.modes) {
    const [x, y] = place(chi);
    g.beginPath(); g.arc(x, y, 8, 0, 2 * PI); g.stroke();
    g.fillText(percent(weight), x + 12, y + 8);
  }
  g.strokeStyle = LINE;
  for (const [, , ...chi] of r.written) {
    const [x, y] = place(chi);
    g.strokeRect(x - 12, y - 12, 24, 24);
  }
  g.strokeStyle = g.fillStyle = DEPOSITED;
  for (const [altloc, occupancy, ...chi] of r.observed) {
    if (Number.isNaN(chi[dx] + chi[dy])) continue;
    for (const u of copies(chi[dx], r.symmetric[dx])) for (const v of copies(chi[dy], r.symmetric[dy])) {
      const [x, y] = place(Object.assign([...chi], {[dx]: u, [dy]: v}));
      g.beginPath(); g.moveTo(x - 11, y); g.lineTo(x + 11, y); g.moveTo(x, y - 11); g.lineTo(x, y + 11);
      g.stroke();
      g.fillText(`${altloc} ${occupancy.toFixed(2)}`.trim(), x + 12, y - 12);
    }
  }
}

function drawCurves(r) {                  // a strip for each chi, so that none needs a colour
  const canvas = get("curves"), g = canvas.getContext("2d"), n = 720;
  g.clearRect(0, 0, canvas.width, canvas.height);
  canvas.style.display = r.weight ? "block" : "none";
  if (!r.weight) return;
  canvas.setAttribute("aria-label", `Predicted density of each chi of ${summary(r)}`);
  const strip = 350 / r.symmetric.length;
  r.symmetric.forEach((symmetric, d) => {
    const line = new Float64Array(n), bottom = 24 + strip * (d + 1);
    r.weight.forEach((w, k) => kernel(r, k, d, n).forEach((p, i) => { line[i] += w * p; }));
    const top = line.reduce((a, b) => Math.max(a, b));
    g.strokeStyle = LINE; g.lineWidth = 3; g.beginPath();
    line.forEach((p, i) =>
      g.lineTo(90 + 620 * (i + 0.5) / n, bottom - (strip - 14) * Math.sqrt(p / top)));
    g.stroke();
    g.strokeStyle = g.fillStyle = DEPOSITED; g.font = "20px system-ui"; g.textAlign = "left";
    g.setLineDash([8, 6]);
    for (const [altloc, , ...chi] of r.observed) {
      if (Number.isNaN(chi[d])) continue;
      for (const u of copies(chi[d], symmetric)) {
        const x = 90 + 620 * across(u);
        g.beginPath(); g.moveTo(x, bottom); g.lineTo(x, bottom - strip + 14); g.stroke();
        g.fillText(altloc, x + 4, bottom - strip + 30);
      }
    }
    g.setLineDash([]);
    g.strokeStyle = "#b8c3ce"; g.lineWidth = 2;
    g.beginPath(); g.moveTo(90, bottom); g.lineTo(710, bottom); g.stroke();
    g.fillStyle = "#444"; g.font = "24px system-ui"; g.fillText(`χ${d + 1}`, 722, bottom - strip / 2 + 8);
  });
  drawAxes(g, 90, 24, 620, 350, "χ, degrees; square root of the density, each to its own height");
}

// ---- Choosing --------------------------------------------------------------------------------

function bringUp(row) {
  const box = get("box"), top = row.offsetTop;
  if (top < box.scrollTop + 60 || top + row.offsetHeight > box.scrollTop + box.clientHeight)
    box.scrollTop = top - box.clientHeight / 2;
}
let chosen = null;
const ignorance = (r) =>
  (r.disagreement === null ? "" : `; passes disagree by ${r.disagreement.toFixed(3)} nat`) +
  (r.unlike_training === null || r.unlike_training < data.unlike ? "" :
    `; more unlike the training set than ${percent(r.unlike_training)} of residues held out`);
function choose(r) {
  if (chosen === r) return;
  for (const [which, on] of [[chosen, false], [r, true]])
    for (const node of which ? [which.letterNode, which.rowLink] : []) {
      node.tabIndex = on ? 0 : -1;        // the tab key finds one residue, arrow keys the others
      if (on) node.setAttribute("aria-current", "true"); else node.removeAttribute("aria-current");
    }
  if (chosen) chosen.row.classList.remove("chosen");
  r.row.classList.add("chosen");
  chosen = r;
  bringUp(r.row);
  requestAnimationFrame(() => bringUp(r.row));   // rows on the way there have their heights by now
  get("which").textContent = r.words;
  const why = warnings(r);
  const found = r.weight
    ? `Entropy ${minus(r.entropy.toFixed(2))} nat${ignorance(r)}.` + (why ? ` Worth a look: ${why}.` : "")
    : r.note || "This residue has no χ.";
  const label = r.chain.name === r.chain.author ? "" : ` Chain ${r.chain.name} in the tables.`;
  get("about").textContent = (found + label).replaceAll(" %", "\u00a0%");
  showModes(r);
  const pairs = get("pairs");
  pairs.replaceChildren();
  for (let d = 0; r.weight && d + 1 < r.symmetric.length && r.symmetric.length > 2; d++) {
    const button = make("button", `χ${d + 1} × χ${d + 2}`, pairs);
    button.type = "button";
    button.setAttribute("aria-pressed", d === 0);
    button.onclick = () => {
      for (const other of pairs.children) other.setAttribute("aria-pressed", other === button);
      drawMap(r, d, d + 1);
    };
  }
  drawMap(r, 0, 1);
  drawCurves(r);
  document.dispatchEvent(new Event("chosen"));   // for the model in three dimensions
}
function showModes(r) {
  const numChi = r.weight ? r.symmetric.length : 0, body = [];
  const add = (what, share, chi) => {
    const row = make("tr");
    make("th", what, row).scope = "row";
    make("td", share, row);
    for (let d = 0; d < numChi; d++)
      make("td", d < chi.length && !Number.isNaN(chi[d]) ? degrees(chi[d]) : NONE, row);
    body.push(row);
  };
  if (r.weight) {
    r.modes.forEach(([w, ...chi], j) => add(`mode ${j + 1}`, percent(w), chi));
    add("elsewhere", percent(r.elsewhere), []);
    for (const [altloc, occupancy, ...chi] of r.written)
      add(`written ${altloc}`.trim(), occupancy.toFixed(2), chi);
    for (const [altloc, occupancy, ...chi] of r.observed)
      add(`deposited ${altloc}`.trim(), occupancy.toFixed(2), chi);
  }
  const heads = ["", "weight", ...Array.from({length: numChi}, (_, d) => `χ${d + 1}`)];
  get("mode-heads").replaceChildren(...heads.map((text, i) => {
    const node = make(i ? "th" : "td", text);
    if (i) node.scope = "col";
    return node;
  }));
  get("modes").replaceChildren(...body);
}
// The letter and the row of a residue are links to its address: both do what a link does.
function link(parent, text, r) {
  const node = make("a", text, parent);
  node.href = "#" + encodeURIComponent(r.address).replaceAll("%3A", ":");
  node.tabIndex = -1;
  return node;
}
// Arrow keys in a list: how far each goes; the residues in the order in which they stand there.
function walk(container, listed, nodeOf, steps) {
  container.addEventListener("keydown", (event) => {
    const at = listed().indexOf(chosen), last = listed().length - 1;
    const to = event.key === "Home" ? 0 : event.key === "End" ? last : at + steps[event.key];
    if (Number.isNaN(to) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const r = listed()[Math.min(last, Math.max(0, to))];
    choose(r);
    nodeOf(r).focus();
    location.replace(nodeOf(r).href);
  });
}
function fromAddress() {
  const r = byAddress.get(decodeURIComponent(location.hash.slice(1)));
  if (r) choose(r);
  return r;
}

// ---- The sequence ----------------------------------------------------------------------------

function colour(x) {                      // white to red, darker at the end
  const stops = [[247, 249, 251], [253, 208, 162], [240, 112, 67], [165, 15, 60]];
  const t = Math.min(0.9999, Math.max(0, x)) * 3, i = Math.floor(t), f = t - i;
  return stops[i].map((a, c) => Math.round(a + f * (stops[i + 1][c] - a)));
}
const rgb = (parts) => `rgb(${parts.join(",")})`;
function luminance(parts) {               // of WCAG; above 0.179 black is read better than white
  const linear = parts.map((c) => (c <= 10 ? c / 3295 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
}
get("scale").style.background =
  `linear-gradient(90deg, ${[0, 0.33, 0.66, 1].map((x) => rgb(colour(x))).join(",")})`;

for (const chain of chains) {
  const twice = chains.some((other) => other !== chain && other.author === chain.author);
  make("h3", `Chain ${chain.author}` + (twice ? ` (${chain.name} in the tables)` : ""), get("sequences"));
  const sequence = make("div", undefined, get("sequences"));
  sequence.className = "sequence";
  let ten;
  chain.residues.forEach((r, i) => {
    if (i % 10 === 0) {
      ten = make("div", undefined, sequence);
      ten.className = "ten";
      make("small", r.id, ten);
    }
    const node = r.letterNode = link(ten, r.letter, r);
    node.title = summary(r);
    node.setAttribute("aria-label", summary(r));
    if (!r.weight) return void node.classList.add("none");
    if (warnings(r)) node.classList.add("look");
    if (r.elsewhere >= UNSURE) return void node.classList.add("unsure");
    node.style.background = rgb(colour(r.others));
    if (luminance(colour(r.others)) < 0.179) node.classList.add("dark");
  });
}

// ---- The table -------------------------------------------------------------------------------

// Name, text, what it is sorted by (null comes last), whether the largest comes first.
const maybe = (text) => (r) => (r.weight ? text(r) : NONE);
const number = (key) => (r) => (r.weight ? key(r) : null);
const columns = [
  ["residue", (r) => r.words, (r) => r.position, false],
  ["worth a look", (r) => (r.weight ? warnings(r) : r.note), (r) => warnings(r).length || null, true],
  ["other modes", maybe((r) => percent(r.others)), number((r) => r.others), true],
  ["elsewhere", maybe((r) => percent(r.elsewhere)), number((r) => r.elsewhere), true],
  ["entropy, nat", maybe((r) => minus(r.entropy.toFixed(2))), number((r) => r.entropy), true],
  ["confidence", (r) => (r.confidence === null ? NONE : percent(r.confidence)),
    (r) => r.confidence, false],
  ["weight and χ of each mode", maybe(modeText), number((r) => r.modes.length), true],
  ["written", maybe((r) => conformerText(r.written)), number((r) => r.written.length), true],
  ["deposited", maybe((r) => conformerText(r.observed) || NONE), number((r) => r.observed.length), true],
];
all.forEach((r) => {
  r.row = make("tr");
  columns.forEach(([name, text], i) => {
    const cell = make(i ? "td" : "th", i ? text(r) : undefined, r.row);
    if (i) cell.setAttribute("data-label", name);
    else { cell.scope = "row"; r.rowLink = link(cell, text(r), r); }
  });
  r.row.onclick = () => r.rowLink.click();
  r.rowLink.onclick = (event) => event.stopPropagation();
});
let order = [], sortedBy = null, isFalling = false;
function sort(i) {
  const [, , key, largestFirst] = columns[i];
  isFalling = sortedBy === i ? !isFalling : largestFirst;
  sortedBy = i;
  const sign = isFalling ? -1 : 1;
  order = [...all].sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x == null || y == null) return (x == null) - (y == null) || a.position - b.position;
    return sign * (x - y) || a.position - b.position;
  });
  get("rows").replaceChildren(...order.map((r) => r.row));
  columns.forEach((_, c) => heads[c].setAttribute("aria-sort",
    c !== i ? "none" : isFalling ? "descending" : "ascending"));
}
const heads = columns.map(([name], i) => {
  const head = make("th", undefined, get("heads"));
  head.scope = "col";
  const button = make("button", name, head);
  button.type = "button";
  button.onclick = () => sort(i);
  return head;
});
sort(0);

// ---- The numbers -----------------------------------------------------------------------------

function csv() {
  const quoted = (x) => (/[",\n]/.test(x) ? `"${`${x}`.replaceAll('"', '""')}"` : `${x}`);
  const named = ["chain", "author_chain", "name", "number", "entropy", "other_modes", "elsewhere",
    ...data.judged, "modes", "written", "deposited", "worth_a_look", "note"];
  const lines = all.map((r) => [
    r.chain.name, r.chain.author, r.name, r.id,
    ...(r.weight ? [r.entropy, r.others, r.elsewhere].map((x) => x.toFixed(4)) : ["", "", ""]),
    ...data.judged.map((name) => r[name] ?? ""),
    ...(r.weight ? [modeText(r), conformerText(r.written), conformerText(r.observed), warnings(r)]
      : ["", "", "", ""]),
    r.note,
  ]);
  return [named, ...lines].map((line) => line.map(quoted).join(",")).join("\n") + "\n";
}
get("download").onclick = () => {
  const address = URL.createObjectURL(new Blob([csv()], {type: "text/csv"}));
  const node = make("a");
  node.href = address;
  node.download = `${data.entry}.page.csv`;
  node.click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
};

walk(get("sequences"), () => all, (r) => r.letterNode,
  {ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10});
walk(get("rows"), () => order, (r) => r.rowLink, {ArrowDown: 1, ArrowUp: -1});
addEventListener("hashchange", fromAddress);
if (!fromAddress() && all.length)
  choose(known.length ? known.reduce((a, b) => (b.others > a.others ? b : a)) : all[0]);
