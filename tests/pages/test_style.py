"""The one style of all pages: words stand out from what they are written on, in both schemes."""

import re
from pathlib import Path

import pytest

from helpers.browser import CHECK, in_browser
from qfitlatent.pages import render as module

CSS = (Path(module.__file__).parents[1] / "data" / "pages" / "page.css").read_text("utf-8")
WORDS = ("ink", "soft", "accent", "bad", "good")


def scheme(name: str) -> dict[str, str]:
    """The colours of this scheme; dark ones stand over light ones."""
    light, dark = re.findall(r":root \{(.*?)\}", CSS, re.S)
    found = dict(re.findall(r"--(\w+): (#\w+);", light))
    return found | dict(re.findall(r"--(\w+): (#\w+);", dark)) if name == "dark" else found


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2.2."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return sum(w * x for w, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_the_measure_is_that_of_the_guideline():
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#fff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("name", ["light", "dark"])
@pytest.mark.parametrize("ground", ["paper", "panel"])
def test_words_can_be_read(name, ground):
    colours = scheme(name)
    measured = {word: contrast(colours[word], colours[ground]) for word in WORDS}
    assert min(measured.values()) >= 4.5, measured


@pytest.mark.parametrize("name", ["light", "dark"])
def test_what_is_pressed_can_be_read(name):
    colours = scheme(name)
    assert contrast(colours["paper"], colours["accent"]) >= 4.5


def test_every_colour_of_words_is_one_of_the_scheme():
    """Else the test above would not see it; black and white stand on the scale of a residue."""
    said = set(re.findall(r"(?<![-\w])color: ([^;]+);", CSS))
    assert said <= {f"var(--{name})" for name in (*WORDS, "paper")} | {"inherit", "#000", "#fff"}


def test_the_keyboard_and_paper_are_thought_of():
    assert re.search(r":focus-visible \{ outline: 3px", CSS)
    assert "outline: none" not in CSS.replace("main:focus { outline: none; }", "")
    paper = CSS[CSS.index("@media print") :]
    assert "overflow: visible; max-height: none" in paper


def test_the_check_of_pages_finds_what_is_wrong(tmp_path):
    page = tmp_path / "bad.html"
    page.write_text(
        """<!doctype html><html lang="en"><title>bad</title><body><main>
        <p style="color: #bbb; background: #fff">pale</p><img src="none.png" alt="missing">
        <div style="width: 700px; height: 9px">wide</div>
        <div class="cut" style="height: 9px; overflow: hidden">cut<br>off</div>
        </main></body></html>"""
    )
    with pytest.raises(AssertionError, match=r"none\.png|ERR_FILE_NOT_FOUND"):
        in_browser(CHECK, page)
    page.write_text(page.read_text().replace("none.png", "data:,"))
    found = in_browser(CHECK, page)
    assert found["pictures"] == ["missing"]
    assert found["wide"] == ["light, 360 px: the page", "dark, 360 px: the page"]
    assert [words.split(":")[0] for words in found["axe"]] == ["color-contrast"]
    assert found["unprinted"] == ["cut"]
    assert len(set(found["papers"])) == 1
    with pytest.raises(AssertionError, match="example"):
        in_browser("await page.evaluate(() => fetch('http://example.test/').catch(() => 0));")
