#!/usr/bin/env bash
# Puts llama.cpp's test vocabularies (ggml-vocab-*.gguf) under models/vocabularies. They come with
# the sources of llama-cpp-python; nothing is compiled, but pip runs the package's CMake set-up
# before it hands the sources out.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet scikit-build-core cmake ninja
PATH="$work/venv/bin:$PATH" "$work/venv/bin/pip" download --quiet --no-deps --no-build-isolation \
    --no-binary llama-cpp-python --dest "$work" "llama-cpp-python==0.3.36"
tar -xzf "$work"/llama_cpp_python-*.tar.gz -C "$work" --wildcards '*/models/ggml-vocab-*.gguf'
mkdir -p models/vocabularies
cp "$work"/llama_cpp_python-*/vendor/llama.cpp/models/ggml-vocab-*.gguf models/vocabularies/
ls models/vocabularies | wc -l
