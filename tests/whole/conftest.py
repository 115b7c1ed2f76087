"""One finished run of the workflow for all tests that only ask what would run next."""

import pytest

from helpers.workflow_run import TINY, Checkout


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A checkout in which everything has run once. Tests must leave it as it was."""
    checkout = Checkout(tmp_path_factory.mktemp("workflow") / "one", TINY)
    checkout.run()
    return checkout


@pytest.fixture
def config(finished):
    """Changes of the configuration that are taken back."""
    yield finished.change_config
    finished.write_config(TINY)


@pytest.fixture
def edit(finished):
    """Replaces text in a file of the checkout, and puts it back."""
    kept = {}

    def replace(path, old, new):
        file = finished.folder / path
        kept.setdefault(file, file.read_text())
        changed = file.read_text().replace(old, new)
        assert changed != file.read_text(), f"{path} does not hold {old!r}"
        file.write_text(changed)

    yield replace
    for file, text in kept.items():
        file.write_text(text)
