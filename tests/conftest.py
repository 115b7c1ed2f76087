"""Fixtures that several test files share."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

# One thread for each test process, before torch is imported: with several of them on a few cores,
# threads that wait for each other would take most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_SETS = ("multiconformer", "mostly_single")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole workflows first: they take longest, and wait most, while other processes go on."""
    items.sort(key=lambda item: item.path.parent.name != "whole")


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
            shutil.unpack_archive(path, unpacked / name)
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


@pytest.fixture(scope="session")
def simulated_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three simulated entries, each as mmCIF and as PDB: what real files are for where there are
    none. Altlocs, MSE, insertion codes, several chains and waters are among them."""
    import gemmi

    from helpers.simulated import simulator
    from qfitlatent.simulate.entry import write_entries
    from qfitlatent.simulate.settings import entry_ids

    settings = simulator(num_entries=3, mse_fraction=1.0, insertion_code_fraction=1.0)
    folder = tmp_path_factory.mktemp("simulated_files")
    found = []
    for path in write_entries(entry_ids(settings), folder, settings, 3):
        structure = gemmi.read_structure(str(path))
        structure.setup_entities()
        as_pdb = folder / f"{structure.name}.pdb"
        structure.write_pdb(str(as_pdb))
        found += [path, as_pdb]
    return found


@pytest.fixture(params=["simulated", "real"])
def some_files(request: pytest.FixtureRequest) -> list[Path]:
    """The simulated files, and a dozen of the shared real ones where they are."""
    if request.param == "simulated":
        return request.getfixturevalue("simulated_files")
    return sorted((request.getfixturevalue("shared_data") / "mostly_single").glob("*.pdb"))[:12]
