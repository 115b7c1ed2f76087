"""What can go wrong, said to the user, and the closed vocabulary of reasons to leave data out."""

from __future__ import annotations

from enum import StrEnum


class QfitLatentError(Exception):
    """One sentence for the user: what is wrong, where, and what to do."""


class Reason(StrEnum):
    """Why an entry, residue, frame or conformer is not used; the text of the column `reason`."""

    NOT_FOUND = "not_found"
    OBSOLETE_WITHOUT_REPLACEMENT = "obsolete_without_replacement"
    REFUSED = "refused"
    BAD_RESPONSE = "bad_response"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    TIMEOUT = "timeout"
    SERVER_ERROR = "server_error"
    CONNECTION_ERROR = "connection_error"


REASON_HELP: dict[Reason, tuple[str, str]] = {
    Reason.NOT_FOUND: (
        "The archive or the folder has no such entry.",
        "Check the id; entries withdrawn without a successor never come back.",
    ),
    Reason.OBSOLETE_WITHOUT_REPLACEMENT: (
        "The archive withdrew the entry and names no successor.",
        "Remove the id from the list.",
    ),
    Reason.REFUSED: (
        "The server refuses the request (HTTP status 400 to 499 other than 404 and 410).",
        "Check the address in `download` and whether the server wants you to slow down.",
    ),
    Reason.BAD_RESPONSE: (
        "What arrived is neither mmCIF nor PDB, for example an error page.",
        "Open the address in a browser; check the template in `download`.",
    ),
    Reason.TRUNCATED: (
        "The file arrived incomplete in every attempt.",
        "Run again later; what has arrived stays.",
    ),
    Reason.CORRUPT: (
        "The file arrived with a damaged gzip stream in every attempt.",
        "Run again later; if it stays so, tell the archive.",
    ),
    Reason.TIMEOUT: (
        "The server sent nothing, or next to nothing, for longer than the timeout.",
        "Run again later, or raise `download.read_timeout_s`.",
    ),
    Reason.SERVER_ERROR: (
        "The server answered with an error of its own (status 5xx or 429) in every attempt.",
        "Run again later, with fewer `download.connections`.",
    ),
    Reason.CONNECTION_ERROR: (
        "No connection to the server could be made or kept.",
        "Check the network and the address in `download`; run again.",
    ),
}
