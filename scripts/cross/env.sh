# Sourced by the scripts beside it: compilers, linkers and runners of the three targets. Not in
# .cargo/config.toml, where a native aarch64 or Windows build would find them too.
AARCH64=aarch64-unknown-linux-gnu
WINDOWS=x86_64-pc-windows-gnu
MACOS=aarch64-apple-darwin
WINE=/usr/lib/wine/wine64

# Apart from the native build: another compiler.
export CARGO_TARGET_DIR=${MODELEMBED_CROSS_TARGET_DIR:-target/cross}
export CARGO_INCREMENTAL=0

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=qemu-aarch64-static
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
export QEMU_LD_PREFIX=/usr/aarch64-linux-gnu QEMU_CPU=${QEMU_CPU:-max}

export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=x86_64-w64-mingw32-gcc
export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER=$WINE
export WINEPREFIX=${WINEPREFIX:-$HOME/.cache/modelembed-wine} WINEDEBUG=-all
