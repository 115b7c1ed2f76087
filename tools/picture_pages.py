"""Photograph the four kinds of page as the docs show them: desk and phone, light and dark.

    export QFITLATENT_TEST_VIEWERS=folder/with/node_modules
    python tools/picture_pages.py docs/pages report.html index.html compare.html 1aac.html#A:28

The pages of a run, of an audit, of a comparison and of a prediction, with the residue to show.
Needs what the tests of pages need, see CONTRIBUTING.md. A picture of each on a desk in light, one
of all on a desk in dark, one of all on a phone.
"""

import sys
import tempfile
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from helpers.browser import in_browser

NAMES = ("report", "audit", "comparison", "prediction")
DESK, PHONE = (1200, 900), (390, 844)
WIDTH = 1200
PHOTOGRAPH = """
const pane = async () => {
  if (!given.residue) return;
  await page.evaluate((residue) => { location.hash = residue; }, given.residue);
  await page.waitForFunction((r) => get("pane").dataset.shows === r, given.residue);
  await page.evaluate(() => showModel());
};
for (const colorScheme of ["light", "dark"])
  for (const [kind, [width, height]] of Object.entries(given.sizes)) {
    await page.emulateMedia({colorScheme});
    await page.setViewportSize({width, height});
    await pane();
    await tools.settle(page);
    await page.evaluate((toPane) => {
      if (toPane) get("chosen").scrollIntoView(); else scrollTo(0, 0);
    }, given.residue && kind === "phone");
    await page.screenshot({path: `${given.folder}/${kind}_${colorScheme}.png`});
  }
"""


def photograph(page: str, folder: Path) -> None:
    """``desk_light.png`` and so on of a page; ``#A:28`` at its end chooses a residue."""
    path, _, residue = page.partition("#")
    folder.mkdir()
    sizes = {"desk": DESK, "phone": PHONE}
    where = Path(path).resolve()
    in_browser(PHOTOGRAPH, where, folder=str(folder), sizes=sizes, residue=residue)


def grid(paths: list[Path], columns: int, gap: int = 12) -> Image.Image:
    """Pictures of one size in rows, reduced to ``WIDTH`` altogether."""
    pictures = [Image.open(path).convert("RGB") for path in paths]
    width = (WIDTH - gap * (columns - 1)) // columns
    height = round(width * pictures[0].height / pictures[0].width)
    rows = -(-len(pictures) // columns)
    whole = Image.new("RGB", (WIDTH, rows * (height + gap) - gap), "#8a97a3")
    for n, picture in enumerate(pictures):
        at = (n % columns) * (width + gap), (n // columns) * (height + gap)
        whole.paste(picture.resize((width, height), Image.Resampling.LANCZOS), at)
    return whole


def save(picture: Image.Image, path: Path) -> None:
    picture.save(path, quality=70, method=6)
    print(f"{path}: {path.stat().st_size // 1000} kB")


def main() -> None:
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary) / name for name in NAMES]
        for page, folder in zip(sys.argv[2:], folders, strict=True):
            photograph(page, folder)
            save(Image.open(folder / "desk_light.png").convert("RGB"), out / f"{folder.name}.webp")
        save(grid([folder / "desk_dark.png" for folder in folders], 2), out / "dark.webp")
        schemes = ("light", "dark")
        phones = [folder / f"phone_{scheme}.png" for scheme in schemes for folder in folders]
        save(grid(phones, len(NAMES)), out / "phone.webp")


if __name__ == "__main__":
    main()
