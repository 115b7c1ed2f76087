"""Write the small simulated structure that the package ships, for ``qfitlatent predict --example``.

python tools/make_example.py
"""

import gzip
import tempfile
from pathlib import Path

from qfitlatent.base import config
from qfitlatent.base.files import atomic_path
from qfitlatent.cli import main as qfitlatent

EXAMPLE = Path(config.__file__).parents[1] / "data" / "example.cif.gz"
SETTINGS = """\
simulate:
  num_families: 1
  min_residues: 40
  max_residues: 46
  max_chains: 1
  mse_fraction: 0
  insertion_code_fraction: 0
  num_waters: 4
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "settings.yaml"
        settings.write_text(SETTINGS)
        qfitlatent(["simulate", "-n", "2", "-o", folder, "--config", str(settings), "--seed", "3"])
        text = gzip.decompress((Path(folder) / "sim00001.cif.gz").read_bytes())
    with atomic_path(EXAMPLE) as temporary:
        temporary.write_bytes(gzip.compress(text.replace(b"sim00001", b"example"), mtime=0))


if __name__ == "__main__":
    main()
