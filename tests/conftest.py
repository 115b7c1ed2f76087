"""Fixtures that several test files share."""

import os
import shutil
import tarfile
import tempfile
from pathlib import Path

import pytest

# One thread for each test process, before torch is imported: with several of them on a few cores,
# threads that wait for each other would take most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_SETS = ("multiconformer", "mostly_single")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with the shared real structures, unpacked once: raw, multiconformer, mostly_single.

    They lie beside the checkout, or where QFITLATENT_SHARED says. The unpacked copy is cached in
    the temporary folder of the machine, under a name that follows from size and time of the source.
    """
    beside = Path(__file__).parents[2] / "shared"
    source = Path(os.environ.get("QFITLATENT_SHARED", beside)) / "data" / "structures"
    archives = [source / f"{name}.tar.xz" for name in _SETS]
    if not all(path.exists() for path in [source / "raw", *archives]):
        pytest.skip("the shared structures are not here: put them beside the checkout as ../shared")
    stamp = "-".join(f"{p.stat().st_size:x}" for p in archives)
    folder = Path(tempfile.gettempdir()) / f"qfitlatent-shared-{os.getuid()}-{stamp}"
    if not folder.exists():
        unpacked = Path(tempfile.mkdtemp(prefix="qfitlatent-unpack-"))
        shutil.copytree(source / "raw", unpacked / "raw", copy_function=shutil.copyfile)
        for name, path in zip(_SETS, archives, strict=True):
            with tarfile.open(path) as archive:
                archive.extractall(unpacked / name, filter="data")
            nested = unpacked / name / name
            if nested.is_dir():
                for file in nested.iterdir():
                    file.rename(unpacked / name / file.name)
                nested.rmdir()
        try:
            unpacked.rename(folder)
        except OSError:  # another test process was faster
            shutil.rmtree(unpacked)
    return folder
