"""Downloads from a server of the tests, and what must be true of their rows and files."""

import hashlib
import io
from pathlib import Path

import pyarrow.parquet as pq

from helpers.archive_server import ArchiveServer, gzipped, mmcif
from qfitlatent.archive.client import download_entries
from qfitlatent.archive.entries import EntryRef
from qfitlatent.base import config
from qfitlatent.tables.reasons import Reason

PDB = b"HEADER    HYDROLASE\nATOM      1  CA  ALA A   1      11.1  12.2  13.3  1.0 20.0\nEND\n"


class Runner:
    """Downloads with one server into one folder, as often as a test likes."""

    def __init__(self, server: ArchiveServer, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.cache, self.log = folder / "raw", folder / "log.parquet"
        self.text = ""
        self.settings = config.load()["download"] | {
            "rcsb_url": server.template,
            "rcsb_pdb_url": server.url + "/{id}.pdb.gz",
            "pdb_redo_url": server.url + "/redo/{id}_final.cif",
            "url": server.url + "/any/{id}",
            "status_url": server.url + "/obsolete.dat",
            "connections": 4,
            "connect_timeout_s": 2.0,
            "read_timeout_s": 20.0,
            "attempts": 3,
        }

    def __call__(self, *ids: str, source: str = "rcsb", **settings) -> dict[str, dict]:
        stream = io.StringIO()
        refs = [EntryRef(entry) for entry in ids]
        try:
            download_entries(
                refs, source, self.settings | settings, self.cache, self.log, stream=stream
            )
        finally:
            self.text = stream.getvalue()
        return {row["entry"]: row for row in pq.read_table(self.log).to_pylist()}

    def files(self) -> list[str]:
        """Everything below the cache, temporary files too."""
        return sorted(str(p.relative_to(self.cache)) for p in self.cache.rglob("*") if p.is_file())


def put(server: ArchiveServer, *ids: str, num_atoms: int = 20) -> dict[str, bytes]:
    files = {f"/{entry}.cif.gz": gzipped(mmcif(entry, num_atoms)) for entry in ids}
    server.files |= files
    return files


def assert_there(run: Runner, row: dict, data: bytes) -> None:
    """The row is that of a complete file, and the file has these bytes."""
    assert row["reason"] is None
    assert row["status"] == 200
    assert row["sha256"] == hashlib.sha256(data).hexdigest()
    assert row["num_bytes"] == len(data)
    assert Path(row["path"]).read_bytes() == data


def assert_missing(run: Runner, row: dict, reason: Reason, says: str) -> None:
    """The row gives the reason, and nothing of the file is on disk, under any name."""
    assert row["reason"] == reason
    assert says in row["detail"]
    assert row["path"] is None
    assert row["sha256"] is None
    assert run.files() == []
    assert f"{row['entry']}: " in run.text
