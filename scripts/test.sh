#!/usr/bin/env bash
# Everything that must pass: format, lints, what the dependencies are, tests (with both real models),
# documentation, and the demo of the release build.
set -euo pipefail
cd "$(dirname "$0")/.."

# A stage's name, and how many minutes it may take on two cores: one that takes longer says so at its
# end, for somebody to look why. It does not fail, since the machine may have been busy.
stage=""
step() {
    local minutes=$(((SECONDS - ${began:-0}) / 60))
    [ -z "$stage" ] || [ "$minutes" -le "$budget" ] || echo "$stage took $minutes minutes, more than its $budget" >&2
    stage=$1 budget=${2:-1} began=$SECONDS
    printf '\n== %s\n' "$stage" >&2
}
die() { echo "test.sh: $*" >&2; exit 1; }

step "tools"
if ! command -v cargo >/dev/null; then
    [ ! -f "$HOME/.cargo/env" ] || . "$HOME/.cargo/env"
    command -v cargo >/dev/null || die "cargo not found: install a stable Rust toolchain"
fi
cargo --version
python=${PYTHON:-python3}
if ! "$python" -m pip --version >/dev/null 2>&1; then
    # A bare machine: Python and pip by name from the system's packages.
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        apt-get -qq update && apt-get -qq install -y --no-install-recommends python3 python3-pip >/dev/null
    fi
    "$python" -m pip --version >/dev/null || die "$python with pip is needed to fetch the models"
fi

step "models" 5
scripts/fetch-model.sh all
export MODELEMBED_MODELS=$PWD/models MODELEMBED_REQUIRE_MODELS=1

step "software GPU" 3
# A GPU made of software, for the kernels' tests; where it could be installed, a test that does not
# find it fails.
export NODEVICE_SELECT=1 # Mesa's own layer has nothing to choose and would warn
has_vulkan() { dpkg -s mesa-vulkan-drivers libvulkan1 >/dev/null 2>&1; }
if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] && ! has_vulkan; then
    { apt-get -qq update && apt-get -qq install -y --no-install-recommends mesa-vulkan-drivers libvulkan1; } >/dev/null 2>&1 || true
fi
if command -v dpkg >/dev/null && has_vulkan; then
    export MODELEMBED_REQUIRE_GPU=1
else
    echo "mesa-vulkan-drivers and libvulkan1 are not there: tests of GPU kernels are skipped unless a GPU is found" >&2
fi

step "format"
cargo fmt --all --check

step "width of comments and documents"
"$python" scripts/check-width.py

step "lints" 10
cargo clippy --locked --workspace --all-targets -- -D warnings

step "licences, sources and advisories of the dependencies" 5
scripts/check-dependencies.sh

step "tests" 40
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked --workspace --no-fail-fast
else
    cargo test --locked --workspace --lib --bins --tests --examples --no-fail-fast
fi
cargo test --locked --workspace --doc

step "documentation" 5
RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet

step "instruction counts" 12
if [ "$(uname -sm)" = "Linux x86_64" ] && ! command -v valgrind >/dev/null && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    { apt-get -qq update && apt-get -qq install -y --no-install-recommends valgrind; } >/dev/null 2>&1 || true
fi
if [ "$(uname -sm)" = "Linux x86_64" ] && command -v valgrind >/dev/null; then
    "$python" bench/instructions.py
else
    echo "skipped: no valgrind, or not Linux on x86-64"
fi

step "demo" 10
answer=$(scripts/demo.sh)
echo "$answer"
grep -q Paris <<< "$answer" || die "the demo's answer does not name Paris"

step "all passed"
