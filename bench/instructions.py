#!/usr/bin/env python3
"""Count instructions (AVX2) with callgrind and hold them against bench/instructions.json: of the hot kernels for a unit
of their work, and of the whole engine for a decoded token of a tiny model, on one thread.

    bench/instructions.py            exit code 1 if a count is more than 3 % above the recorded one
    bench/instructions.py --record   writes what was counted

Counts do not depend on the machine, but on the compiler: with another one than the recorded, nothing is compared.
Needs valgrind. crates/kernels/examples/count.rs has the kernels; to add one, add a line there and record.
crates/engine/examples/count_token.rs has the token.
"""
import json
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
RECORD = ROOT / "bench/instructions.json"
TOLERANCE = 0.03
# Packages and their examples.
EXAMPLES = {"modelembed-kernels": "count", "modelembed": "count_token"}


def compiler():
    text = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return text.split()[1]


def build():
    """The examples' paths by their names, as cargo reports them."""
    named = [arg for package, example in EXAMPLES.items() for arg in ("-p", package, "--example", example)]
    out = subprocess.run(["cargo", "build", "--release", "--locked", "--quiet", *named, "--message-format=json"],
                         cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    messages = [json.loads(line) for line in out.splitlines()]
    built = {m["target"]["name"]: m["executable"] for m in messages if m.get("executable")}
    return {example: built[example] for example in EXAMPLES.values()}


def count(example, binary):
    """Instructions per unit of each case of an example."""
    with tempfile.TemporaryDirectory() as folder:
        valgrind = ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={folder}/out",
                    f"--toggle-collect={example}::measured", f"--dump-after={example}::measured"]
        done = subprocess.run([*valgrind, binary], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"instructions.py: valgrind failed:\n{done.stderr[-2000:]}")
        cases = [line.split("\t") for line in done.stdout.splitlines()]
        dumps = [pathlib.Path(f"{folder}/out.{i + 1}") for i in range(len(cases))]
        totals = [re.search(r"^(?:totals|summary): (\d+)", dump.read_text(), re.M) for dump in dumps]
    if not all(totals):
        sys.exit("instructions.py: callgrind wrote no count for a case")
    return {name: round(int(total[1]) / int(units), 2) for (name, units), total in zip(cases, totals)}


def main():
    counted = {name: n for example, binary in build().items() for name, n in count(example, binary).items()}
    if "--record" in sys.argv[1:]:
        record = {"rustc": compiler(), "isa": "avx2", "instructions_per_unit": counted}
        RECORD.write_text(json.dumps(record, indent=1) + "\n")
        print(f"recorded {len(counted)} counts")
        return 0
    record = json.loads(RECORD.read_text())
    if record["rustc"] != compiler():
        print(f"skipped: recorded with rustc {record['rustc']}, this is {compiler()} (bench/instructions.py --record)")
        return 0
    failed = False
    for name in sorted(counted.keys() | record["instructions_per_unit"].keys()):
        now, then = counted.get(name), record["instructions_per_unit"].get(name)
        if now is None or then is None:
            failed = True
            print(f"{name}: {'not counted any more' if now is None else f'{now}, not recorded yet'} (--record)")
        elif now > then * (1 + TOLERANCE):
            failed = True
            print(f"{name}: {now} instructions a unit, {100 * (now / then - 1):.1f} % more than the recorded {then}")
        elif now < then * (1 - TOLERANCE):
            print(f"{name}: {now} instructions a unit, {100 * (1 - now / then):.1f} % fewer than {then}: please record (--record)")
    print(f"{len(counted)} counts, {'some' if failed else 'none'} above what is recorded")
    return failed


sys.exit(main())
