"""Bring the configuration in the header of a model file up to this version's keys.

    python tools/rewrite_header.py src/qfitlatent/data/pretrained

Keys that have become constants are taken out where their value is that of the constant, keys of
another section are moved, and keys that are new take their defaults. The tensors stay as they are
to the bit, which is checked; config.yaml and manifest.json of the folder follow.
"""

import json
import sys
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save

from qfitlatent.base import config as configuration
from qfitlatent.base.files import atomic_path, read_json, sha256_file, write_json, write_text
from qfitlatent.base.models import MODEL_FILE
from qfitlatent.model.checkpoint import HEADER_KEY, load_model

CONSTANTS = {
    ("model", "max_relative_position"): 32,
    ("model", "attention"): "auto",
    ("train", "deterministic"): True,
    ("evaluate", "mode_weight"): 0.1,
    ("evaluate", "mode_merge_degrees"): 30,
    ("evaluate", "match_degrees"): 30,
    ("evaluate", "distinct_degrees"): 40,
    ("evaluate", "chunk_residues"): 2048,
    ("simulate", "extra_chain_fraction"): 0.15,
    ("simulate", "min_family_identity"): 0.65,
    ("simulate", "max_family_identity"): 0.85,
    ("simulate", "missing_atom_fraction"): 0.01,
    ("simulate", "missing_residue_fraction"): 0.004,
    ("simulate", "whole_residue_fraction"): 0.15,
    ("simulate", "uneven_occupancy_fraction"): 0.04,
    ("predict", "crystal_neighbours"): False,
}
"""Keys that went, with the value that is now a constant."""


MOVED = {
    ("train", "members"): ("average", "members"),
    ("train", "dropout_passes"): ("average", "dropout_passes"),
}


def renewed(old: dict[str, Any]) -> dict[str, Any]:
    """The same configuration with this version's keys, in the order of the schema."""
    config = json.loads(json.dumps(old))
    for (section, key), value in CONSTANTS.items():
        found = config.get(section, {}).pop(key, value)
        if found != value:
            sys.exit(f"{section}.{key} was {found} and is {value} now: this model cannot be kept.")
    for (section, key), (new_section, new_key) in MOVED.items():
        if key in config[section]:
            config.setdefault(new_section, {})[new_key] = config[section].pop(key)
    return configuration.load(config)


def tensors_of(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt", device="cpu") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    path = folder / MODEL_FILE
    tensors = tensors_of(path)
    with safe_open(path, "pt", device="cpu") as file:
        header = json.loads(file.metadata()[HEADER_KEY])
    header["config"] = renewed(header["config"])
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(tensors, {HEADER_KEY: json.dumps(header, sort_keys=True)}))
    again = tensors_of(path)
    if any(not tensors[name].equal(again[name]) for name in tensors | again):
        sys.exit(f"The tensors of {path} are not what they were: restore it.")
    load_model(path)
    write_text(folder / "config.yaml", configuration.dump(header["config"]))
    manifest = read_json(folder / "manifest.json")
    for name in (MODEL_FILE, "config.yaml"):
        size = (folder / name).stat().st_size
        manifest["outputs"][name] |= {"num_bytes": size, "sha256": sha256_file(folder / name)}
    write_json(folder / "manifest.json", manifest)
    print(f"The header of {path} is that of this version; {len(tensors)} tensors as before.")


if __name__ == "__main__":
    main()
