#!/usr/bin/env python3
"""Starts a program again and again and times it from before it is executed to the first byte of its answer:

    bench/start.py BINARY MODEL [STARTS]

Prints the least, the median and the greatest of all starts, in milliseconds. The file should be in the page cache
(`BINARY warm -model MODEL`), and the prompt be one token of the model's vocabulary.
"""

import statistics
import subprocess
import sys
import time


def first_byte_ms(binary: str, model: str) -> float:
    args = [binary, "-quiet", "-model", model, "-p", "x", "-raw", "-n", "8", "-threads", "2", "-temp", "0"]
    start = time.perf_counter()
    with subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as run:
        first = run.stdout.read(1)
        elapsed = time.perf_counter() - start
        run.stdout.read()
    if run.returncode != 0 or not first:
        sys.exit(f"{' '.join(args)} ended with {run.returncode} and {'an' if first else 'no'} answer")
    return 1000 * elapsed


def main() -> None:
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    binary, model = sys.argv[1:3]
    starts = int(sys.argv[3]) if len(sys.argv) == 4 else 20
    times = [first_byte_ms(binary, model) for _ in range(starts)]
    print(f"{starts} starts: {min(times):.1f} to {max(times):.1f} ms, median {statistics.median(times):.1f}")


if __name__ == "__main__":
    main()
