"""The page of a prediction: its script in node, and what it must be for every reader."""

import io
import json
import shutil
import subprocess

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from helpers.browser import check_in_browser, check_self_contained
from helpers.predictions import make_model
from helpers.simulated import simulator
from qfitlatent.chemistry.geometry import wrap
from qfitlatent.prediction.page import KAPPA_DRAWN, STRAINED
from qfitlatent.prediction.predict import predict_structures
from qfitlatent.prediction.records import read_input
from qfitlatent.simulate.entry import write_entries
from qfitlatent.simulate.settings import entry_ids


@pytest.fixture(scope="module")
def structure(tmp_path_factory):
    settings = simulator(num_entries=1, min_residues=30, max_residues=60)
    return write_entries(entry_ids(settings), tmp_path_factory.mktemp("structure"), settings, 3)[0]


@pytest.fixture(scope="module")
def predicted(structure, tmp_path_factory):
    model = make_model(tmp_path_factory.mktemp("model"))
    out = tmp_path_factory.mktemp("predicted")
    return predict_structures([structure], out, model)[0], out


STUB = """
const fs = require("fs"), html = fs.readFileSync(process.argv[1], "utf8");
const data = html.match(/<script type="application\\/json" id="data">([\\s\\S]*?)<\\/script>/)[1];
const code = html.match(/<script>\\n([\\s\\S]*?)<\\/script>/)[1];
class Node {
  constructor() {
    this.children = []; this.style = {}; this.attributes = {}; this.listeners = {};
    this.names = new Set(); this.classList = {add: (n) => this.names.add(n), remove() {}};
  }
  appendChild(child) { this.children.push(child); return child; }
  replaceChildren(...children) { this.children = children; }
  setAttribute(name, value) { this.attributes[name] = value; }
  removeAttribute(name) { delete this.attributes[name]; }
  addEventListener(name, listener) { this.listeners[name] = listener; }
  focus() { globalThis.focused = this; }
  getContext() {
    const canvas = {createImageData: (w, h) => ({data: new Uint8ClampedArray(w * h * 4)})};
    return new Proxy(canvas, {get: (o, k) => (k in o ? o[k] : () => {}), set: () => true});
  }
}
const nodes = {}, events = {};
globalThis.document = {
  getElementById: (id) => nodes[id] || (nodes[id] = new Node()),
  createElement: () => new Node(),
};
globalThis.addEventListener = (name, listener) => { events[name] = listener; };
globalThis.location = {hash: "", replace(href) { this.hash = href; }};
document.getElementById("data").textContent = data;
(0, eval)(code + `;globalThis.page = {known, all, chains, kernel, choose, csv, colour, luminance,
  modeText, warnings, chosen: () => chosen, order: () => order.map((r) => r.position)};`);
const at = (hash) => { location.hash = hash; events.hashchange(); return page.chosen().position; };
const press = (where, key) => {
  nodes[where].listeners.keydown({key, preventDefault() {}});
  const r = page.chosen();
  return [r.position, focused === r.letterNode, focused === r.rowLink, location.hash];
};
const head = (i) => nodes.heads.children[i], entropy = 4;
const sorted = (i) => {
  head(i).children[0].onclick();
  return [head(i).attributes["aria-sort"], page.order()];
};
const n = 720;
console.log(JSON.stringify({
  rows: nodes.rows.children.length,
  residues: page.all.map((r) => [r.chain.name, r.name, r.id, r.letter]),
  address: page.all.map((r) => r.rowLink.href),
  reached: page.all.map((r) => at(r.rowLink.href)),
  same: page.all.every((r) => r.letterNode.href === r.rowLink.href),
  labels: page.all.map((r) => r.letterNode.attributes["aria-label"]),
  walked: [at(page.all[0].rowLink.href), press("sequences", "ArrowRight"),
    press("sequences", "ArrowDown"), press("rows", "ArrowUp"), press("rows", "Home"),
    press("rows", "ArrowUp")],
  tabStops: page.all.flatMap((r) => [r.letterNode, r.rowLink])
    .filter((a) => a.tabIndex === 0).length,
  falling: sorted(entropy), rising: sorted(entropy),
  csv: page.csv(),
  contrast: Array.from({length: 201}, (_, i) => {
    const l = page.luminance(page.colour(i / 200));
    return l < 0.179 ? 1.05 / (l + 0.05) : (l + 0.05) / 0.05;
  }),
  known: page.known.map((r) => ({
    id: r.id, position: r.position, entropy: r.entropy, modes: r.modes, weight: r.weight,
    mean: r.mean, kappa: r.kappa, others: r.others, elsewhere: r.elsewhere, text: page.modeText(r),
    observed: r.observed, written: r.written, warnings: page.warnings(r),
    classes: [...r.letterNode.names],
    mass: r.symmetric.map((_, d) => {
      let sum = 0;
      r.weight.forEach((w, k) => page.kernel(r, k, d, n).forEach((p) => { sum += w * p; }));
      return sum * 2 * Math.PI / n;
    }),
  })),
}));
"""


@pytest.fixture(scope="module")
def run_page(predicted):
    """What the page's script does in node, with just enough of a document."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: the page's script cannot be run")
    result, out = predicted
    done = subprocess.run(
        [node, "-e", STUB, str(out / f"{result.entry}.html")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_page_loads_nothing_and_escapes_names(predicted):
    result, out = predicted
    text = (out / f"{result.entry}.html").read_text()
    check_self_contained(text)
    assert f"<h1>{result.entry}</h1>" in text
    body = text.split('id="data">')[1].split("</script>")[0]
    assert "<" not in body
    check_in_browser(out / f"{result.entry}.html")


def test_the_page_runs_and_its_densities_integrate_to_one(predicted, run_page):
    page, (result, out) = run_page, predicted
    frame = pq.read_table(out / f"{result.entry}.mixture.parquet").to_pandas()
    summary = pd.read_csv(out / f"{result.entry}.residues.csv", keep_default_na=False)
    assert [r[1] for r in page["residues"]] == summary["name"].tolist()
    groups = [g for _, g in frame.groupby(["chain", "index"], sort=False)]
    assert page["rows"] == len(summary)
    assert len(page["known"]) == len(groups)
    for shown, group in zip(page["known"], groups, strict=True):
        np.testing.assert_allclose(shown["weight"], group["weight"], atol=1e-5)
        np.testing.assert_allclose(shown["mass"], 1.0, atol=5e-4)
        num_chi = len(shown["mean"][0])
        expected = group[[f"mean{d}_rad" for d in range(1, num_chi + 1)]]
        assert np.abs(wrap(np.array(shown["mean"]) - expected)).max().max() < 1e-4
        expected = group[[f"kappa{d}" for d in range(1, num_chi + 1)]]
        np.testing.assert_allclose(shown["kappa"], expected.clip(upper=KAPPA_DRAWN), atol=3e-3)


def test_every_residue_of_the_page_is_reached_by_address_and_by_keyboard(predicted, run_page):
    result, out = predicted
    summary = pd.read_csv(out / f"{result.entry}.residues.csv", keep_default_na=False)
    page = run_page
    places = list(range(len(summary)))
    names = summary[["author_chain", "author_number", "insertion_code"]].to_numpy()
    assert page["address"] == [f"#{chain}:{number}{code}" for chain, number, code in names]
    assert page["reached"] == places
    assert page["same"], "rows and sequence are links to the same"
    assert page["tabStops"] == 2, "one in the sequence, one in the rows; arrows do the rest"
    steps = [(1, True), (11, True), (10, False), (0, False), (0, False)]
    assert page["walked"] == [
        0, *([at, inside, not inside, page["address"][at]] for at, inside in steps)
    ]  # fmt: skip
    for label, name in zip(page["labels"], summary["name"], strict=True):
        assert label.startswith(f"{name} ")


def test_sorting_the_page_reverses_and_keeps_what_has_no_value_last(run_page):
    (falling, down), (rising, up) = run_page["falling"], run_page["rising"]
    assert (falling, rising) == ("descending", "ascending")
    entropy = {r["position"]: r["entropy"] for r in run_page["known"]}
    num = len(entropy)
    assert [entropy[i] for i in down[:num]] == sorted(entropy.values(), reverse=True)
    assert [entropy[i] for i in up[:num]] == sorted(entropy.values())
    assert down[num:] == up[num:] == sorted(set(down) - set(entropy))


def test_the_page_says_what_is_elsewhere_and_does_not_show_it_as_heterogeneity(run_page):
    for r in run_page["known"]:
        weights = [mode[0] for mode in r["modes"]]
        assert r["elsewhere"] == pytest.approx(max(0, 1 - sum(weights)), abs=1e-6)
        assert r["others"] == pytest.approx(sum(weights[1:]), abs=1e-6)
        assert (f"{round(100 * r['elsewhere'])} % elsewhere" in r["text"]) == (
            r["elsewhere"] >= 0.005
        )
        assert ("elsewhere" in r["warnings"]) == (r["elsewhere"] >= 0.5)
        assert ("unsure" in r["classes"]) == (r["elsewhere"] >= 0.5)
        assert all(-180 <= x <= 180 for mode in r["modes"] for x in mode[1:])
    assert min(run_page["contrast"]) >= 4.5


def test_the_page_shows_the_side_chains_that_were_written(predicted, run_page):
    result, out = predicted
    summary = pd.read_csv(out / f"{result.entry}.residues.csv", keep_default_na=False)
    rows = summary.iloc[[r["position"] for r in run_page["known"]]]
    written = [r["written"] for r in run_page["known"]]
    assert [len(conformers) for conformers in written] == rows["num_conformers"].astype(
        int
    ).tolist()
    for conformers, chi1 in zip(written, rows["chi1_rad"].astype(float), strict=True):
        assert sum(c[1] for c in conformers) == pytest.approx(1, abs=1e-4)
        assert conformers[0][2] == pytest.approx(np.degrees(chi1), abs=0.6)
        assert (conformers[0][0] == "") == (len(conformers) == 1)
    strained, unsure = (rows["strain"].astype(float), rows["confidence"].astype(float))
    for r, strain, confidence in zip(run_page["known"], strained, unsure, strict=True):
        assert ("close contacts" in r["warnings"]) == (strain >= STRAINED)
        assert ("confidence" in r["warnings"]) == (confidence < 0.5)


def test_the_page_has_the_deposited_conformers_and_gives_its_numbers(run_page, structure):
    conformers = read_input(structure).tables["conformers"].to_pandas()
    shown = [o for r in run_page["known"] for o in r["observed"]]
    given = conformers[conformers["chi1_rad"].notna()]
    assert [o[:2] for o in shown] == [
        [altloc, pytest.approx(occupancy, abs=0.01)]
        for altloc, occupancy in zip(given["altloc"], given["occupancy"], strict=True)
    ]
    assert [o[2] for o in shown] == pytest.approx(np.degrees(given["chi1_rad"]), abs=0.6)
    table = pd.read_csv(io.StringIO(run_page["csv"]), keep_default_na=False, dtype=str)
    assert table["number"].tolist() == [r[2] for r in run_page["residues"]]
    known = table[table["entropy"] != ""]
    assert known["modes"].tolist() == [r["text"] for r in run_page["known"]]
