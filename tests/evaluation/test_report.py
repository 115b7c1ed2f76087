"""The report opens offline in a browser, and its words are the numbers of the tables."""

import json
import os
import re
import shutil
import subprocess

import pytest

from helpers.evaluated import evaluated_tiny
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.evaluation.report import write_report
from qfitlatent.evaluation.words import figure_text
from qfitlatent.pages.render import html_table

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)  # fmt: skip  # noqa: E501
PROBE = """
<script>addEventListener("load", () => {
  const images = [...document.images];
  const requests = performance.getEntriesByType("resource").map(r => r.name)
    .filter(name => !name.startsWith("data:"));
  document.body.dataset.probe = JSON.stringify({
    images: images.length,
    missing: images.filter(i => !i.complete || i.naturalWidth === 0).length,
    requests: requests,
    wide: document.documentElement.scrollWidth > innerWidth + 1,
  });
});</script>
"""


@pytest.fixture(scope="module")
def tiny():
    return evaluated_tiny()


@pytest.fixture(scope="module")
def page(tiny) -> str:
    return (tiny.out / "report.html").read_text()


def test_the_page_is_self_contained(page):
    assert "<script" not in page
    assert not re.search(r"(src|href)=(?![\"']?(data:|#))", page)
    assert "http://" not in re.sub(r"data:[^\"]*", "", page)
    assert 'name="viewport"' in page
    assert "@media print" in page


def test_the_first_paragraph_says_what_and_how_good(tiny, page):
    metrics = json.loads((tiny.out / "metrics.json").read_text())
    lead = re.search(r"<p class=lead>(.*?)</p>", page).group(1)
    for population in ("multiconformer", "single"):
        for method in ("model", "type_library"):
            figure = metrics["populations"][population]["methods"][method]["nll"]
            assert figure_text(figure, "nll") in lead
    assert "simulated entries" in lead
    assert f"{metrics['trained_on']['num_entries']} simulated entries" in lead
    assert "Evaluation on simulated data" in page


def test_all_pictures_are_made_as_svg_and_png(tiny):
    names = {path.stem for path in (tiny.out / "figures").iterdir()}
    expected = {"occupancy", "chi_maps", "learning_curve", "heterogeneity_roc"}
    for population in ("multiconformer", "single", "all"):
        expected |= {f"information_gain_{population}", f"calibration_{population}"}
        expected |= {f"altloc_recall_precision_{population}"}
    assert names == expected
    for name in names:
        for suffix in ("svg", "png"):
            assert (tiny.out / "figures" / f"{name}.{suffix}").stat().st_size > 1000


def test_cards_hold_the_numbers(tiny):
    metrics = json.loads((tiny.out / "metrics.json").read_text())
    card = (tiny.out / "MODEL_CARD.md").read_text()
    figure = metrics["populations"]["single"]["methods"]["model"]["nll"]
    assert figure_text(figure, "nll") in card
    assert "say nothing about crystals" in card
    data = (tiny.out / "DATASET_CARD.md").read_text()
    assert f"{metrics['evaluated']['num_altlocs']:,}" in data
    assert "Simulated entries" in data


def test_the_report_can_be_made_again_from_the_tables(tiny, page):
    write_report(tiny.out, tiny.run)
    assert (tiny.out / "report.html").read_text() == page


def test_figures_in_words():
    assert figure_text({"value": 0.5, "low": 0.4, "high": 0.65}, "recall") == "50.0 (40.0 to 65.0)"
    assert figure_text({"value": 2.0, "low": None, "high": None}, "nll") == "2.000"
    assert figure_text(None, "nll") == "–"
    assert "&lt;b&gt;" in html_table(["x"], [["<b>"]])


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(QfitLatentError, match="No evaluation"):
        write_report(tmp_path)


@pytest.mark.skipif(BROWSER is None, reason="no chromium: install it to open the report")
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_opens_it_offline(tiny, page, tmp_path, width):
    """No console message, no missing picture, no request; nothing wider than a phone's screen."""
    probed = tmp_path / "report.html"
    probed.write_text(page.replace("</main>", f"</main>{PROBE}"))
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}",
        f"--window-size={width},900", "--virtual-time-budget=10000", "--dump-dom",
        f"file://{probed}",
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=True, env=os.environ
    )
    found = json.loads(
        re.search(r'data-probe="([^"]*)"', done.stdout).group(1).replace("&quot;", '"')
    )
    assert found["images"] == 13
    assert found["missing"] == 0
    assert found["requests"] == []
    assert not found["wide"]
    assert "CONSOLE" not in done.stderr
