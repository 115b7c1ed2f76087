"""What each reason means, for people."""

REASON_HELP: dict[str, tuple[str, str]] = {
    "not_found": (
        "The archive or the folder has no such entry.",
        "Check the id; entries withdrawn without a successor never come back.",
    ),
    "obsolete_without_replacement": (
        "The archive withdrew the entry and names no successor.",
        "Remove the id from the list.",
    ),
    "refused": (
        "The server refuses the request (HTTP status 400 to 499 other than 404 and 410).",
        "Check the address in `download` and whether the server wants you to slow down.",
    ),
    "bad_response": (
        "What arrived is neither mmCIF nor PDB, for example an error page.",
        "Open the address in a browser; check the template in `download`.",
    ),
    "truncated": (
        "The file arrived incomplete in every attempt.",
        "Run again later; what has arrived stays.",
    ),
    "corrupt": (
        "The file arrived with a damaged gzip stream in every attempt.",
        "Run again later; if it stays so, tell the archive.",
    ),
    "timeout": (
        "The server sent nothing, or next to nothing, for longer than the timeout.",
        "Run again later, or raise `download.read_timeout_s`.",
    ),
    "server_error": (
        "The server answered with an error of its own (status 5xx or 429) in every attempt.",
        "Run again later, with fewer `download.connections`.",
    ),
    "connection_error": (
        "No connection to the server could be made or kept.",
        "Check the network and the address in `download`; run again.",
    ),
    "unreadable": (
        "The file is neither valid mmCIF nor PDB format.",
        "Open it in a viewer; fetch or write it again.",
    ),
    "empty": (
        "The file holds no atoms.",
        "Check that it is a coordinate file, and complete.",
    ),
    "no_protein": (
        "Model 1 has no polymer of amino acids.",
        "Remove the entry, or check the residue names and the TER records of its chains.",
    ),
    "unexpected_error": (
        "Reading the file raised an error that nobody foresaw; its traceback is in the log.",
        "Report it with the file; the other entries are not affected.",
    ),
    "beyond_limit": (
        "Reading the file took more time or memory than `preprocess` allows.",
        "Look at the file; raise the limit in `preprocess` if it is meant to be so large.",
    ),
    "not_polymer": (
        "An amino acid with N, CA and C that no peptide bond joins to another, such as a ligand.",
        "Nothing, or check the gap around it if it belongs to a chain.",
    ),
    "not_a_number": (
        "A coordinate, occupancy or B factor is no number, infinite or beyond what can be.",
        "Correct the line in the file; the atom or the value counts as missing.",
    ),
    "microheterogeneity": (
        "Another residue type at this position has a higher summed occupancy.",
        "Nothing: one type a position is used, the one that is there most.",
    ),
    "incomplete_backbone": (
        "No altloc has all of N, CA and C, so the residue has no frame and the model no input.",
        "Complete the residue, or accept that it is left out.",
    ),
    "degenerate_backbone": (
        "N, CA and C coincide or are on a line, so they define no frame.",
        "Look at the residue in a viewer: its coordinates are wrong.",
    ),
    "no_own_chi_atoms": (
        "The altloc moves no atom that defines a chi angle, only O, H or the like.",
        "Nothing: it is no conformer of the side chain.",
    ),
    "no_chi": (
        "The conformer lacks atoms of every chi angle, as truncated side chains do.",
        "Nothing, or model the missing atoms.",
    ),
    "negative_occupancy": (
        "The conformer's occupancy is below zero.",
        "Correct the occupancy in the file.",
    ),
    "zero_occupancy": (
        "The occupancies of the residue's conformers sum to zero.",
        "Give the atoms an occupancy, if they are meant to be used.",
    ),
    "no_occupancy": (
        "None of the conformer's own atoms has an occupancy that is a number.",
        "Correct the occupancies in the file.",
    ),
    "over_limit": (
        "The residue has more conformers than `preprocess.max_conformers`; this one is lowest.",
        "Raise `preprocess.max_conformers`.",
    ),
}


def reason_table() -> str:
    """All reasons as a Markdown table: the one in the README."""
    rows = [f"| `{reason}` | {what} | {to_do} |" for reason, (what, to_do) in REASON_HELP.items()]
    return "\n".join(["| `reason` | what it means | what you can do |", "|---|---|---|", *rows])
