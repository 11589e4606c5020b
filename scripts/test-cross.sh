#!/usr/bin/env bash
# Builds and tests for other systems from Debian on x86-64: test-cross.sh [aarch64|windows|macos]...
# (default: all three)
#
#   aarch64 Linux on 64-bit Arm: lints, and all tests under qemu; the kernels' once more on CPUs
#   with fewer instructions windows Windows on x86-64 (GNU ABI): lints, and all tests under wine
#   macos macOS on Apple silicon: lints, which type-check everything. It is neither linked nor run
#
# Several GB of compilers are installed at the first run (scripts/cross/setup.sh, as root on
# Debian). Real models are left out: qemu takes a twentieth to an eightieth of the machine's speed.
# What none of this can show stands in docs/platforms.md.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/cross/env.sh

step() { printf '\n== %s\n' "$*" >&2; }

targets=("$@")
[ $# -gt 0 ] || targets=(aarch64 windows macos)

step "tools for ${targets[*]}"
scripts/cross/setup.sh "${targets[@]}"
cargo +debian --version

# The tiny models that tests make themselves, even where the real ones are there.
export MODELEMBED_MODELS=$PWD/$CARGO_TARGET_DIR/no-models
unset MODELEMBED_REQUIRE_MODELS

lint() {
    local target=$1
    shift
    step "$target: lints"
    cargo +debian clippy --locked --workspace --all-targets --target "$target" -- -D warnings "$@"
}

run_tests() {
    step "$1: tests"
    cargo +debian test --locked --workspace --target "$1" --lib --bins --tests --examples --no-fail-fast
    cargo +debian test --locked --workspace --target "$1" --doc
}

for target in "${targets[@]}"; do
    case $target in
        aarch64)
            lint "$AARCH64"
            # Says to the tests that qemu, not the kernel, answers some questions about memory and
            # system calls.
            export MODELEMBED_EMULATED=1
            run_tests "$AARCH64"
            # qemu raises SIGILL for an instruction that the CPU it plays does not have.
            for cpu in cortex-a53 neoverse-n1; do
                step "$AARCH64: kernels on $cpu"
                QEMU_CPU=$cpu cargo +debian test --locked --package modelembed-kernels --target "$AARCH64"
            done
            ;;
        windows)
            unset MODELEMBED_EMULATED
            # Without thread-local storage of the system, clippy 1.96 takes a constant initializer
            # for one that is not.
            lint "$WINDOWS" -A clippy::missing-const-for-thread-local
            run_tests "$WINDOWS"
            ;;
        macos) lint "$MACOS" ;;
    esac
done

step "passed: ${targets[*]}"
