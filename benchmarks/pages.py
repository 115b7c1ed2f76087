"""How fast pages of predictions open and follow the reader, in a headless Chromium without a GPU.

    export QFITLATENT_TEST_VIEWERS=folder/with/node_modules
    python benchmarks/pages.py small.html large.html [--rounds 5]

Pages are opened in turn; figures are medians in milliseconds, the last column a ratio to the first
page. "chosen": from choosing a residue until its map, row and model are drawn. Needs what the tests
of pages need, see CONTRIBUTING.md.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from helpers.browser import in_browser

OPEN = """
await page.waitForFunction(() => get("pane").dataset.shows);
return page.evaluate(async () => {
  const {domContentLoadedEventEnd: opened} = performance.getEntriesByType("navigation")[0];
  const chosen = [];
  for (let i = 1; i <= 10; i++) {
    const r = known[Math.floor(i * (known.length - 1) / 10)], start = performance.now();
    choose(r);
    await showModel();
    chosen.push(performance.now() - start);
  }
  return {residues: all.length, opened, chosen};
});
"""


def measure(pages: Sequence[Path], rounds: int) -> list[dict[str, float]]:
    """Residues, kilobytes, and medians in milliseconds of each page."""
    found: Mapping[Path, list] = {page: [] for page in pages}
    for _ in range(rounds):
        for page in pages:
            found[page].append(in_browser(OPEN, page.resolve()))
    return [
        {
            "residues": runs[0]["residues"],
            "kB": page.stat().st_size / 1000,
            "opened": statistics.median(run["opened"] for run in runs),
            "chosen": statistics.median(x for run in runs for x in run["chosen"]),
        }
        for page, runs in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rows = measure(options.pages, options.rounds)
    print("| residues | kB | opened, ms | chosen, ms | chosen, ratio |\n|---|---|---|---|---|")
    for row in rows:
        ratio = row["chosen"] / rows[0]["chosen"]
        print("| {residues} | {kB:.0f} | {opened:.0f} | {chosen:.0f}".format(**row), end="")
        print(f" | {ratio:.2f} |")


if __name__ == "__main__":
    main()
