"""The closed vocabulary of reasons to leave data out."""

from enum import StrEnum


class Reason(StrEnum):
    """Why an entry, residue, frame or conformer is not used; the text of the column `reason`."""

    NOT_FOUND = "not_found"
    OBSOLETE_WITHOUT_REPLACEMENT = "obsolete_without_replacement"
    REFUSED = "refused"
    BAD_RESPONSE = "bad_response"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    WRONG_ENTRY = "wrong_entry"
    TOO_LARGE = "too_large"
    TIMEOUT = "timeout"
    SERVER_ERROR = "server_error"
    CONNECTION_ERROR = "connection_error"

    UNREADABLE = "unreadable"
    EMPTY = "empty"
    NO_PROTEIN = "no_protein"
    UNEXPECTED_ERROR = "unexpected_error"
    BEYOND_LIMIT = "beyond_limit"
    NOT_POLYMER = "not_polymer"
    NOT_A_NUMBER = "not_a_number"
    MICROHETEROGENEITY = "microheterogeneity"
    INCOMPLETE_BACKBONE = "incomplete_backbone"
    DEGENERATE_BACKBONE = "degenerate_backbone"
    NO_OWN_CHI_ATOMS = "no_own_chi_atoms"
    NO_CHI = "no_chi"
    NEGATIVE_OCCUPANCY = "negative_occupancy"
    ZERO_OCCUPANCY = "zero_occupancy"
    NO_OCCUPANCY = "no_occupancy"
    OVER_LIMIT = "over_limit"
