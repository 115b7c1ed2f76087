"""Criteria to a list of entries, through version 2 of the RCSB Search API.

The request asks for polymer entities, not entries, so that all criteria hold for one and the same
protein of an entry, and so that sequence clusters can be asked for; their entries are returned.
Clusters are represented by the entity of the best resolution. Reference: https://search.rcsb.org.

The answer is kept in the cache under the date and a digest of the request, and never asked for
again: the same criteria give the same data set until that file is removed.
"""

import datetime
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qfitlatent.archive.entries import normalise_id
from qfitlatent.archive.http import Fault, ask
from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import read_json, write_json

# The largest page that the service gives.
PAGE_ROWS = 10_000
RESOLUTION = "rcsb_entry_info.resolution_combined"


def compile_request(criteria: Mapping[str, Any], start: int = 0) -> dict[str, Any]:
    """The request for one page.

    Args:
        criteria: the section ``entries.search`` of the configuration.
        start: first row of the page.
    """
    nodes = [_terminal("entity_poly.rcsb_entity_polymer_type", "exact_match", "Protein")]
    if criteria["method"] is not None:
        nodes.append(_terminal("exptl.method", "exact_match", criteria["method"]))
    for attribute, first, last in (
        (RESOLUTION, None, criteria["max_resolution_angstrom"]),
        ("refine.ls_R_factor_R_free", None, criteria["max_r_free"]),
        (
            "rcsb_accession_info.initial_release_date",
            criteria["released_from"],
            criteria["released_to"],
        ),
        (
            "entity_poly.rcsb_sample_sequence_length",
            criteria["min_chain_length"],
            criteria["max_chain_length"],
        ),
    ):
        if first is not None and last is not None:
            bounds = {"from": first, "to": last, "include_lower": True, "include_upper": True}
            nodes.append(_terminal(attribute, "range", bounds))
        elif first is not None:
            nodes.append(_terminal(attribute, "greater_or_equal", first))
        elif last is not None:
            nodes.append(_terminal(attribute, "less_or_equal", last))
    best_first = {"sort_by": RESOLUTION, "direction": "asc"}
    options: dict[str, Any] = {
        "paginate": {"start": start, "rows": PAGE_ROWS},
        "results_content_type": ["experimental"],
        "sort": [best_first],
    }
    if criteria["sequence_identity"] is not None:
        options["group_by"] = {
            "aggregation_method": "sequence_identity",
            "similarity_cutoff": criteria["sequence_identity"],
            "ranking_criteria_type": best_first,
        }
        options["group_by_return_type"] = "representatives"
    return {
        "query": {"type": "group", "logical_operator": "and", "nodes": nodes},
        "return_type": "polymer_entity",
        "request_options": options,
    }


def _terminal(attribute: str, operator: str, value: Any) -> dict[str, Any]:
    parameters = {"attribute": attribute, "operator": operator, "value": value}
    return {"type": "terminal", "service": "text", "parameters": parameters}


def search_entries(
    criteria: Mapping[str, Any],
    settings: Mapping[str, Any],
    cache_dir: str | Path,
    out_path: str | Path | None = None,
) -> list[str]:
    """Ids of the entries that meet the criteria, best resolution first.

    Args:
        criteria: the section ``entries.search`` of the configuration.
        settings: the section ``download``.
        cache_dir: folder of raw files; the answer is kept in ``search/<date>-<digest>.json``.
        out_path: gets a copy of that file, which ``entries.list`` also accepts.
    Raises:
        QfitLatentError: the service cannot be asked, refuses the request, or finds nothing.
    """
    url, limit = settings["search_url"], criteria["max_entries"]
    question = {"url": url, "request": compile_request(criteria), "max_entries": limit}
    digest = hashlib.blake2b(json.dumps(question, sort_keys=True).encode(), digest_size=6)
    folder = Path(cache_dir) / "search"
    kept = sorted(folder.glob(f"*-{digest.hexdigest()}.json"))
    answer = _kept(kept[-1], question) if kept else None
    if answer is None:
        ids, total = _ask_all(criteria, settings)
        date = datetime.datetime.now(datetime.UTC).date().isoformat()
        answer = question | {"date": date, "num_found": total, "ids": ids}
        write_json(folder / f"{date}-{digest.hexdigest()}.json", answer)
    if out_path is not None:
        write_json(out_path, answer)
    return answer["ids"]


def _kept(path: Path, question: Mapping[str, Any]) -> dict[str, Any] | None:
    """An answer to this question; None where the file is damaged, and it is asked again."""
    try:
        answer = read_json(path)
        ids = [normalise_id(entry, "rcsb") for entry in answer["ids"]]
        return answer if ids and answer == answer | question else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, QfitLatentError):
        return None


def _ask_all(criteria: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[list[str], int]:
    """Pages until the last, or until there are enough; and how many entities were found."""
    limit = criteria["max_entries"]
    ids: dict[str, None] = {}
    start = total = 0
    while limit is None or len(ids) < limit:
        found, total = _ask_page(compile_request(criteria, start), settings)
        ids |= dict.fromkeys(found)
        start += PAGE_ROWS
        if len(found) < PAGE_ROWS or start >= total:
            break
    if not ids:
        raise QfitLatentError(
            "No entry meets the criteria of entries.search: loosen one of them "
            "(resolution, R-free, dates, chain length)."
        )
    return list(ids)[:limit], total


def _ask_page(request: dict[str, Any], settings: Mapping[str, Any]) -> tuple[list[str], int]:
    """The entries of a page's entities, and how many entities were found in all."""
    url = settings["search_url"]
    try:
        status, body = ask(url, settings, method="POST", json=request)
    except Fault as fault:
        raise QfitLatentError(
            f"The search service {url} gave no answer ({fault}): check entries.search and "
            "download.search_url, run again later, or name the entries in entries.list."
        ) from fault
    if status == 204:  # how the service says that nothing was found
        return [], 0
    try:
        answer = json.loads(body)
        # 4HHB_1 is the first entity of 4HHB.
        names = [hit["identifier"].rsplit("_", 1)[0] for hit in answer["result_set"]]
        return [normalise_id(name, "rcsb") for name in names], int(answer["total_count"])
    except (
        ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError,
        QfitLatentError,
    ) as error:  # fmt: skip
        raise QfitLatentError(
            f"The search service {url} answered something that is not a search result: "
            "check download.search_url."
        ) from error
