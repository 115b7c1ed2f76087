#!/usr/bin/env bash
# Prints what a change of layout must not change: the sha256 of every table, split and weights, and
# the figures of metrics.json, of the default run and of ten deposited files as a local source.
#   tools/same_bytes.sh [FOLDER]     FOLDER holds *.cif.gz and *.pdb.gz; without it the default run alone
# Run it on two commits and compare what it prints. Results go to results/same_bytes, made afresh.
set -euo pipefail
cd "$(dirname "$0")/.."

out=results/same_bytes
rm -rf "$out"
mkdir -p "$out"
cat > "$out/default.yaml" <<< "results_dir: $out/default"
configs=("$out/default.yaml")
if [ $# -gt 0 ]; then
  mkdir "$out/files"
  find "$1" -maxdepth 1 -name '*.gz' | LC_ALL=C sort | head -10 | xargs cp -t "$out/files"
  cat > "$out/local.yaml" <<YAML
results_dir: $out/local
dataset: local
run: local
entries: {source: local, folder: $out/files, shards: 3}
split: {method: builtin, fractions: {train: 0.6, validation: 0.2, test: 0.2}}
train: {epochs: 2}
YAML
  configs+=("$out/local.yaml")
fi
for config in "${configs[@]}"; do
  snakemake --cores 2 --quiet all --configfile "$config" -- all
done
python - "$out" <<'PYTHON'
import hashlib
import json
import sys
from pathlib import Path

from safetensors import safe_open

out = Path(sys.argv[1])
tables = sorted(out.glob("*/data/*/tables/*.parquet")) + sorted(out.glob("*/data/*/split.parquet"))
for path in [*tables, *sorted(out.glob("*/runs/*/model.safetensors"))]:
    print(hashlib.sha256(path.read_bytes()).hexdigest(), path)
# The header of the weights names the keys of the configuration; the tensors are what was learnt.
for path in sorted(out.glob("*/runs/*/model.safetensors")):
    digest = hashlib.sha256()
    with safe_open(path, "numpy") as file:
        for name in sorted(file.keys()):
            digest.update(name.encode() + file.get_tensor(name).tobytes())
    print(digest.hexdigest(), path, "(tensors)")
for path in sorted(out.glob("*/runs/*/evaluation/metrics.json")):
    print(path)
    print(json.dumps(json.loads(path.read_text()), indent=1, sort_keys=True))
PYTHON
