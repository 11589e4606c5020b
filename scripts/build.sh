#!/usr/bin/env bash
# Builds the release binary into build/bin/modelembed.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v cargo >/dev/null || { echo "build.sh: cargo not found: install Rust (stable) first, see https://rustup.rs" >&2; exit 1; }
cargo build --release --locked --package modelembed-cli
target=${CARGO_TARGET_DIR:-target}
mkdir -p build/bin
# A copy under another name first: a running modelembed keeps its file.
cp "$target/release/modelembed" build/bin/.modelembed.new
mv -f build/bin/.modelembed.new build/bin/modelembed
echo "built build/bin/modelembed ($(build/bin/modelembed --version))"
