#!/bin/sh
# Decodes with a model that is larger than what a memory control group (version 1) allows, and
# prints what part of the bound 1 / max(M / memory bandwidth, (M - P) / direct-read bandwidth) that
# is: M bytes of weights a token, P of them in memory. The disk is measured before and after, by
# `dd` with one request of 1 MB under way and, where STREAM_SPEED names a build of
# `crates/storage/examples/stream_speed.rs`, by the streaming code itself with nothing computed
# beside it. Beside it llama.cpp, where a Python with llama-cpp-python is given: mapped, and as it
# is by default, with weights copied to another layout. Needs root.
#   STREAM_SPEED=target/release/examples/stream_speed \
#       scripts/measure-larger-than-ram.sh BINARY MODEL LIMIT_MIB [PYTHON]
set -eu
binary=$1 model=$2 limit=$3 python=${4:-}
group=/sys/fs/cgroup/memory/modelembed-$$
mkdir "$group" 2>/dev/null || { echo "skipped: no memory control group can be made here"; exit 0; }
result=$(mktemp)
trap 'rm -f "$result"; rmdir "$group" 2>/dev/null || true' EXIT
echo $((limit << 20)) > "$group/memory.limit_in_bytes"
evict() { "$binary" evict -model "$model" >/dev/null; }
inside() { sh -c 'echo $$ > "$0/cgroup.procs"; exec "$@"' "$group" "$@"; }
number() { grep -oE "\"$1\": ?\[?[0-9.]+" "$result" | tail -1 | grep -oE '[0-9.]+$'; }
# GB/s: the processor reading memory (of three short measurements the best), dd, and streaming (by a
# ring, past the cache).
memory() { for _ in 1 2 3; do "$binary" inspect -plan -model "$model" | grep -oE 'memory reads [0-9.]+' | cut -d' ' -f3; done | sort -n | tail -1; }
dd_speed() { dd if="$model" of=/dev/null bs=1M count=400 iflag=direct 2>&1 | awk 'END { for (i = 1; i <= NF; i++) if ($i == "s,") print $1 / $(i - 1) / 1e9 }'; }
stream_speed() { [ -z "${STREAM_SPEED:-}" ] && echo 0 || "$STREAM_SPEED" "$model" 1 | awk '$1 == "io_uring" && $2 == "direct" { print $3 / 1e3 }'; }

echo "limit $limit MiB"
before="$(dd_speed) $(stream_speed)"
evict
inside "$binary" -model "$model" -ctx 128 -n "${TOKENS:-24}" -p x -raw -temp 0 -verbose -format json 2>&1 >"$result" | grep -E 'Plan|stream|error' || true
weights=$("$binary" -model "$model" -dry-run | sed -nE 's/.*[ :]([0-9.]+) MB of weights.*/\1/p')
free=$("$binary" -model "$model" -ctx 128 -n "${TOKENS:-24}" -p x -raw -temp 0 -format json 2>/dev/null | grep -oE '"decode_tokens_per_second":[0-9.]+' | cut -d: -f2)
echo "$(number decode_tokens_per_second) tokens/s (after it without the limit $free), $(number first_token_ms) ms to the first token, $(number private_bytes) private bytes, $(number major_faults) major faults"
after="$(dd_speed) $(stream_speed)"
if grep -q '"streamed":{' "$result"; then
    echo "$(number decode_tokens_per_second) $(number bytes_per_token) $(number read_bytes) $(number read_ms) $(number decode_tokens) $(number stall_ms) $weights $(memory) $before $after" |
        awk 'function share(disk) {
                 bound = streamed / disk
                 if (computed > bound) bound = computed
                 return 100 * speed * bound / 1e9
             }
             { speed = $1; streamed = $2; own = $3 / $4 / 1e6; computed = $7 * 1048576 / $8
               printf "memory %.1f GB/s; disk by dd %.2f and %.2f, by streaming alone %.2f and %.2f, in the run %.2f GB/s\n", $8, $9, $11, $10, $12, own
               printf "streamed %.0f MB a token, waited for reads %.0f %% of the time; share of the bound by dd %.0f %%", streamed / 1e6, 100 * $6 * speed / $5 / 1e3, share(($9 + $11) / 2)
               if ($10 + $12 > 0) printf ", by streaming alone %.0f %%", share(($10 + $12) / 2)
               printf ", in the run %.0f %%\n", share(own) }'
fi
[ -n "$python" ] || exit 0
for peer in llama-norepack llama; do
    evict
    inside timeout "${PEER_LIMIT:-100}" "$python" "$(dirname "$0")/../bench/peer.py" --peer $peer --model "$model" --threads "$(nproc)" \
        --prompt 4 --gen "${PEER_TOKENS:-24}" 2>/dev/null >"$result" || true
    if [ -n "$(number decode_us)" ]; then
        echo "$peer: $(number gen_tokens) $(number decode_us)" | awk '{ printf "%s %.2f tokens/s\n", $1, $2 / $3 * 1e6 }'
    else
        echo "$peer: no result (ended by the limit?)"
    fi
done
