"""The README.md files that let a folder of results explain itself after it was copied away."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from qfitlatent.base.errors import QfitLatentError
from qfitlatent.base.files import atomic_path

_RESULTS = """\
# Results of qFitLatent

| folder | what is in it |
|---|---|
| `data/<dataset>/` | tables, split and audit of a data set |
| `runs/<run>/` | a trained model with everything that explains it |
| `compare/` | runs side by side, after `snakemake compare` |
| `raw/` | files of an archive as they arrived, shared by all data sets |
| `logs/`, `benchmarks/` | what each job said, and the time and memory it took |

Everything here is generated. A folder can be deleted: the next `snakemake` makes it again.
"""


_DATA = """\
# Data set {dataset}

Entries come from the source `{source}`.{simulated}

| file | what is in it |
|---|---|
| `tables/entries.parquet` | one row an entry: source, checksum, resolution, R-free, counts |
| `tables/residues.parquet` | one row a residue: names, numbering, token, phi and psi, flags |
| `tables/frames.parquet` | backbone frames: rotation (9 floats, row-major) and translation |
| `tables/conformers.parquet` | one row a residue and altloc: occupancies, chi1 to chi4 |
| `tables/rejected.parquet` | whatever was left out: stage, scope, reason, detail |
| `split.parquet` | sequence cluster, group and split of each chain |
| `download.parquet` | where each entry's file came from, or why it is missing |
| `audit/index.html` | the data set in figures; opens offline |
| `shards/`, `download/` | the same by shard: what a change of one entry makes anew |

Units and descriptions are in the tables: `qfitlatent describe tables/residues.parquet`.
A missing value is null, never 0. Angles are radians in (-pi, pi], lengths angstrom.
"""


_RUN = """\
# Run {run}

A model trained on the data set `{dataset}` (source `{source}`).{simulated}

| file | what is in it |
|---|---|
| `model.safetensors` | the weights, with configuration and checksum in the header |
| `config.yaml` | the resolved configuration |
| `manifest.json` | code digest, commit, versions, hardware, seeds, sha256 of every input |
| `metrics.csv` | a row an epoch: training and validation loss, learning rate, speed |
| `learning_curve.png`, `.svg` | the same as a figure |
| `evaluation/metrics.json` | figures on held-out clusters, beside the baselines |
| `evaluation/report.html` | the same in pictures; opens offline |

Apply it: `qfitlatent predict STRUCTURE --model {folder} -o OUT`.
Check it: `qfitlatent verify {folder}`.
"""


_SIMULATED = " They are simulated, not measured: their true distribution is known."


_TEMPLATES = {"results": _RESULTS, "data": _DATA, "run": _RUN}


def write_readmes(paths: Mapping[str, str | Path], *, dataset: str, run: str, source: str) -> None:
    """Write the README.md of each folder; keys are results, data and run."""
    for kind, path in paths.items():
        if kind not in _TEMPLATES:
            raise QfitLatentError(f"There is no description of a folder of kind {kind!r}.")
        text = _TEMPLATES[kind].format(
            dataset=dataset,
            run=run,
            source=source,
            folder=Path(path).parent.as_posix(),
            simulated=_SIMULATED if source == "simulated" else "",
        )
        with atomic_path(path) as temporary:
            temporary.write_text(text, "utf-8")
