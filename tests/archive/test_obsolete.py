"""Entries that the archive replaced or withdrew, by its list, whatever stands in it."""

import pytest

from helpers.archive_run import assert_there, put
from qfitlatent.archive.log import check_missing
from qfitlatent.tables.reasons import Reason

OBSOLETE = b""" LIST OF OBSOLETE COORDINATE ENTRIES AND SUCCESSORS
OBSLTE    31-JUL-94 116L     216L
OBSLTE    18-JUL-84 1HHB     2HHB 3HHB 4HHB
OBSLTE    18-JUL-99 2HHB     5HHB
OBSLTE    21-NOV-03 1HG6
OBSLTE    21-NOV-06 1OLD     2NEW
OBSLTE    21-NOV-04 1CIR     2CIR
OBSLTE    21-NOV-05 2CIR     1CIR
OBSLTE    21-NOV-25 pdb_10001ext     pdb_10002ext
"""


def test_obsolete_entries_are_replaced_and_recorded(run, server):
    successors = {"116l": "216l", "1hhb": "5hhb", "1old": "2new", "pdb_10001ext": "pdb_10002ext"}
    files = put(server, *successors.values())
    server.files["/obsolete.dat"] = OBSOLETE
    rows = run(*successors)
    for entry, other in successors.items():
        assert_there(run, rows[entry], files[f"/{other}.cif.gz"])
        assert rows[entry]["replaced_by"] == other
        assert f"obsolete, replaced by {other}" in rows[entry]["detail"]
        assert rows[entry]["url"].endswith(f"/{other}.cif.gz")
        assert rows[entry]["attempts"] == 2
    assert server.asked("/obsolete.dat") == 1
    before, asked = run.log.read_bytes(), len(server.requests)
    run(*successors)
    assert (run.log.read_bytes(), len(server.requests)) == (before, asked)


def test_replacement_that_is_already_there_is_not_fetched_twice(run, server):
    put(server, "216l")
    server.files["/obsolete.dat"] = OBSOLETE
    run("216l")
    row = run("116l", "216l")["116l"]
    assert (row["replaced_by"], row["attempts"]) == ("216l", 1)
    assert server.asked("/216l.cif.gz") == 1
    assert "116l and 216l are one and the same file" in check_missing([run.log], 0.0)


def test_obsolete_without_replacement_unknown_and_circular(run, server):
    server.files["/obsolete.dat"] = OBSOLETE
    rows = run("1hg6", "9zzz", "1cir")
    assert rows["1hg6"]["reason"] == Reason.OBSOLETE_WITHOUT_REPLACEMENT
    assert rows["9zzz"]["reason"] == Reason.NOT_FOUND
    assert rows["9zzz"]["detail"] == "HTTP 404 Not Found"
    assert "circle" in rows["1cir"]["detail"]


@pytest.mark.parametrize("body", [None, b"<html>not a list</html>"])
def test_without_the_list_an_unknown_id_is_just_missing(run, server, body):
    if body:
        server.files["/obsolete.dat"] = body
    row = run("116l")["116l"]
    assert row["reason"] == Reason.NOT_FOUND
    assert "list of obsolete entries was not available" in row["detail"]
