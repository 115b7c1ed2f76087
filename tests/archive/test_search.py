"""Criteria to a request of the RCSB Search API, and its answers to a list of entries."""

import json
import os

import pytest
from jsonschema import Draft202012Validator

from helpers import archive_server as server_of
from helpers.archive_server import search_answer
from qfitlatent.archive import search
from qfitlatent.archive.entries import read_entry_list
from qfitlatent.archive.search import compile_request, search_entries
from qfitlatent.base import config
from qfitlatent.base.errors import QfitLatentError

NONE = {
    "max_resolution_angstrom": None,
    "max_r_free": None,
    "method": None,
    "released_from": None,
    "released_to": None,
    "min_chain_length": None,
    "max_chain_length": None,
    "sequence_identity": None,
    "max_entries": None,
}
ALL = {
    "max_resolution_angstrom": 1.5,
    "max_r_free": 0.2,
    "method": "X-RAY DIFFRACTION",
    "released_from": "2010-01-01",
    "released_to": "2020-12-31",
    "min_chain_length": 50,
    "max_chain_length": 400,
    "sequence_identity": 30,
    "max_entries": 3,
}

# The part of the documented request schema (https://search.rcsb.org, version 2) that a request of
# ours may use, closed: a misspelt key or operator fails here and not at the service.
OPERATORS = ["equals", "greater", "greater_or_equal", "less", "less_or_equal", "range"]
SORT = {
    "type": "object",
    "required": ["sort_by"],
    "additionalProperties": False,
    "properties": {"sort_by": {"type": "string"}, "direction": {"enum": ["asc", "desc"]}},
}
REQUEST = {
    "type": "object",
    "required": ["return_type", "query"],
    "additionalProperties": False,
    "properties": {
        "return_type": {
            "enum": [
                "entry",
                "polymer_entity",
                "non_polymer_entity",
                "polymer_instance",
                "assembly",
                "mol_definition",
            ]
        },
        "query": {
            "type": "object",
            "required": ["type", "logical_operator", "nodes"],
            "additionalProperties": False,
            "properties": {
                "type": {"const": "group"},
                "logical_operator": {"enum": ["and", "or"]},
                "nodes": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/terminal"}},
            },
        },
        "request_options": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "paginate": {
                    "type": "object",
                    "required": ["start", "rows"],
                    "additionalProperties": False,
                    "properties": {
                        "start": {"type": "integer", "minimum": 0},
                        "rows": {"type": "integer", "minimum": 0, "maximum": 10000},
                    },
                },
                "results_content_type": {
                    "type": "array",
                    "items": {"enum": ["experimental", "computational", "integrative"]},
                },
                "sort": {"type": "array", "items": SORT},
                "group_by": {
                    "type": "object",
                    "required": ["aggregation_method", "similarity_cutoff"],
                    "additionalProperties": False,
                    "properties": {
                        "aggregation_method": {"const": "sequence_identity"},
                        "similarity_cutoff": {"enum": [100, 95, 90, 70, 50, 30]},
                        "ranking_criteria_type": SORT,
                    },
                },
                "group_by_return_type": {"enum": ["groups", "representatives"]},
            },
            # Sequence clusters are clusters of polymer entities.
            "dependentRequired": {"group_by_return_type": ["group_by"]},
        },
    },
    "if": {"properties": {"request_options": {"required": ["group_by"]}}},
    "then": {"properties": {"return_type": {"const": "polymer_entity"}}},
    "$defs": {
        "terminal": {
            "type": "object",
            "required": ["type", "service", "parameters"],
            "additionalProperties": False,
            "properties": {
                "type": {"const": "terminal"},
                "service": {"const": "text"},
                "parameters": {"oneOf": []},
            },
        }
    },
}


def _parameters(names: list[str], operators: list[str], value: dict) -> dict:
    """Parameters of a terminal node; the value of a range is a pair of bounds."""
    bounds = {
        "type": "object",
        "additionalProperties": False,
        "required": ["from", "to"],
        "properties": {
            "from": value,
            "to": value,
            "include_lower": {"type": "boolean"},
            "include_upper": {"type": "boolean"},
        },
    }
    return {
        "type": "object",
        "required": ["attribute", "operator", "value"],
        "additionalProperties": False,
        "properties": {
            "attribute": {"enum": names},
            "operator": {"enum": operators},
            "value": True,
        },
        "if": {"properties": {"operator": {"const": "range"}}},
        "then": {"properties": {"value": bounds}},
        "else": {"properties": {"value": value}},
    }


# The attributes with the operators that the service documents for their type.
REQUEST["$defs"]["terminal"]["properties"]["parameters"]["oneOf"] = [
    _parameters(
        ["rcsb_entry_info.resolution_combined", "refine.ls_R_factor_R_free"],
        OPERATORS,
        {"type": "number"},
    ),
    _parameters(["entity_poly.rcsb_sample_sequence_length"], OPERATORS, {"type": "integer"}),
    _parameters(
        ["rcsb_accession_info.initial_release_date"],
        OPERATORS,
        {"type": "string", "pattern": r"^\d{4}-\d\d-\d\d$"},
    ),
    _parameters(
        ["exptl.method", "entity_poly.rcsb_entity_polymer_type"],
        ["exact_match", "in"],
        {"type": "string"},
    ),
]


@pytest.fixture
def settings(server):
    return config.load()["download"] | {
        "search_url": server.url + "/query",
        "connect_timeout_s": 2.0,
        "read_timeout_s": 20.0,
        "attempts": 3,
    }


def single_criteria() -> list[dict]:
    return [NONE | {name: value} for name, value in ALL.items()]


@pytest.mark.parametrize("criteria", [NONE, ALL, *single_criteria()])
def test_requests_have_the_documented_shape(criteria):
    request = compile_request(criteria, 20_000)
    Draft202012Validator.check_schema(REQUEST)
    Draft202012Validator(REQUEST).validate(request)
    assert request["request_options"]["paginate"] == {"start": 20_000, "rows": 10_000}


def test_every_criterion_of_the_configuration_is_known():
    criteria = config.load({"entries": {"source": "rcsb", "search": {}}})["entries"]["search"]
    assert criteria == NONE | {"method": "X-RAY DIFFRACTION"}


def test_the_shape_can_fail():
    request = compile_request(ALL)
    request["request_options"]["pager"] = request["request_options"].pop("paginate")
    assert not Draft202012Validator(REQUEST).is_valid(request)
    request = compile_request(ALL)
    request["query"]["nodes"][1]["parameters"]["operator"] = "at_most"
    assert not Draft202012Validator(REQUEST).is_valid(request)


def test_what_each_criterion_becomes():
    nodes = {
        node["parameters"]["attribute"]: (
            node["parameters"]["operator"],
            node["parameters"]["value"],
        )
        for node in compile_request(ALL)["query"]["nodes"]
    }
    both = {"include_lower": True, "include_upper": True}
    assert nodes == {
        "entity_poly.rcsb_entity_polymer_type": ("exact_match", "Protein"),
        "exptl.method": ("exact_match", "X-RAY DIFFRACTION"),
        "rcsb_entry_info.resolution_combined": ("less_or_equal", 1.5),
        "refine.ls_R_factor_R_free": ("less_or_equal", 0.2),
        "rcsb_accession_info.initial_release_date": (
            "range",
            {"from": "2010-01-01", "to": "2020-12-31"} | both,
        ),
        "entity_poly.rcsb_sample_sequence_length": ("range", {"from": 50, "to": 400} | both),
    }
    options = compile_request(ALL)["request_options"]
    assert options["group_by"]["similarity_cutoff"] == 30
    assert options["group_by_return_type"] == "representatives"
    assert "group_by" not in compile_request(NONE)["request_options"]


def test_pages_until_the_last_and_one_entry_for_its_entities(
    server, settings, tmp_path, monkeypatch
):
    monkeypatch.setattr(search, "PAGE_ROWS", 3)
    pages = {0: ["4HHB_1", "4HHB_2", "1ABC_1"], 3: ["2XYZ_1", "4HHB_3", "PDB_10001ABC_1"]}
    server.script["/query"] = [search_answer(pages, 6)] * 3
    ids = search_entries(NONE, settings, tmp_path)
    assert ids == ["4hhb", "1abc", "2xyz", "pdb_10001abc"]
    assert len(server.bodies) == 2
    assert all(Draft202012Validator(REQUEST).is_valid(json.loads(body)) for body in server.bodies)


def test_no_more_pages_than_needed(server, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "PAGE_ROWS", 2)
    pages = {0: ["1ABC_1", "1ABC_2"], 2: ["2ABC_1", "3ABC_1"], 4: ["4ABC_1"]}
    server.script["/query"] = [search_answer(pages, 5)] * 3
    assert search_entries(NONE | {"max_entries": 2}, settings, tmp_path) == ["1abc", "2abc"]
    assert len(server.bodies) == 2


def test_the_answer_is_kept_with_its_date(server, settings, tmp_path):
    server.script["/query"] = [search_answer({0: ["1ABC_1"]}, 1), search_answer({0: ["2ABC_1"]}, 1)]
    out = tmp_path / "data" / "search.json"
    assert search_entries(ALL, settings, tmp_path / "raw", out) == ["1abc"]
    (kept,) = (tmp_path / "raw" / "search").iterdir()
    answer = json.loads(kept.read_text())
    assert kept.name.startswith(answer["date"])
    assert answer["request"] == compile_request(ALL)
    assert answer["num_found"] == 1
    assert out.read_bytes() == kept.read_bytes()
    assert [ref.id for ref in read_entry_list(out, "rcsb")] == ["1abc"]
    out.unlink()
    # The same criteria are not asked again, other criteria are.
    assert search_entries(ALL, settings, tmp_path / "raw", out) == ["1abc"]
    assert len(server.bodies) == 1
    assert search_entries(NONE, settings, tmp_path / "raw") == ["2abc"]


@pytest.mark.parametrize(
    "damage", ["", "{", "[" * 100_000, "[1]", '{"ids": 3}', '{"ids": ["1ABC"]}', "\udcff"]
)
def test_a_damaged_answer_is_asked_for_again(server, settings, tmp_path, damage):
    server.script["/query"] = [search_answer({0: ["1ABC_1"]}, 1)] * 2
    assert search_entries(NONE, settings, tmp_path) == ["1abc"]
    (kept,) = (tmp_path / "search").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(os.fsencode(damage))
    assert search_entries(NONE, settings, tmp_path) == ["1abc"]
    assert kept.read_bytes() == whole


def test_faults_that_pass(server, settings, tmp_path):
    server.script["/query"] = [
        server_of.status(429, Retry_After="0"),
        server_of.status(503),
        search_answer({0: ["1ABC_1"]}, 1),
    ]
    assert search_entries(NONE, settings, tmp_path) == ["1abc"]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (server_of.status(503), "gave no answer .HTTP 503"),
        (server_of.status(400), "HTTP 400 Bad Request: not now"),
        (server_of.stall(1.5), "nothing arrived for"),
        (server_of.html, "not a search result"),
        (server_of.whole(b'{"result_set": 3, "total_count": 1}'), "not a search result"),
        (server_of.whole(b'{"result_set": [{"identifier": 3}]}'), "not a search result"),
        (server_of.whole(b'{"result_set": [{"identifier": "../x"}]}'), "not a search result"),
        (server_of.whole(b'{"result_set": [], "total_count": 1e999}'), "not a search result"),
        (server_of.whole(b"[" * 100_000), "not a search result"),
        (search_answer({}, 0), "No entry meets the criteria"),
    ],
)
def test_faults_that_stay_are_sentences(server, settings, tmp_path, answer, says):
    settings["read_timeout_s"] = 0.5
    server.script["/query"] = [answer] * 3
    with pytest.raises(QfitLatentError, match=says):
        search_entries(NONE, settings, tmp_path)
    assert not list(tmp_path.rglob("*.json"))
