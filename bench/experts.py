#!/usr/bin/env python3
"""Decodes with a mixture that is larger than a memory control group allows, beside llama.cpp.

    bench/experts.py --binary target/release/modelembed --model olmoe.gguf --share 0.5 \\
        --python venv/bin/python --read-ahead-kb 128 --rounds 2 --json results.json

Each round runs modelembed, then llama.cpp with the file mapped (no other layout of the weights),
both in a group of version 1 with this share of the file's size, both from an empty page cache, with
the same token ids. Every run is a process of its own. Needs root; the disk's setting is put back.
"""
import argparse
import contextlib
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile

GROUPS = "/sys/fs/cgroup/memory"


def write(path, text):
    with open(path, "w") as f:
        f.write(str(text))


def read_ahead_file(model):
    """Where the disk that a file lies on has its read_ahead_kb."""
    device = os.stat(model).st_dev
    return f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/bdi/read_ahead_kb"


@contextlib.contextmanager
def read_ahead(model, kb):
    path = read_ahead_file(model)
    with open(path) as f:
        before = f.read().strip()
    if kb is not None:
        write(path, kb)
    try:
        yield before if kb is None else str(kb)
    finally:
        write(path, before)


@contextlib.contextmanager
def group(limit_bytes):
    folder = f"{GROUPS}/modelembed-{os.getpid()}"
    try:
        os.mkdir(folder)
        write(f"{folder}/memory.limit_in_bytes", limit_bytes)
    except OSError as error:
        raise SystemExit(f"experts.py: no memory control group of version 1 can be made here: {error}")
    try:
        yield folder
    finally:
        os.rmdir(folder)


def run(folder, command, limit_s, env=None):
    """The JSON object that a command prints inside of a group; None if the time was up or it failed."""
    inside = ["sh", "-c", f'echo $$ > "{folder}/cgroup.procs"; exec "$@"', "sh"] + command
    try:
        done = subprocess.run(inside, capture_output=True, text=True, timeout=limit_s, env=env)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode != 0:
        print(f"experts.py: {command[0]} ended with {done.returncode}: {done.stderr[-400:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def evict(args):
    subprocess.run([args.binary, "evict", "-model", args.model], check=True, stdout=subprocess.DEVNULL)


def pace(us, tokens):
    return tokens / us * 1e6


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--binary", required=True)
    p.add_argument("--model", required=True)
    p.add_argument("--share", type=float, required=True, help="of the file's size that the group allows")
    p.add_argument("--python", help="a Python with llama-cpp-python; without it modelembed runs alone")
    p.add_argument("--read-ahead-kb", type=int, help="of the disk, for all runs; as it is without this")
    p.add_argument("--gen", type=int, default=128, help="tokens that are decoded in a run")
    p.add_argument("--peer-gen", type=int, default=32, help="the same for the peer, which is slower")
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--limit-s", type=float, default=400, help="after which a run has no result")
    p.add_argument("--json")
    args = p.parse_args()
    limit = int(os.path.getsize(args.model) * args.share)
    rows = {"modelembed": [], "llama.cpp mapped": []}
    ids = tempfile.NamedTemporaryFile(suffix=".ids")
    bench = [args.binary, "bench", "-model", args.model, "-prompt-tokens", "0", "-repeat", "2",
             "-no-bandwidth", "-format", "json", "-ctx", "512", "-gen-tokens"]
    subprocess.run(bench + [str(args.gen), "-write-ids", ids.name, "-repeat", "1"], check=True,
                   stdout=subprocess.DEVNULL)
    with read_ahead(args.model, args.read_ahead_kb) as kb, group(limit) as folder:
        print(f"{os.path.basename(args.model)}: {limit / 2**20:.0f} MiB of memory, read_ahead_kb {kb}")
        for _ in range(args.rounds):
            evict(args)
            own = run(folder, bench + [str(args.gen), "-ids", ids.name], args.limit_s)
            if own:
                rows["modelembed"].append(own)
                experts = own["experts"]
                share = [100 * bound["share"] for bound in experts["bounds"]] if experts["bounds"] else [0, 0]
                print(f"  modelembed {pace(own['decode_us'][-1], args.gen):.2f} tokens/s, hit rate "
                      f"{experts['hit_rate']:.2f}, {experts['missed_bytes_per_token'] / 2**20:.1f} MB a token, disk "
                      f"{experts['disk_bytes_per_second'] / 2**20:.0f} MB/s, {share[0]:.0f} % and {share[1]:.0f} % of "
                      "the bounds", flush=True)
            if args.python:
                evict(args)
                peer = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peer.py")
                command = [args.python, peer, "--peer", "llama-norepack", "--model", args.model, "--threads",
                           str(os.cpu_count()), "--gen", str(args.peer_gen), "--repeat", "2", "--ids", ids.name]
                other = run(folder, command, args.limit_s, dict(os.environ))
                if other:
                    rows["llama.cpp mapped"].append(other)
                    print(f"  llama.cpp {pace(other['decode_us'][-1], args.peer_gen):.2f} tokens/s", flush=True)
    # Of each process the second run: the first one begins with nothing in memory.
    own = [pace(row["decode_us"][-1], args.gen) for row in rows["modelembed"]]
    other = [pace(row["decode_us"][-1], args.peer_gen) for row in rows["llama.cpp mapped"]]
    if own and other:
        print(f"  medians {statistics.median(own):.2f} and {statistics.median(other):.2f}: "
              f"{statistics.median(own) / statistics.median(other):.1f} times")
    if args.json:
        with open(args.json, "a") as f:
            json.dump({"date": datetime.date.today().isoformat(), "model": os.path.basename(args.model),
                       "limit_bytes": limit, "read_ahead_kb": kb, "runs": rows}, f)
            f.write("\n")


main()
