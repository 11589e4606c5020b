#!/bin/sh
# Decodes with a model that is larger than what a memory control group (version 1) allows, beside llama.cpp where a Python with
# llama-cpp-python is given, and prints the disk's direct-read speed of the same minute. The share of the bound is that of the time
# a token takes in which its bytes can be read, at the speed that they were read at during the run; time that is neither that nor
# waiting is computing. Needs root.
#   scripts/measure-larger-than-ram.sh BINARY MODEL LIMIT_MIB [PYTHON PEERBENCH]
set -eu
binary=$1 model=$2 limit=$3 python=${4:-} peer=${5:-}
group=/sys/fs/cgroup/memory/modelembed-$$
mkdir "$group" 2>/dev/null || { echo "skipped: no memory control group can be made here"; exit 0; }
result=$(mktemp)
trap 'rm -f "$result"; rmdir "$group" 2>/dev/null || true' EXIT
echo $((limit << 20)) > "$group/memory.limit_in_bytes"
evict() { "$binary" evict -model "$model" >/dev/null; }
inside() { sh -c 'echo $$ > "$0/cgroup.procs"; exec "$@"' "$group" "$@"; }

evict
echo "limit $limit MiB"
dd if="$model" of=/dev/null bs=1M count=256 iflag=direct 2>&1 | tail -1
inside "$binary" -model "$model" -ctx 128 -n "${TOKENS:-24}" -p x -raw -temp 0 -verbose -format json 2>&1 >"$result" | grep -E 'Plan|stream|error' || true
grep -oE '"(decode_tokens_per_second|first_token_ms|decode_tokens|minor_faults|major_faults|private_bytes)":[^,}]*|"streamed":\{[^}]*\}' "$result" || true
number() { grep -oE "\"$1\":[0-9.]+" "$result" | tail -1 | cut -d: -f2; }
if grep -q '"streamed":{' "$result"; then
    echo "$(number decode_tokens_per_second) $(number bytes_per_token) $(number read_bytes) $(number read_ms) $(number decode_tokens) $(number stall_ms)" |
        awk '{ printf "read at %.0f MB/s, share of the bound %.0f %%, waited for reads %.0f %% of the time\n",
                   $3 / $4 / 1e3, 100 * $1 * $2 * $4 / $3 / 1e3, 100 * $6 * $1 / $5 / 1e3 }'
fi
dd if="$model" of=/dev/null bs=1M count=256 skip=256 iflag=direct 2>&1 | tail -1
if [ -n "$python" ]; then
    evict
    inside timeout "${PEER_LIMIT:-100}" "$python" "$peer" "$model" --prompt 4 --gen "${PEER_TOKENS:-8}" --repeat 1 2>/dev/null | grep "^{" || echo "llama.cpp: no result (ended by the limit?)"
fi
