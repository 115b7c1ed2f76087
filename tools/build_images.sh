#!/usr/bin/env bash
# Builds both images where the tools for them are, and predicts the example in each; says what it
# leaves out. Needs the network: Docker Hub, and the indices of Python packages.
set -euo pipefail
cd "$(dirname "$0")/.."

if docker info >/dev/null 2>&1; then
    docker build --tag qfitlatent .
    docker run --rm --entrypoint sh qfitlatent -c 'test "$(id -u)" != 0'
    docker run --rm --workdir /tmp qfitlatent predict --example -o predicted
    docker image inspect --format 'qfitlatent: {{.Size}} bytes' qfitlatent
else
    echo "Dockerfile is not built: there is no Docker that answers."
fi

if command -v apptainer >/dev/null; then
    image=$(mktemp -d)/qfitlatent.sif
    apptainer build "$image" apptainer.def # its section %test predicts the example
    apptainer run "$image" --version
else
    echo "apptainer.def is not built: there is no apptainer."
fi
