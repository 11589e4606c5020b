#!/usr/bin/env bash
# Compiles Rust's standard library for targets that Debian has no package of: build-std.sh TRIPLE...
# It is put where the packaged compiler looks for it, so that the project itself needs no unstable
# option (and `#![feature]` stays refused).
set -euo pipefail

rustc=/usr/bin/rustc
version=$("$rustc" --version)
for triple; do
    library=/usr/lib/rustlib/$triple/lib
    [ "$(cat "$library/.version" 2>/dev/null)" != "$version" ] || continue
    mkdir -p "$library" 2>/dev/null && [ -w "$library" ] || {
        echo "cross/build-std: $library cannot be written: run scripts/cross/setup.sh as root once" >&2
        exit 1
    }
    echo "cross/build-std: compiling the standard library for $triple (about a minute)" >&2
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    mkdir "$work/src"
    echo '#![no_std]' >"$work/src/lib.rs"
    cat >"$work/Cargo.toml" <<'MANIFEST'
[package]
name = "stdlib"
edition = "2024"

[workspace]

[profile.release]
debug = 0
MANIFEST
    # panic_abort must be compiled with the strategy that it implements; everything else unwinds.
    cat >"$work/wrapper" <<'WRAPPER'
#!/bin/sh
case " $* " in
    *" --crate-name panic_abort "*) exec "$@" -C panic=abort ;;
    *) exec "$@" ;;
esac
WRAPPER
    chmod +x "$work/wrapper"
    (
        cd "$work"
        unset CARGO_BUILD_TARGET
        # Bitcode, so that a release build can optimise across crates.
        RUSTC=$rustc RUSTC_WRAPPER=$work/wrapper RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Cembed-bitcode=yes CARGO_TARGET_DIR=$work/target \
            cargo +debian build --quiet --release --target "$triple" -Zbuild-std=std,panic_abort,proc_macro,test
    )
    rm -rf "${library:?}"/*
    cp "$work/target/$triple/release/deps/"*.rlib "$library/"
    rm "$library"/libstdlib*.rlib
    echo "$version" >"$library/.version"
    rm -rf "$work"
    trap - EXIT
done
