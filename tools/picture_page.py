"""Photograph a page that `qfitlatent predict` wrote, as the README shows it.

    qfitlatent predict 1aac.pdb.gz -o predicted
    python tools/picture_page.py predicted/1aac.html docs/prediction.png

Needs Chromium. The picture is reduced to 128 colours, enough for such a page.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

SIZE = "1180,760"


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    page, picture = map(Path, sys.argv[1:3])
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("There is no chromium on the PATH: install it to make the picture.")
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "page.png"
        subprocess.run(
            [
                browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                f"--user-data-dir={folder}/profile", f"--window-size={SIZE}",
                f"--screenshot={raw}", page.resolve().as_uri(),
            ],
            check=True,
        )  # fmt: skip
        with Image.open(raw) as image:
            image.convert("RGB").quantize(128).save(picture, optimize=True)


if __name__ == "__main__":
    main()
