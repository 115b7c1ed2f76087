"""A page in a headless browser: what it loads, whether it fits the screen, what it complains of."""

import itertools
import json
import re
import shutil
import subprocess
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
PROBE = """
<script>addEventListener("load", () => {
  const images = [...document.images];
  const wide = (e) => e.scrollWidth > e.clientWidth + 1
    && getComputedStyle(e).overflowX !== "visible";
  parent.postMessage(JSON.stringify({
    missing: images.filter(i => !i.complete || i.naturalWidth === 0).length,
    undescribed: images.filter(i => !i.alt).length,
    requests: performance.getEntriesByType("resource").map(r => r.name)
      .filter(name => !name.startsWith("data:")),
    wide: document.documentElement.scrollWidth > innerWidth + 1,
    sideways: [...document.querySelectorAll("main *")].filter(wide).map(e => e.className),
    paper: getComputedStyle(document.body).backgroundColor,
  }), "*");
});</script>
"""
# The page in a frame of its own: a window of the browser cannot be as narrow as a phone.
FRAME = """<!doctype html><body><iframe src="page.html" width="{width}" height="900"></iframe>
<script>addEventListener("message", (event) => {{ document.body.dataset.probe = event.data; }});
</script></body>
"""


def check_in_browser(page: Path) -> None:
    """The page opens offline, on desk and phone, in light and dark; skips without a browser."""
    if BROWSER is None:
        pytest.skip("no chromium: install it to open the page")
    papers = []
    for width, scheme in ((360, 0), (500, 1), (1200, 1)):
        found, log = _open(page, width, scheme)
        assert found["missing"] == found["undescribed"] == 0
        assert found["requests"] == []
        assert not found["wide"]
        if width <= 500:
            assert found["sideways"] == []
        assert "CONSOLE" not in log
        papers.append(found["paper"])
    assert len(set(papers)) == 2, "dark and light differ"


def _open(page: Path, width: int, scheme: int) -> tuple[dict[str, Any], str]:
    """What the probe saw, and the browser's log; scheme is 0 for dark and 1 for light."""
    with tempfile.TemporaryDirectory() as folder:
        probed = Path(folder) / "page.html"
        probed.write_text(page.read_text("utf-8").replace("</main>", f"</main>{PROBE}"), "utf-8")
        (Path(folder) / "frame.html").write_text(FRAME.format(width=width))
        command = [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--enable-logging=stderr", f"--user-data-dir={folder}/profile",
            f"--blink-settings=preferredColorScheme={scheme}",
            "--window-size=1300,1000", "--virtual-time-budget=10000", "--dump-dom",
            f"file://{folder}/frame.html",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=True)
    probe = re.search(r'data-probe="([^"]*)"', done.stdout).group(1)
    return json.loads(probe.replace("&quot;", '"')), done.stderr


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
