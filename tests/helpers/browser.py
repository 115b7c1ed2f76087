"""Pages in a headless Chromium, one for all tests of a process, and the markup of pages.

Chromium is driven through playwright-core; that, axe-core and viewers of models lie where
QFITLATENT_TEST_VIEWERS says, as npm puts them there. Without one of them such tests are skipped.
"""

import atexit
import itertools
import json
import os
import re
import shutil
import subprocess
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

PACKAGES = ("playwright-core", "axe-core", "molstar", "ngl")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


CHECK = "return await tools.check(page);"


@cache
def _driver() -> subprocess.Popen[str] | str:
    """The program that drives the browser (``browser.cjs``); why there is none."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None or shutil.which("node") is None:
        return "no chromium with node: install both to open pages"
    modules = Path(os.environ.get("QFITLATENT_TEST_VIEWERS", "")).absolute() / "node_modules"
    missing = [name for name in PACKAGES if not (modules / name).is_dir()]
    if missing:
        return f"no {', '.join(missing)} in {modules}: see .ci/run"
    driver = subprocess.Popen(
        ["node", str(Path(__file__).with_name("browser.cjs"))],
        env=os.environ | {"NODE_PATH": str(modules), "CHROMIUM": browser},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8",
    )  # fmt: skip
    atexit.register(driver.communicate)  # the end of its input ends it
    return driver


def in_browser(code: str, page: Path | None = None, init: str = "", **given: Any) -> Any:
    """What ``code`` returns, the body of an async function of (page, tools, given).

    page: the file that is open; init: a script that runs before its own. Nothing may complain on
    the console or ask a network. Skips without a browser.
    """
    driver = _driver()
    if isinstance(driver, str):
        pytest.skip(driver)
    request = {"code": code, "page": page and str(page), "init": init, "given": given}
    driver.stdin.write(json.dumps(request) + "\n")
    driver.stdin.flush()
    line = driver.stdout.readline()
    assert line, "the browser could not be started, or died: see standard error"
    reply = json.loads(line)
    assert "error" not in reply, reply["error"]
    assert not reply["requests"], reply["requests"]
    assert not reply["complaints"], reply["complaints"]
    return reply["value"]


def check_in_browser(page: Path) -> None:
    """The page opens offline, on desk, phone and paper, light and dark, usable by axe-core."""
    found = in_browser(CHECK, page)
    papers = found.pop("papers")
    assert len(set(papers)) == len(papers) == 2, "dark and light differ"
    assert found == {"pictures": [], "wide": [], "axe": [], "unprinted": []}


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def tags(text: str) -> list[tuple[str, dict[str, str | None]]]:
    """Every start tag of a page with its attributes."""
    parser = _Tags()
    parser.feed(text)
    return parser.found


def check_self_contained(text: str) -> None:
    """No tag of the page points outside it, and all of it can be read aloud."""
    found = tags(text)
    for tag, attributes in found:
        for name in ("src", "href", "srcset", "action"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
        if tag == "img":
            assert attributes["alt"]
        if tag == "canvas":
            assert attributes["role"] == "img"
            assert attributes["aria-label"]
        if tag == "nav":
            assert attributes["aria-label"]
    assert not any(word in text for word in ("@import", "url(", "fetch("))
    _check_outline(found)


def _check_outline(found: list[tuple[str, dict[str, str | None]]]) -> None:
    """Language, landmarks, ids and links, the order of headings, captions and heads of tables."""
    names = [tag for tag, _ in found]
    ids = [attributes["id"] for _, attributes in found if "id" in attributes]
    assert len(set(ids)) == len(ids), "ids are unique"
    assert ("html", {"lang": "en"}) in found
    assert names.count("main") == names.count("h1") == 1
    policy = [a["content"] for tag, a in found if tag == "meta" and "http-equiv" in a]
    assert len(policy) == 1
    assert policy[0].startswith("default-src 'none'")
    links = [attributes["href"] for tag, attributes in found if tag == "a"]
    assert links[0] == "#content", "the first link leads past the rest to the content"
    assert {link[1:] for link in links} <= set(ids)
    levels = [int(tag[1]) for tag in names if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels)), levels
    assert names.count("figcaption") == names.count("figure")
    assert names.count("caption") == names.count("table")
    for place, (tag, attributes) in enumerate(found):
        if tag == "table":
            assert found[place + 1][0] == "caption"
        if tag == "th":
            assert attributes["scope"] in ("col", "row")
