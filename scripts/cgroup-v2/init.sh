#!/bin/busybox sh
# The first program of the virtual machine of scripts/test-cgroup-v2.sh, which starts all others.
# Prints a few lines for each check, and at the end "all checks passed" if they did.
/bin/busybox --install -s /bin
export PATH=/bin
mkdir scratch && cd scratch
export HOME=$PWD
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t cgroup2 cgroup /sys/fs/cgroup
# Twice, since they need each other.
for module in /modules/*.ko /modules/*.ko; do insmod "$module" 2>/dev/null; done
mount -t ext4 /dev/vda /disk || { echo "FAILED: no disk"; reboot -f; }
groups=/sys/fs/cgroup
echo +memory >$groups/cgroup.subtree_control

cat >/bin/generate <<'SCRIPT'
#!/bin/sh
exec /disk/modelembed -model "${MODEL:-/disk/model.gguf}" -ctx 128 -n "${N:-8}" -raw -temp 0 -p "Once upon a time" -verbose "$@"
SCRIPT
# Sees its group as the root of all, as programs in containers do.
cat >/bin/contained <<'SCRIPT'
#!/bin/sh
exec /unshare --cgroup --mount sh -c 'umount /sys/fs/cgroup && mount -t cgroup2 cgroup /sys/fs/cgroup && exec generate'
SCRIPT
chmod +x /bin/generate /bin/contained

bad=0
fail() { echo "FAILED: $*"; bad=1; }
# group NAME [FILE VALUE]...: a new group with these limits.
group() {
    folder=$groups/$1
    mkdir "$folder"
    shift
    while [ $# -gt 0 ]; do echo "$2" >"$folder/$1"; shift 2; done
}

# check NAME GROUP LIMIT_MB VERDICT COMMAND...: a run in the group says the same text as one without
# limits; it streams, or fits, as VERDICT says; it is not killed, its peak is within the limit, and
# next to nothing is read twice through the page cache.
check() {
    name=$1 folder=$groups/$2 limit=$3 verdict=$4
    shift 4
    sync
    echo 3 >/proc/sys/vm/drop_caches
    # shellcheck disable=SC2016
    sh -c 'echo $$ >"$0/cgroup.procs"; exec "$@"' "$folder" "$@" >out 2>err
    code=$?
    streamed=$(grep -oE '(Streamed|Experts): .*' err)
    twice=$(sed -n 's/^workingset_refault_file //p' "$folder/memory.stat")
    plan=$(grep -o 'Plan: .*' err | head -1)
    peak=$(($(cat "$folder/memory.peak") / 1048576))
    events=$(tr '\n' ' ' <"$folder/memory.events")
    echo "$name: exit code $code, at most $peak of $limit MB; $events"
    echo "  $plan"
    echo "  ${streamed:-Streamed: nothing}; $twice pages read twice"
    [ "$code" = 0 ] || { fail "$name ended with $code"; tail -n 5 err; }
    case $events in *" oom_kill 0 "*) ;; *) fail "$name: a process was killed for memory" ;; esac
    [ "$peak" -le "$limit" ] || fail "$name used $peak of $limit MB"
    case $plan in "Plan: $verdict"*) ;; *) fail "$name: the plan should say $verdict" ;; esac
    case $verdict-$streamed in
        streams-*io_uring*) [ "$name" != threads ] || fail "threads should read" ;;
        streams-*threads*) [ "$name" = threads ] || fail "$name: io_uring should read" ;;
        fits-) ;;
        *) fail "$name: ${streamed:-nothing streamed} does not go with a plan that $verdict" ;;
    esac
    [ "$twice" -lt 2500 ] || fail "$name: $twice pages were read twice"
    cmp -s out reference || { fail "$name: another text"; cat out; }
}

generate -ram-budget off >reference 2>err || { fail "no run without limits"; cat err; }
[ "$(wc -c <reference)" -gt 10 ] || fail "no text to compare with"
cat reference

group max memory.max 100M
check "memory.max" max 100 streams generate
group high memory.high 100M
# Above this a group is slowed down until it has given pages up; a few MB above are its pages before
# that.
check "memory.high" high 104 streams generate
group parent memory.max 100M
echo +memory >$groups/parent/cgroup.subtree_control
group parent/child
# A group's own peak counts pages, too, that it asked for and that the parent did not grant.
check "a parent's limit" parent/child 104 streams generate
group container memory.max 100M
check "seen from inside a container" container 100 streams contained
group threads memory.max 100M
check threads threads 100 streams generate -stream-io threads
group roomy memory.max 400M
check "room for all" roomy 400 fits generate

# A mixture keeps experts, and gives them back when another program of the group wants memory.
export MODEL=/disk/mixture.gguf
generate -ram-budget off >reference 2>err || { fail "no run of a mixture without limits"; cat err; }
group experts memory.max 300M
check "a mixture" experts 300 streams generate
cat >/bin/beside <<'SCRIPT'
#!/bin/sh
# dd has filled 60 MB when it begins to write, and cannot end before somebody reads.
(while [ "$(cat /sys/fs/cgroup/beside/memory.current)" -lt 230000000 ]; do sleep 0.1; done
    dd if=/dev/zero bs=60M count=1 2>/dev/null | { touch taken; sleep 15; cat >/dev/null; }) &
generate "$@"
code=$?
[ -f taken ] || { echo "nothing took memory beside it" >&2; exit 9; }
wait
exit $code
SCRIPT
chmod +x /bin/beside
export N=64
generate -ram-budget off -ignore-eos >reference 2>err
group beside memory.max 300M
check "a mixture beside a program that takes memory" beside 300 streams beside -ignore-eos

[ $bad = 0 ] && echo "all checks passed"
reboot -f
