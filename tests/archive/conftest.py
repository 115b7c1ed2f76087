"""Fixtures of the tests that download: waits scaled down, everything else as it runs in earnest."""

import pytest

from helpers.archive_run import Runner
from helpers.archive_server import ArchiveServer
from qfitlatent.archive import http


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(http, "BACKOFF_S", 0.01)
    monkeypatch.setattr(http, "BACKOFF_MAX_S", 0.05)


@pytest.fixture
def server():
    with ArchiveServer() as running:
        yield running


@pytest.fixture
def run(server, tmp_path):
    return Runner(server, tmp_path)
