"""Copy a trained and evaluated run into the package as the model that ``qfitlatent predict`` uses.

    python tools/ship_model.py results/runs/real

What is shipped explains itself: weights, configuration, manifest, metrics of every epoch, learning
curve, evaluation figures as JSON, and both cards.
"""

import shutil
import sys
from pathlib import Path

from qfitlatent.base.provenance import verify_run
from qfitlatent.model.checkpoint import load_model, shipped_model_path

MAX_BYTES = 20_000_000
FILES = (
    "model.safetensors",
    "config.yaml",
    "manifest.json",
    "metrics.csv",
    "learning_curve.svg",
    "evaluation/metrics.json",
    "evaluation/MODEL_CARD.md",
    "evaluation/DATASET_CARD.md",
)


def main() -> None:
    run = Path(sys.argv[1])
    problems = verify_run(run)
    if problems:
        sys.exit("\n".join(problems))
    load_model(run)
    if (run / "model.safetensors").stat().st_size > MAX_BYTES:
        sys.exit(f"The weights of {run} are larger than {MAX_BYTES / 1e6:.0f} MB.")
    target = shipped_model_path().parent
    target.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(run / name, target / Path(name).name.replace("metrics.json", "scores.json"))
    print(f"{target} now holds the model of {run}.")


if __name__ == "__main__":
    main()
