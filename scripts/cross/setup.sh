#!/usr/bin/env bash
# Installs what scripts/test-cross.sh needs: setup.sh [aarch64|windows|macos]... (default: all
# three)
#
# The compiler is Debian's own rustc (package rustc-web), linked into rustup as toolchain "debian";
# the default toolchain stays as it is. Its standard library for aarch64 is a package; for Windows
# and macOS it is compiled here, once, from the packaged source. Each step looks first whether its
# result is there already, so a second run takes seconds and needs no rights.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/env.sh"

say() { echo "cross/setup: $*" >&2; }
die() { say "$*"; exit 1; }

targets=("$@")
[ $# -gt 0 ] || targets=(aarch64 windows macos)
packages=(rustc-web cargo-web rust-web-clippy)
for target in "${targets[@]}"; do
    case $target in
        aarch64) packages+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static) ;;
        windows) packages+=(rust-web-src gcc-mingw-w64-x86-64-posix wine64) ;;
        macos) packages+=(rust-web-src) ;;
        *) die "unknown target $target: aarch64, windows or macos" ;;
    esac
done

# Root on Debian is needed for what is still missing, and said so before anything is done.
need_root() {
    [ -f /etc/debian_version ] && command -v apt-get >/dev/null ||
        die "$1 is missing, and this machine is not Debian: install it by hand (list of packages and paths: this script)"
    [ "$(id -u)" = 0 ] || die "$1 is missing, and installing it needs root: run scripts/cross/setup.sh as root once"
}

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

install_packages() {
    local missing=() package
    for package in "${packages[@]}"; do installed "$package" || missing+=("$package"); done
    [ ${#missing[@]} -gt 0 ] || return 0
    need_root "${missing[*]}"
    say "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
}

link_toolchain() {
    command -v rustup >/dev/null || die "rustup not found: it lets cargo +debian choose the packaged compiler"
    rustup toolchain list | grep -q '^debian' || rustup toolchain link debian /usr
}

# The package of the arm64 standard library is unpacked, not installed: installing it would pull an
# arm64 LLVM. Its version must be the compiler's to the letter.
unpack_aarch64_std() {
    local version stamp directory
    version=$(dpkg-query -W -f '${Version}' rustc-web)
    stamp=/usr/lib/rustlib/aarch64-unknown-linux-gnu/.version
    [ "$(cat "$stamp" 2>/dev/null)" != "$version" ] || return 0
    need_root "the standard library for aarch64"
    say "unpacking the standard library for aarch64"
    dpkg --print-foreign-architectures | grep -qx arm64 || { dpkg --add-architecture arm64; apt-get -qq update; }
    rm -rf "${stamp%/*}"
    directory=$(mktemp -d)
    chmod 755 "$directory" # the download is made by an unprivileged user
    (cd "$directory" && apt-get -qq download "libstd-rust-web-dev:arm64=$version" && dpkg -x ./*.deb /)
    rm -rf "$directory"
    echo "$version" >"$stamp"
}

# Tests start the program that they test; the kernel then has to know that aarch64 programs are
# qemu's.
register_qemu() {
    local binfmt=/proc/sys/fs/binfmt_misc
    [ ! -e $binfmt/qemu-aarch64 ] || return 0
    need_root "the registration of qemu for aarch64 programs"
    [ -e $binfmt/register ] || mount -t binfmt_misc binfmt_misc $binfmt
    [ -e $binfmt/qemu-aarch64 ] || cat /usr/lib/binfmt.d/qemu-aarch64.conf >$binfmt/register
}

# A fresh wine prefix, with the one library that wine 8 lacks and every Rust program imports.
make_wine_prefix() {
    local system=$WINEPREFIX/drive_c/windows/system32
    if [ ! -d "$system" ]; then
        say "making a wine prefix in $WINEPREFIX"
        mkdir -p "${WINEPREFIX%/*}"
        "$WINE" wineboot -i >/dev/null 2>&1
        /usr/lib/wine/wineserver -w
    fi
    [ -f "$system/bcryptprimitives.dll" ] ||
        x86_64-w64-mingw32-gcc -O2 -shared -o "$system/bcryptprimitives.dll" "$here/bcryptprimitives.c" -ladvapi32
}

install_packages
link_toolchain
for target in "${targets[@]}"; do
    case $target in
        aarch64) unpack_aarch64_std; register_qemu ;;
        windows) "$here/build-std.sh" "$WINDOWS"; make_wine_prefix ;;
        macos) "$here/build-std.sh" "$MACOS" ;;
    esac
done
