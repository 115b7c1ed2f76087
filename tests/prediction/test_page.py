"""The page of a prediction: what its scripts do in a browser, what it must be for every reader."""

import io
import runpy
from pathlib import Path

import gemmi
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from helpers.browser import check_in_browser, check_self_contained, in_browser
from helpers.predictions import make_model, settings_of
from helpers.simulated import simulator
from qfitlatent.chemistry.geometry import wrap
from qfitlatent.prediction.page import KAPPA_DRAWN, LIGHTEST_DRAWN, STRAINED
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
    some_altlocs = settings_of(ambiguous_above=0.3)
    return predict_structures([structure], out, model, some_altlocs)[0], out


NO_WEBGL = """
const getContext = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
  return kind.startsWith("webgl") ? null : getContext.call(this, kind, ...rest);
};
"""

RUN = """
const found = await page.evaluate(async () => {
  const at = async (hash) => {
    const changed = new Promise((done) => addEventListener("hashchange", done, {once: true}));
    location.hash = hash;
    await changed;
    return chosen.position;
  };
  const entropy = 4, n = 720;
  const sorted = (i) => {
    heads[i].firstChild.click();
    return [heads[i].getAttribute("aria-sort"), order.map((r) => r.position)];
  };
  const reached = [];
  for (const r of all) reached.push(await at(r.rowLink.hash));
  return {
    rows: get("rows").children.length,
    residues: all.map((r) => [r.chain.name, r.name, r.id, r.letter]),
    address: all.map((r) => decodeURIComponent(r.rowLink.hash)), reached,
    same: all.every((r) => r.letterNode.href === r.rowLink.href),
    labels: all.map((r) => r.letterNode.getAttribute("aria-label")),
    tabStops: all.flatMap((r) => [r.letterNode, r.rowLink]).filter((a) => a.tabIndex === 0).length,
    falling: sorted(entropy), rising: sorted(entropy), again: sorted(0),
    contrast: Array.from({length: 201}, (_, i) => {
      const l = luminance(colour(i / 200));
      return l < 0.179 ? 1.05 / (l + 0.05) : (l + 0.05) / 0.05;
    }),
    known: known.map((r) => ({
      id: r.id, position: r.position, entropy: r.entropy, modes: r.modes, weight: r.weight,
      mean: r.mean, kappa: r.kappa, others: r.others, elsewhere: r.elsewhere, text: modeText(r),
      observed: r.observed, written: r.written, warnings: warnings(r),
      classes: [...r.letterNode.classList],
      mass: r.symmetric.map((_, d) => {
        let sum = 0;
        r.weight.forEach((w, k) => kernel(r, k, d, n).forEach((p) => { sum += w * p; }));
        return sum * 2 * Math.PI / n;
      }),
    })),
  };
});
const press = async (key) => {
  await page.keyboard.press(key);
  return page.evaluate(() => [chosen.position, document.activeElement === chosen.letterNode,
    document.activeElement === chosen.rowLink, decodeURIComponent(location.hash)]);
};
await page.evaluate(() => { choose(all[0]); all[0].letterNode.focus(); });
found.walked = [await press("ArrowRight"), await press("ArrowDown")];
await page.evaluate(() => chosen.rowLink.focus());
for (const key of ["ArrowUp", "Home", "ArrowUp"]) found.walked.push(await press(key));
await page.setViewportSize(tools.PHONE);
found.sideways = [];
for (const numChi of [1, 2, 3, 4]) {
  await page.evaluate((n) => choose(known.find((r) => r.symmetric.length === n)), numChi);
  found.sideways.push(...await tools.sideways(page));
}
const download = page.waitForEvent("download");
await page.click("#download");
found.csv = tools.fs.readFileSync(await (await download).path(), "utf8");
return found;
"""


@pytest.fixture(scope="module")
def run_page(predicted):
    """What the page's script does in a browser; nothing is drawn in three dimensions."""
    result, out = predicted
    return in_browser(RUN, out / f"{result.entry}.html", NO_WEBGL)


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
    for shown, whole in zip(page["known"], groups, strict=True):
        np.testing.assert_allclose(shown["mass"], 1.0, atol=5e-4)
        num_chi, group = len(shown["mean"][0]), whole[whole["weight"] >= LIGHTEST_DRAWN]
        if len(group) < len(whole):  # the others are one that is uniform
            rest = [shown[name].pop() for name in ("weight", "mean", "kappa")]
            assert rest[0] == pytest.approx(1 - group["weight"].sum(), abs=1e-4)
            assert rest[1:] == [[0.0] * num_chi] * 2
        np.testing.assert_allclose(shown["weight"], group["weight"], atol=1e-5)
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
    assert page["walked"] == [[at, inside, not inside, page["address"][at]] for at, inside in steps]
    for label, name in zip(page["labels"], summary["name"], strict=True):
        assert label.startswith(f"{name} ")


def test_no_residue_is_too_wide_for_a_phone(run_page):
    assert run_page["sideways"] == []


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


SCENE = """
const shown = (address) => page.waitForFunction(
  (name) => get("pane").dataset.shows === name, address, {polling: 50});
const found = await page.evaluate(() => all.map((r) => r.address));
await shown(await page.evaluate(() => chosen.address));
const scenes = [];
for (const address of found.filter((_, i) => i % 9 === 0)) {
  await page.evaluate((name) => { location.hash = name; }, address);
  await shown(address);
  scenes.push(await page.evaluate(() => ({
    position: chosen.position,
    near: [...get("pane-words").querySelectorAll("a")].map((a) => decodeURIComponent(a.hash)),
    states: [...get("pane-words").querySelectorAll(".state")].map((e) => e.textContent),
    label: get("pane").getAttribute("aria-label"),
  })));
}
await page.focus("#pane");
const view = () => page.evaluate(async () => (await scene).viewer.getView());
const views = [await view()];
for (const key of ["ArrowRight", "+"]) { await page.keyboard.press(key); views.push(await view()); }
const target = await page.evaluate(async () => {   // an atom that nothing hides
  const {viewer} = await scene;
  for (const atom of viewer.clickables) {
    const {x, y} = viewer.modelToScreen(atom), {x: across, y: up} = viewer.mouseXY(x, y);
    const [hit] = viewer.targetedObjects(across, up, viewer.clickables);
    if (hit && hit.clickable.residue.r && hit.clickable.residue.r !== chosen)
      return {x: x - scrollX, y: y - scrollY, address: hit.clickable.residue.r.address};
  }
});
await page.mouse.click(target.x, target.y);
await shown(target.address);
return page.evaluate(async ([views, scenes]) => {
  const {viewer, residues} = await scene, canvas = document.createElement("canvas");
  const picture = viewer.getCanvas(), g = canvas.getContext("2d");
  [canvas.width, canvas.height] = [picture.width, picture.height];
  g.drawImage(picture, 0, 0);
  const {data: pixels} = g.getImageData(0, 0, canvas.width, canvas.height);
  const colours = new Set(new Uint32Array(pixels.buffer));
  const atoms = residues.flatMap((residue) => residue.atoms);
  return {views, scenes, colours: colours.size, labels: viewer.labels.length,
    atoms: atoms.map((a) => [a.name, a.element, a.altloc, a.x, a.y, a.z]),
    rows: residues.filter(({r}) => r).length};
}, [views, scenes]);
"""


def near(residues, i):
    """Whether each residue has an atom within 4.5 angstrom of the side chain of number i."""
    side = [a for a in residues[i] if a.name not in ("N", "CA", "C", "O", "OXT")] or residues[i]
    return [
        any(
            a.pos.dist(b.pos) < 4.5
            for a in side
            for b in other
            if "\0" in (a.altloc, b.altloc) or a.altloc == b.altloc
        )
        for other in residues
    ]


def test_the_model_in_three_dimensions_follows_the_chosen_residue(predicted):
    """Its atoms are those of the file, and what is next to a side chain is what gemmi finds."""
    result, out = predicted
    page = in_browser(SCENE, out / f"{result.entry}.html")
    model = gemmi.read_structure(str(out / f"{result.entry}_ensemble.cif"))[0]
    atoms = [cra.atom for cra in model.all()]
    assert [a[:3] for a in page["atoms"]] == [
        [a.name, a.element.name, a.altloc.replace("\0", "")] for a in atoms
    ]
    np.testing.assert_allclose(
        [a[3:] for a in page["atoms"]], [a.pos.tolist() for a in atoms], atol=0.0051
    )
    summary = pd.read_csv(out / f"{result.entry}.residues.csv", keep_default_na=False)
    assert page["rows"] == len(summary)
    names = summary[["author_chain", "author_number", "insertion_code"]].to_numpy()
    address = [f"#{chain}:{number}{code}" for chain, number, code in names]
    written = {f"#{chain.name}:{r.seqid}": list(r) for chain in model for r in chain}
    residues = [written[key] for key in address]
    assert len(page["scenes"]) > 4
    for scene in page["scenes"]:
        i = scene["position"]
        expected = [a for a, is_near in zip(address, near(residues, i), strict=True) if is_near]
        assert sorted(scene["near"]) == sorted(set(expected) - {address[i]})
        labels = sorted({a.altloc for a in residues[i]} - {"\0"})
        assert scene["states"] == labels
        assert summary["name"][i] in scene["label"]
    assert any(scene["states"] for scene in page["scenes"])
    first, turned, zoomed = page["views"]
    assert first[:4] == turned[:4]
    assert first[4:] != turned[4:] == zoomed[4:]
    assert zoomed[3] > turned[3]
    assert page["colours"] > 50
    assert page["labels"] > 0


def test_without_webgl_the_page_says_so_and_works(predicted):
    result, out = predicted
    found = in_browser(
        """await page.waitForFunction(() => get("pane").hidden);
        await page.evaluate(() => { location.hash = all[3].rowLink.hash; });
        await page.waitForFunction(() => chosen === all[3]);
        return page.innerText("#pane-words");""",
        out / f"{result.entry}.html",
        NO_WEBGL,
    )
    assert "WebGL" in found


def test_pages_are_timed(predicted):
    result, out = predicted
    page = out / f"{result.entry}.html"
    benchmark = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "pages.py"))
    (row,) = benchmark["measure"]([page], rounds=1)
    assert row["kB"] == page.stat().st_size / 1000
    assert row["residues"] == len(pd.read_csv(out / f"{result.entry}.residues.csv"))
    assert row["opened"] > 0 < row["chosen"]
