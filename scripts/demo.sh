#!/usr/bin/env bash
# Builds modelembed, fetches a small real model and asks it a question. Arguments go on to
# modelembed.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/build.sh
scripts/fetch-model.sh smollm2
build/bin/modelembed -model models/SmolLM2-135M-Instruct.Q4_1.gguf \
    -system "You are a helpful AI assistant." -p "What is the capital of France?" -temp 0 -n 64 "$@"
