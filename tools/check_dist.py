"""Say what is in the wheel and the sdist of a folder, and whether it is what it should be.

    python -m build && python tools/check_dist.py dist

The sdist holds every file that git tracks, tests and workflow with them; the wheel every tracked
file of the package, and the workflow below share/qfitlatent. Neither holds anything else but what
the build itself adds.
"""

import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[1]
SOURCE = "src/qfitlatent/"
WORKFLOW = ("Snakefile", "envs/", "profiles/", "workflow/")
ADDED = ("PKG-INFO", "setup.cfg", "src/qfitlatent.egg-info/")
"""What a build adds to an sdist."""


def tracked() -> set[str]:
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files"], check=True, capture_output=True, text=True
    )
    return set(listed.stdout.splitlines())


def files_of_wheel(path: Path) -> dict[str, int]:
    """Name -> bytes, without the metadata of the wheel."""
    with zipfile.ZipFile(path) as archive:
        found = {item.filename: item.file_size for item in archive.infolist()}
    return {
        re.sub(r"^[^/]+\.data/data/", "", name): size
        for name, size in found.items()
        if ".dist-info/" not in name
    }


def files_of_sdist(path: Path) -> dict[str, int]:
    """Name below the folder of the sdist -> bytes, without what the build adds."""
    with tarfile.open(path) as archive:
        found = {item.name.split("/", 1)[1]: item.size for item in archive if item.isfile()}
    return {name: size for name, size in found.items() if not name.startswith(ADDED)}


def problems(path: Path, found: Mapping[str, int], wanted: set[str]) -> list[str]:
    sentences = [f"{path.name} lacks {name}." for name in sorted(wanted - found.keys())]
    return sentences + [f"{path.name} holds {name}." for name in sorted(found.keys() - wanted)]


def summary(path: Path, found: Mapping[str, int]) -> str:
    """The folders of an archive: files and bytes of each."""
    folders: dict[str, list[int]] = {}
    for name, size in found.items():
        parts = PurePosixPath(name).parts
        folder = "/".join(parts[:2]) if len(parts) > 2 else parts[0] if len(parts) > 1 else "."
        folders.setdefault(folder, []).append(size)
    lines = [f"{len(s):5} files {sum(s):10} bytes  {f}" for f, s in sorted(folders.items())]
    return "\n".join([f"{path.name}: {path.stat().st_size} bytes", *lines])


def check(folder: Path) -> list[str]:
    """Prints what is in both archives; returns what is wrong with them, a sentence each."""
    wheels, sdists = sorted(folder.glob("*.whl")), sorted(folder.glob("*.tar.gz"))
    if len(wheels) != 1 or len(sdists) != 1:
        return [f"{folder} holds {len(wheels)} wheels and {len(sdists)} sdists, not one of each."]
    wheel, sdist = files_of_wheel(wheels[0]), files_of_sdist(sdists[0])
    print(summary(wheels[0], wheel), summary(sdists[0], sdist), sep="\n\n")
    package = {name[len("src/") :] for name in tracked() if name.startswith(SOURCE)}
    package |= {f"share/qfitlatent/{name}" for name in tracked() if name.startswith(WORKFLOW)}
    return problems(wheels[0], wheel, package) + problems(sdists[0], sdist, tracked())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit("\n".join(check(Path(sys.argv[1]))) or 0)
