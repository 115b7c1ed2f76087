"""The report opens offline in a browser, and its words are the numbers of the tables."""

import html
import json
import re

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from helpers.browser import check_in_browser, check_self_contained, tags
from helpers.evaluated import evaluated_tiny
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.evaluation.report import write_report
from qfitlatent.evaluation.words import (
    METHODS,
    METRICS,
    WORDS,
    cell,
    figure_cells,
    figure_text,
    label,
    style,
)


@pytest.fixture(scope="module")
def tiny():
    return evaluated_tiny()


@pytest.fixture(scope="module")
def page(tiny) -> str:
    return (tiny.out / "report.html").read_text()


@pytest.fixture(scope="module")
def metrics(tiny) -> dict:
    return json.loads((tiny.out / "metrics.json").read_text())


def test_the_page_is_one_file_without_a_script(page):
    check_self_contained(page)
    assert "script" not in {tag for tag, _ in tags(page)}
    assert sum(tag == "img" for tag, _ in tags(page)) == 14


def test_it_opens_with_four_figures_of_the_tables(metrics, page):
    opening = page[: page.index("<nav ")]
    populations = metrics["populations"]
    for population, metric in (
        ("multiconformer", "nll"),
        ("multiconformer", "recall"),
        ("single", "all_within_20"),
        ("all", "auroc_entropy"),
    ):
        figure = populations[population]["methods"]["model"][metric]
        shown = cell(figure, metric)
        assert re.search(rf"<b>{shown.text}( %)?</b>\s*<small>{shown.small}</small>", opening)
        others = dict(populations[population]["methods"])
        del others["model"], others["generator"]
        assert any(
            f"{label(name)}, has {figure_text(figures[metric], metric)}" in opening
            for name, figures in others.items()
        )
    assert opening.count("<b>") == 4
    assert f"{metrics['trained_on']['num_entries']} simulated entries" in opening
    assert "Evaluation on simulated data" in page


def test_predicted_models_have_a_part_of_their_own(metrics, page):
    part = page[page.index('<h2 id="predicted">') :]
    models = metrics["predicted_models"]["models"]
    for model in ("heaviest", "joint", "deposited"):
        shown = cell(models[model]["clashes"], "clashes")
        assert f"{shown.text}<small>{shown.small}</small>" in part
    assert "joint model, altloc A" in part
    assert "The file of c is not there any more." in part


def best(metric, **values):
    """Names of the cells that are bold."""
    figures = {name: {"value": v, "low": None, "high": None} for name, v in values.items()}
    cells = figure_cells(figures, metric)
    return {name for name, c in zip(figures, cells, strict=True) if c.best}


def test_the_best_of_a_row_is_bold_whoever_has_it():
    assert best("nll", a=2, b=1, c=3, generator=0.5) == {"b"}
    assert best("recall", a=0.2, b=0.1, c=0.3, generator=0.9) == {"c"}
    assert best("nll", a=1, b=1.0001, c=2) == {"a", "b"}, "they look the same"
    assert best("coverage_80", a=0.7, b=1.0) == {"a"}
    assert best("nll", a=1) == set(), "it has no rival"
    assert best("nll", a=None, b=None) == set()


def test_no_two_methods_differ_by_colour_alone():
    """Nor do two that a user brings, in whatever order."""
    looks = [*METHODS.values(), *WORDS["others"]]
    for mark in ("colour", "marker"):
        assert len({look[mark] for look in looks}) == len(looks)
    brought = ["a", "b", "c", "d", "model"]
    assert len({style(name, brought)["marker"] for name in brought}) == len(brought)


def test_every_figure_of_the_evaluation_has_words(metrics):
    shown = {
        metric
        for population in metrics["populations"].values()
        for figures in population["methods"].values()
        for metric in figures
    }
    predicted = metrics["predicted_models"]
    for figures in (*predicted["models"].values(), predicted["altlocs"]):
        shown |= set(figures)
    # The last is of models with outputs beside their density alone.
    assert set(METRICS) - {"auroc_p_heterogeneous"} <= shown


def test_all_pictures_are_made_as_svg_and_png(tiny):
    names = {path.stem for path in (tiny.out / "figures").iterdir()}
    expected = {"occupancy", "chi_maps", "heterogeneity_roc", "confidence"}
    for population in ("multiconformer", "single", "all"):
        expected |= {f"information_gain_{population}", f"calibration_{population}"}
        expected |= {f"altloc_recall_precision_{population}"}
    assert names == expected
    for name in names:
        for suffix in ("svg", "png"):
            assert (tiny.out / "figures" / f"{name}.{suffix}").stat().st_size > 1000


def test_cards_hold_the_numbers(tiny, metrics):
    text = (tiny.out / "MODEL_CARD.md").read_text()
    figure = metrics["populations"]["single"]["methods"]["model"]["nll"]
    assert figure_text(figure, "nll") in text
    assert "say nothing about crystals" in text
    for lines in re.findall(r"(?:^\|.*\n)+", text, re.M):
        assert len({line.count("|") for line in lines.splitlines()}) == 1, lines
    data = (tiny.out / "DATASET_CARD.md").read_text()
    assert f"{metrics['evaluated']['num_altlocs']:,}" in data
    assert "Simulated entries" in data


def test_the_folder_explains_itself(tiny):
    text = (tiny.out / "README.md").read_text()
    for path in tiny.out.iterdir():
        assert f"`{path.name}" in text or path.name == "README.md", path.name


def test_the_report_can_be_made_again_from_the_tables(tiny, page):
    write_report(tiny.out, tiny.run)
    assert (tiny.out / "report.html").read_text() == page


def test_baselines_alone_have_a_report(tiny, tmp_path, metrics):
    for name in ("by_group", "calibration", "curves", "scores", "altlocs"):
        table = pq.read_table(tiny.out / f"{name}.parquet")
        pq.write_table(table.filter(pc.field("method") != "model"), tmp_path / f"{name}.parquet")
    populations = {}
    for name, found in metrics["populations"].items():
        methods = {m: figures for m, figures in found["methods"].items() if m != "model"}
        populations[name] = {"methods": methods}
    run = {"is_simulated": True}
    alone = metrics | {"populations": populations, "run": run}
    (tmp_path / "metrics.json").write_text(json.dumps(alone))
    write_report(tmp_path)
    text = (tmp_path / "report.html").read_text()
    check_self_contained(text)
    assert "No model: the baselines alone" in text
    assert "those of the type library" in text
    assert not (tmp_path / "MODEL_CARD.md").exists()
    assert (tmp_path / "DATASET_CARD.md").exists()


def test_hostile_names_are_texts(tiny, tmp_path, metrics, page):
    name = "</title><script>alert(1)</script>{{ run }}\\1"
    for path in tiny.out.glob("*.parquet"):
        (tmp_path / path.name).symlink_to(path)
    hostile = metrics | {"run": metrics["run"] | {"run": name, "dataset": name}}
    (tmp_path / "metrics.json").write_text(json.dumps(hostile))
    write_report(tmp_path, tiny.run)
    text = (tmp_path / "report.html").read_text()
    assert [tag for tag, _ in tags(text)] == [tag for tag, _ in tags(page)]
    title = re.search("<title>(.*?)</title>", text, re.S).group(1)
    assert html.unescape(title) == f"qFitLatent: {name}"


def test_figures_in_words():
    assert figure_text({"value": 0.5, "low": 0.4, "high": 0.65}, "recall") == "50.0 (40.0 to 65.0)"
    assert figure_text({"value": -2.0, "low": None, "high": None}, "nll") == "−2.000"
    assert figure_text({"value": -0.0001, "low": None, "high": None}, "nll") == "0.000"
    assert figure_text(None, "nll") == "–"


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(QfitLatentError, match="No evaluation"):
        write_report(tmp_path)


def test_a_browser_opens_it_offline(tiny):
    check_in_browser(tiny.out / "report.html")
