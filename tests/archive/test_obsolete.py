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


@pytest.mark.parametrize(
    ("odd", "num"),
    [
        (b"OBSLTE    31-JUL-94 116LX    216L\n", 1),
        (b"OBSLTE    \nOBSLTE 31-JUL-94\nOBSLTE 31-JUL-94 ../../x 1abc\n", 3),
        (b"OBSLTE    31-JUL-94 1OTH     116LX\n", 1),
        (b" LISTE \xe9\xff\x00\n", 0),
        (b"OBSLTE    31-JUL-94 " + b"9" * 5000 + b"\n", 1),
    ],
)
def test_malformed_lines_are_skipped_and_said(run, server, odd, num):
    put(server, "1new")
    server.files["/obsolete.dat"] = odd + b"OBSLTE    31-JUL-94 1OLD     1xx?? 1new\n"
    for _ in range(2):  # the second time the list comes from the cache
        row = run("1old", "1oth")["1old"]
        assert (row["reason"], row["replaced_by"]) == (None, "1new")
        assert f"the list of obsolete entries has {num + 1} malformed lines" in run.text


def test_an_archive_that_sends_the_replacement_itself(run, server):
    data = put(server, "1new")["/1new.cif.gz"]
    server.files |= {"/1old.cif.gz": data, "/obsolete.dat": b"OBSLTE 31-JUL-94 1OLD 1NEW\n"}
    row = run("1old")["1old"]
    assert_there(run, row, data)
    assert row["replaced_by"] == "1new"
