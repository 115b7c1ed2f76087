"""Publish a trained and evaluated run under a name, as the model that ships with the package.

    python tools/ship_model.py results/runs/real qfitlatent-chi-2.1

What is published explains itself: weights with the name in their header, configuration, manifest,
metrics of every epoch, learning curve, evaluation figures as JSON, and both cards; the model card
opens with metadata in the YAML form of model hubs. What it remembers of its training set
(``tools/training_set.py``, run before) lies beside it. What a name promises is in docs/models.md.
The weights stay as they are to the bit, and a name never comes to stand for other weights.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml
from safetensors import safe_open
from safetensors.torch import save

from qfitlatent.base.files import atomic_path, read_json, sha256_file, write_json, write_text
from qfitlatent.base.models import MODEL_FILE, PUBLISHED, about_model, shipped_model_path
from qfitlatent.base.provenance import verify_run
from qfitlatent.model.checkpoint import HEADER_KEY, load_model
from qfitlatent.model.reference import REFERENCE_FILE, read_reference

MAX_BYTES = 20_000_000
COPIED = {
    "config.yaml": "config.yaml",
    "metrics.csv": "metrics.csv",
    "learning_curve.svg": "learning_curve.svg",
    "scores.json": "evaluation/metrics.json",
    "DATASET_CARD.md": "evaluation/DATASET_CARD.md",
    REFERENCE_FILE: REFERENCE_FILE,
}
"""Name as published, and the file of the run."""

FIGURES = {
    "nll": "NLL, nats per residue",
    "chi1_within_20": "share of residues with chi1 within 20 degrees",
    "all_within_20": "share of residues with all chi within 20 degrees",
    "recall": "share of altlocs found",
}


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    run, name = Path(sys.argv[1]), sys.argv[2]
    if problems := verify_run(run):
        sys.exit("\n".join(problems))
    target = shipped_model_path().parent
    publish(run, name, target)
    print(f"{target} now holds {name}: name it in CHANGELOG.md and twice in docs/models.md.")


def publish(run: Path, name: str, target: Path) -> None:
    """Fills the folder ``target`` with the model of the run; SystemExit says why it cannot be."""
    if not PUBLISHED.fullmatch(name):
        sys.exit(f"{name} is no name of a published model: qfitlatent-chi-MAJOR.MINOR.")
    if (run / MODEL_FILE).stat().st_size > MAX_BYTES:
        sys.exit(f"The weights of {run} are larger than {MAX_BYTES / 1e6:.0f} MB.")
    header, tensors = read_model(run / MODEL_FILE)
    if (target / MODEL_FILE).exists():
        held = read_model(target / MODEL_FILE)[0]
        if held.get("name") == name and held["sha256"] != header["sha256"]:
            sys.exit(f"{name} is published with other weights: a name is given once.")
    version = about_model(name, header["config"], header["sha256"]).version
    if why := read_reference(run / MODEL_FILE, version)[1]:
        sys.exit(f"{run}: {why}: run tools/training_set.py first.")
    scores = read_json(run / COPIED["scores.json"])
    card = (run / "evaluation" / "MODEL_CARD.md").read_text("utf-8")
    target.mkdir(parents=True, exist_ok=True)
    for to, source in COPIED.items():
        shutil.copyfile(run / source, target / to)
    content = save(tensors, {HEADER_KEY: json.dumps(header | {"name": name}, sort_keys=True)})
    with atomic_path(target / MODEL_FILE) as temporary:
        temporary.write_bytes(content)
    load_model(target)
    write_text(target / "MODEL_CARD.md", front_matter(name, scores) + titled(card, name))
    manifest = read_json(run / "manifest.json")
    manifest["outputs"][MODEL_FILE] |= {
        "num_bytes": (target / MODEL_FILE).stat().st_size,
        "sha256": sha256_file(target / MODEL_FILE),
    }
    # Where they lay on the machine of the training is nobody's business.
    for listed in (manifest["inputs"], manifest["outputs"]):
        for key, about in listed.items():
            about["path"] = key
    manifest["command"] = [Path(word).name for word in manifest["command"]]
    write_json(target / "manifest.json", manifest)


def read_model(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Our part of the header, and the tensors."""
    with safe_open(path, "pt", device="cpu") as file:
        header = json.loads(file.metadata()[HEADER_KEY])
        return header, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def titled(card: str, name: str) -> str:
    """The card under the name of the model, without metadata of an earlier publication."""
    body = card.split("\n---\n", 1)[1] if card.startswith("---\n") else card
    _, rest = body.lstrip().split("\n", 1)
    return f"# Model card: {name}\n{rest}"


def front_matter(name: str, scores: dict[str, Any]) -> str:
    """Licence, data and metrics of a model card, as model hubs read them."""
    run, trained, evaluated = scores["run"], scores["trained_on"], scores["evaluated"]
    kind = "simulated" if run["is_simulated"] else "experimental"
    results = [
        {
            "task": {"type": "other", "name": "side-chain conformations on a given backbone"},
            "dataset": {
                "type": "other",
                "name": f"{kind} entries, {population} residues",
                "split": scores["settings"]["split"],
            },
            "metrics": [
                {"type": figure, "name": words, "value": round(values[figure]["value"], 4)}
                for figure, words in FIGURES.items()
            ],
        }
        for population, found in scores["populations"].items()
        for values in [found["methods"]["model"]]
    ]
    card = {
        "license": "mit",
        "library_name": "qfitlatent",
        "tags": ["biology", "protein", "side-chains", "rotamers", "x-ray-crystallography"],
        "metrics": list(FIGURES),
        "model_name": name,
        "training_data": (
            f"{trained['num_entries']} {kind} entries, {trained['num_residues']} residues, "
            f"{trained['num_multiconformer']} of them with altlocs"
            + ("" if run["is_simulated"] else "; entries of the PDB are CC0")
        ),
        "evaluation_data": (
            f"{evaluated['num_entries']} entries of other sequence clusters, "
            f"{evaluated['num_residues']} residues"
        ),
        "num_parameters": run["num_parameters"],
        "model-index": [{"name": name, "results": results}],
    }
    return f"---\n{yaml.safe_dump(card, sort_keys=False, width=100)}---\n"


if __name__ == "__main__":
    main()
