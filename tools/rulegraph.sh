#!/usr/bin/env bash
# Draws docs/rulegraph.svg from the workflow itself; needs graphviz.
set -euo pipefail
cd "$(dirname "$0")/.."
overlay=$(mktemp --suffix .yaml)
trap 'rm -f "$overlay"' EXIT
echo "predict: {structures: tests}" > "$overlay"
snakemake --configfile "$overlay" --rulegraph dot -- all predict \
  | sed -e 's/graph\[bgcolor=white, margin=0\]/graph[rankdir=LR, bgcolor=transparent, nodesep=0.2, ranksep=0.35]/' \
        -e 's/penwidth=2/penwidth=1.5/g' -e 's/0.6 0.85/0.35 0.92/' -e 's/style="rounded"/style="rounded,filled"/' \
  | dot -Tsvg -o docs/rulegraph.svg
